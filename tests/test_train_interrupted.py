"""Training that does not go through: over the budget, edited under, interrupted, killed, resumed."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from training_cases import adapter, events, make_workspace, write_recipe

from curate.errors import TrainingError, TutelageError, WorkspaceError
from curate.files import need_space
from curate.manifest import hash_files
from curate.verify import verify
from curate.workspace import Workspace
from train.state import open_run
from train.training import Request, train


def pretend(monkeypatch: pytest.MonkeyPatch, *losses: float) -> None:
    """Let the retention items' loss be these: the base's, then that of each evaluation."""
    import train.trainer as trainer

    coming, real = iter(losses), trainer.measure

    def measured(model: Any, rows: Any, *more: Any) -> Any:
        found = real(model, rows, *more)
        return type(found)(next(coming), found.kl, found.tokens) if len(rows) == 6 else found  # 6 items are held out

    monkeypatch.setattr(trainer, "measure", measured)


BUDGET = {"loss_rise": 0.5, "every": 2, "sets": "held.jsonl"}


@pytest.mark.parametrize("loss", [1.6, float("nan")])
def test_over_the_budget_at_once_is_an_error_that_says_what_to_do(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch, loss: float
) -> None:
    pretend(monkeypatch, 1.0, loss)
    place = make_workspace(tmp_path / "ws", tiny_base, retention_budget=BUDGET)
    with pytest.raises(TrainingError, match=r"first evaluation \(step 2\)") as caught:
        train(place, Request(place.recipe))
    assert "learning_rate" in str(caught.value)
    assert events(place.runs / "run1")[-1]["event"] == "evaluation"
    monkeypatch.undo()
    assert train(place, Request(write_recipe(place.root, adapter_scale=None))).directory.name == "run2"


def test_over_the_budget_later_goes_back_to_the_last_checkpoint_inside(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, 1.0, 1.1, 1.2, 9.0)  # base, then steps 2, 4, 6
    place = make_workspace(tmp_path / "ws", tiny_base, retention_budget=BUDGET, adapter_scale=None)
    run = train(place, Request(place.recipe))
    told = run.manifest.details["training"]
    assert told["stopped"] == {"step": 6, "retention_rise": pytest.approx(8.0)}
    assert told["steps"] == 4
    assert run.scale == 1.0
    stopped = [one for one in events(run.directory) if one["event"] == "stopped"]
    assert [(one["step"], one["back_to"]) for one in stopped] == [(6, 4)]


class Killed(Exception):
    """Stands in for the end of the process."""


def interrupt(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let training die at a step, as if the process had been killed there."""
    from train.log import Log

    add = Log.add

    def dying(self: Any, event: dict[str, Any]) -> None:
        if event.get("step") == step and event["event"] == "step":
            raise Killed
        add(self, event)

    monkeypatch.setattr(Log, "add", dying)


