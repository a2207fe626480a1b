"""The demo, whole: it ends at GO by its own numbers, and a second run changes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from curate.files import sha256_file


def tutelage(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tutelage", *arguments]
    return subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=1500, check=False)


@pytest.mark.slow
def test_demo_ends_at_go(tmp_path: Path) -> None:
    done = tutelage(tmp_path, "demo", "demo")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    report = tmp_path / "demo" / "reports" / "demo"
    scores = json.loads((report / "scores.json").read_text(encoding="utf-8"))
    assert scores["verdict"] == "GO"
    assert scores["n"] >= 300
    assert scores["schema"]["adherence"]["value"] >= 0.95
    assert scores["abstention"]["hallucination_rate"]["value"] <= 0.05
    assert scores["abstention"]["over_abstention_rate"]["value"] <= 0.10
    assert all(one["bound"] >= -0.02 for one in scores["retention"]["sets"].values()), "one-sided 95 %, tuned - base"
    assert scores["baseline"]["schema"]["adherence"]["value"] == 0, "the base does not write the JSON"
    assert (report / "report.html").as_uri() in done.stdout

    checked = tutelage(tmp_path, "-C", "demo", "verify", "demo")
    assert checked.returncode == 0, checked.stdout

    before = {path: sha256_file(path) for path in report.iterdir() if path.is_file()}
    again = tutelage(tmp_path, "demo", "demo")
    assert again.returncode == 0, again.stderr
    assert {path: sha256_file(path) for path in before} == before
