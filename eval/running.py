"""`eval run` as a page to read: who answers, what is asked, the answers, the scores, the pages, the manifest.

A report without a manifest is unfinished: the same command goes on with it. Finished, the same command scores the
answers that are there again and ends at the same report. Answers are never thrown away: a command whose options ask
for others is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.errors import WorkspaceError
from curate.files import beside, hold, need_space, read_json, sha256_file, write_json
from curate.manifest import NAME, SCORES, Input, check_listed, read_manifest, write_manifest
from curate.release import Release, load_release
from curate.workspace import Workspace, is_name
from eval.endpoint import Endpoint, find_endpoint
from eval.harness import FILES, answer_tasks, find_tasks
from eval.planning import (
    BASE,
    CALIBRATION,
    CLOSED_BOOK,
    CONSTRAINED,
    RETENTION,
    TUNED,
    Answers,
    Request,
    Setting,
    answer_everything,
    held_out_items,
)
from eval.provenance import sources
from eval.subject import Subject, choose_pairs, find_subject

if TYPE_CHECKING:
    from eval.predictions import Prediction


def evaluate(workspace: Workspace, request: Request) -> tuple[Path, dict[str, Any]]:
    """Answer, score and report; (report directory, scores). Raises the `TutelageError`s."""
    subject: Subject | Endpoint
    if request.served:
        subject = find_endpoint(workspace, request.model, request.served)
    else:
        subject = find_subject(workspace, request.model, request.device)
    release = find_release(workspace, subject, request.release)
    asked = choose_pairs(release, subject.run, request.limit)
    directory = workspace.reports / report_name(subject, release, request.name, request.limit)
    setting = Setting(subject, release, asked, held_out_items(subject, request.limit), request, directory)
    if request.constrained and not setting.behaviour.is_json:
        what = "--constrained binds outputs to a JSON Schema, and the outputs of this behaviour are text"
        raise WorkspaceError(what, fix="leave --constrained out")
    with open_report(directory, setting.inputs):
        tasks = find_tasks(setting)
        answers = answer_everything(setting) | answer_tasks(setting, tasks)
        scores = write_scores(setting, answers)
    return directory, scores


def find_release(workspace: Workspace, subject: Subject | Endpoint, named: str | None) -> Release:
    """The release of that name; else the one the run was trained on; for a plain model the newest."""
    if named is None and subject.run:
        return load_release(subject.run.release_directory())
    return load_release(workspace.find("release", named))


def report_name(subject: Subject | Endpoint, release: Release, named: str | None, limit: int | None) -> str:
    """The name asked for, else the run's, with the release's where that is not the one it was trained on.

    A look at a few pairs gets a name of its own, so that it stands in the way of nothing.
    """
    own = subject.run and subject.run.manifest.inputs["release"].sha256 == release.manifest.sha256
    name = named or (subject.name if own else f"{subject.name}-on-{release.manifest.name}")
    name += f"-limit-{limit}" if limit and not named else ""
    if not is_name(name):
        fix = "letters, digits, dots, dashes and underscores: --name first"
        raise WorkspaceError(f"{name!r} cannot be a report's name", fix=fix)
    return name


@contextmanager
def open_report(directory: Path, inputs: dict[str, Input]) -> Iterator[None]:
    """Begin a report, go on with an unfinished one, or open a finished one of the same inputs to write it again.

    Raises `WorkspaceError` where the name is taken by something else or another process works on it.
    """
    full = need_space(directory, "free some space there, then run the same command again: it goes on where it stopped")
    with hold(beside(directory), directory), full:
        hashes = {role: one.sha256 for role, one in inputs.items()}
        _check_same(directory, hashes)
        directory.mkdir(exist_ok=True)
        for left in directory.glob(".*.partial"):  # of writes that were killed
            left.unlink()
        write_json(_begun(directory), hashes)
        try:
            yield
        finally:
            if (directory / NAME).is_file():  # it is finished, now or still
                _begun(directory).unlink()


def _begun(directory: Path) -> Path:
    """What an unfinished report is of; beside it, so that a finished one holds nothing its manifest does not list."""
    return directory.with_name(f".{directory.name}.begun.json")


def _check_same(directory: Path, hashes: dict[str, str]) -> None:
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return
    found: Any = None
    if (directory / NAME).is_file():
        found = {role: one.sha256 for role, one in read_manifest(directory, "report").inputs.items()}
    elif _begun(directory).is_file():
        found = read_json(_begun(directory))
    if found != hashes:
        what = "something that is no report stands there" if found is None else "this report is of other inputs"
        raise WorkspaceError(what, where=str(directory), fix="give this one another name: --name NAME")


def write_scores(setting: Setting, answers: Answers) -> dict[str, Any]:
    """Grade, score, judge; scores, pages and, last, the manifest."""
    from eval.failures import find_failures
    from eval.grading import grade
    from eval.report import write_report
    from eval.scoring import assemble_scores, score_graded, score_predictions

    behaviour, asked, directory = setting.behaviour, setting.asked, setting.directory
    graded = grade(behaviour, asked.test, predictions(answers, TUNED))
    by_heart = predictions(answers, CLOSED_BOOK) if CLOSED_BOOK in answers else None
    held_out = (asked.calibration, predictions(answers, CALIBRATION))
    tuned = score_graded(behaviour, graded, held_out, by_heart, setting.request.slices)
    baseline = score_predictions(behaviour, asked.test, predictions(answers, BASE)) if BASE in answers else None
    scores = assemble_scores(behaviour, tuned, baseline, retention_scores(setting, answers), sources(setting))
    if setting.request.constrained:
        scores["constrained"] = constrained_scores(setting, answers)
    (directory / NAME).unlink(missing_ok=True)  # from here on it is another report
    write_json(directory / SCORES, scores)
    write_report(directory, scores, find_failures(behaviour, graded))
    write_manifest(directory, "report", directory.name, setting.inputs, {"verdict": scores["verdict"]})
    return scores


def predictions(answers: Answers, name: str) -> dict[str, Prediction]:
    """The predictions of a file by pair id; {} where it was not asked for."""
    from eval.predictions import Prediction

    return {line["id"]: Prediction.model_validate(line) for line in answers.get(name, [])}


def retention_scores(setting: Setting, answers: Answers) -> dict[str, Any] | None:
    """Base against tuned on the general items and the tasks of the harness; None where there are none."""
    from eval.retention import Result, retention_numbers
    from eval.scored import allowed_drop

    def results(name: str) -> list[Result]:
        return [Result.model_validate(one) for one in answers.get(name, [])]

    base, tuned = ([*results(RETENTION[side]), *results(FILES[side])] for side in ("base", "tuned"))
    return retention_numbers(base, tuned, allowed_drop(setting.behaviour)) if base else None


def constrained_scores(setting: Setting, answers: Answers) -> dict[str, Any]:
    """The same numbers with every output bound to the schema: {"engine", "ignored", "tuned", "base"}.

    `ignored` are keywords of the schema that the engine does not know; null where a server did the binding.
    """
    from eval.scoring import PARTS, score_predictions

    sides: dict[str, Any] = {"tuned": None, "base": None}
    for side, name in CONSTRAINED.items():
        if name in answers:
            found = score_predictions(setting.behaviour, setting.asked.test, predictions(answers, name))
            sides[side] = {part: found.get(part) for part in ("n", *PARTS)}
    return {**setting.subject.binding(setting.behaviour.schema_document or {}), **sides}


def rewrite_pages(directory: Path) -> Path:
    """Write a finished report's pages again from its scores and failures; returns the page's path.

    Only the pages' hashes change in the manifest: whatever else was altered is refused, not blessed. Raises
    `WorkspaceError`.
    """
    from eval.comparing import read_scores
    from eval.failures import NAME as FAILURES
    from eval.failures import read_failures
    from eval.report import PAGES, write_pages

    manifest = read_manifest(directory, "report")
    scores = read_scores(directory)
    failures = read_failures(directory / FAILURES)
    check_listed(manifest, directory, FAILURES)
    page = write_pages(directory, scores, failures)
    files = {**manifest.files, **{name: sha256_file(directory / name) for name in PAGES}}
    write_manifest(directory, "report", manifest.name, manifest.inputs, manifest.details, files)
    return page
