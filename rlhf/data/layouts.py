"""The layouts that records come in, and how each becomes canonical rows.

A layout is recognised by its fields and their types. A reader of a layout returns canonical rows, or nothing after
it has put findings on the record.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from rlhf.data import layouts_pairs, layouts_single
from rlhf.data.conversation import Draft
from rlhf.data.layouts_pairs import Canonical
from rlhf.data.readers import leaves_folder
from rlhf.data.records import Json, Refused, Row, shown
from schemas.reports import Finding
from schemas.tables import Kind

Shape: TypeAlias = Callable[[Json], bool]


def _text(value: Json) -> bool:
    return isinstance(value, str)


def _turns(value: Json) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _list(value: Json) -> bool:
    return isinstance(value, list)


def _object(value: Json) -> bool:
    return isinstance(value, dict)


def _any(value: Json) -> bool:
    return value is not None


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Fields with the shape of each, and the reader of such records."""

    name: str
    fields: dict[str, Shape]
    read: Callable[[Draft], list[Canonical]]

    def has(self, record: dict[str, Json]) -> bool:
        """Tell whether a record has all fields of the layout."""
        return all(name in record for name in self.fields)

    def fits(self, record: dict[str, Json]) -> bool:
        """Tell whether a record has all fields of the layout in their shapes."""
        return all(name in record and shape(record[name]) for name, shape in self.fields.items())


_PAIRS = (
    Layout(
        "ShareGPT pairs",
        {"conversations": _turns, "chosen": _object, "rejected": _object},
        layouts_pairs.sharegpt,
    ),
    Layout(
        "typed-content pairs", {"chosen_messages": _turns, "rejected_messages": _turns}, layouts_pairs.typed
    ),
    Layout("Alpaca pairs", {"instruction": _text, "chosen": _text, "rejected": _text}, layouts_pairs.alpaca),
    Layout("TRL standard", {"prompt": _text, "chosen": _text, "rejected": _text}, layouts_pairs.standard),
    Layout(
        "TRL conversational",
        {"prompt": _turns, "chosen": _turns, "rejected": _turns},
        layouts_pairs.conversational,
    ),
    Layout("HH-RLHF transcripts", {"chosen": _text, "rejected": _text}, layouts_pairs.transcripts),
    Layout("TRL implicit prompt", {"chosen": _turns, "rejected": _turns}, layouts_pairs.implicit),
    Layout("ranked pair lists", {"instruction": _text, "output": _list}, layouts_pairs.ranked_list),
    *(
        Layout(
            f"A/B labels ({label})",
            {prompt: _text, one: _any, two: _any, label: _any},
            layouts_pairs.labelled(prompt, one, two, label),
        )
        for prompt, one, two, label in layouts_pairs.AB_FIELDS
    ),
)
_DEMONSTRATIONS = (
    Layout("messages", {"messages": _turns}, layouts_single.messages("messages")),
    Layout("ShareGPT", {"conversations": _turns}, layouts_single.messages("conversations")),
    Layout(
        "TRL prompt and completion, conversational",
        {"prompt": _turns, "completion": _turns},
        layouts_single.completion,
    ),
    *(
        Layout(f"{ask} and {answer}", {ask: _text, answer: _text}, layouts_single.answer(ask, answer))
        for ask, answer in (
            ("instruction", "output"),
            ("prompt", "completion"),
            ("prompt", "response"),
            ("question", "answer"),
        )
    ),
    Layout("self-instruct tasks", {"instruction": _text, "instances": _turns}, layouts_single.instances),
)
_PROMPTS = (
    Layout("conversational prompts", {"prompt": _turns}, layouts_single.prompt_turns("prompt")),
    Layout("messages", {"messages": _turns}, layouts_single.prompt_turns("messages")),
    Layout("turns", {"turns": _list}, layouts_single.first_turn),
    *(
        Layout(f"texts in {name!r}", {name: _text}, layouts_single.prompt_text(name))
        for name in ("prompt", "question", "instruction", "Behavior", "goal", "text")
    ),
    Layout("HH-RLHF transcripts", {"chosen": _text, "rejected": _text}, layouts_single.prompt_transcript),
)
_FEEDBACK = (
    Layout(
        "TRL unpaired, conversational",
        {"prompt": _turns, "completion": _turns, "label": _any},
        layouts_single.unpaired_turns,
    ),
    Layout(
        "TRL unpaired, standard",
        {"prompt": _text, "completion": _text, "label": _any},
        layouts_single.unpaired("prompt", "completion", "label"),
    ),
    Layout("labelled messages", {"messages": _turns, "label": _any}, layouts_single.unpaired_messages),
    Layout(
        "labelled responses",
        {"context": _text, "response": _text, "label": _any},
        layouts_single.unpaired("context", "response", "label"),
    ),
    Layout(
        "scored responses",
        {"prompt": _text, "response": _text, "score": _any},
        layouts_single.scored("score"),
    ),
    Layout(
        "scores of several judges",
        {"prompt": _text, "response": _text, "gpt4_score": _any},
        layouts_single.scored("gpt4_score"),
    ),
)
_CORPUS = tuple(
    Layout(f"texts in {name!r}", {name: _text}, layouts_single.document(name))
    for name in ("text", "content", "document")
)
_RANKINGS = (
    Layout("ranked responses", {"prompt": _any, "responses": _turns}, layouts_pairs.ranked_responses),
    Layout(
        "ranked responses", {"prompt": _any, "responses": _list, "ranks": _list}, layouts_pairs.ranked_texts
    ),
    *(
        Layout(
            f"A/B labels ({label})",
            {prompt: _text, one: _any, two: _any, label: _any},
            layouts_pairs.ranked_two(prompt, one, two, label),
        )
        for prompt, one, two, label in layouts_pairs.AB_FIELDS
    ),
)
LAYOUTS: dict[Kind, tuple[Layout, ...]] = {
    "corpus": _CORPUS,
    "demonstrations": _DEMONSTRATIONS,
    "prompts": _PROMPTS,
    "preferences": _PAIRS,
    "rankings": _RANKINGS,
    "feedback": _FEEDBACK,
}
_WANTED: dict[Kind, tuple[str, ...]] = {
    "corpus": ("text",),
    "demonstrations": ("messages",),
    "prompts": ("prompt",),
    "preferences": ("prompt", "chosen", "rejected"),
    "rankings": ("prompt", "responses"),
    "feedback": ("prompt", "completion", "label"),
}
_ALIASES = {
    "prompt": ("prompt", "question", "instruction", "query", "input"),
    "chosen": ("chosen", "good", "better", "preferred", "win", "accepted"),
    "rejected": ("rejected", "bad", "worse", "dispreferred", "lose"),
    "text": ("text", "body", "content"),
    "completion": ("completion", "response", "answer", "output"),
    "label": ("label", "feedback", "rating"),
    "responses": ("responses", "completions", "answers", "outputs"),
    "messages": ("messages", "conversation", "dialogue", "dialog"),
}


