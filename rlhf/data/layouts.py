"""The layouts that records come in, by the table that they become. A layout is recognised by its fields and their types."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from rlhf.data import layouts_pairs as pairs
from rlhf.data import layouts_rankings as rankings
from rlhf.data import layouts_single as single
from rlhf.data import layouts_trees as trees
from rlhf.data.labels import SCHEMES
from rlhf.data.records import Json
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


def _tree(value: Json) -> bool:
    return isinstance(value, dict) and "replies" in value


def _solution(value: Json) -> bool:
    return isinstance(value, dict) and "solution" in value


def _any(value: Json) -> bool:
    return value is not None


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Fields with the shape of each, and the reader of such records."""

    name: str
    fields: dict[str, Shape]
    read: pairs.Read
    label: str | None = None
    """The field whose values are compared with each other to know their domain."""

    def has(self, record: dict[str, Json]) -> bool:
        """Tell whether a record has all fields of the layout."""
        return self.fields.keys() <= record.keys()

    def fits(self, record: dict[str, Json]) -> bool:
        """Tell whether a record has all fields of the layout in their shapes."""
        return all([name in record and shape(record[name]) for name, shape in self.fields.items()])


_ONE_OR_TWO, _FROM_ZERO, _ZERO_TIES = SCHEMES
_COMPARED = tuple(
    (prompt, one, two, label, _FROM_ZERO if one == "response 1" else _ONE_OR_TWO)
    for prompt in ("instruction", "prompt", "input", "question")
    for one, two in (("output_1", "output_2"), ("response1", "response2"), ("response 1", "response 2"),
                     ("response_1", "response_2"), ("response_a", "response_b"), ("completion_a", "completion_b"),
                     ("answer_a", "answer_b"))
    for label in ("preference", "label", "winner")
)  # fmt: skip
_PANEL = ("annotator1", "annotator2", "annotator3")


def _labelled(make: Callable[[str, str, str, str, str], pairs.Read]) -> tuple[Layout, ...]:
    return tuple(
        Layout(
            f"A/B labels ({label}: {scheme})",
            {prompt: _any, one: _any, two: _any, label: _any},
            make(prompt, one, two, label, scheme),
            label,
        )
        for prompt, one, two, label, scheme in _COMPARED
    )


