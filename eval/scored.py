"""Predictions files at the edge: what to score against, the scores, and the report directory they become."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.behaviour import Behaviour, load_behaviour
from curate.errors import PairError, WorkspaceError
from curate.files import atomic_directory, beside, hold, sha256_file, write_json
from curate.manifest import NAME, SCORES, Input, read_manifest, write_manifest
from curate.pairs import Pair, read_pairs
from curate.parquet import encodable
from curate.release import load_release
from curate.workspace import Workspace
from eval.grading import Graded, grade
from eval.predictions import match_predictions, read_predictions
from eval.retention import MARGIN, read_results, retention_numbers
from eval.scoring import assemble_scores, score_graded, score_predictions


@dataclass(frozen=True)
class Request:
    """What to score and against what; the files are read only when they are."""

    predictions: Path
    release: str | None = None
    pairs: Path | None = None
    behaviour: Path | None = None
    baseline: Path | None = None
    retention: tuple[Path, Path] | None = None
    closed_book: Path | None = None
    partial: bool = False
    slices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Against:
    """The pairs to score on, those the threshold may be chosen on, and the files both come from."""

    behaviour: Behaviour
    test: Sequence[Pair]
    calibration: Sequence[Pair]
    files: dict[str, Path]


@dataclass(frozen=True)
class Scored:
    """The scores with what a report shows beside them."""

    scores: dict[str, Any]
    graded: list[Graded]
    files: dict[str, Path]
    against: Against


def find_against(request: Request, workspace: Workspace) -> Against:
    """The release's test split, or the pairs of a file under a behaviour; the newest release where neither is named."""
    if request.pairs is None:
        if request.behaviour is not None:
            raise WorkspaceError("a release has its own behaviour", fix="drop --behaviour, or name a file with --pairs")
        release = load_release(workspace.find("release", request.release))
        return Against(
            release.behaviour, release.pairs("test"), release.pairs("calibration"), {"release": release.directory}
        )
    if request.release is not None:
        raise WorkspaceError("--release and --pairs both name what to score against", fix="give one of them")
    path = request.behaviour or workspace.require().behaviour
    behaviour = load_behaviour(path)
    files = {"pairs": request.pairs, "behaviour": path}
    if behaviour.output.schema_file:
        files["schema"] = path.parent / behaviour.output.schema_file
    pairs = read_pairs(request.pairs)
    broken = next((pair.id for pair in pairs if not encodable(pair)), None)
    if broken is not None:
        raise PairError(f"the pair {broken!a} holds half a character (a lone surrogate)", where=str(request.pairs))
    return Against(behaviour, pairs, (), files)


def score_files(request: Request, workspace: Workspace) -> Scored:
    """Read and score; raises `PredictionError`, `PairError` or `WorkspaceError` with the file and line at fault."""
    given = (request.predictions, request.pairs, request.baseline, request.closed_book, *(request.retention or ()))
    require_files(path for path in given if path)
    against = find_against(request, workspace)
    behaviour = against.behaviour
    predictions = read_predictions(request.predictions)
    matched = match_predictions(
        predictions, against.test, str(request.predictions), against.calibration, request.partial
    )
    files = {"predictions": request.predictions}
    graded = grade(behaviour, matched, predictions)
    closed_book = baseline = retention = None
    if request.closed_book:
        files["closed_book"] = request.closed_book
        closed_book = read_predictions(request.closed_book)
        match_predictions(closed_book, matched, str(request.closed_book), [*against.test, *against.calibration], True)
    tuned = score_graded(behaviour, graded, (against.calibration, predictions), closed_book, request.slices)
    if request.baseline:
        files["baseline"] = request.baseline
        before = read_predictions(request.baseline)
        common = match_predictions(
            before, matched, str(request.baseline), [*against.test, *against.calibration], request.partial
        )
        baseline = score_predictions(behaviour, common, before, (against.calibration, before))
    if request.retention:
        files |= {"retention_base": request.retention[0], "retention_tuned": request.retention[1]}
        results = [read_results(path) for path in request.retention]
        retention = retention_numbers(results[0], results[1], allowed_drop(behaviour))
    scores = assemble_scores(behaviour, tuned, baseline, retention, _sources(against, files, len(matched)))
    if len(matched) < len(against.test):
        said = f"Only {len(matched):,} of {len(against.test):,} pairs have a prediction: the verdict is on those alone."
        scores["reasons"] = [said, *scores["reasons"]]
    return Scored(scores, graded, files, against)


