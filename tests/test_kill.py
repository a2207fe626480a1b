"""`kill -9` at any moment: running the same command again ends where an uninterrupted run ends."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tutelage_recipes.demo.workspace import make_workspace

from curate.files import sha256_file
from curate.manifest import read_manifest

KILLS = 10

pytestmark = pytest.mark.slow


def start(workspace: Path, arguments: list[str]) -> subprocess.Popen[bytes]:
    # A shadow of our package names in the working directory must not be imported.
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tutelage", "-C", str(workspace), *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, start_new_session=True
    )


def finish(workspace: Path, arguments: list[str], codes: tuple[int, ...] = (0,)) -> float:
    """Run to the end; the seconds it took."""
    begun = time.perf_counter()
    process = start(workspace, arguments)
    _, errors = process.communicate(timeout=600)
    assert process.returncode in codes, errors.decode()
    return time.perf_counter() - begun


def kill_on_the_way(workspace: Path, arguments: list[str], longest_seconds: float, seed: int) -> int:
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


@pytest.fixture
def workspaces(tmp_path: Path) -> tuple[Path, Path]:
    """Two equal workspaces of the demo, each with its log of retrievals."""
    for name in ("whole", "killed"):
        make_workspace(tmp_path / name, pairs=300, items_per_set=40)
    return tmp_path / "whole", tmp_path / "killed"


IMPORT = ["curate", "import", "rag-log.jsonl"]
RELEASE = ["curate", "release", "--unreviewed", "--name", "r"]


def test_kill_import(workspaces: tuple[Path, Path]) -> None:
    whole, killed = workspaces
    seconds = finish(whole, IMPORT)
    assert kill_on_the_way(killed, IMPORT, seconds, seed=1) > 0
    finish(killed, IMPORT)
    assert sha256_file(killed / "pairs.jsonl") == sha256_file(whole / "pairs.jsonl")
    assert not list(killed.glob(".*.partial")), "a killed import leaves nothing behind once it was run again"


def test_kill_release(workspaces: tuple[Path, Path]) -> None:
    whole, killed = workspaces
    for workspace in workspaces:
        finish(workspace, IMPORT)
    seconds = finish(whole, RELEASE)
    kill_on_the_way(killed, RELEASE, seconds, seed=2)
    finish(killed, RELEASE)
    assert read_manifest(killed / "releases/r").sha256 == read_manifest(whole / "releases/r").sha256


def test_kill_train_then_eval(workspaces: tuple[Path, Path]) -> None:
    whole, killed = workspaces
    train = ["train", "run", "recipe.yaml", "--release", "r", "--name", "t", "--resume"]
    answer = ["eval", "run", "t", "--name", "e"]
    for workspace in workspaces:
        recipe = (workspace / "recipe.yaml").read_text()
        (workspace / "recipe.yaml").write_text(shorten(recipe))
        finish(workspace, IMPORT)
        finish(workspace, RELEASE)

    seconds = finish(whole, train)
    assert kill_on_the_way(killed, train, seconds * 0.8, seed=3) > 0
    finish(killed, train)
    one, other = (read_manifest(workspace / "runs/t") for workspace in workspaces)
    assert other.files == one.files
    assert other.sha256 == one.sha256

    seconds = finish(whole, answer, codes=(0, 3, 4))
    assert kill_on_the_way(killed, answer, seconds * 0.8, seed=4) > 0
    finish(killed, answer, codes=(0, 3, 4))
    one_scores, other_scores = (json.loads((w / "reports/e/scores.json").read_text()) for w in workspaces)
    for scores in (one_scores, other_scores):
        scores.pop("latency", None)
    assert other_scores == one_scores


def shorten(recipe: str) -> str:
    """The demo's recipe with fewer steps: what is tested is the going on, not the result."""
    import yaml

    data = yaml.safe_load(recipe)
    data["training"]["epochs"] = 1
    data["guards"]["retention_budget"]["every"] = 4
    return yaml.safe_dump(data)