_RANKINGS = (
    Layout(
        "ranked responses", {"prompt": _any, "responses": _turns}, rankings.ranked_responses("responses"), "responses"
    ),
    Layout(
        "ranked responses", {"prompt": _any, "completions": _turns}, rankings.ranked_responses("completions"),
        "completions",
    ),
    *(
        Layout(
            f"responses with {ranks}", {"prompt": _any, "responses": _list, ranks: _list}, rankings.ranked_texts(ranks)
        )
        for ranks in ("ranks", "scores")
    ),
    *(
        Layout(
            "A/B labels of three raters",
            {"instruction": _text, one: _any, two: _any, **dict.fromkeys(_PANEL, _any)},
            rankings.several_raters("instruction", one, two, _PANEL, _ZERO_TIES),
            "annotator1",
        )
        for one, two in (("response1", "response2"), ("output_1", "output_2"))
    ),
    *_labelled(rankings.ranked_two),
    Layout("OpenAssistant trees", {"message_tree_id": _text, "prompt": _tree}, trees.tree),
    Layout("trees of answers", {"prompt": _tree}, trees.tree),
    Layout(
        "solutions marked right or wrong",
        {"question": _text, "ground_truth": _any, "6b_finetuning": _solution},
        rankings.verified,
    ),
    Layout(
        "TruthfulQA",
        {"Question": _text, "Best Answer": _text, "Correct Answers": _text, "Incorrect Answers": _text},
        rankings.right_and_wrong,
    ),
)  # fmt: skip
_PAIRS = (
    Layout("ShareGPT pairs", {"conversations": _turns, "chosen": _object, "rejected": _object}, pairs.sharegpt),
    Layout(
        "typed-content pairs", {"chosen_messages": _turns, "rejected_messages": _turns},
        pairs.implicit("chosen_messages", "rejected_messages"),
    ),
    Layout(
        "Alpaca pairs", {"instruction": _text, "chosen": _text, "rejected": _text},
        pairs.texts("instruction", "chosen", "rejected"),
    ),
    Layout(
        "TRL standard", {"prompt": _text, "chosen": _text, "rejected": _text},
        pairs.texts("prompt", "chosen", "rejected"),
    ),
    Layout("TRL conversational", {"prompt": _turns, "chosen": _turns, "rejected": _turns}, pairs.conversational),
    Layout("canonical preferences", {"prompt": _turns, "chosen": _text, "rejected": _text}, pairs.responses_as_text),
    Layout(
        "questions with two answers", {"question": _text, "chosen": _text, "rejected": _text},
        pairs.texts("question", "chosen", "rejected"),
    ),
    Layout("HH-RLHF transcripts", {"chosen": _text, "rejected": _text}, pairs.transcripts),
    Layout("TRL implicit prompt", {"chosen": _turns, "rejected": _turns}, pairs.implicit("chosen", "rejected")),
    *(
        Layout(f"ranked pair lists ({name})", {"instruction": _text, name: _list}, pairs.ranked_list)
        for name in ("output",)
    ),
    *_labelled(pairs.labelled),
    *(
        Layout(f"pairs of {o.name}", o.fields, rankings.as_pairs(o.read), o.label)
        for o in _RANKINGS
        if not o.name.startswith("A/B labels (")
    ),
)  # fmt: skip
_DEMONSTRATIONS = (
    Layout("messages", {"messages": _turns}, single.messages("messages")),
    Layout("ShareGPT", {"conversations": _turns}, single.messages("conversations")),
    Layout("TRL prompt and completion, conversational", {"prompt": _turns, "completion": _turns}, single.completion),
    Layout("canonical demonstrations", {"prompt": _turns, "response": _text}, single.canonical_answer),
    *(
        Layout(f"{ask} and {answer}", {ask: _text, answer: _text}, single.answer(ask, answer))
        for ask, answer in (
            ("instruction", "output"), ("instruction", "response"), ("prompt", "completion"), ("prompt", "response"),
            ("question", "answer"),
        )
    ),
    Layout("self-instruct tasks", {"instruction": _text, "instances": _turns}, single.instances),
    Layout("OpenAssistant trees", {"prompt": _tree}, trees.tree_answers),
)  # fmt: skip
_PROMPTS = (
    Layout("conversational prompts", {"prompt": _turns}, single.prompt_turns("prompt")),
    Layout("messages", {"messages": _turns}, single.prompt_turns("messages")),
    Layout("ShareGPT", {"conversations": _turns}, single.prompt_turns("conversations")),
    Layout("turns", {"turns": _list}, single.first_turn),
    *(
        Layout(f"texts in {name!r}", {name: _text}, single.prompt_text(name))
        for name in ("prompt", "question", "instruction", "Behavior", "goal", "Question", "text")
    ),
    Layout("HH-RLHF transcripts", {"chosen": _text, "rejected": _text}, single.prompt_transcript),
    Layout("OpenAssistant trees", {"prompt": _tree}, trees.tree_prompt),
)
_JUDGED = (("prompt", "completion"), ("prompt", "response"), ("context", "response"), ("question", "answer"),
           ("instruction", "output"))  # fmt: skip
_FEEDBACK = (
    Layout(
        "TRL unpaired, conversational", {"prompt": _turns, "completion": _turns, "label": _any},
        single.unpaired_turns, "label",
    ),
    Layout("labelled messages", {"messages": _turns, "label": _any}, single.unpaired_messages, "label"),
    Layout("canonical feedback", {"prompt": _turns, "response": _text, "rater": _any}, single.canonical_feedback, "label"),
    *(
        Layout(f"labelled {reply}", {ask: _text, reply: _text, "label": _any}, single.unpaired(ask, reply, "label"), "label")
        for ask, reply in _JUDGED
    ),
    *(
        Layout(f"responses with {name}", {"prompt": _text, "response": _text, name: _any}, single.scored(name), name)
        for name in ("score", "scores", "gpt4_score", "rating")
    ),
    Layout(
        "graded by two raters",
        {"prompt": _text, "completion": _text, "annotation_1": _text, "annotation_2": _text},
        single.graded("prompt", "completion", "annotation_1", "annotation_2"),
    ),
    Layout(
        "two answers that are acceptable or not",
        {"prompt": _text, "completion_a": _any, "completion_b": _any, "completion_a_is_acceptable": _any},
        rankings.acceptable("prompt", "completion_a", "completion_b"),
        "completion_a_is_acceptable",
    ),
)  # fmt: skip
_CORPUS = tuple(
    Layout(f"texts in {name!r}", {name: _text}, single.document(name))
    for name in ("text", "content", "document")
)
LAYOUTS: dict[Kind, tuple[Layout, ...]] = {
    "corpus": _CORPUS,
    "demonstrations": _DEMONSTRATIONS,
    "prompts": _PROMPTS,
    "preferences": _PAIRS,
    "rankings": _RANKINGS,
    "feedback": _FEEDBACK,
}
