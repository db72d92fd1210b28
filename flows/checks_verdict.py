"""What a check of `rlhf doctor` says."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at; advice may go with what is well, too."""

    name: str
    ok: bool
    found: str
    advice: str = ""
