"""Two processes train what one trains; one of them writes, and what is shared comes in the order it was given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tutelage_recipes.demo.workspace import IMPORT, make_workspace

from curate.errors import TrainingError
from train.processes import check_processes, everyones, from_main, share
from train.recipe import Recipe
from train.trackers import check_trackers

ALONE = [sys.executable, "-m", "tutelage"]
MEASURED = {"loss", "task_loss", "kl", "task_kl", "retention_loss", "grad_norm", "learning_rate", "step"}
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
DEFAULTS = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
TOGETHER = [*LAUNCH, *DEFAULTS, "--num_cpu_threads_per_process", "1"]


def recipe(**changes: Any) -> Recipe:
    return Recipe.model_validate({"base": {"model": "a/b"}, **changes})


def test_alone_nothing_is_shared_and_errors_are_the_callers() -> None:
    assert everyones(3) == [3]
    assert share([3, 1, 2], lambda part: [one * 2 for one in part]) == [6, 2, 4]
    with pytest.raises(ZeroDivisionError):
        from_main(lambda: 1 // 0)


def test_the_batch_is_that_of_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    check_processes(recipe())
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(TrainingError, match=r"batch \(16\) is no multiple of micro_batch \(2\) x 3 processes"):
        check_processes(recipe())
    monkeypatch.setenv("WORLD_SIZE", "8")
    check_processes(recipe())


def test_fsdp_takes_no_kl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(TrainingError, match="kl_to_base is not offered with FSDP"):
        check_processes(recipe())
    check_processes(recipe(guards={"kl_to_base": None}))


def test_trackers_are_known_before_anything_is_loaded() -> None:
    check_trackers(())
    with pytest.raises(TrainingError, match="there is no tracker 'tensorbored'") as caught:
        check_trackers(("tensorbored",))
    assert "tensorboard" in str(caught.value)


def test_a_tracker_that_is_not_installed_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.trackers.find_spec", lambda _: None)
    with pytest.raises(TrainingError, match="mlflow is not installed") as caught:
        check_trackers(("mlflow",))
    assert "pip install mlflow" in str(caught.value)


def run(workspace: Path, arguments: list[str], how: list[str] = ALONE) -> str:
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*how, *([] if how == ALONE else ["-m", "tutelage"]), "-C", str(workspace), *arguments],
        capture_output=True, text=True, env=environment, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def events(workspace: Path, run_name: str, kind: str) -> list[dict[str, Any]]:
    lines = (workspace / "runs" / run_name / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [one for one in map(json.loads, lines) if one["event"] == kind]


@pytest.mark.slow
def test_two_processes_end_where_one_ends(tmp_path: Path) -> None:
    place = tmp_path / "ws"
    make_workspace(place, pairs=140, items_per_set=8)
    data = yaml.safe_load((place / "recipe.yaml").read_text(encoding="utf-8"))
    data["training"] |= {"epochs": 1, "batch": 16, "micro_batch": 4}  # dropout is off in the demo's recipe
    data["guards"]["kl_to_base"] = {"weight": 0.5, "on": "all"}
    data["guards"]["rehearsal"]["share"] = 0.1
    data["guards"]["retention_budget"] |= {"every": 3, "loss_rise": 9.0}
    data["guards"]["adapter_scale"]["from"] = [0.5, 1.0]
    data["guards"]["mask_unlikely"] = {"below": 0.01}
    (place / "recipe.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    run(place, list(IMPORT))
    run(place, ["curate", "release", "--unreviewed", "--name", "r"])

    run(place, ["train", "run", "recipe.yaml", "--name", "one", "--json"])
    said = json.loads(run(place, ["train", "run", "recipe.yaml", "--name", "two", "--json"], TOGETHER))
    assert said["run"] == "two"  # one document: the other process keeps silent

    for kind in ("targets", "start", "base", "step", "evaluation", "scale", "chosen"):
        alone, together = events(place, "one", kind), events(place, "two", kind)
        assert len(alone) == len(together) > 0, kind
        for left, right in zip(alone, together, strict=True):
            assert left.keys() == right.keys()
            for key in MEASURED & left.keys():
                assert right[key] == pytest.approx(left[key], rel=2e-3, abs=2e-4), (kind, key)
    assert min(one["kl"] for one in events(place, "two", "step")[1:]) > 1e-3  # enough for an error in it to show
    starts = [events(place, name, "start")[0] for name in ("one", "two")]
    assert [one.pop("processes") for one in starts] == [1, 2]
    assert starts[0] == starts[1]
    assert events(place, "two", "targets") == events(place, "one", "targets")
    assert not (place / "runs/two/checkpoints").exists()
