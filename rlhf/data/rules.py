"""What may be wrong with the content of a text: one regular expression or measure per kind, run by polars."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import polars as pl

from rlhf.data.records import Row
from schemas.config.rules import Rule
from schemas.tables import Kind

MAX_WORDS = 2048

_MARK_REST = (
    r"\|[A-Za-z0-9_ ]{1,40}\|>|/?INST\]|</?SYS>>|/?s>|(?:start|end)_of_turn>|(?:bos|eos)>"
    r"|\x{FF5C}[^\x{FF5C}]{1,40}\x{FF5C}>|\|\|[A-Za-z_ ]{1,40}\|\|>"
)
TEMPLATE_TOKEN = rf"[<\[](?:{_MARK_REST})"
_CARD = r"(?-u:\b)\d{4}[ -]\d{4}[ -]\d{4}[ -]\d{4}(?-u:\b)"
PII = (
    r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*\.[A-Za-z]{2,24}"
    r"|(?:\+[0-9]{1,3}[ .-]?)?(?:\([0-9]{3}\) ?|(?-u:\b)[0-9]{3}[ .-])[0-9]{3}[ .-][0-9]{4}(?-u:\b)"
    r"|\+[0-9]{1,3} (?:\(?[0-9]{2,4}\)?[ -]){1,4}[0-9]{3,8}(?-u:\b)"
    r"|(?i:card|visa|mastercard|amex)[^0-9\n]{0,20}[0-9]{13,16}(?-u:\b)"
    r"|(?-u:\b)[0-9]{3}-[0-9]{2}-[0-9]{4}(?-u:\b)"
    r"|(?-u:\b)(?:(?:25[0-5]|2[0-4][0-9]|1?[0-9]{1,2})\.){3}(?:25[0-5]|2[0-4][0-9]|1?[0-9]{1,2})(?-u:\b)|"
    + _CARD
)
CREDENTIAL = (
    r"(?-u:\b)(?:AKIA|ASIA)[0-9A-Z]{16}(?-u:\b)|(?-u:\b)gh[pousr]_[A-Za-z0-9]{36}|(?-u:\b)github_pat_[A-Za-z0-9_]{22,}"
    r"|(?-u:\b)xox[abprs]-[A-Za-z0-9-]{10,}|-----BEGIN [A-Z ]*PRIVATE KEY|(?-u:\b)sk-(?:proj-|ant-)?[A-Za-z0-9_-]{32,}"
    r"|(?-u:\b)[sr]k_live_[A-Za-z0-9]{16,}|(?-u:\b)eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"
    r"|(?-u:\b)AIza[0-9A-Za-z_-]{35}|(?-u:\b)hf_[A-Za-z0-9]{30,}|(?-u:\b)glpat-[A-Za-z0-9_-]{20}"
)
REPAIRS = {
    "template_token_in_content": (rf"([<\[])({_MARK_REST})", "${1} ${2}"),
    "pii": (PII, "[personal data]"),
    "secret": (CREDENTIAL, "[secret]"),
}
"""(pattern, replacement) of the kinds that can be rewritten: tokens are split by a space, values are masked."""
_ODD = r"[^\t\n\r\x20-\x7E]"
"""Characters outside plain ASCII; a text without them needs none of the rules about odd characters."""


@dataclass(frozen=True, slots=True, eq=False)
class TextRule:
    """A kind of defect, the expression over column `text` that finds it, and what it means for the row."""

    kind: str
    found: pl.Expr
    message: str
    mild: bool = False
    """True: a warning at most, whatever the level of the kind."""
    mild_in: tuple[Kind, ...] = ()
    """Tables in which it is a warning at most."""
    not_in: tuple[Kind, ...] = ()
    """Tables to which it does not apply."""
    suspects: str = "all"
    """The texts it is tried on: all, those with odd characters, those with a telling sign, long or repetitive ones."""


def _matches(pattern: str) -> pl.Expr:
    return pl.col("text").str.contains(pattern)


_WORDS = pl.col("text").str.count_matches(r"\S+")
_SPLIT = pl.col("text").str.split(" ")
_LINES = pl.col("text").str.strip_chars().str.replace_all(r"\s*\n\s*", "\n").str.split("\n")
_CHARACTERS = pl.col("text").str.split("")

TEXT_RULES = (
    TextRule(
        "empty_content",
        _matches(r"^[\s\x{00A0}\x{00AD}\x{034F}\x{115F}\x{1160}\x{17B4}\x{17B5}\x{180E}\x{200B}-\x{200F}\x{2028}-\x{202E}\x{2060}-\x{206F}\x{2800}\x{3164}\x{FE00}-\x{FE0F}\x{FEFF}\x{FFA0}]*$"),
        "the text is empty, blank or invisible",
    ),
    TextRule(
        "placeholder_text",
        _matches(
            r"(?i)^\s*(?:[<\[({]+\s*(?:no|your|insert|enter|add|the)?[ _-]?(?:noinput|nooutput|output|input|response|answer|text|completion|placeholder|todo|tbd)(?: here| goes here)?\s*[>\])}]+"
            r"|\[?(?:insert|your|enter|add) [a-z ]{0,30}here\]?|to[ -]?do|tbd|lorem ipsum.*)\s*[.!]?\s*$"
        ),
        "a placeholder instead of a text",
        mild_in=("rankings", "feedback"),  # people were shown it, and compared it
    ),
    TextRule(
        "placeholder_text", _matches(r"(?i)^\s*(?:n/a|null|nan|nil)\s*[.!]?\s*$"), "perhaps a placeholder instead of a text",
        mild=True,
    ),
    TextRule(
        "template_token_in_content", _matches(TEMPLATE_TOKEN), "the text contains a control token of a chat template",
        suspects="signs",
    ),
    TextRule(
        "control_char", _matches(r"[\x00-\x08\x0E-\x1F\x7F]"), "the text contains a control character (NUL, escape ...)",
        suspects="odd",
    ),
    TextRule(
        "control_char", _matches(r"[\x0B\x0C\x{80}-\x{84}\x{86}-\x{9F}]"), "the text contains a rare control character",
        mild=True, suspects="odd",
    ),
    TextRule("secret", _matches(CREDENTIAL), "the text looks like it holds a credential (not shown)", suspects="signs"),
    TextRule("pii", _matches(PII), "the text looks like it holds personal data (not shown)", suspects="signs"),
    TextRule(
        "role_marker_in_content",
        _matches(r"(?m)\n\n(?:Human|Assistant|User|System):|^(?:HUMAN|ASSISTANT|USER):|^###\s*(?:Instruction|Response|Input|Output|Human|Assistant|User)(?-u:\b)"),
        "the text contains turn markers; a model may run on into the next turn",
        suspects="signs",
    ),
    TextRule(
        "judge_injection",
        _matches(
            r"(?i)(?-u:\b)(?:ignore|disregard|forget|override)\s+(?:(?:all|any|the|your|of|these|other)\s+)*(?:previous|prior|above|earlier|preceding|foregoing)\s+"
            r"(?:instruction|prompt|response|answer|rule|criteri|text|context)"
            r"|(?-u:\b)(?:prefer|choose|select|pick|favou?r)\s+(?:this|my)\s+(?:answer|response|output|one)(?-u:\b)"
            r"|(?-u:\b)(?:rate|rank|score|judge|grade|mark)\s+(?:this|my|it)\s+(?:(?:answer|response|output)\s+)?(?:as\s+)?(?:the\s+)?(?:best|better|highest|first|superior|winner|10|ten)(?-u:\b)"
            r"|(?-u:\b)(?:answer|response|output)\s+is\s+(?:clearly\s+)?the\s+(?:best|better)\s+(?:one|answer|response)?[^.]{0,40}(?:judge|evaluator|grader|rater)"
        ),
        "the text seems to address a judge",
        suspects="judges",
    ),
    TextRule(
        "bidi_or_zero_width", _matches(r"[\x{202A}-\x{202E}\x{2066}-\x{2069}\x{061C}]"), "the text overrides its direction",
        suspects="odd",
    ),
    TextRule(
        "bidi_or_zero_width", _matches(r"[\x{200B}\x{2060}-\x{2064}\x{FEFF}\x{00AD}]"),
        "the text contains zero-width characters", mild=True, suspects="odd",
    ),
    TextRule(
        "mojibake",
        _matches(
            r"\x{C3}[\x{80}-\x{BF}\x{152}\x{153}\x{160}\x{161}\x{178}\x{17D}\x{17E}\x{192}\x{2C6}\x{2DC}\x{2013}-\x{203A}\x{20AC}\x{2122}]"
            r"|\x{E2}[\x{80}\x{20AC}][\x{80}-\x{BF}\x{152}-\x{192}\x{2C6}\x{2DC}\x{2013}-\x{203A}\x{2122}]|\x{C2}[\x{A0}-\x{BF}]|\x{F0}\x{178}"
        ),
        "the text looks like UTF-8 read as cp1252",
        suspects="odd",
    ),
    TextRule("replacement_char", _matches(r"\x{FFFD}"), "the text contains U+FFFD: a character was lost", suspects="odd"),
    TextRule("too_long", _WORDS > MAX_WORDS, f"the text has more than {MAX_WORDS} words", not_in=("corpus",), suspects="long"),
    TextRule(
        "degenerate_text",
        ((_SPLIT.list.len() >= 20) & (_SPLIT.list.n_unique() <= _SPLIT.list.len() * 0.15))
        | ((_LINES.list.len() >= 6) & (_LINES.list.n_unique() <= _LINES.list.len() * 0.34))
        | ((_SPLIT.list.len() < 5) & (_CHARACTERS.list.n_unique() <= 4)),
        "one token or line is repeated",
        suspects="repetitive",
    ),
)  # fmt: skip

FORMULA = TextRule(
    "csv_formula",
    _matches(
        r"^\s*(?:=\s*[A-Za-z0-9+(@'\"-]|@[A-Za-z]+\(|[+-]\S*(?:cmd\||[A-Z]{2,}\()|[+-][0-9.]+[-+*/][0-9.])|^[=+@-]\S*(?:\(|\|)"
    ),
    "a spreadsheet would run this cell as a formula; it was kept as text",
)

_SIGNS = ("@", "<|", "INST]", "<<", "<s>", "</s>", "<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>",
          "<\uff5c", "AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "xox", "-----BEGIN", "sk-", "AIza",
          "hf_", "glpat-", "_live_", "eyJ", "Human:", "HUMAN:", "ASSISTANT:", "USER:", "Assistant:", "User:", "System:", "###", "<</SYS", *map(str, range(10)))  # fmt: skip
_JUDGES = ("ignore", "disregard", "forget", "override", "prefer", "choose", "select", "pick", "favor", "favour", "rate ",
           "rank ", "score ", "judge", "grade ", "mark ", "evaluator", "rater")  # fmt: skip
_CONTROLS = [chr(code) for code in range(32) if chr(code) not in "\t\n\r"] + ["\x7f"]
_TAIL = 24
_LENGTH = pl.col("text").str.len_chars().cast(pl.Int64)
_REPETITIVE = pl.any_horizontal(
    *(
        pl.col("text")
        .str.head(-end - _TAIL)
        .str.contains(pl.col("text").str.slice(-end - _TAIL, _TAIL), literal=True)
        for end in (0, 16)
    ),
    pl.col("text")
    .str.slice(_LENGTH // 2 + _TAIL)
    .str.contains(pl.col("text").str.slice(_LENGTH // 2, _TAIL), literal=True),
)
_SUSPECTS = {
    "all": pl.lit(value=True),
    "odd": _matches(_ODD),
    "signs": pl.col("text").str.contains_any(list(_SIGNS)),
    "judges": pl.col("text").str.contains_any(list(_JUDGES), ascii_case_insensitive=True),
    "long": pl.col("text").str.len_bytes() > 2 * MAX_WORDS,
    # A part of a text that repeats itself stands further up or down already.
    "repetitive": (pl.col("text").str.len_bytes() > 60) & _REPETITIVE,
}
_ANY_SIGN = pl.col("text").str.contains_any([*_SIGNS, *_JUDGES, *_CONTROLS], ascii_case_insensitive=True) | (
    pl.col("text").str.len_bytes() != pl.col("text").str.len_chars()
)
"""One pass that clears most texts of all rules that look for signs or odd characters."""


def repaired(text: pl.Expr, kinds: Iterable[str]) -> pl.Expr:
    """Return a text without what the rules of these kinds look for."""
    for kind in kinds:
        text = text.str.replace_all(*REPAIRS[kind])
    return text


def level_of(kind: str, rules: Mapping[str, Rule]) -> str:
    """Return what a finding of this kind does to its row; kinds without a rule cannot be let through."""
    return rules[kind].level if kind in rules else "quarantine"


def apply_text_rules(
    batch: list[tuple[Row, list[tuple[str, str]]]],
    rules: Mapping[str, Rule],
    *,
    kind: Kind,
    csv: bool,
    repair: Iterable[str] = (),
) -> None:
    """Put the findings of the content rules on the rows of a batch; those of the kinds in `repair` cost no row."""
    spared = set(repair)
    owners = [index for index, (_, texts) in enumerate(batch) for _ in texts]
    flat = [place for _, texts in batch for place in texts]
    texts = pl.DataFrame({"text": [text for _, text in flat]}, schema={"text": pl.String}).with_row_index(
        "place"
    )
    checks = [
        rule
        for rule in (*TEXT_RULES, *([FORMULA] if csv else []))
        if level_of(rule.kind, rules) != "off" and kind not in rule.not_in
    ]
    for suspects, found in _found(texts, checks):
        for rule in suspects:
            mild = rule.mild or kind in rule.mild_in or rule.kind in spared
            fatal = not mild and level_of(rule.kind, rules) in {"quarantine", "reject"}
            for place in found[rule]:
                batch[owners[place]][0].found(rule.kind, flat[place][0], rule.message, fatal=fatal)


def _found(
    texts: pl.DataFrame, checks: Iterable[TextRule]
) -> Iterable[tuple[list[TextRule], dict[TextRule, list[int]]]]:
    """Try each rule on the texts that can break it."""
    told = texts.filter(_ANY_SIGN)
    groups: dict[str, list[TextRule]] = {}
    for rule in checks:
        groups.setdefault(rule.suspects, []).append(rule)
    for suspects, members in groups.items():
        part = (told if suspects in {"odd", "signs", "judges"} else texts).filter(_SUSPECTS[suspects])
        flags = part.select("place", *(rule.found.alias(str(n)) for n, rule in enumerate(members)))
        yield (
            members,
            {rule: flags.filter(pl.col(str(n)))["place"].to_list() for n, rule in enumerate(members)},
        )
