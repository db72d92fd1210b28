"""What somebody may have meant who typed a name that nobody knows."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(found: str, known: Iterable[str]) -> str:
    """Return `did you mean X?` with the known names that look most like the found one; nothing when none does."""
    close = get_close_matches(found.lower(), sorted(known), n=2, cutoff=0.6)
    return f"did you mean {' or '.join(close)}?" if close else ""
