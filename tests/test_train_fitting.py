"""Whether training fits a device: what is refused, what is advised, and what memory that runs out leaves."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from memory_cases import LENGTHS, recipe, shape
from training_cases import adapter, make_workspace

from curate.errors import TrainingError
from train.fitting import GIB, Fit, check_memory, device_memory, what_fits, what_to_lower
from train.training import Request, train
from tutelage import main


def fit(memory: float, **training: Any) -> Fit:
    return Fit(shape(), recipe(batch=16, **training), LENGTHS, "cuda", int(memory * GIB))


def test_more_than_the_device_has_is_refused_and_nearly_that_is_said() -> None:
    needed = fit(1).estimate.total / GIB
    assert check_memory(fit(needed * 1.2)) == []
    assert check_memory(Fit(shape(), recipe(), LENGTHS, "cuda", None)) == []
    for memory, level in ((needed * 1.05, "warning"), (needed * 0.9, "error")):
        (found,) = check_memory(fit(memory))
        assert (found.rule, found.level) == ("memory", level)
        assert "of the GPU" in found.message


@pytest.mark.parametrize(
    ("memory", "training", "keys"),
    [
        (12, {"micro_batch": 8}, {"micro_batch"}),
        (12, {"micro_batch": 1, "gradient_checkpointing": False}, {"gradient_checkpointing"}),
        (8.5, {"micro_batch": 8, "gradient_checkpointing": False}, {"micro_batch", "gradient_checkpointing"}),
        (5.7, {"micro_batch": 8}, {"micro_batch", "max_length"}),
    ],
)
def test_what_is_advised_fits(memory: float, training: dict[str, Any], keys: set[str]) -> None:
    import re

    given = fit(memory, **training)
    (found,) = check_memory(given)
    advised = {key: json.loads(value) for key, value in re.findall(r"training\.(\w+): (\w+)", found.fix)}
    assert advised.keys() == keys
    plan = given.recipe.model_copy(update={"training": given.recipe.training.model_copy(update=advised)})
    longest = min(LENGTHS.longest, plan.training.max_length)
    after = replace(given, recipe=plan, lengths=replace(LENGTHS, longest=longest))
    assert after.estimate.total <= 0.9 * memory * GIB


def test_a_base_that_never_fits() -> None:
    assert "smaller base" in what_fits(fit(1), GIB)
    plain = replace(fit(1), recipe=recipe({"bits": None}))
    assert "quantization.bits: 4" in what_fits(plain, GIB)
    lower = what_to_lower(fit(1, micro_batch=2, gradient_checkpointing=False))
    assert "micro_batch: 1 (" in lower
    assert "gradient_checkpointing: true (" in lower
    assert "max_length: 750 (" in lower


def test_this_machine_has_memory() -> None:
    device, memory = device_memory("cpu")
    assert device == "cpu"
    assert memory is not None
    assert 2**28 < memory <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_check_tells_and_judges(tmp_path: Path, tiny_base: Path) -> None:
    place = make_workspace(tmp_path / "ws", tiny_base)
    command = ["-C", str(place.root), "train", "check", str(place.recipe)]
    ran = CliRunner().invoke(main, [*command, "--json"])
    assert ran.exit_code == 0, ran.output
    memory = json.loads(ran.stdout)["memory"]
    assert memory["device"] == "cpu"
    assert memory["needed"] == sum(memory["parts"].values()) < memory["available"]
    small_gpu = CliRunner().invoke(main, [*command, "--json", "--gpu-memory", "0.5"])
    assert small_gpu.exit_code == 3
    assert json.loads(small_gpu.stdout)["counts"] == {"memory": 1}
    assert json.loads(small_gpu.stdout)["time"] is None  # that GPU is not here to be timed
    duration = json.loads(ran.stdout)["time"]
    assert 0 < duration["seconds"] == pytest.approx(duration["steps"] * duration["seconds_per_step"], abs=0.1)
    text = CliRunner().invoke(main, command).stdout
    assert "memory: about" in text
    assert "time: about" in text


def test_memory_that_runs_out_names_what_to_lower_and_loses_nothing(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from train.trainer import GuardedTrainer

    whole = train(*_ready(tmp_path / "whole", tiny_base))
    place, request = _ready(tmp_path / "ws", tiny_base)
    compute = GuardedTrainer.compute_loss

    def full(self: Any, *args: Any, **named: Any) -> Any:
        if self.state.global_step == 6:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return compute(self, *args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(GuardedTrainer, "compute_loss", full)
        with pytest.raises(TrainingError, match="out of memory") as caught:
            train(place, request)
    said = str(caught.value)
    assert "training.micro_batch: 1 (" in said
    assert "the checkpoint of step 4 is kept" in said
    assert "--resume --name run1" in said
    done = train(place, Request(place.recipe, name="run1", resume=True))
    assert adapter(done.directory) == adapter(whole.directory)


def _ready(root: Path, base: Path) -> tuple[Any, Request]:
    place = make_workspace(root, base, adapter_scale=None)
    return place, Request(place.recipe)
