"""The order of training: every row once a pass, an even share of rehearsal, fixed by the seed."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from train.order import total_steps, training_order


@given(
    task=st.integers(1, 60),
    replay=st.integers(0, 20),
    batch=st.integers(1, 9),
    passes=st.integers(1, 3),
    seed=st.integers(0, 5),
)
def test_every_row_as_often_as_any_other(task: int, replay: int, batch: int, passes: int, seed: int) -> None:
    rows = task + replay
    lengths = [(7 * i) % 50 + 1 for i in range(rows)]
    flags = [i >= task for i in range(rows)]
    steps = total_steps(rows, passes, batch)
    order = training_order(lengths, flags, steps, batch, seed)
    assert len(order) == steps * batch
    assert order == training_order(lengths, flags, steps, batch, seed)
    counts = Counter(order)
    for kind in (False, True):
        seen = [counts[i] for i in range(rows) if flags[i] is kind]
        if seen:
            assert max(seen) - min(seen) <= 1


def test_each_batch_has_its_share_of_rehearsal() -> None:
    flags = [i >= 90 for i in range(100)]
    order = training_order([10] * 100, flags, 40, 16, 1)
    shares = [sum(flags[row] for row in order[at : at + 16]) for at in range(0, len(order), 16)]
    assert set(shares) == {1, 2}
    assert sum(shares) == 64


def test_another_seed_is_another_order() -> None:
    assert training_order([1] * 50, [False] * 50, 5, 10, 1) != training_order([1] * 50, [False] * 50, 5, 10, 2)


def test_rows_of_like_length_come_together() -> None:
    lengths = [(37 * i) % 200 + 1 for i in range(512)]
    order = training_order(lengths, [False] * 512, 32, 16, 3)

    def padded(rows: list[int]) -> int:
        return sum(16 * max(lengths[row] for row in rows[at : at + 16]) for at in range(0, 512, 16))

    assert padded(order) < 0.75 * padded(list(range(512)))
