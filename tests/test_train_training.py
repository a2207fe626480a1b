"""`train run` from end to end on a tiny base: what it leaves, what it refuses, and what it says."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from training_cases import adapter, events, make_workspace

from curate.errors import TutelageError, WorkspaceError
from curate.manifest import Input, hash_files, read_manifest, write_manifest
from curate.workspace import Workspace
from train.run import load_run
from train.training import Refused, Request, train
from tutelage import main


def test_a_run_holds_what_it_says(trained: Any) -> None:
    place, run = trained
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


def test_the_log_tells_the_whole_story_once(trained: Any) -> None:
    _, run = trained
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


def test_training_lowers_the_loss_and_the_tuned_model_differs_by_its_adapter(trained: Any) -> None:
    import torch

    from train.model import load_tuned

    _, run = trained
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


def test_the_scale_is_applied_on_load(trained: Any) -> None:
    from peft.tuners.lora.layer import LoraLayer

    from train.model import load_tuned

    _, run = trained
    manifest = run.manifest.model_copy(update={"details": {**run.manifest.details, "scale": 0.25}})
    model, _ = load_tuned(type(run)(run.directory, manifest, run.recipe), "cpu")
    scales = {one.scaling["default"] for one in model.modules() if isinstance(one, LoraLayer)}
    assert scales == {0.25 * 16 / 4}


def test_two_runs_are_equal(trained: Any, tiny_base: Path, tmp_path: Path) -> None:
    _, run = trained
    other = make_workspace(tmp_path / "ws", tiny_base)
    again = train(other, Request(other.recipe))
    assert adapter(again.directory) == adapter(run.directory)


def test_a_finished_run_is_never_changed(trained: Any, capsys: pytest.CaptureFixture[str]) -> None:
    place, run = trained
    before = hash_files(run.directory)
    with pytest.raises(WorkspaceError, match="is finished"):
        train(place, Request(place.recipe, name="run1"))
    with pytest.raises(WorkspaceError, match="there is no unfinished run"):
        train(place, Request(place.recipe, resume=True))
    assert train(place, Request(place.recipe, name="run1", resume=True)).manifest == run.manifest
    assert "nothing was trained" in capsys.readouterr().err
    assert hash_files(run.directory) == before


def test_another_release_or_base_is_noticed_on_loading(trained: Any, tmp_path: Path) -> None:
    from train.model import check_base

    place, _ = trained
    copy = tmp_path / "ws"
    shutil.copytree(place.root, copy)
    run = load_run(copy / "runs" / "run1")
    check_base(run)
    (copy / "base" / "extra.txt").write_text("x")
    with pytest.raises(WorkspaceError, match="the base is not the one"):
        check_base(run)
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


def test_a_base_on_a_hub_is_held_to_the_commit_that_was_trained_on(trained: Any, tmp_path: Path) -> None:
    _, run = trained
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


def test_check_shows_the_resolved_recipe_and_a_pair(trained: Any) -> None:
    place, _ = trained
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
@pytest.mark.parametrize("resume", [False, True])
def test_a_name_that_is_none_is_refused_before_anything_else(tmp_path: Path, name: str, resume: bool) -> None:
    with pytest.raises(TutelageError, match="cannot be a run's name"):
        train(Workspace(tmp_path), Request(tmp_path / "no-recipe.yaml", name=name, resume=resume))
