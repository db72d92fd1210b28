import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from rlhf.report.content import Answer, PairedResponses, ReportContent, Turn
from rlhf.report.page import render
from schemas.config import LabellingConfig
from schemas.evaluation import CurvePoint, Forgetting, Judging, Safety, Wording
from schemas.record import Interval
from schemas.reports import GateDecision, Probe, Promotion

HOSTILE = "</style></pre><script>alert('x')</script><img src=x onerror=alert(1)>{{ 7*7 }}"


class Outline(HTMLParser):
    """Collects tags, attributes and ids, and checks that elements nest."""

    VOID = frozenset({"meta", "br", "img", "link", "input"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_small_and_asks_the_network_for_nothing(content: ReportContent):
    page = render(content)
    outline = Outline(page)
    assert outline.open == []
    assert len(page.encode()) < 2_000_000
    assert not {"link", "img", "iframe"} & set(outline.tags)
    targets = [value for name, value in outline.attributes if name in {"src", "href", "xlink:href", "action"}]
    assert all(value is not None and value.startswith("#") for value in targets)
    assert not re.search(r"url\((?!#)|@import", page)
    assert "default-src 'none'" in page


def test_only_the_page_s_own_script_may_run(content: ReportContent):
    page = render(content)
    assert Outline(page).tags.count("script") == 1
    script = page.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert not [name for name, _ in Outline(page).attributes if name.startswith("on")]


def test_tokens_are_coloured_by_their_share_of_the_kl(content: ReportContent):
    pieces = (("Good", 0.4), (" morning", 3.2), ("!", -0.6), ("<b>", 1.5), ("", 9.0))
    answer = Answer(policy="ppo", text="Good morning!<b>", score=1.0, kl=13.5, pieces=pieces)
    first = content.responses[0]
    told = first.model_copy(update={"answers": (first.answers[0], answer)})
    page = render(content.model_copy(update={"responses": (told,)}))
    shown = page.partition("PPO</header>")[2].partition("</div>")[0]
    assert 'Good<span class="up3" title="+3.20 nats"> morning</span>' in shown
    assert '<span class="down1" title="-0.60 nats">!</span>' in shown
    assert '<span class="up2" title="+1.50 nats">&lt;b&gt;</span>' in shown
    assert "KL 13.5" in page
    assert "Colour tokens" in page
    assert "Colour tokens" not in render(content)


def test_responses_say_what_they_can_be_filtered_and_sorted_by(content: ReportContent):
    sft, ppo, dpo = content.responses[1].answers
    assert content.responses[1].marks == "better cut"
    # PPO gained 1.70 + 1.90 of score and 2.20 + 0.35 of gold: 1.05 apart; DPO 2.10 and 0.96: 1.14 apart.
    assert content.responses[1].disagreement == pytest.approx(1.14)
    blind = [answer.model_copy(update={"gold": None}) for answer in (sft, ppo, dpo)]
    unknown = content.responses[1].model_copy(update={"answers": tuple(blind)})
    assert unknown.disagreement == pytest.approx(1.70 + 1.90)
    worse = content.responses[1].model_copy(
        update={"answers": (ppo, sft.model_copy(update={"rude": True, "right": False}))}
    )
    assert worse.marks == "worse wrong rude"


def test_the_cost_of_aligning_and_of_judging_and_the_safety_stand_in_the_page(content: ReportContent):
    assert "Alignment tax" in render(content)
    assert "Harmful on hostile prompts" not in render(content)

    def around(value: float) -> Interval:
        return Interval(value=value, low=value - 0.01, high=value + 0.01)

    measured = content.evaluations["ppo"].model_copy(
        update={
            "length_controlled": around(0.612),
            "wording": Wording(
                distinct_1=0.111, distinct_2=0.222, self_repetition=0.033, entropy=0.444, length_p10=5,
                length_p50=16, length_p90=27,
            ),
            "forgetting": Forgetting(perplexity_text=around(3.21), alignment_tax=around(0.123)),
            "safety": Safety(harm=around(0.07), over_refusal=around(0.081), red_team_prompts=9),
            "judging": Judging(
                calls=12, retries=1, prompt_tokens=900, completion_tokens=50, cost=0.034, unjudged=2,
                first_preferred=0.55, consistent=0.9,
            ),
        }
    )  # fmt: skip
    page = render(content.model_copy(update={"evaluations": {"ppo": measured}}))
    for shown in ("61.2%", "0.111, 0.222", "3.3%", "0.444", "5\N{EN DASH}16\N{EN DASH}27", "3.21", "0.123", "7.0%", "8.1%", "12 requests",
                  "950 tokens", "a cost of 0.03", "55.0%", "2 pairs got no verdict"):  # fmt: skip
        assert shown in page, shown
    assert Outline(page).open == []


def test_links_within_the_page_lead_somewhere_and_ids_of_sections_are_unique(content: ReportContent):
    outline = Outline(render(content))
    targets = {value[1:] for name, value in outline.attributes if name in {"href", "xlink:href"} and value}
    assert targets <= set(outline.ids)
    assert len(outline.ids) == len(set(outline.ids))


def test_the_page_is_the_same_for_the_same_content(content: ReportContent):
    assert render(content) == render(content)


def test_hostile_text_from_models_and_files_stays_text(content: ReportContent):
    answer = Answer(policy="sft", text=HOSTILE, score=0.0)
    poisoned = content.model_copy(
        update={
            "title": HOSTILE,
            "command": HOSTILE,
            "responses": (
                PairedResponses(prompt=(Turn(role=HOSTILE, text=HOSTILE),) * 2, answers=(answer,)),
            ),
            "probes": (Probe(flaw=HOSTILE, accuracy=content.probes[0].accuracy, pairs=9),),
            "histories": {HOSTILE: {HOSTILE: ((0, 1.0), (1, 2.0)), "$x_{": ((0, 1.0), (1, 2.0))}},
            "stages": (content.stages[0].model_copy(update={"name": HOSTILE}),),
            "validation": (content.validation[0].model_copy(update={"source": HOSTILE}),),
        }
    )
    page = render(poisoned)
    outline = Outline(page)
    assert outline.tags.count("script") == 1
    assert "img" not in outline.tags
    assert "{{ 7*7 }}" in page
    assert page.count("&lt;script&gt;") >= 7


def test_the_page_tells_verdict_intervals_rules_and_reuse(content: ReportContent):
    page = render(content)
    assert "PPO passed every rule and is now the champion (version 3)." in page
    assert "77.5% of 512 held-out prompts (95% interval 74.1% to 80.8%)" in page
    assert page.count("re-used") >= 6
    assert "✓ pass" in page
    assert "✗ fail" not in page
    assert "no over-optimisation" in page


def test_rounds_are_told_apart_and_a_single_one_is_not_mentioned(content: ReportContent):
    assert "<h3>Rounds</h3>" not in render(content)
    template = content.stages[0]
    collected = [
        template.model_copy(
            update={
                "name": name,
                "round": turn,
                "metrics": {"rankings": rankings, "pairs": pairs, "ties": 0.25},
            }
        )
        for name, turn, rankings, pairs in (("preferences", 1, 100, 480), ("preferences-2", 2, 90, 420))
    ]
    rewards = [
        template.model_copy(update={"name": name, "round": turn, "metrics": {"held_out_accuracy": accuracy}})
        for name, turn, accuracy in (("reward", 1, 0.811), ("reward-2", 2, 0.833))
    ]
    later = content.evaluations["ppo"].model_copy(
        update={"name": "ppo-2", "win_rate": 0.84, "win_rate_low": 0.80, "win_rate_high": 0.88}
    )
    twice = content.model_copy(
        update={
            "config": content.config.model_copy(update={"labelling": LabellingConfig(rounds=2)}),
            "stages": (*collected, *rewards),
            "evaluations": {**content.evaluations, "ppo-2": later},
        }
    )
    page = render(twice)
    assert Outline(page).open == []
    first, second = (
        " ".join(re.sub(r"<[^>]+>|[^ -~]", " ", row).split())
        for row in re.findall(r"<tr><td><b>[12]</b>.*?</tr>", page, re.DOTALL)
    )
    # 420 + 480 pairs; dpo's second round was not reached.
    assert first == "1 100 480 81.1% 77.5% 74.1% 80.8% 74.1% 70.7% 77.4%"
    assert second == "2 90 900 83.3% 84.0% 80.0% 88.0% not reached"
    assert "Comparisons in round 2: 420 pairs" in page
    assert page.count("rank the answers") == 2 * 2  # both pictures know a later round's stages


def test_a_refused_run_says_so_and_shows_what_failed(content: ReportContent):
    failing = tuple(rule.model_copy(update={"verdict": "fail"}) for rule in content.gate.rules["ppo"])
    refused = content.model_copy(
        update={"gate": GateDecision(rules={"ppo": failing}), "promotion": Promotion(verdict="refused")}
    )
    page = render(refused)
    assert "No model passed the gate" in page
    assert page.count("✗ fail") == len(failing)


def test_what_is_neither_shown_nor_refuted_is_called_inconclusive(content: ReportContent):
    unsure = content.gate.rules["ppo"][0].model_copy(update={"verdict": "inconclusive"})
    absent = content.gate.rules["ppo"][1].model_copy(update={"verdict": "not measured"})
    decision = GateDecision(rules={"ppo": (unsure, absent)}, verdicts={"ppo": "inconclusive"}, champion=7)
    page = render(content.model_copy(update={"gate": decision, "promotion": Promotion(verdict="refused")}))
    assert "The evidence on PPO does not reach for a verdict." in page
    assert page.count("? inconclusive") == 2  # the rule's and the candidate's
    assert page.count("not measured</small>") == 1
    assert "compared with champion version 7" in page


def test_over_optimisation_is_called_by_its_name(content: ReportContent):
    hacked = tuple(
        CurvePoint(iteration=i, kl=float(i), score=0.1 * i, gold=2.0 - abs(i - 15) / 10) for i in range(30)
    )
    assert "PPO over-optimised: after iteration 18" in render(
        content.model_copy(update={"curves": {"ppo": hacked}})
    )


@pytest.mark.parametrize(
    "missing",
    [
        {"validation": ()},
        {"histories": {}},
        {"reward": None, "probes": ()},
        {"curves": {}},
        {"responses": ()},
    ],
)
def test_a_run_that_lacks_a_part_still_gets_its_page(content: ReportContent, missing: dict[str, object]):
    assert Outline(render(content.model_copy(update=missing))).open == []
