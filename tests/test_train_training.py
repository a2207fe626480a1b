"""`train run` from end to end on a tiny base: what it leaves, what it refuses, and that a killed run ends the same."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from curate.errors import TrainingError, TutelageError, WorkspaceError
from curate.files import need_space
from curate.manifest import Input, hash_files, read_manifest, write_manifest
from curate.pairs import Pair, write_pairs
from curate.release import Options, make_release
from curate.verify import verify
from curate.workspace import Workspace
from train.run import load_run
from train.training import Refused, Request, train
from tutelage import main

COLOURS = ("red", "blue", "green", "white", "black", "brown", "grey", "pink")
BEHAVIOUR = """
name: tiny
prompt: "{% for p in passages %}{{ p.text }} {% endfor %}{{ question }}"
output: {format: text}
abstain: {where: ["I do not know"], output: I do not know}
answer: {compare: exact}
"""
RECIPE: dict[str, Any] = {
    "base": {"model": "base"},
    "quantization": {"compute": "float32"},
    "lora": {"rank": 4, "alpha": 16, "dropout": 0.1},
    "training": {"epochs": 2, "learning_rate": 0.05, "batch": 4, "micro_batch": 2, "max_length": 200, "device": "cpu"},
    "guards": {
        "rehearsal": {"source": "general.jsonl", "share": 0.2},
        "retention_budget": {"loss_rise": 50, "every": 4, "sets": "held.jsonl"},
        "adapter_scale": {"from": [0.5, 1.0], "pairs": 2, "items": 2},
    },
}


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def make_workspace(root: Path, base: Path, **guards: Any) -> Workspace:
    """A workspace with a release of 40 small pairs, general items and a recipe."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "behaviour.yaml").write_text(BEHAVIOUR, encoding="utf-8")
    (root / "base").symlink_to(base)
    pairs = []
    for i in range(40):
        known, colour = i % 3 != 0, COLOURS[i % 8]
        thing = f"gadget{i * i}z{i}"
        passage = {"id": "p", "text": f"{thing} {colour}." if known else "Nothing.", "source": f"{i}.md"}
        output = colour if known else "I do not know"
        data = {"id": f"p{i}", "question": f"{thing}?", "passages": [passage], "output": output, "answerable": known}
        pairs.append(Pair.model_validate(data))
    write_pairs(root / "pairs.jsonl", pairs)
    write_lines(root / "general.jsonl", [{"id": f"g{i}", "prompt": f"{i}+1", "answer": str(i + 1)} for i in range(20)])
    write_lines(root / "held.jsonl", [{"id": f"h{i}", "prompt": f"{i}+2", "answer": str(i + 2)} for i in range(6)])
    write_recipe(root, **guards)
    place = Workspace(root)
    make_release(place, Options(name="r1"))
    return place