def detect(sample: list[Row], kind: Kind) -> Layout:
    """Return the layout that most records of a sample are in; raise `Refused` where no layout has their fields."""
    records = [row.value for row in sample if row.value]
    layouts = LAYOUTS[kind]
    if not records:
        raise Refused(
            *(sample[0].findings if sample else ()), *(f for row in sample[1:] for f in row.findings)
        )
    _check_manifest(sample)
    for test in (Layout.fits, Layout.has):
        counts = {layout: sum(test(layout, record) for record in records) for layout in layouts}
        best = max(layouts, key=lambda layout: counts[layout])
        # A layout with more fields explains the file better, as long as it is not a rarity there.
        finer = [o for o in layouts if set(o.fields) > set(best.fields) and 2 * counts[o] >= counts[best]]
        best = max([best, *finer], key=lambda layout: (len(layout.fields), counts[layout]))
        if counts[best]:
            if test is Layout.has:
                _check_types(best, records)
            return best
    seen = sorted({name for record in records for name in record})
    if scattered := next((layout for layout in layouts if set(layout.fields) <= set(seen)), None):
        return scattered
    raise Refused(*(_missing(name, seen) for name in _WANTED[kind] if name not in seen))


def _missing(name: str, seen: list[str]) -> Finding:
    plain = {column.strip().lower(): column for column in seen}
    likely = next((plain[alias] for alias in _ALIASES.get(name, ()) if alias in plain), None)
    hint = f"rename {shown(likely)} to {name!r}, if that is it" if likely else f"add the column {name!r}"
    columns = ", ".join(shown(column, 40) for column in seen[:12])
    return Finding(kind="missing_column", field=name, message=f"no column {name!r} among {columns}; {hint}")


def _check_types(layout: Layout, records: list[dict[str, Json]]) -> None:
    """Refuse a file in which a column has the wrong type in every row."""
    wrong = [
        name
        for name, shape in layout.fields.items()
        if len(records) > 1
        and not any(
            name in record and (shape(record[name]) or isinstance(record[name], str | list))
            for record in records
        )
    ]
    if wrong:
        example = records[0]
        raise Refused(
            *(
                Finding(
                    kind="schema_type",
                    field=name,
                    message=f"column {name!r} holds {shown(example.get(name))} instead of text",
                )
                for name in wrong
            )
        )


def _check_manifest(sample: list[Row]) -> None:
    """Refuse a list of files: it is not data, and its paths may lead anywhere."""
    paths = [row for row in sample if isinstance(row.value.get("path"), str) and len(row.value) <= 4]
    if len(paths) < len(sample):
        return
    escaping = [row for row in paths if leaves_folder(str(row.value["path"]))]
    if escaping:
        raise Refused(
            *(
                Finding(
                    kind="path_traversal", row=row.row, line=row.line, field="path",
                    message=f"the path {shown(row.value['path'])} leads out of the data folder",
                )
                for row in escaping
            )
        )  # fmt: skip
    raise Refused(
        Finding(kind="unexpected_top_level", message="this is a list of files; name the files themselves")
    )


def read(row: Row, layout: Layout, kind: Kind) -> tuple[list[Canonical], list[tuple[str, str]]]:
    """Return the canonical rows of a record and the texts in it, after putting findings on the record."""
    if not layout.has(row.value):
        other = next(
            (o for o in LAYOUTS[kind] if o.fits(row.value) and not set(layout.fields) <= set(o.fields)), None
        )
        if other:
            row.found(
                "mixed_schema", None, f"the row is in the layout {other.name!r}, the file in {layout.name!r}"
            )
            return [], []
    elif not layout.fits(row.value):
        other = next(
            (o for o in LAYOUTS[kind] if o.fits(row.value) and set(o.fields) == set(layout.fields)), None
        )
        if other:
            row.found(
                "mixed_schema", None, f"the row is in the layout {other.name!r}, the file in {layout.name!r}"
            )
            return [], []
    draft = Draft(row)
    return layout.read(draft), draft.texts