def allowed_drop(behaviour: Behaviour) -> float:
    """The margin of retention: what the gate allows, else two points."""
    bound = behaviour.gate.get("retention_drop")
    return bound.at_most if bound is not None and bound.at_most is not None else MARGIN


def _sources(against: Against, files: dict[str, Path], n: int) -> dict[str, Any]:
    """What was scored against what, by name and hash: no path of this machine gets into a result."""
    made_from = ", ".join(role.replace("_", " ") for role in files)
    chain = [{"role": "report", "name": against.behaviour.name, "sha256": "", "made_from": made_from}]
    for role, path in {**files, **against.files}.items():
        link = {"role": role.replace("_", " "), "name": path.resolve().name, "sha256": _sha256(path), "made_from": ""}
        chain.append(link)
    facts = [["Behaviour", against.behaviour.name], ["Pairs in the test split", f"{len(against.test):,}"]]
    if n < len(against.test):
        facts.append(["Scored in part", f"only {n:,} of them have a prediction"])
    return {"title": against.behaviour.name, "partial": n < len(against.test), "chain": chain, "facts": facts}


def require_files(paths: Iterable[Path]) -> None:
    """Raise `WorkspaceError` for a pipe: what is scored is read twice, for its lines and for its hash."""
    for path in paths:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise WorkspaceError(
                "this is a pipe, and what is scored is read twice", where=str(path), fix="write a file"
            )


def _sha256(path: Path) -> str:
    return read_manifest(path).sha256 if (path / NAME).is_file() else sha256_file(path)


def write_scored(scored: Scored, directory: Path) -> None:
    """Write a report: the files scored, scores, pages, manifest; the whole directory at once or not at all.

    An earlier report of that name is replaced; raises `WorkspaceError` where something else stands there, or another
    command is writing there.
    """
    directory = directory.resolve()
    with hold(beside(directory), directory):
        _check_replaceable(directory)
        _replace(scored, directory)


def _replace(scored: Scored, directory: Path) -> None:
    from eval.failures import find_failures
    from eval.report import write_report

    inputs = {
        role: Input(path=os.path.relpath(path.resolve(), directory), sha256=_sha256(path))
        for role, path in scored.against.files.items()
    }
    earlier = directory.with_name(f".{directory.name}.old")
    with atomic_directory(directory) as made:
        for role, path in scored.files.items():
            shutil.copyfile(path, made / f"{role.replace('_', '-')}.jsonl")
        write_json(made / SCORES, scored.scores)
        write_report(made, scored.scores, find_failures(scored.against.behaviour, scored.graded))
        write_manifest(made, "report", directory.name, inputs, {"verdict": scored.scores["verdict"]})
        shutil.rmtree(earlier, ignore_errors=True)
        if directory.exists():
            directory.rename(earlier)
    shutil.rmtree(earlier, ignore_errors=True)


def _check_replaceable(directory: Path) -> None:
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return
    if not (directory / NAME).is_file() or (manifest := read_manifest(directory)).kind != "report":
        raise WorkspaceError("something that is no report stands there", where=str(directory), fix="name another --out")
    if manifest.inputs.keys() & {"run", "model"}:
        what = "a report of tutelage eval run stands there, and its answers would be lost"
        raise WorkspaceError(what, where=str(directory), fix="name another --out")
