"""Which layout a file is in, and what to say when it is in none."""

from dataclasses import dataclass

from rlhf.data.conversation import Domain, Draft
from rlhf.data.labels import domain_of
from rlhf.data.layouts import LAYOUTS, Layout
from rlhf.data.layouts_pairs import Canonical
from rlhf.data.paths import leaves_folder
from rlhf.data.records import Found, Json, Refused, Row, shown
from schemas.tables import Kind

_WANTED: dict[Kind, tuple[str, ...]] = {
    "corpus": ("text",),
    "demonstrations": ("messages",),
    "prompts": ("prompt",),
    "preferences": ("prompt", "chosen", "rejected"),
    "rankings": ("prompt", "responses"),
    "feedback": ("prompt", "completion", "label"),
}
_ALIASES = {
    "prompt": ("prompt", "question", "instruction", "query", "input", "context"),
    "chosen": ("chosen", "good", "better", "preferred", "win", "winner", "accepted", "positive"),
    "rejected": ("rejected", "bad", "worse", "dispreferred", "lose", "loser", "negative"),
    "text": ("text", "body", "content"),
    "completion": ("completion", "response", "answer", "output"),
    "label": ("label", "feedback", "rating"),
    "responses": ("responses", "completions", "answers", "outputs"),
    "messages": ("messages", "conversation", "dialogue", "dialog", "chat"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How the records of one file are read; small, because it goes to other processes with every batch."""

    kind: Kind
    layout: int
    """Place among the layouts of the kind."""
    columns: tuple[tuple[str, str], ...] = ()
    """(wanted name, name or dotted path in the file)."""
    domain: Domain = "number"
    csv: bool = False

    @property
    def reader(self) -> Layout:
        """The layout itself."""
        return LAYOUTS[self.kind][self.layout]


def renamed(record: dict[str, Json], columns: tuple[tuple[str, str], ...]) -> dict[str, Json]:
    """Return a record with the columns under the names that the recipe gives them."""
    sources = {source for _, source in columns}
    taken = {name: value for name, value in record.items() if name not in sources}
    for name, source in columns:
        value: Json = record
        for part in [source] if source in record else source.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None or source in record:
            taken[name] = value
    return taken


def detect(
    sample: list[Row], kind: Kind, columns: tuple[tuple[str, str], ...] = (), *, csv: bool = False
) -> Plan:
    """Return how to read a file whose first records are these; raise `Refused` where no layout has their fields."""
    records = [renamed(row.value, columns) if columns else row.value for row in sample if row.value]
    if not records:
        raise Refused(*(found for row in sample for found in row.findings))
    _check_manifest(sample)
    layouts = LAYOUTS[kind]
    best = _best(layouts, records, [row.value for row in sample if row.value], kind)
    labels = [record.get(best.label) for record in records] if best.label else []
    return Plan(
        kind=kind,
        layout=layouts.index(best),
        columns=columns,
        domain="text" if csv else domain_of(_flat(labels)),
        csv=csv,
    )


def _flat(labels: list[Json]) -> list[Json]:
    """Return the labels themselves, and those inside lists of scores."""
    return [item for label in labels for item in (label if isinstance(label, list) else [label])]


def _best(
    layouts: tuple[Layout, ...], records: list[dict[str, Json]], given: list[dict[str, Json]], kind: Kind
) -> Layout:
    for test in (Layout.fits, Layout.has):
        counts = {layout: sum(test(layout, record) for record in records) for layout in layouts}
        best = max(layouts, key=lambda layout: counts[layout])
        # A layout with more fields explains the file better, as long as it is not a rarity there.
        finer = [o for o in layouts if o.fields.keys() > best.fields.keys() and 2 * counts[o] >= counts[best]]
        best = max([best, *finer], key=lambda layout: (len(layout.fields), counts[layout]))
        if counts[best]:
            if test is Layout.has:
                _check_types(best, records)
            return best
    seen = sorted({name for record in records for name in record})
    if scattered := next((layout for layout in layouts if layout.fields.keys() <= set(seen)), None):
        return scattered
    raw = sorted({name for record in given for name in record})
    missing = [name for name in _WANTED[kind] if name not in seen]
    if not missing:
        _check_types(_nearest(layouts, set(seen)), records)
        missing = list(_WANTED[kind])
    raise Refused(*(_missing(name, raw) for name in missing))


def _nearest(layouts: tuple[Layout, ...], seen: set[str]) -> Layout:
    return max(layouts, key=lambda layout: len(layout.fields.keys() & seen) / len(layout.fields))


def _missing(name: str, seen: list[str]) -> Found:
    plain = {column.strip().lower(): column for column in seen}
    likely = next((plain[alias] for alias in _ALIASES.get(name, ()) if alias in plain), None)
    hint = (
        f"map it with `columns: {{{name}: {likely}}}`, if {shown(likely)} is it"
        if likely
        else f"add {name!r}, or map it with `columns: {{{name}: ...}}`"
    )
    columns = ", ".join(shown(column, 40) for column in seen[:12])
    return Found("missing_column", f"no column {name!r} among {columns}; {hint}", field=name)


def _check_types(layout: Layout, records: list[dict[str, Json]]) -> None:
    """Refuse a file in which a column has the wrong type in every row."""
    wrong = [
        name
        for name, shape in layout.fields.items()
        if len(records) > 1
        and any(record.get(name) is not None for record in records)
        and not any(shape(record.get(name)) or isinstance(record.get(name), str | list) for record in records)
    ]
    if wrong:
        example = records[0]
        raise Refused(
            *(
                Found("schema_type", f"column {name!r} holds {shown(example.get(name))} instead of text", field=name)
                for name in wrong
            )
        )  # fmt: skip


def _check_manifest(sample: list[Row]) -> None:
    """Refuse a list of files: it is not data, and its paths may lead anywhere."""
    known = {name for names in _ALIASES.values() for name in names}
    paths = [row for row in sample if isinstance(_path(row), str) and not known & row.value.keys()]
    if len(paths) < len(sample):
        return
    escaping = [
        Found(
            "path_traversal", f"the path {shown(_path(row))} leads out of the data folder", row.row, row.line,
            next(name for name in _PATHS if name in row.value),
        )
        for row in paths
        if leaves_folder(str(_path(row)))
    ]  # fmt: skip
    if escaping:
        raise Refused(*escaping)
    raise Refused(Found("unexpected_top_level", "this is a list of files; name the files themselves"))


_PATHS = ("path", "file", "filename", "file_name")


def _path(row: Row) -> Json:
    return next((row.value[name] for name in _PATHS if name in row.value), None)


def read(row: Row, plan: Plan) -> tuple[list[Canonical], list[tuple[str, str]]]:
    """Return the canonical rows of a record and the texts in it, after putting findings on the record."""
    layout = plan.reader
    if plan.columns:
        row.value = renamed(row.value, plan.columns)
    draft = Draft(row, plan.domain)
    canonical = layout.read(draft)
    if not canonical and not row.dropped and (other := _fitting(row.value, plan)):
        message = f"the row is in the layout {other!r}, the file in {layout.name!r}"
        row.found("mixed_schema", None, message)
        return [], []
    return canonical, draft.texts


def _fitting(record: dict[str, Json], plan: Plan) -> str | None:
    """Return the name of another layout that a record is in, if it is not in the file's."""
    layout = plan.reader
    if layout.fits(record):
        return None
    whole = layout.has(record)
    for other in LAYOUTS[plan.kind]:
        same = other.fields.keys() == layout.fields.keys()
        if other.fits(record) and (same if whole else not layout.fields.keys() <= other.fields.keys()):
            return other.name
    if layout.fields.keys() & record.keys():
        return None
    elsewhere = (other for kind, layouts in LAYOUTS.items() if kind != plan.kind for other in layouts)
    return next((other.name for other in elsewhere if other.fits(record)), None)
