"""What a device costs, for `rlhf estimate` and the report; it changes no stage and no result."""

from pydantic import Field

from schemas.config.section import Section


class CostConfig(Section):
    """Prices; what is not given is not reckoned."""

    price_per_hour: float | None = Field(None, ge=0)
    """Of one device."""
    watts: float | None = Field(None, gt=0)
    """Power that one device draws while it works."""
    price_per_kwh: float | None = Field(None, ge=0)
    """Of electricity; with `watts`, what the energy costs."""
    currency: str = Field("USD", pattern=r"^[A-Z]{3}$")
    """ISO 4217 code of both prices."""

    def energy(self, seconds: float) -> float | None:
        """Return the kilowatt-hours of a device in so many seconds."""
        return None if self.watts is None else self.watts * seconds / 3.6e6

    def price(self, seconds: float) -> float | None:
        """Return what a device costs for so many seconds: its hire, and its energy where that has a price."""
        energy = self.energy(seconds)
        hire = None if self.price_per_hour is None else self.price_per_hour * seconds / 3600
        power = None if energy is None or self.price_per_kwh is None else energy * self.price_per_kwh
        return None if hire is None and power is None else (hire or 0.0) + (power or 0.0)
