"""Closed batches in their order, and how many rankings people had given by then."""

from rlhf.feedback import batches, imports


def rankings(number: int) -> str:
    return "\n".join(
        f'{{"prompt_id": "p{number}-{row}", "prompt": "Hi?", "responses": ["a", "b"], "ranks": [1, 2]}}'
        for row in range(number)
    )


def test_rankings_are_counted_up_to_a_batch_without_open_and_simulated_ones(feedback, make_batch):
    make_batch(4, key="open")
    simulated = make_batch(4, key="simulated", simulated=True)
    batches.close(feedback, simulated.id, "a test")
    first, second = (
        imports.keep(feedback, imports.read(rankings(size), "jsonl"), f"of {size}") for size in (2, 3)
    )
    assert [batch.name for batch in batches.closed(feedback)] == ["batch", "of 2", "of 3"]
    assert batches.ranked_by_people(feedback, until=first) == 2
    assert batches.ranked_by_people(feedback, until=second) == 5
    # A batch that is told of late does not count what came after it.
    assert batches.ranked_by_people(feedback, until=batches.find(feedback, "of 2")) == 2
