"""The pipeline as one flow: demonstrate, compare, reinforce, and keep the evidence."""

from prefect import flow

from schemas.config import RunConfig
from schemas.reports import RunSummary
from tasks.align import align
from tasks.evaluate import evaluate_policy
from tasks.gate import decide
from tasks.preferences import collect_preferences
from tasks.pretrain import import_base, pretrain_base
from tasks.register import register_models
from tasks.report import write_report
from tasks.reward import probe_reward, train_reward
from tasks.run import pipeline_run, summarise
from tasks.sample import sample_candidates
from tasks.sft import train_sft
from tasks.validate import validate
from tasks.waiting import wait_for_people


@flow(name="rlhf", flow_run_name="{config.name}-seed{config.seed}")
def rlhf(config: RunConfig, fresh: bool = False, until: str | None = None) -> RunSummary:
    """Ouyang et al. 2022, figure 2, from raw text to a registered model.

    `fresh` computes every stage again; `until` stops after the stage of that name.
    """
    with pipeline_run(config, fresh=fresh, until=until) as run:
        data = validate(run, config.data)
        base = (
            import_base(run, config.base) if config.base else pretrain_base(run, data.corpus, config.pretrain)
        )
        # Step 1: supervise
        sft = train_sft(run, base.model, data.demonstrations, config.sft)
        # Step 2: compare, and learn the comparison
        sampled = sample_candidates(run, sft.model, data.prompts, config.sample)
        wait_for_people(run, sampled.candidates, config.data, config.preferences)
        collected = collect_preferences(
            run, sampled.candidates, data.preferences, config.data, config.preferences
        )
        reward = train_reward(run, sft.model, collected.preferences, sampled.candidates, config.reward)
        probe_reward(run, reward.model, config.data, config.evaluate)
        # Step 3: reinforce, tethered to the SFT policy by KL
        policies = {
            aligner.name: align(run, sft.model, reward.model, data.prompts, collected.preferences, aligner)
            for aligner in config.aligners
        }
        # Step 4: judge against the SFT policy, and promote only what has shown to be better
        judge = (sft.model, reward.model, data.held_out)
        baseline = evaluate_policy.named("evaluate-sft")(
            run, "sft", sft.model, *judge, None, None, config.data, config.evaluate
        )
        judged = {
            name: evaluate_policy.named(f"evaluate-{name}")(
                run,
                name,
                policy.model,
                *judge,
                baseline.samples,
                policy.rollouts,
                config.data,
                config.evaluate,
            )
            for name, policy in policies.items()
        }
        decision = decide(run, baseline, judged, config.evaluate, config.gate)
        register_models(run, policies, judged, decision)
        write_report(run)
    return summarise(run.run_id)
