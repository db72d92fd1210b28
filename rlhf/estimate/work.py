"""How many tokens each stage works on, from the recipe and the mean lengths of prompts and responses."""

from collections.abc import Iterator
from dataclasses import dataclass

from schemas.config import BestOfNConfig, RejectionSamplingConfig, RunConfig
from schemas.config.aligners import KTOConfig, PPOConfig
from schemas.config.aligners.online import OnlineSection
from schemas.config.aligners.pairwise import PairwiseSection
from schemas.config.run import of_round
from schemas.config.section import Section
from schemas.config.supervised import OptimiserConfig
from schemas.estimates import Work


@dataclass(frozen=True, slots=True)
class Lengths:
    """Mean lengths in tokens."""

    prompt: float
    response: float

    @property
    def sequence(self) -> float:
        """Of a prompt with its response."""
        return self.prompt + self.response


def work(config: RunConfig, lengths: Lengths) -> dict[str, Work]:
    """Return the work of every stage that samples or trains, in the order in which they run."""
    stages = {} if config.base else {"pretrain": _pretrain(config)}
    stages["sft"] = _fitted(config.sft, lengths, sequences=1)
    for number in range(1, config.labelling.rounds + 1):
        stages |= {of_round(name, number): found for name, found in _round(config, lengths)}
    return stages


def _round(config: RunConfig, lengths: Lengths) -> Iterator[tuple[str, Work]]:
    sample = config.sample
    responses = sample.num_prompts * sample.num_responses
    from_files = config.preferences.source == "files"
    compared = 2 if from_files else sample.num_responses
    yield (
        "sample",
        Work(drawn=responses * _drawn(lengths, sample.max_new_tokens), rows=sample.batch_size),
    )
    reward = _fitted(config.reward, lengths, sequences=compared)
    yield "reward", reward
    if config.preferences.judging_fraction:
        yield "judge", reward
    for aligner in config.aligners:
        yield aligner.name, _aligned(aligner, lengths)
    evaluate = config.evaluate
    # Best-of-n draws so many responses for each that it gives, and has the reward model read them all.
    drawings = {one.name: one.n for one in config.aligners if isinstance(one, BestOfNConfig)}
    for policy in ("sft", *(aligner.name for aligner in config.aligners)):
        drawn = _drawn(lengths, evaluate.max_new_tokens)
        each = drawings.get(policy, 1)
        # The reward model, and but for SFT itself both policies' log-probabilities, read each response.
        passes = 1 if policy == "sft" else 3
        yield (
            f"evaluate-{policy}",
            Work(
                drawn=evaluate.num_prompts * each * drawn,
                read=evaluate.num_prompts * (passes + each - 1) * (lengths.prompt + drawn),
                rows=min(evaluate.batch_size, evaluate.num_prompts),
            ),
        )


def _pretrain(config: RunConfig) -> Work:
    section = config.pretrain
    return Work(trained=float(section.steps * section.batch_size * section.block_size))


def _fitted(section: OptimiserConfig, lengths: Lengths, *, sequences: int) -> Work:
    """Examples of so many sequences each, cut at the maximal length."""
    length = min(lengths.sequence, section.max_length)
    return Work(trained=section.steps * section.batch_size * sequences * length)


def _aligned(section: Section, lengths: Lengths) -> Work:
    if isinstance(
        section, RejectionSamplingConfig
    ):  # the reward model reads all responses, training the best ones
        tried = section.rounds * section.num_prompts * section.n
        drawn = _drawn(lengths, section.max_new_tokens)
        return Work(
            drawn=tried * drawn,
            read=tried * (lengths.prompt + drawn),
            trained=section.rounds * _fitted(section, lengths, sequences=1).trained,
            rows=section.sample_batch_size,
        )
    if isinstance(
        section, KTOConfig
    ):  # single responses; policy and reference read each with another prompt, too
        responses = _fitted(section, lengths, sequences=1)
        return Work(trained=responses.trained, read=3 * responses.trained)
    if isinstance(section, OptimiserConfig):  # pairs; the reference, if there is one, reads each once per use
        pairs = _fitted(section, lengths, sequences=2)
        return Work(
            trained=pairs.trained, read=0.0 if isinstance(section, PairwiseSection) else pairs.trained
        )
    return _online(section, lengths) if isinstance(section, OnlineSection) else Work()


def _online(section: OnlineSection, lengths: Lengths) -> Work:
    responses = section.iterations * section.batch_size
    drawn = _drawn(lengths, section.max_new_tokens)
    sequence = lengths.prompt + drawn
    trained_models = 2 if has_critic(section) else 1
    # Old log-probabilities, reference, reward model, and a critic of its own read each response once.
    read_by = 2 + trained_models
    return Work(
        drawn=responses * drawn,
        read=responses * read_by * sequence,
        trained=responses * section.epochs * trained_models * sequence,
        rows=section.batch_size,
    )


def has_critic(section: OnlineSection) -> bool:
    """Tell whether an aligner trains a critic beside the policy."""
    return isinstance(section, PPOConfig) and not section.shared_trunk


def _drawn(lengths: Lengths, most: int) -> float:
    return min(lengths.response, most)
