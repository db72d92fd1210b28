from schemas.record import Interval
from schemas.standings import PairStanding, Spent, Standing, Standings

NOTHING = Interval(value=0.1, low=-0.2, high=0.4)


def standings(*, apart: bool, unit: str = "prompt") -> Standings:
    return Standings.model_validate(
        {
            "recipe": "mine",
            "runs": ("1",),
            "seeds": (0,),
            "measure": "gold",
            "unit": unit,
            "units": 512,
            "confidence": 0.95,
            "policies": tuple(
                Standing(
                    name=name,
                    method=name,
                    rank=rank,
                    letters="a",
                    value=Interval(value=2.0 - rank, low=1.5 - rank, high=2.5 - rank),
                    measures={"gold": 2.0 - rank, "kl": 3.0, "length": 20.0},
                    spent=Spent(seconds=float(rank)),
                    tokens_per_answer=20.0,
                )
                for rank, name in ((1, "ppo"), (2, "<b>dpo</b>"))
            ),
            "pairs": (
                PairStanding(first="ppo", second="<b>dpo</b>", difference=NOTHING, p_value=0.2, apart=apart),
            ),
            "shared": {"reward": Spent(seconds=9.0)},
        }
    )


def test_what_the_data_cannot_tell_is_said_with_its_interval():
    said = " ".join(standings(apart=False).sentences)
    assert "ppo and <b>dpo</b> cannot be told apart: +0.100 [-0.200, +0.400]" in said
    assert "512 prompts of one run" in said
    assert "another seed may order them otherwise" in said


def test_seeds_are_no_single_run_and_what_is_told_apart_is_not_excused():
    said = " ".join(standings(apart=True, unit="seed").sentences)
    assert "cannot be told apart" not in said
    assert "another seed" not in said
    assert "All are told apart." in said
