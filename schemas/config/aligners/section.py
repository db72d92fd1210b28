"""What the sections of all aligners have."""

from pydantic import Field

from schemas.config.section import Section


class AlignerSection(Section):
    """An entry of the recipe's list of aligners; `method` says of which class it is."""

    method: str
    name: str = Field(default_factory=lambda given: str(given["method"]), pattern=r"^[a-z][a-z0-9_-]*$")
    """What the recipe, the pages and the overrides call this aligner; default: its method."""
