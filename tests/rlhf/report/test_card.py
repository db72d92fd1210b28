import yaml
from huggingface_hub import ModelCard

from rlhf.report.card import card
from rlhf.report.content import ReportContent
from schemas.config import RunConfig
from schemas.refs import FileRef
from schemas.reports import GateRule, StageRecord

PROVENANCE = {"code_revision": "abc1234", "config_digest": "c" * 64}


def test_the_hub_reads_the_front_matter_and_finds_the_results(content: ReportContent):
    found = ModelCard(card(content, "ppo", PROVENANCE))
    assert found.data.library_name == "transformers"
    assert found.data.pipeline_tag == "text-generation"
    assert found.data.tags == ["rlhf", "ppo", "seed-0"]
    results = {result.metric_type: result.metric_value for result in found.data.eval_results}
    assert results["win_rate"] == 0.775
    assert results["kl"] == 12.3
    assert found.data.base_model is None


def test_it_says_what_was_measured_decided_and_what_was_not(content: ReportContent):
    absent = GateRule(
        name="harmful answers", wanted="at most 2.0% more", found="not measured", verdict="not measured"
    )
    rules = {"ppo": (*content.gate.rules["ppo"], absent), "dpo": content.gate.rules["dpo"]}
    text = card(
        content.model_copy(update={"gate": content.gate.model_copy(update={"rules": rules})}),
        "ppo",
        PROVENANCE,
    )
    assert "| win rate over SFT | 77.5% (74.1% to 80.8%) | |" in text
    assert "Verdict when it was registered: **pass**, compared with SFT, as there was no champion." in text
    assert "Not measured: harmful answers." in text
    assert "code `abc1234`" in text
    assert "The weakest is wrong fact" in text
    assert content.command in text
    assert "Data and judge are generated" in text


def test_a_base_from_the_hub_is_named_for_the_hub(content: ReportContent):
    tree = content.config.model_dump(mode="json")
    tree["base"] = {"source": "HuggingFaceTB/SmolLM2-135M", "revision": "main"}
    based = content.model_copy(update={"config": RunConfig.model_validate(tree)})
    text = card(based, "dpo", PROVENANCE)
    assert yaml.safe_load(text.split("---")[1])["base_model"] == "HuggingFaceTB/SmolLM2-135M"
    assert "under the terms of that model" in text


def test_the_stages_behind_the_model_are_listed_with_what_they_read(content: ReportContent):
    def ref(letter: str) -> FileRef:
        return FileRef(uri=f"file:///data/{letter}.jsonl", digest="sha256:" + letter * 64)

    def stage(name: str, reads: str, writes: str) -> StageRecord:
        return StageRecord(
            name=name,
            status="ran",
            seconds=1,
            run_id="r",
            inputs={"in": ref(reads)},
            outputs={"out": ref(writes)},
        )

    made = (stage("sft", "a", "b"), stage("ppo", "b", "c"), stage("dpo", "b", "d"))
    first = StageRecord(
        name="validate", status="ran", seconds=1, run_id="r", outputs={"table": ref("a")}, files=(ref("f"),)
    )
    text = card(content.model_copy(update={"stages": (first, *made)}), "ppo", PROVENANCE)
    table = text.split("## Where it comes from")[1]
    assert "| validate | f.jsonl `ffffffffffff` | table `aaaaaaaaaaaa` |" in table
    assert "| ppo | in `bbbbbbbbbbbb` | out `cccccccccccc` |" in table
    assert "| dpo |" not in table
    assert PROVENANCE["config_digest"] in table