def test_an_unfinished_run_is_resumed_only_as_it_was(
    trained: Any, tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, run = trained
    place = make_workspace(tmp_path / "ws", tiny_base)
    with monkeypatch.context() as patch:
        interrupt(patch, 6)
        with pytest.raises(Killed):
            train(place, Request(place.recipe))
    with pytest.raises(WorkspaceError, match="--resume"):
        train(place, Request(place.recipe))
    with pytest.raises(WorkspaceError, match="--resume"):
        train(place, Request(place.recipe, name="run1"))
    write_recipe(place.root, adapter_scale=None)
    with pytest.raises(TrainingError, match="recipe"):
        train(place, Request(place.recipe, resume=True))
    write_recipe(place.root)
    items = (place.root / "general.jsonl").read_text()
    (place.root / "general.jsonl").write_text(items.replace("+1", "+ 1"))
    with pytest.raises(TrainingError, match="rehearsal-answers"):
        train(place, Request(place.recipe, resume=True))
    (place.root / "general.jsonl").write_text(items)
    begun = place.runs / "run1/checkpoints/begun.json"
    older = {role: one for role, one in json.loads(begun.read_text()).items() if role in ("release", "recipe", "base")}
    begun.write_text(json.dumps(older))  # as an older version began it
    done = train(place, Request(place.recipe, resume=True))
    assert adapter(done.directory) == adapter(run.directory)
    steps = [one["step"] for one in events(done.directory) if one["event"] == "step"]
    assert steps == list(range(1, len(steps) + 1))
    assert not (done.directory / "checkpoints").exists()


def test_the_recipe_may_be_edited_while_it_trains(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import train.gathering as gathering

    place = make_workspace(tmp_path / "ws", tiny_base, adapter_scale=None)
    written, gather = place.recipe.read_bytes(), gathering.gather

    def edited(*arguments: Any) -> Any:
        place.recipe.write_text("for: the next run")
        return gather(*arguments)

    monkeypatch.setattr(gathering, "gather", edited)
    run = train(place, Request(place.recipe))
    assert (run.directory / "recipe.yaml").read_bytes() == written
    assert [one for one in verify(run.directory, place.root).findings if one.rule == "input-changed"] == []
    general = place.root / "general.jsonl"
    before = general.read_bytes()
    general.write_text("")
    assert (run.directory / "rehearsal-answers.jsonl").read_bytes() == before
    assert verify(run.directory, place.root).findings == []


def test_a_run_that_came_to_nothing_leaves_no_log_to_the_next_of_its_name(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_workspace(tmp_path / "ws", tiny_base, adapter_scale=None)
    with monkeypatch.context() as patch:
        pretend(patch, 0.5, 60.0)
        with pytest.raises(TrainingError, match="the budget"):
            train(place, Request(place.recipe, name="one"))
    write_recipe(place.root, adapter_scale=None, rehearsal={"source": "general.jsonl", "share": 0.4})
    run = train(place, Request(place.recipe, name="one"))
    start = events(run.directory)[0]
    assert (start["event"], start["rehearsal"]) == ("start", round(start["pairs"] * 0.4 / 0.6))


def test_an_interrupted_run_says_how_it_goes_on(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import train.gathering as gathering

    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(gathering, "gather", stop)
    place = make_workspace(tmp_path / "ws", tiny_base)
    with pytest.raises(KeyboardInterrupt):
        train(place, Request(place.recipe, name="one"))
    assert "--resume --name one" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment", ['"event": "start"', '"step": 2,', '"step": 5,', '"step": 8, "task_loss"', '"event": "scale"', '"chosen"']
)
def test_kill_and_resume_ends_at_the_same_adapter(trained: Any, tmp_path: Path, tiny_base: Path, moment: str) -> None:
    _, run = trained
    place = make_workspace(tmp_path / "ws", tiny_base)
    command = [sys.executable, "-m", "tutelage", "-C", str(place.root), "train", "run", str(place.recipe)]
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    log = place.runs / "run1" / "log.jsonl"
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if log.is_file() and moment in log.read_text(encoding="utf-8"):
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if not (place.runs / "run1" / "manifest.json").is_file():
        done = subprocess.run([*command, "--resume"], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert adapter(place.runs / "run1") == adapter(run.directory)
    told = events(place.runs / "run1")
    keys = [(one["event"], one.get("step"), one.get("scale")) for one in told]
    assert len(keys) == len(set(keys))
    assert hash_files(place.runs / "run1").keys() == hash_files(run.directory).keys()


def test_a_full_disk_is_told_with_how_it_goes_on(tmp_path: Path, tiny_base: Path) -> None:
    place = make_workspace(tmp_path, tiny_base)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))  # no checkpoint fits
    try:
        with pytest.raises(TutelageError, match="run1: cannot be written: the disk is full") as caught:
            train(place, Request(place.recipe))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "--resume --name run1" in str(caught.value)
    assert train(place, Request(place.recipe, resume=True)).manifest.name == "run1"


def test_every_way_a_library_says_that_the_disk_is_full_is_known(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    tensor = torch.zeros(100_000)
    ways = [
        lambda: save_file({"a": tensor}, tmp_path / "a"),
        lambda: torch.save({"a": tensor}, tmp_path / "b"),
        lambda: (tmp_path / "c").write_bytes(bytes(100_000)),
    ]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        for way in ways:
            with pytest.raises(TutelageError, match="the disk is full"), need_space(tmp_path, "free some"):
                way()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with pytest.raises(RuntimeError, match="shape"), need_space(tmp_path, "free some"):
        raise RuntimeError("shape")


def test_a_run_that_is_being_trained_is_not_offered_for_deletion(tmp_path):
    workspace = Workspace(tmp_path)
    with (
        open_run(workspace, "a", False, {}),
        pytest.raises(TrainingError, match="another process is training this run"),
        open_run(workspace, "a", False, {}),
    ):
        pass
    with (
        pytest.raises(WorkspaceError, match="begun and is not finished"),
        open_run(workspace, "a", False, {}),
    ):
        pass
