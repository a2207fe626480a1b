"""More than one process (`accelerate launch`): who writes, and what all must know. Alone, it costs nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from curate.errors import TrainingError
from train.recipe import Recipe

T = TypeVar("T")
R = TypeVar("R")
PATIENCE = timedelta(hours=12)  # a process waits while the main one renders, answers or writes


class ElsewhereError(TrainingError):
    """The main process met an error; it is the one to say which."""


def count() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of them this one is; 0 is the main one."""
    return int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """Whether this is the process that writes files and speaks."""
    return rank() == 0


def is_sharded() -> bool:
    """Whether the launcher asked for FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true", "yes")


def join(device: str) -> None:
    """Meet the other processes, once; `device` is cpu or cuda. Does nothing alone."""
    if count() > 1:
        from accelerate import PartialState

        PartialState(cpu=device == "cpu", timeout=PATIENCE)


def check_processes(recipe: Recipe) -> None:
    """Raise `TrainingError` where the recipe cannot be trained by so many processes."""
    training = recipe.training
    if training.batch % (training.micro_batch * count()):
        raise TrainingError(
            f"batch ({training.batch}) is no multiple of micro_batch ({training.micro_batch}) x {count()} processes",
            fix="the batch is that of all processes together: change training.batch or training.micro_batch",
        )
    if is_sharded() and recipe.guards.kl_to_base:
        raise TrainingError(
            "guards.kl_to_base is not offered with FSDP: its second forward pass calls parts of the model alone",
            fix="set guards.kl_to_base: null (rehearsal and the budget stay), or launch without FSDP (DDP)",
        )


def everyones(value: T) -> list[T]:
    """The value of each process, in their order, known to all of them."""
    if count() == 1:
        return [value]
    from torch import distributed

    found: list[Any] = [None] * count()
    distributed.all_gather_object(found, value)
    return found


def from_main(make: Callable[[], T]) -> T:
    """What `make` gives in the main process, known to all. Its error is raised there, else `ElsewhereError`."""
    if count() == 1:
        return make()
    failed: BaseException | None = None
    value: Any = None
    if is_main():
        try:
            value = make()
        except BaseException as error:  # whatever it is, the others must not wait for a value that never comes
            failed = error
    value, lost = everyones((value, failed is not None))[0]
    if failed is not None:
        raise failed
    if lost:
        raise ElsewhereError("the main process could not go on")
    return value  # type: ignore[no-any-return]


def share(values: Sequence[T], work: Callable[[list[T]], list[R]]) -> list[R]:
    """`work` on all the values, each process on its part; the results in the order of the values, known to all."""
    parts = everyones(work(list(values[rank() :: count()])))
    return [parts[i % count()][i // count()] for i in range(len(values))]