def write_recipe(root: Path, **guards: Any) -> Path:
    data = {**RECIPE, "guards": {**RECIPE["guards"], **guards}}
    (root / "recipe.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    return root / "recipe.yaml"


def events(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "log.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Any:
    """A workspace with a finished run, trained once for all the tests that only look."""
    place = make_workspace(tmp_path_factory.mktemp("ws"), tiny_base)
    return place, train(place, Request(place.recipe))


def test_a_run_holds_what_it_says(finished: Any) -> None:
    place, run = finished
    manifest = read_manifest(place.runs / "run1", "run")
    assert hash_files(run.directory) == manifest.files
    assert set(manifest.files) == {
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "log.jsonl",
        "recipe.yaml",
        "rehearsal-answers.jsonl",
        "retention-sets.jsonl",
        "retention.jsonl",
    }
    assert manifest.inputs["release"].sha256 == read_manifest(place.releases / "r1").sha256
    assert run.release_directory() == (place.releases / "r1").resolve()
    assert run.contract["stop_tokens"] == [{"id": 3, "text": "<|im_end|>"}]
    assert run.scale == manifest.details["scale"]
    assert [point["scale"] for point in manifest.details["scaling"]["curve"]] == [0.0, 0.5, 1.0]
    assert Path(run.recipe.base.model).samefile(place.root / "base")
    assert len(run.retention.read_text().splitlines()) == 6
    assert str(place.root) not in (run.directory / "manifest.json").read_text()  # a workspace may be moved


def test_the_log_tells_the_whole_story_once(finished: Any) -> None:
    _, run = finished
    told = events(run.directory)
    steps = [one["step"] for one in told if one["event"] == "step"]
    assert steps == list(range(1, len(steps) + 1))
    assert [one["step"] for one in told if one["event"] == "evaluation"] == [*range(4, len(steps), 4), len(steps)]
    counts = Counter(one["event"] for one in told)
    assert run.manifest.details["targets"] is None  # both guards of the targets are off unless asked for
    assert (counts["start"], counts["base"], counts["scale"], counts["chosen"]) == (1, 1, 3, 1)
    start = told[0]
    assert start["rehearsal"] == round(start["pairs"] * 0.25)
    evaluation = next(one for one in told if one["event"] == "evaluation")
    assert {"task_loss", "task_kl", "retention_loss", "retention_rise", "kl"} <= evaluation.keys()
    assert evaluation["task_kl"] > 0


def test_training_lowers_the_loss_and_the_tuned_model_differs_by_its_adapter(finished: Any) -> None:
    import torch

    from train.model import load_tuned

    _, run = finished
    told = [one["task_loss"] for one in events(run.directory) if one["event"] in ("base", "evaluation")]
    assert told[-1] < told[0] - 0.5  # nats per token
    model, tokenizer = load_tuned(run, "cpu")
    ids = torch.tensor([tokenizer("gadget0z0?")["input_ids"]])
    with torch.no_grad():
        tuned = model(ids).logits
        with model.disable_adapter():
            base = model(ids).logits
    assert (tuned - base).abs().max() > 1e-2
    assert {one.dtype for name, one in model.named_parameters() if "lora_" in name} == {torch.float32}


def test_the_scale_is_applied_on_load(finished: Any) -> None:
    from peft.tuners.lora.layer import LoraLayer

    from train.model import load_tuned

    _, run = finished
    manifest = run.manifest.model_copy(update={"details": {**run.manifest.details, "scale": 0.25}})
    model, _ = load_tuned(type(run)(run.directory, manifest, run.recipe), "cpu")
    scales = {one.scaling["default"] for one in model.modules() if isinstance(one, LoraLayer)}
    assert scales == {0.25 * 16 / 4}


def test_two_runs_are_equal(finished: Any, tiny_base: Path, tmp_path: Path) -> None:
    _, run = finished
    other = make_workspace(tmp_path / "ws", tiny_base)
    again = train(other, Request(other.recipe))
    assert adapter(again.directory) == adapter(run.directory)


def adapter(directory: Path) -> bytes:
    return (directory / "adapter" / "adapter_model.safetensors").read_bytes()


def test_a_finished_run_is_never_changed(finished: Any, capsys: pytest.CaptureFixture[str]) -> None:
    place, run = finished
    before = hash_files(run.directory)
    with pytest.raises(WorkspaceError, match="is finished"):
        train(place, Request(place.recipe, name="run1"))
    with pytest.raises(WorkspaceError, match="there is no unfinished run"):
        train(place, Request(place.recipe, resume=True))
    assert train(place, Request(place.recipe, name="run1", resume=True)).manifest == run.manifest
    assert "nothing was trained" in capsys.readouterr().err
    assert hash_files(run.directory) == before


def test_another_release_or_base_is_noticed_on_loading(finished: Any, tmp_path: Path) -> None:
    place, _ = finished
    copy = tmp_path / "ws"
    shutil.copytree(place.root, copy)
    run = load_run(copy / "runs" / "run1")
    run.check_base()
    (copy / "base" / "extra.txt").write_text("x")
    with pytest.raises(WorkspaceError, match="the base is not the one"):
        run.check_base()
    path = copy / "releases" / "r1" / "manifest.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "sha256": "0" * 64}))
    with pytest.raises(WorkspaceError):
        run.release_directory()


def test_errors_of_preflight_refuse_training(tmp_path: Path, tiny_base: Path) -> None:
    place = make_workspace(tmp_path / "ws", tiny_base, unanswerable_share={"at_least": 0.9})
    with pytest.raises(Refused) as caught:
        train(place, Request(place.recipe))
    assert {one.rule for one in caught.value.findings} == {"unanswerable-share"}
    assert not place.runs.exists()
    ran = CliRunner().invoke(main, ["-C", str(place.root), "train", "run", str(place.recipe), "--json"])
    assert ran.exit_code == 3
    assert json.loads(ran.stdout)["counts"] == {"unanswerable-share": 1}


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
    finished: Any, tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, run = finished
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


def test_a_base_on_a_hub_is_held_to_the_commit_that_was_trained_on(finished: Any, tmp_path: Path) -> None:
    _, run = finished
    copy = tmp_path / "runs/copy"
    shutil.copytree(run.directory, copy)
    manifest = read_manifest(copy, "run")
    details = {**manifest.details, "recipe": {**manifest.details["recipe"], "base": {"model": "owner/model"}}}
    inputs = {**manifest.inputs, "base": Input(path=f"owner/model@{'a' * 40}", sha256="0" * 64)}
    write_manifest(copy, "run", "copy", inputs, details)
    assert load_run(copy).recipe.base.revision == "a" * 40
    write_manifest(copy, "run", "copy", {**inputs, "base": Input(path="owner/model@main", sha256="0" * 64)}, details)
    assert load_run(copy).recipe.base.revision is None


def test_rehearsal_by_the_base_itself_is_made_once(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import train.own as own_words
    import train.rehearsal as rehearsal

    monkeypatch.setattr(rehearsal, "ANSWER_TOKENS", 6)
    own = {"source": "self", "share": 0.2, "prompts": "general.jsonl"}
    place = make_workspace(tmp_path / "ws", tiny_base, rehearsal=own, adapter_scale=None)
    train(place, Request(place.recipe))
    kept = list((place.root / ".cache").glob("rehearsal-*.jsonl"))
    assert len(kept) == 1
    rows = [json.loads(line) for line in kept[0].read_text().splitlines()]
    assert all(1 <= len(row["token_ids"]) <= 6 for row in rows)

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("the answers were there already")

    monkeypatch.setattr(own_words, "generate", never)
    train(place, Request(place.recipe, name="again"))


def test_targets_of_the_bases_own_are_told_in_log_and_manifest(tmp_path: Path, tiny_base: Path) -> None:
    guards = {"self_distillation": {"tokens": 12}, "mask_unlikely": {"below": 0.5}, "adapter_scale": None}
    place = make_workspace(tmp_path / "ws", tiny_base, **guards)
    run = train(place, Request(place.recipe))
    told = run.manifest.details["targets"]
    assert told["self_distillation"]["asked"] > 0
    assert told["self_distillation"]["kept"] == 0  # random weights write nothing that is right
    assert told["mask_unlikely"]["masked_tokens"] > 0
    first = events(run.directory)[0]
    assert first == {"event": "targets", **told}
    recipe = run.manifest.details["recipe"]["guards"]
    assert recipe["mask_unlikely"] == {"below": 0.5}


def test_check_shows_the_resolved_recipe_and_a_pair(finished: Any) -> None:
    place, _ = finished
    base = ["-C", str(place.root), "train", "check", str(place.recipe)]
    ran = CliRunner().invoke(main, [*base, "--json"])
    assert ran.exit_code == 0, ran.output
    said = json.loads(ran.stdout)
    assert said["findings"] == []
    assert said["recipe"]["training"]["weight_decay"] == 0.0
    assert said["lengths"]["train"]["examples"] > 10
    assert CliRunner().invoke(main, base).exit_code == 0
    name = json.loads(CliRunner().invoke(main, [*base, "--show", "p1", "--json"]).stdout or "{}").get("pair")
    shown = [CliRunner().invoke(main, [*base, "--show", f"p{i}", "--json"]) for i in range(40)] if not name else []
    found = name or next(json.loads(one.stdout)["pair"] for one in shown if one.exit_code == 0)
    coloured = CliRunner().invoke(main, [*base, "--show", found], color=True).stdout
    assert "\x1b[32m" in coloured
    assert "<|im_end|>" in coloured
    wrong = CliRunner().invoke(main, [*base, "--show", "nobody"])
    assert wrong.exit_code == 1
    assert "there is no pair" in wrong.output


@pytest.mark.parametrize("name", ["../x", "a b", ""])
def test_names_that_are_none(tmp_path: Path, tiny_base: Path, name: str) -> None:
    place = make_workspace(tmp_path / "ws", tiny_base)
    with pytest.raises(TutelageError, match="cannot be a run's name"):
        train(place, Request(place.recipe, name=name))


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment", ['"event": "start"', '"step": 2,', '"step": 5,', '"step": 8, "task_loss"', '"event": "scale"', '"chosen"']
)
def test_kill_and_resume_ends_at_the_same_adapter(finished: Any, tmp_path: Path, tiny_base: Path, moment: str) -> None:
    _, run = finished
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
