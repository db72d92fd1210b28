"""The pipeline as one flow: demonstrate, compare, reinforce, and keep the evidence."""

from prefect import flow

from schemas.config import RunConfig
from schemas.pipeline import AlignerInputs, Round, Trial, collected_before, evaluations_of, policies_of
from schemas.reports import RunSummary
from schemas.sweep import SweptRun
from tasks.align import align
from tasks.approval import wait_for_approval
from tasks.champion import face_champion
from tasks.endings import cancelled_if_asked_for
from tasks.evaluate import judge
from tasks.gate import decide
from tasks.judge import train_judge
from tasks.preferences import collect_preferences
from tasks.pretrain import import_base, pretrain_base
from tasks.reference import score_reference
from tasks.register import register_models
from tasks.report import write_report
from tasks.reward import probe_reward, reward_base, train_reward
from tasks.run import pipeline_run, summarise
from tasks.sample import sample
from tasks.sft import train_sft
from tasks.validate import validate
from tasks.waiting import wait_for_people


@flow(name="rlhf", flow_run_name="{config.name}-seed{config.seed}", on_crashed=[cancelled_if_asked_for])
def rlhf(
    config: RunConfig, fresh: bool = False, until: str | None = None, swept: SweptRun | None = None
) -> RunSummary:
    """Ouyang et al. 2022, figure 2, from raw text to a registered model.

    `fresh` computes every stage again; `until` stops after the stage of that name; `swept` says of
    which sweep this run is one.
    """
    with pipeline_run(config, fresh=fresh, until=until, swept=swept) as run:
        data = validate(run, config.data)
        base = (
            import_base(run, config.base) if config.base else pretrain_base(run, data.corpus, config.pretrain)
        )
        # Step 1: supervise
        sft = train_sft(run, base.model, data.demonstrations, config.sft)
        rounds: list[Round] = []
        for turn in run.rounds(config.labelling.rounds):
            # Step 2: compare, and learn the comparison
            sampled = sample(turn, sft.model, rounds, data.prompts, config.sample, config.labelling)
            wait_for_people(turn, sampled.candidates, config.data, config.preferences)
            collected = collect_preferences(
                turn,
                sampled.candidates,
                data.preferences,
                collected_before(rounds),
                config.data,
                config.preferences,
            )
            start = reward_base(turn, sft.model, config.reward)
            reward = train_reward(
                turn,
                start,
                collected.preferences,
                collected.rankings,
                collected.rater_weights,
                sampled.of_sft,
                config.reward,
            )
            probe_reward(turn, reward.model, reward.held_out, config.data, config.reward, config.evaluate)
            # Step 3: reinforce, tethered to the SFT policy by KL
            reference = score_reference(turn, sft.model, collected.preferences, config.reference_uses)
            given = AlignerInputs.gather(data, sft.model, collected, reward, reference)
            policies = {aligner.name: align(turn, given, aligner) for aligner in config.aligners}
            # Step 4: judge against the SFT policy; the next round ranks what the new policies say
            judging = train_judge(turn, start, collected, sampled.of_sft, config.reward)
            trial = Trial(
                sft=sft.model,
                reward=reward.model,
                judging=judging,
                held_out=data.evaluation,
                data=config.data,
                config=config.evaluate,
            )
            baseline, judged = judge(turn, trial, policies)
            rounds.append(
                Round(
                    run=turn,
                    candidates=sampled.candidates,
                    preferences=collected,
                    reward=reward.model,
                    policies=policies,
                    judged=judged,
                )
            )
        # Promote only what has shown to be better than the champion
        policies, judged = policies_of(rounds), evaluations_of(rounds)
        contest = face_champion(run, trial, policies, judged, baseline)
        decision = decide(
            run,
            baseline,
            judged,
            contest.champion,
            contest.incumbent,
            contest.verdicts,
            config.evaluate,
            config.gate,
        )
        outcome = (policies, judged, decision, config.gate)
        promotion = register_models(run, *outcome)
        write_report(run)
        if wait_for_approval(run, promotion, config.gate):
            register_models(run, *outcome)
            write_report(run)
    return summarise(run.run_id)
