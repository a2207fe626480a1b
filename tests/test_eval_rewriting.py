"""A finished report's pages written again: from what was scored, and from nothing that was altered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from curate.errors import WorkspaceError
from curate.files import sha256_file, write_json
from curate.manifest import read_manifest, write_manifest
from eval.comparing import read_scores
from eval.report import write_report
from eval.running import rewrite_pages


def finished(directory: Path, scored: tuple[dict[str, Any], list[Any]]) -> Path:
    """A report as `eval run` leaves it."""
    scores, failures = scored
    write_json(directory / "scores.json", scores)
    write_report(directory, scores, failures)
    write_manifest(directory, "report", directory.name, {}, {"verdict": scores["verdict"]})
    return directory


def test_pages_are_written_again(tmp_path: Path, scored: tuple[dict[str, Any], list[Any]]) -> None:
    report = finished(tmp_path / "r", scored)
    before = read_manifest(report, "report")
    (report / "report.html").write_text("an older layout")
    page = rewrite_pages(report)
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert read_manifest(report, "report") == before


def test_an_edited_manifest_blesses_nothing(tmp_path: Path, scored: tuple[dict[str, Any], list[Any]]) -> None:
    report = finished(tmp_path / "r", scored)
    scores = report / "scores.json"
    before = sha256_file(scores)
    scores.write_text(scores.read_text().replace('"verdict": "', '"verdict":  "', 1))
    manifest = report / "manifest.json"
    manifest.write_text(manifest.read_text().replace(before, sha256_file(scores)))
    with pytest.raises(WorkspaceError, match="the manifest was edited"):
        read_scores(report)
    with pytest.raises(WorkspaceError, match="the manifest was edited"):
        rewrite_pages(report)
    manifest.unlink()
    with pytest.raises(WorkspaceError, match="no finished report"):
        read_scores(report)


@pytest.mark.parametrize("name", ["scores.json", "failures.jsonl"])
def test_an_altered_report_is_not_written_again(
    tmp_path: Path, scored: tuple[dict[str, Any], list[Any]], name: str
) -> None:
    report = finished(tmp_path / "r", scored)
    text = (report / name).read_text()
    (report / name).write_text(text.replace("0.95", "0.96") if name == "scores.json" else text.replace("box", "bag"))
    manifest = sha256_file(report / "manifest.json")
    with pytest.raises(WorkspaceError, match="changed after it was written"):
        rewrite_pages(report)
    assert sha256_file(report / "manifest.json") == manifest
