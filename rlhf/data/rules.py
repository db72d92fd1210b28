"""What may be wrong with the content of a text: one regular expression or measure per kind, run by polars."""

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from rlhf.data.records import Row

MAX_WORDS = 2048
_LUHN_SHAPE = r"\b\d{4}[ -]\d{4}[ -]\d{4}[ -]\d{4}\b"


@dataclass(frozen=True, slots=True)
class Rule:
    """A kind of defect, the expression over column `text` that finds it, and what it means for the row."""

    kind: str
    found: pl.Expr
    message: str
    fatal: bool = False


def _matches(pattern: str) -> pl.Expr:
    return pl.col("text").str.contains(pattern)


_WORDS = pl.col("text").str.count_matches(r"\S+")
_PIECES = pl.col("text").str.split(" ")

RULES = (
    Rule(
        "empty_content",
        _matches(r"^[\s\x{00A0}\x{00AD}\x{115F}\x{180E}\x{200B}-\x{200F}\x{2028}-\x{202E}\x{2060}-\x{2064}\x{3164}\x{FEFF}]*$"),
        "the text is empty, blank or invisible",
        fatal=True,
    ),
    Rule(
        "placeholder_text",
        _matches(r"(?i)^\s*(?:<\s*no[ _-]?(?:output|input|response|answer)\s*>|\[?(?:insert|your) [a-z ]{0,30}here\]?|todo|tbd|lorem ipsum.*)\s*\.?\s*$"),
        "a placeholder instead of a text",
        fatal=True,
    ),
    Rule(
        "template_token_in_content",
        _matches(
            r"<\|[A-Za-z0-9_ ]{1,40}\|>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>|<(?:bos|eos)>"
            r"|<\x{FF5C}[^\x{FF5C}]{1,40}\x{FF5C}>"
        ),
        "the text contains a control token of a chat template",
        fatal=True,
    ),
    Rule(
        "control_char",
        _matches(r"[\x00-\x08\x0E-\x1F\x7F]"),
        "the text contains a control character (NUL, escape ...)",
        fatal=True,
    ),
    Rule("control_char", _matches(r"[\x0B\x0C\x{80}-\x{84}\x{86}-\x{9F}]"), "the text contains a rare control character"),
    Rule(
        "secret",
        _matches(
            r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}|\bgithub_pat_[A-Za-z0-9_]{22,}"
            r"|\bxox[abprs]-[A-Za-z0-9-]{10,}|-----BEGIN [A-Z ]*PRIVATE KEY|\bsk-(?:proj-|ant-)?[A-Za-z0-9_]{32,}"
            r"|\bAIza[0-9A-Za-z_-]{35}|\bhf_[A-Za-z0-9]{30,}"
        ),
        "the text looks like it holds a credential (not shown)",
        fatal=True,
    ),
    Rule(
        "pii",
        _matches(
            r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}"
            r"|(?:\+\d{1,3}[ .-]?)?(?:\(\d{3}\) ?|\b\d{3}[ .-])\d{3}[ .-]\d{4}\b"
            r"|\b\d{3}-\d{2}-\d{4}\b|\b(?:\d{1,3}\.){3}\d{1,3}\b|" + _LUHN_SHAPE
        ),
        "the text looks like it holds personal data (not shown)",
    ),
    Rule(
        "role_marker_in_content",
        _matches(r"(?m)\n\n(?:Human|Assistant|User):|^###\s*(?:Instruction|Response|Input|Human|Assistant)\b"),
        "the text contains turn markers; a model may run on into the next turn",
    ),
    Rule(
        "judge_injection",
        _matches(
            r"(?i)\b(?:ignore|disregard|forget)\s+(?:(?:all|any|the|your|of)\s+)*(?:previous|prior|above|earlier)\s+"
            r"(?:instruction|prompt|response|answer|rule)"
            r"|\b(?:prefer|choose|select|pick)\s+(?:this|my)\s+(?:answer|response|output)\b"
            r"|\b(?:rate|rank|score|judge)\s+(?:this|my)\s+(?:answer|response|output)\s+(?:as\s+)?(?:the\s+)?(?:best|highest|first|10)"
        ),
        "the text seems to address a judge",
    ),
    Rule("bidi_or_zero_width", _matches(r"[\x{202A}-\x{202E}\x{2066}-\x{2069}]"), "the text overrides its direction"),
    Rule("bidi_or_zero_width", _matches(r"[\x{200B}\x{2060}\x{FEFF}]"), "the text contains zero-width characters"),
    Rule(
        "mojibake",
        _matches(r"\x{C3}[\x{80}-\x{BF}\x{201A}\x{192}\x{2020}\x{2021}]|\x{E2}\x{20AC}[\x{80}-\x{BF}\x{2018}-\x{2122}\x{153}]|\x{C2}[\x{A0}-\x{BF}]|\x{F0}\x{178}"),
        "the text looks like UTF-8 read as cp1252",
    ),
    Rule("replacement_char", _matches(r"\x{FFFD}"), "the text contains U+FFFD: a character was lost"),
    Rule(
        "too_long",
        (pl.col("text").str.len_bytes() > 2 * MAX_WORDS) & (_WORDS > MAX_WORDS),
        f"the text has more than {MAX_WORDS} words",
    ),
    Rule(
        "degenerate_text",
        (pl.col("text").str.len_bytes() > 60) & (_PIECES.list.len() >= 20) & (_PIECES.list.n_unique() < _PIECES.list.len() * 0.1),
        "one token or line is repeated",
    ),
)  # fmt: skip

FORMULA = Rule(
    "csv_formula",
    _matches(r"^\s*(?:=\s*[A-Za-z+(@-]|@[A-Z]+\(|[+-]\S*(?:cmd\||[A-Z]{2,}\())"),
    "a spreadsheet would run this cell as a formula; it was kept as text",
)

WARN_ABOVE: dict[str, float] = {
    "replacement_char": 0.005,
    "mojibake": 0.005,
    "near_duplicate": 0.05,
    "too_long": 0.0,
}
"""Share of the rows above which a finding that costs no row becomes a warning; 0 for kinds not listed."""

REJECT_ABOVE: dict[str, float] = {
    "invalid_json": 0.01,
    "empty_content": 0.2,
    "identical_pair": 0.1,
    "prompt_mismatch": 0.05,
    "contradictory_pair": 0.2,
    "exact_duplicate": 0.5,
}
"""Share of the rows above which the whole file is suspect; only files of `SHARES_COUNT_FROM` rows have shares."""

SHARES_COUNT_FROM = 100


def apply_rules(batch: list[tuple[Row, list[tuple[str, str]]]], rules: Iterable[Rule]) -> None:
    """Put the findings of the content rules on the rows of a batch."""
    places = [(index, where, text) for index, (_, texts) in enumerate(batch) for where, text in texts]
    frame = pl.DataFrame(
        places, schema={"index": pl.UInt32, "field": pl.String, "text": pl.String}, orient="row"
    )
    rules = tuple(rules)
    flags = frame.select(
        "index", "field", *(rule.found.alias(str(number)) for number, rule in enumerate(rules))
    )
    for number, rule in enumerate(rules):
        for index, where in (
            flags.filter(pl.col(str(number))).select("index", "field").unique(maintain_order=True).iter_rows()
        ):
            batch[index][0].found(rule.kind, where, rule.message, fatal=rule.fatal)
