"""What a run took: time, tokens, energy, money, what re-use saved, and how far the estimate was off."""

from pydantic import Field

from rlhf.report.content import ReportContent
from schemas.record import Record
from schemas.units import duration


class CostRow(Record):
    """One stage that ran, beside what was expected of it."""

    name: str
    seconds: float
    expected: float | None = None
    """Seconds, of the estimate that was made before; None: there was none of this stage."""
    tokens: int = 0
    peak_bytes: float = 0.0
    expected_bytes: float | None = None

    @property
    def factor(self) -> float | None:
        """How many times as long as expected it took; above 1: the estimate was too low."""
        return None if not self.expected else self.seconds / self.expected


class Cost(Record):
    """The run as a whole."""

    seconds: float
    """Of the stages that ran, each on one device."""
    saved: float
    """Seconds that re-used stages took where they were computed."""
    tokens: int
    kilowatt_hours: float | None = None
    price: float | None = None
    saved_price: float | None = None
    currency: str = "USD"
    expected: float | None = None
    """Seconds expected of those stages that ran and were estimated."""
    compared: float = 0.0
    """Seconds that these took."""
    rows: tuple[CostRow, ...] = Field(default=())


def cost(content: ReportContent) -> Cost:
    """Add up the stages of a run."""
    prices = content.config.cost
    expected = {stage.name: stage for stage in content.estimate.stages} if content.estimate else {}
    rows = tuple(
        CostRow(
            name=stage.name,
            seconds=stage.seconds,
            expected=expected[stage.name].seconds if stage.name in expected else None,
            tokens=stage.tokens,
            peak_bytes=stage.peak_bytes,
            expected_bytes=expected[stage.name].bytes or None if stage.name in expected else None,
        )
        for stage in content.stages
        if stage.status != "reused"
    )
    seconds = sum(row.seconds for row in rows)
    saved = sum(stage.saved for stage in content.stages)
    told = [(row.expected, row.seconds) for row in rows if row.expected is not None]
    return Cost(
        seconds=seconds,
        saved=saved,
        tokens=sum(row.tokens for row in rows),
        kilowatt_hours=prices.energy(seconds),
        price=prices.price(seconds),
        saved_price=prices.price(saved) if saved else None,
        currency=prices.currency,
        expected=sum(before for before, _ in told) if told else None,
        compared=sum(after for _, after in told),
        rows=rows,
    )


def estimate_said(found: Cost) -> str | None:
    """Say how far the estimate of the stages that ran was off; None without one."""
    if not found.expected:
        return None
    factor = found.compared / found.expected
    off = f"{factor:.2f} times as long" if factor >= 1 else f"{factor:.0%} of that"
    return f"The stages that ran were expected to take {duration(found.expected)} and took {duration(found.compared)}: {off}."
