"""What each kind of finding means: the level of a row or file rule and the shares at which it becomes more."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from schemas.config.section import Section

Level = Literal["off", "info", "warn", "quarantine", "reject"]


class Rule(Section):
    """The level of one kind of finding, and the shares of the rows at which it becomes more."""

    level: Level = "warn"
    """What happens to a row: nothing, a line in the report, a warning, quarantine; or the whole file is refused."""
    warn_above: float = Field(0.0, ge=0)
    """Findings in a larger share of the rows (or a larger measure of the file) make the file's verdict a warning."""
    reject_above: float | None = Field(None, ge=0)
    """Findings in a larger share of the rows (or a larger measure of the file) refuse the file."""
    reject_rows: int | None = Field(None, ge=0)
    """Findings in more rows refuse the file, whatever their share."""


def _rule(level: Level, warn_above: float = 0.0, reject_above: float | None = None) -> Rule:
    return Rule(level=level, warn_above=warn_above, reject_above=reject_above)


DEFAULT_RULES: Mapping[str, Rule] = {
    # Reading. A row that cannot be read is always quarantined; only the share that refuses the file can be set.
    "invalid_json": Rule(level="quarantine", reject_above=0.01, reject_rows=100),
    "encoding_error": _rule("quarantine", reject_above=0.05),
    # The content of a text.
    "empty_content": _rule("quarantine", 0.01, 0.2),
    "placeholder_text": _rule("quarantine"),
    "template_token_in_content": _rule("quarantine"),
    "control_char": _rule("quarantine"),
    "secret": _rule("quarantine"),
    "pii": _rule("warn"),
    "role_marker_in_content": _rule("warn"),
    "judge_injection": _rule("warn"),
    "bidi_or_zero_width": _rule("warn", 0.005),
    "mojibake": _rule("warn", 0.005),
    "replacement_char": _rule("warn", 0.005),
    "too_long": _rule("warn"),
    "degenerate_text": _rule("warn"),
    "csv_formula": _rule("warn"),
    "language_mismatch": _rule("warn", 0.05),
    # Pairs and rankings.
    "identical_pair": _rule("quarantine", reject_above=0.1),
    "prompt_mismatch": _rule("quarantine", reject_above=0.05),
    "contradictory_pair": _rule("quarantine", 0.005, 0.2),
    "tie": _rule("info", 0.4),
    # Repeats.
    "exact_duplicate": _rule("info", 0.01, 0.5),
    "near_duplicate": _rule("warn", 0.05),
    "duplicate_id": _rule("warn"),
    "leakage": _rule("quarantine", reject_above=None),
    # The file as a whole; the measure is named in the finding.
    "length_bias": _rule("warn", 0.65),
    "label_artifact": _rule("warn", 0.9),
    "position_bias": _rule("warn", 0.6),
    "constant_response": _rule("warn", 0.05, 0.3),
    "refusal_gap": _rule("warn", 0.3),
    "low_agreement": _rule("warn", 0.6, 1.0),
    "single_class": _rule("reject"),
}
"""Measured on real files: no threshold fires on data that people use with success."""


def _completed(given: object) -> object:
    """Lay a recipe's rules over the defaults, field by field."""
    if not isinstance(given, Mapping):
        return given
    if unknown := sorted(set(given) - set(DEFAULT_RULES)):
        raise ValueError(f"no rule {unknown[0]!r}; wanted one of {', '.join(sorted(DEFAULT_RULES))}")
    rules: dict[str, object] = dict(DEFAULT_RULES)
    for kind, rule in given.items():
        values = rule.model_dump() if isinstance(rule, Rule) else rule
        if not isinstance(values, Mapping):
            raise ValueError(f"the rule {kind!r} is {values!r}; wanted level, warn_above, reject_above")  # noqa: TRY004 - pydantic turns it into its own error
        rules[kind] = {**DEFAULT_RULES[kind].model_dump(), **values}
    return rules


Rules = Annotated[dict[str, Rule], BeforeValidator(_completed)]
