"""Two processes train what one trains; one of them writes, and what is shared comes in the order it was given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from safetensors.torch import load_file
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
ROOT = Path(__file__).parent.parent
FSDP = [
    *LAUNCH[:3],
    "--config_file",
    str(ROOT / "recipes/accelerate-fsdp-qlora.yaml"),
    "--num_cpu_threads_per_process",
    "1",
]
# without the synchronisation, which wants a GPU: both processes have loaded the same weights
SHARDED = [*FSDP, "--fsdp_sync_module_states", "false", str(ROOT / "tests/fsdp_on_cpu.py")]


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
        [*how, *(["-m", "tutelage"] if how == TOGETHER else []), "-C", str(workspace), *arguments],
        capture_output=True, text=True, env=environment, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def events(workspace: Path, run_name: str, kind: str) -> list[dict[str, Any]]:
    lines = (workspace / "runs" / run_name / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [one for one in map(json.loads, lines) if one["event"] == kind]


def ready(place: Path, **guards: Any) -> None:
    """A small workspace with a release `r`, whose recipe takes six steps and two evaluations."""
    make_workspace(place, pairs=140, items_per_set=8)
    data = yaml.safe_load((place / "recipe.yaml").read_text(encoding="utf-8"))
    data["training"] |= {"epochs": 1, "batch": 16, "micro_batch": 4}  # dropout is off in the demo's recipe
    data["guards"]["rehearsal"]["share"] = 0.1
    data["guards"]["retention_budget"] |= {"every": 3, "loss_rise": 9.0}
    data["guards"]["adapter_scale"]["from"] = [0.5, 1.0]
    data["guards"] |= guards
    (place / "recipe.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    run(place, list(IMPORT))
    run(place, ["curate", "release", "--unreviewed", "--name", "r"])


def check_alike(place: Path, first: str, second: str, kinds: tuple[str, ...]) -> None:
    """The two runs have logged the same events, with numbers that agree."""
    for kind in kinds:
        left_all, right_all = events(place, first, kind), events(place, second, kind)
        assert len(left_all) == len(right_all) > 0, kind
        for left, right in zip(left_all, right_all, strict=True):
            assert left.keys() == right.keys()
            for key in MEASURED & left.keys():
                assert right[key] == pytest.approx(left[key], rel=2e-3, abs=2e-4), (kind, key)


@pytest.mark.slow
def test_two_processes_end_where_one_ends(tmp_path: Path) -> None:
    place = tmp_path / "ws"
    ready(place, kl_to_base={"weight": 0.5, "on": "all"}, mask_unlikely={"below": 0.01})

    run(place, ["train", "run", "recipe.yaml", "--name", "one", "--json"])
    said = json.loads(run(place, ["train", "run", "recipe.yaml", "--name", "two", "--json"], TOGETHER))
    assert said["run"] == "two"  # one document: the other process keeps silent

    check_alike(place, "one", "two", ("targets", "start", "base", "step", "evaluation", "scale", "chosen"))
    assert min(one["kl"] for one in events(place, "two", "step")[1:]) > 1e-3  # enough for an error in it to show
    starts = [events(place, name, "start")[0] for name in ("one", "two")]
    assert [one.pop("processes") for one in starts] == [1, 2]
    assert starts[0] == starts[1]
    assert events(place, "two", "targets") == events(place, "one", "targets")
    assert not (place / "runs/two/checkpoints").exists()


def adapter(place: Path, name: str) -> dict[str, Any]:
    weights: dict[str, Any] = load_file(place / "runs" / name / "adapter" / "adapter_model.safetensors")
    return weights


@pytest.mark.slow
def test_fsdp_trains_what_one_process_trains_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    """The base in pieces, by the shipped configuration: the same losses, and the trained adapter is the one kept."""
    place = tmp_path / "ws"
    ready(place, kl_to_base=None)
    run(place, ["train", "run", "recipe.yaml", "--name", "one"])
    for name in ("sharded", "killed"):
        train = ["train", "run", "recipe.yaml", "--name", name]
        if name == "killed":
            kill_after(place, name, [*SHARDED, "-C", str(place), *train], step=4)
            train.append("--resume")
        run(place, train, SHARDED)
        check_alike(place, "one", name, ("base", "step", "evaluation", "scale", "chosen"))
    alone, sharded, killed = (adapter(place, name) for name in ("one", "sharded", "killed"))
    assert alone.keys() == sharded.keys() == killed.keys()
    for name, weight in alone.items():
        assert (sharded[name] - weight).abs().max() < 1e-3, name  # Adam magnifies the last digits of tiny gradients
        assert sharded[name].equal(killed[name]), name
    assert max(weight.abs().max() for name, weight in sharded.items() if "lora_B" in name) > 4e-3


def kill_after(place: Path, name: str, command: list[str], step: int) -> None:
    """Start a training and kill all of its processes once it has logged that step."""
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
    started = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    log = place / "runs" / name / "log.jsonl"
    try:
        for _ in range(600):
            if log.is_file() and any(one["step"] >= step for one in events(place, name, "step")):
                break
            time.sleep(0.2)
        else:
            raise AssertionError("it never came to that step")
    finally:
        children = psutil.Process(started.pid).children(recursive=True)
        for process in (*children, started):
            process.kill()
        psutil.wait_procs(children)
        started.wait()
