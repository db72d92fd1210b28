"""What the reward model can tell apart: pairs that are equal but for one flaw."""

from itertools import groupby
from pathlib import Path

import torch

from rlhf.data.chat import encode_prompt, encode_response
from rlhf.data.helpdesk.probes import counterfactual_pairs
from rlhf.data.helpdesk.world import World
from rlhf.evaluation.intervals import wilson
from rlhf.models.loading import load_tokenizer
from rlhf.models.precision import Precision, autocast
from rlhf.models.reward import RewardModel
from schemas.reports import Probe


def probe_reward(
    reward: Path,
    world: World,
    *,
    num_pairs: int,
    batch_size: int,
    confidence: float,
    seed: int,
    precision: Precision,
) -> tuple[Probe, ...]:
    """Measure, per kind of flaw, how often the response without it scores higher; a tie counts half.

    A low accuracy foretells what an aligner will exploit.
    """
    model, tokenizer = RewardModel.load(reward, device=precision.device), load_tokenizer(reward)
    pairs = sorted(counterfactual_pairs(world, num_pairs, seed), key=lambda pair: pair.flaw)
    ids = [
        encode_prompt(tokenizer, [{"role": "user", "content": pair.question}])
        + encode_response(tokenizer, response)
        for pair in pairs
        for response in (pair.better, pair.worse)
    ]
    with torch.no_grad(), autocast(precision):
        better_B, worse_B = model.normalised_scores(ids, batch_size=batch_size).view(-1, 2).T
    wins = ((better_B > worse_B) + 0.5 * (better_B == worse_B)).tolist()
    probes = []
    for flaw, group in groupby(zip(pairs, wins, strict=True), key=lambda judged: judged[0].flaw):
        outcomes = [win for _, win in group]
        probes.append(
            Probe(flaw=flaw, accuracy=wilson(sum(outcomes), len(outcomes), confidence), pairs=len(outcomes))
        )
    return tuple(probes)
