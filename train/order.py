"""The order of training: every row of every step, fixed by the seed before training begins. Pure.

Because the order is a list, resuming at step k is starting at row k·batch of it, and nothing else.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence

SPAN = 8  # batches of rows that are sorted by length together: less padding, still a random order


def total_steps(rows: int, epochs: float, batch: int) -> int:
    """Optimiser steps for so many passes over so many rows; at least one."""
    return max(1, math.ceil(rows * epochs / batch))


def training_order(lengths: Sequence[int], rehearsal: Sequence[bool], steps: int, batch: int, seed: int) -> list[int]:
    """Row numbers, `steps` x `batch` of them: step s trains on the rows s·batch … (s+1)·batch − 1 of the list.

    Every pass takes each row once, shuffled. Rows of like length come together to spare padding, and every batch gets
    its even share of the rehearsal, so that the pull towards the base is as steady as the pull away from it.
    """
    batches = _batches(lengths, rehearsal, batch, seed)
    order: list[int] = []
    while len(order) < steps * batch:
        order.extend(next(batches))
    return order[: steps * batch]


def _batches(lengths: Sequence[int], rehearsal: Sequence[bool], batch: int, seed: int) -> Iterator[list[int]]:
    task = _endless([i for i, one in enumerate(rehearsal) if not one], lengths, batch, seed)
    replay = _endless([i for i, one in enumerate(rehearsal) if one], lengths, batch, seed + 1)
    share = sum(rehearsal) / len(rehearsal)
    number = 0
    while True:
        replayed = math.floor((number + 1) * share * batch + 1e-9) - math.floor(number * share * batch + 1e-9)
        rows = [next(replay) for _ in range(replayed)] + [next(task) for _ in range(batch - replayed)]
        # micro-batches are cut from this list in order; by length, each has little padding
        yield sorted(rows, key=lambda row: (-lengths[row], row))
        number += 1


def _endless(rows: Sequence[int], lengths: Sequence[int], batch: int, seed: int) -> Iterator[int]:
    """The rows, pass after pass, each pass in an order of its own."""
    number = 0
    while rows:
        rng = random.Random(f"{seed}-{number}")
        shuffled = rng.sample(rows, len(rows))
        chunks = []
        for at in range(0, len(shuffled), SPAN * batch):
            span = sorted(shuffled[at : at + SPAN * batch], key=lambda row: lengths[row])
            chunks += [span[i : i + batch] for i in range(0, len(span), batch)]
        rng.shuffle(chunks)
        for chunk in chunks:
            yield from chunk
        number += 1
