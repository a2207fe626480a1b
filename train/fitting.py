"""Whether training fits the device: its memory at the edge, the rule `memory`, and what to lower, to what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.errors import TrainingError
from curate.findings import Finding
from train.memory import (
    Estimate,
    Lengths,
    Shape,
    adaptable,
    estimate,
    is_checkpointing,
    lengths_of,
    shape_of,
    unfit_targets,
)
from train.recipe import Recipe

if TYPE_CHECKING:
    from train.preparation import Prepared

NEAR = 0.9  # of the device's memory: the estimate is no measurement, and others may use the device too
STEP = 64  # tokens, in which a smaller max_length is advised
GIB = 2**30
_CGROUP = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class Fit:
    """What training needs and what the device has: bytes, None where the device is not here to be asked."""

    shape: Shape
    recipe: Recipe
    lengths: Lengths
    device: str
    memory: int | None
    is_here: bool = True  # whether the device is that of this machine

    @property
    def estimate(self) -> Estimate:
        """What the recipe needs as it stands."""
        return estimate(self.shape, self.recipe, self.lengths, self.device)

    def document(self) -> dict[str, Any]:
        """What `--json` prints."""
        found = self.estimate
        return {"device": self.device, "available": self.memory, "needed": found.total, "parts": found.parts}


@dataclass(frozen=True)
class Change:
    """Keys of `training` with other values, and the bytes that training needs with them."""

    keys: dict[str, Any]
    total: int

    def __str__(self) -> str:
        keys = " and ".join(f"training.{key}: {str(value).lower()}" for key, value in self.keys.items())
        return f"{keys} ({in_gib(self.total)})"


def fit_of(prepared: Prepared, memory: int | None = None) -> Fit:
    """The fit on this machine; with `memory` bytes, on a GPU of that much."""
    from train.model import load_config

    recipe = prepared.recipe
    device, found = ("cuda", memory) if memory else device_memory(recipe.training.device)
    shape = shape_of(load_config(recipe.base), recipe.lora)
    return Fit(shape, recipe, lengths_of(prepared), device, found, is_here=memory is None and found is not None)


def device_memory(wanted: str) -> tuple[str, int | None]:
    """(cpu or cuda, bytes): a GPU's memory, or what this machine (or its control group) has. None: no GPU is here."""
    import psutil
    import torch

    from train.model import choose_device

    try:
        device = choose_device(wanted)
    except TrainingError:
        return "cuda", None
    if device == "cuda":
        return device, int(torch.cuda.get_device_properties(0).total_memory)
    memory = int(psutil.virtual_memory().total)
    limit = _CGROUP.read_text(encoding="ascii").strip() if _CGROUP.is_file() else "max"
    return device, min(memory, int(limit)) if limit.isdigit() else memory


def check_memory(fit: Fit) -> list[Finding]:
    """Rule `memory`: an error where the estimate is more than the device has, a warning where it is nearly that."""
    needed, have = fit.estimate.total, fit.memory
    if have is None or needed <= NEAR * have:
        return []
    over = needed > have
    what = "is more than" if over else f"is more than {NEAR:.0%} of"
    message = f"training needs about {in_gib(needed)}, which {what} the {in_gib(have)} of the {_PLACES[fit.device]}"
    return [
        Finding(
            rule="memory",
            level="error" if over else "warning",
            where="training",
            message=message,
            fix=what_fits(fit, int(NEAR * have)),
        )
    ]


def check_targets(recipe: Recipe) -> list[Finding]:
    """Rule `lora-targets`: an entry names nothing, which would silently train less, or what PEFT refuses later."""
    from train.model import load_config

    if recipe.lora.targets == "all-linear":
        return []
    modules = adaptable(load_config(recipe.base), recipe.lora)
    known = ", ".join(sorted({name.rpartition(".")[2] for name, takes in modules.items() if takes}))
    return [
        Finding(
            rule="lora-targets",
            level="error",
            where="lora.targets",
            message=f"{one!r} names no layer of the base's decoder, or one that takes no adapter (head, norm, block)",
            fix=f"name some of: {known}; or all-linear",
        )
        for one in unfit_targets(modules, recipe.lora.targets)
    ]


_PLACES = {"cuda": "GPU", "cpu": "machine"}


def what_fits(fit: Fit, memory: int) -> str:
    """The mildest change after which the estimate is within `memory` bytes."""
    found = next((one for one in _changes(fit) if one.total <= memory), None)
    if found:
        return f"set {found}"
    least = min([one.total for one in _changes(fit)] or [fit.estimate.total])
    return (
        f"no change of training does it (the least is {in_gib(least)}): take a smaller base"
        + ("" if fit.recipe.quantization.bits == 4 else ", quantization.bits: 4")
        + ", or a device with more memory"
    )


def what_to_lower(fit: Fit) -> str:
    """Single changes that need less, each with what it needs, for memory that ran out though the estimate did fit."""
    training = fit.recipe.training
    keys: list[dict[str, Any]] = [{"micro_batch": n} for n in _smaller(fit)[:1]]
    if not is_checkpointing(fit.recipe, fit.device):
        keys.append({"gradient_checkpointing": True})
    keys.append({"max_length": min(fit.lengths.longest, training.max_length) * 3 // 4})
    told = [str(one) for one in (_change(fit, key) for key in keys) if one.total < fit.estimate.total]
    return f"of an estimated {in_gib(fit.estimate.total)}: " + ("; or ".join(told) or "take a smaller base")


def _smaller(fit: Fit) -> list[int]:
    """Smaller micro-batches that divide the batch, the largest first."""
    training = fit.recipe.training
    return [n for n in range(training.micro_batch - 1, 0, -1) if training.batch % n == 0]


def _changes(fit: Fit) -> Iterator[Change]:
    """Changes of training, mildest first: micro-batches, checkpointing, both, and with both shorter examples."""
    on = is_checkpointing(fit.recipe, fit.device)
    smaller = _smaller(fit)
    for micro in smaller:
        yield _change(fit, {"micro_batch": micro})
    if not on:
        yield _change(fit, {"gradient_checkpointing": True})
        for micro in smaller:
            yield _change(fit, {"micro_batch": micro, "gradient_checkpointing": True})
    least = ({"micro_batch": 1} if smaller else {}) | ({} if on else {"gradient_checkpointing": True})
    start = min(fit.lengths.longest, fit.recipe.training.max_length) - 1
    for length in range(start // STEP * STEP, 0, -STEP):
        yield _change(fit, {**least, "max_length": length})


def _change(fit: Fit, keys: dict[str, Any]) -> Change:
    recipe = fit.recipe.model_copy(update={"training": fit.recipe.training.model_copy(update=keys)})
    found, most = fit.lengths, recipe.training.max_length
    shorter = replace(found, longest=max(min(found.longest, most), found.general), answer=min(found.answer, most))
    return Change(keys, replace(fit, recipe=recipe, lengths=shorter).estimate.total)


def in_gib(size: int) -> str:
    """Bytes for people."""
    return f"{size / GIB:,.2f} GiB" if size < 10 * GIB else f"{size / GIB:,.1f} GiB"
