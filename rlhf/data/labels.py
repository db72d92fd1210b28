"""Labels that people and judges gave, whatever their spelling: which of two is better, and is this one good?"""

import math
from collections import Counter
from collections.abc import Iterable

from rlhf.data.conversation import Domain, Draft
from rlhf.data.records import Json, shown

FIRST, TIE, SECOND = 1.0, 1.5, 2.0

SCHEMES: dict[str, dict[str, float]] = {
    "1 or 2": {"1": FIRST, "2": SECOND},
    "0, 1 or a tie (2)": {"0": FIRST, "1": SECOND, "2": TIE},
    "1, 2 or a tie (0)": {"1": FIRST, "2": SECOND, "0": TIE},
}
"""Numbers that say which of two responses is better; between 1 and 2 lies a judge's probability."""

NAMES = {
    "a": FIRST, "b": SECOND, "model_a": FIRST, "model_b": SECOND, "response_a": FIRST, "response_b": SECOND,
    "first": FIRST, "second": SECOND, "1": FIRST, "2": SECOND, "a-is-better": FIRST, "b-is-better": SECOND,
    "a-is-clearly-better": FIRST, "b-is-clearly-better": SECOND, "a-is-slightly-better": FIRST,
    "b-is-slightly-better": SECOND, "tie": TIE, "ties": TIE, "equal": TIE, "both": TIE, "neither": TIE,
    "tie (bothbad)": TIE, "same": TIE, "1.5": TIE,
}  # fmt: skip
_GOOD = {
    "safe": True, "unsafe": False, "yes": True, "no": False, "good": True, "bad": False, "true": True,
    "false": False, "1": True, "0": False, "up": True, "down": False, "acceptable": True, "unacceptable": False,
    "desirable": True, "undesirable": False, "chosen": True, "rejected": False,
}  # fmt: skip


def domain_of(values: Iterable[Json]) -> Domain:
    """Return the type that most of the labels have."""
    counts: Counter[Domain] = Counter()
    for value in values:
        if isinstance(value, bool):
            counts["boolean"] += 1
        elif isinstance(value, int | float):
            counts["number"] += 1
        elif isinstance(value, str):
            counts["text"] += 1
    return counts.most_common(1)[0][0] if counts else "number"


def _given(draft: Draft, field: str) -> Json:
    """Return a label, or None with a finding."""
    value = draft.row.value.get(field)
    if field not in draft.row.value:
        draft.row.found("missing_field", field, "the label is missing")
    elif value is None or (isinstance(value, str) and not value.strip()):
        draft.row.found("null_field", field, "the label is null or blank")
        return None
    return value


def preferred(draft: Draft, field: str, scheme: str) -> float | None:
    """Return 1 (the first is better) to 2 (the second is better), 1.5 a tie; or None with a finding."""
    value = _given(draft, field)
    if value is None:
        return None
    numbers = SCHEMES[scheme]
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        draft.row.found("label_type", field, f"the label is {shown(value)}; wanted {scheme}")
        return None
    if isinstance(value, str) and draft.domain != "text":
        kind = "label_type" if _is_number(value) else "label_out_of_domain"
        draft.row.found(kind, field, f"the label is the text {shown(value)}; the others are numbers")
        return None
    if isinstance(value, str) and not _is_number(value):
        if (named := NAMES.get(value.strip().lower())) is None:
            draft.row.found("label_out_of_domain", field, f"the label is {shown(value)}; wanted {_some()}")
        return named
    number = float(value)
    if (exact := numbers.get(f"{number:g}")) is not None:
        return exact
    if scheme == "1 or 2" and FIRST <= number <= SECOND and number != TIE:
        return number
    tie = " (a tie gives no pair; rankings keep ties)" if number == TIE else ""
    draft.row.found("label_out_of_domain", field, f"the label is {shown(value)}{tie}; wanted {scheme}")
    return None


def _is_number(value: str) -> bool:
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False


def _some() -> str:
    return ", ".join(list(NAMES)[:6]) + ", tie"


def is_good(draft: Draft, field: str) -> bool | None:
    """Return whether a response was found good, or None with a finding."""
    value = _given(draft, field)
    if value is None:
        return None
    if isinstance(value, bool) and draft.domain == "boolean":
        return value
    if draft.domain == "number" and not isinstance(value, bool) and value in (0, 1):
        return value == 1
    if draft.domain == "text" and isinstance(value, str):
        if (named := _GOOD.get(value.strip().lower())) is None:
            message = f"the label is {shown(value)}; wanted one of {', '.join(list(_GOOD)[:8])}"
            draft.row.found("label_out_of_domain", field, message)
        return named
    kind = (
        "label_out_of_domain"
        if isinstance(value, int | float) and not isinstance(value, bool)
        else "label_type"
    )
    draft.row.found(kind, field, f"the label is {shown(value)}; the others are of type {draft.domain}")
    return None


def number(draft: Draft, value: Json, where: str, kind: str = "label_type") -> float | None:
    """Return a finite number, or None with a finding; CSV has numbers as text."""
    if isinstance(value, str) and draft.domain == "text" and _is_number(value):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        draft.row.found(
            "null_field" if value is None else kind, where, f"found {shown(value)} where a number was wanted"
        )
        return None
    if not math.isfinite(value):
        if all(found.kind != "not_finite" for found in draft.row.findings):
            draft.row.found("not_finite", where, f"{value} is not a number that can be used")
        return None
    return float(value)
