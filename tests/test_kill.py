"""`kill -9` at any moment: running the same command again ends where an uninterrupted run ends."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from tutelage_recipes.demo.workspace import IMPORT, make_workspace

from curate.files import sha256_file
from curate.manifest import read_manifest

KILLS = 10

pytestmark = pytest.mark.slow


def start(workspace: Path, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    # A shadow of our package names in the working directory must not be imported.
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tutelage", "-C", str(workspace), *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, start_new_session=True
    )


def finish(workspace: Path, arguments: Sequence[str], codes: tuple[int, ...] = (0,)) -> float:
    """Run to the end; the seconds it took."""
    begun = time.perf_counter()
    process = start(workspace, arguments)
    _, errors = process.communicate(timeout=600)
    assert process.returncode in codes, errors.decode()
    return time.perf_counter() - begun


def kill_on_the_way(workspace: Path, arguments: Sequence[str], longest_seconds: float, seed: int) -> int:
    """Start and kill ten times at random moments; how many of them were killed before they ended."""
    moments = random.Random(seed)
    killed = 0
    for _ in range(KILLS):
        process = start(workspace, arguments)
        try:
            process.communicate(timeout=moments.uniform(0.05, longest_seconds))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            killed += 1
    return killed


def two_workspaces(root: Path, pairs: int, items_per_set: int = 8) -> tuple[Path, Path]:
    """Two equal workspaces of the demo, each with its log of retrievals."""
    for name in ("whole", "killed"):
        make_workspace(root / name, pairs=pairs, items_per_set=items_per_set)
    return root / "whole", root / "killed"


RELEASE = ["curate", "release", "--unreviewed", "--name", "r"]


def test_kill_import(tmp_path: Path) -> None:
    whole, killed = two_workspaces(tmp_path, 2000)
    seconds = finish(whole, IMPORT)
    assert kill_on_the_way(killed, IMPORT, seconds, seed=1) > 0
    finish(killed, IMPORT)
    assert sha256_file(killed / "pairs.jsonl") == sha256_file(whole / "pairs.jsonl")
    assert not list(killed.glob(".*.partial")), "a killed import leaves nothing behind once it was run again"


def test_kill_release(tmp_path: Path) -> None:
    whole, killed = two_workspaces(tmp_path, 600)
    for workspace in (whole, killed):
        finish(workspace, IMPORT)
    seconds = finish(whole, RELEASE)
    assert kill_on_the_way(killed, RELEASE, seconds, seed=2) > 0
    finish(killed, RELEASE)
    assert read_manifest(killed / "releases/r").sha256 == read_manifest(whole / "releases/r").sha256
    assert [path.name for path in (killed / "releases").iterdir()] == ["r"], "no half release is left"


def test_kill_train_then_eval(tmp_path: Path) -> None:
    whole, killed = two_workspaces(tmp_path, 140)
    train = ["train", "run", "recipe.yaml", "--release", "r", "--name", "t", "--resume"]
    answer = ["eval", "run", "t", "--name", "e", "--batch-size", "8"]
    for workspace in (whole, killed):
        recipe = (workspace / "recipe.yaml").read_text()
        (workspace / "recipe.yaml").write_text(shorten(recipe))
        finish(workspace, IMPORT)
        finish(workspace, RELEASE)

    seconds = finish(whole, train)
    assert kill_on_the_way(killed, train, seconds * 0.8, seed=3) > 0
    finish(killed, train)
    assert trained(killed / "runs/t") == trained(whole / "runs/t")

    seconds = finish(whole, answer, codes=(0, 3, 4))
    assert kill_on_the_way(killed, answer, seconds * 0.8, seed=4) > 0
    finish(killed, answer, codes=(0, 3, 4))
    one_scores, other_scores = (json.loads((w / "reports/e/scores.json").read_text()) for w in (whole, killed))
    for scores in (one_scores, other_scores):
        scores.pop("latency", None)
        scores.pop("sources")  # names the run by its hash, and the two runs' logs and bases' places differ
    assert other_scores == one_scores


def trained(run: Path) -> dict[str, object]:
    """What a run holds, but for its log, which says when things happened, and where the base lies."""
    files: dict[str, object] = {
        name: sha256 for name, sha256 in read_manifest(run).files.items() if name != "log.jsonl"
    }
    config = json.loads((run / "adapter/adapter_config.json").read_text())
    return files | {"adapter/adapter_config.json": config | {"base_model_name_or_path": None}}


def shorten(recipe: str) -> str:
    """The demo's recipe with fewer steps: what is tested is the going on, not the result."""
    data = yaml.safe_load(recipe)
    data["training"]["epochs"] = 1
    data["guards"]["kl_to_base"] = {"weight": 0.5, "on": "rehearsal"}  # `on` is true to a YAML reader
    data["guards"]["retention_budget"] |= {"every": 2, "loss_rise": 9.0}  # so that nothing stops it early
    data["guards"]["adapter_scale"]["from"] = [0.5, 1.0]
    data["guards"]["rehearsal"]["share"] = 0.05
    return yaml.safe_dump(data)
