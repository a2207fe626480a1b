"""`eval run` as a page to read: who answers, what is asked, the answers, the scores, the pages, the manifest.

A report without a manifest is unfinished: the same command goes on with it. Finished, the same command scores the
answers that are there again and ends at the same report.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from curate.behaviour import Behaviour
from curate.errors import WorkspaceError
from curate.files import read_json, sha256_value, write_json
from curate.manifest import NAME, Input, read_manifest, write_manifest
from curate.pairs import Pair
from curate.release import Release, load_release
from curate.workspace import Workspace
from eval.answering import Job, Line, Question, answer_all, prediction_line
from eval.provenance import sources
from eval.subject import Asked, Side, Subject, choose_pairs, find_subject

if TYPE_CHECKING:
    from train.generation import Generation
    from train.items import Item

TUNED, BASE, CALIBRATION = "predictions.jsonl", "predictions-base.jsonl", "calibration-predictions.jsonl"
RETENTION: dict[Side, str] = {"base": "retention-base.jsonl", "tuned": "retention-tuned.jsonl"}
SCORES = "scores.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Request:
    """What `eval run` was asked for."""

    model: str
    release: str | None = None
    name: str | None = None
    limit: int | None = None
    max_new_tokens: int | None = None
    batch_size: int = 64
    device: str = "auto"


@dataclass(frozen=True)
class Setting:
    """All that the answers depend on."""

    subject: Subject
    release: Release
    asked: Asked
    items: list[Item]
    request: Request
    directory: Path

    @property
    def behaviour(self) -> Behaviour:
        return self.release.behaviour


def evaluate(workspace: Workspace, request: Request) -> tuple[Path, dict[str, Any]]:
    """Answer, score and report; (report directory, scores). Raises the `TutelageError`s."""
    subject = find_subject(workspace, request.model, request.device)
    release = find_release(workspace, subject, request.release)
    asked = choose_pairs(release, subject.run, request.limit)
    directory = workspace.reports / report_name(subject, release, request.name)
    setting = Setting(subject, release, asked, _items(subject, request.limit), request, directory)
    with open_report(directory, inputs_of(setting)) as inputs:
        answers = answer_everything(setting)
        scores = write_scores(setting, answers, inputs)
    return directory, scores


def find_release(workspace: Workspace, subject: Subject, named: str | None) -> Release:
    """The release of that name; else the one the run was trained on; for a plain model the newest."""
    if named is None and subject.run:
        return load_release(subject.run.release_directory())
    return load_release(workspace.find("release", named))


def report_name(subject: Subject, release: Release, named: str | None) -> str:
    """The name asked for, else the run's, with the release's where that is not the one it was trained on."""
    own = subject.run and subject.run.manifest.inputs["release"].sha256 == release.manifest.sha256
    name = named or (subject.name if own else f"{subject.name}-on-{release.manifest.name}")
    if not _NAME.fullmatch(name):
        fix = "letters, digits, dots, dashes and underscores: --name first"
        raise WorkspaceError(f"{name!r} cannot be a report's name", fix=fix)
    return name


def _items(subject: Subject, limit: int | None) -> list[Item]:
    """The general items held out when the run was trained; none for a plain model, which has no base to lose from."""
    from train.items import read_items, sample_sets

    if subject.run is None or not subject.run.retention.is_file() or not subject.run.retention.stat().st_size:
        return []
    items = read_items(subject.run.retention, answers=True)
    return items if limit is None else sample_sets(items, limit)


def inputs_of(setting: Setting) -> dict[str, Input]:
    """What the report is made from, as its manifest names it."""
    role, subject = setting.subject.input(setting.directory)
    path = Path(os.path.relpath(setting.release.directory.resolve(), setting.directory.resolve())).as_posix()
    return {role: subject, "release": Input(path=path, sha256=setting.release.manifest.sha256)}


@contextmanager
def open_report(directory: Path, inputs: dict[str, Input]) -> Iterator[dict[str, Input]]:
    """Begin a report, go on with an unfinished one, or open a finished one of the same inputs to write it again.

    Raises `WorkspaceError` where the name is taken by something else or another process works on it.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(directory.parent / f".{directory.name}.lock", timeout=0)
    try:
        with lock:
            _check_same(directory, {role: one.sha256 for role, one in inputs.items()})
            directory.mkdir(exist_ok=True)
            for left in directory.glob(".*.partial"):  # of writes that were killed
                left.unlink()
            write_json(_begun(directory), {role: one.sha256 for role, one in inputs.items()})
            (directory / NAME).unlink(missing_ok=True)
            yield inputs
            _begun(directory).unlink()
    except Timeout:
        raise WorkspaceError("another tutelage eval run is writing this report", where=str(directory)) from None


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


Answers = dict[str, list[Line]]  # file -> its lines


def answer_everything(setting: Setting) -> Answers:
    """Every file of answers: the test split by both models, calibration by the tuned one, general items by both."""
    from train.bars import counting

    jobs = plan(setting)
    with counting("answering", sum(len(job.questions) for job in jobs)) as progress:
        answers = {job.path.name: answer_all(job, progress) for job in jobs}
    for name in {TUNED, BASE, CALIBRATION, *RETENTION.values()} - set(answers):
        (setting.directory / name).unlink(missing_ok=True)
    return answers


def plan(setting: Setting) -> list[Job]:
    """What is to be answered, by whom, into which file."""
    from train.rendering import render_prompt

    tokenizer, asked, items = setting.subject.tokenizer, setting.asked, setting.items

    def rendered(pairs: Sequence[Pair]) -> list[Question]:
        return [Question(pair.id, render_prompt(tokenizer, setting.behaviour.render(pair))) for pair in pairs]

    def said(question: Question, answer: Generation) -> Line:
        return prediction_line(setting.behaviour, tokenizer, question, answer)

    wanted = [setting.behaviour.text(pair.output) for pair in (*asked.test, *asked.calibration)]
    jobs = [_job(setting, TUNED, "tuned", rendered(asked.test), said, wanted)]
    if asked.calibration:
        jobs.append(_job(setting, CALIBRATION, "tuned", rendered(asked.calibration), said, wanted))
    general = [Question(item.id, render_prompt(tokenizer, item.messages())) for item in items]
    answers = [str(item.answer) for item in items]
    if items:
        jobs.append(_job(setting, RETENTION["tuned"], "tuned", general, _graded(items), answers))
    if setting.subject.run:
        jobs.append(_job(setting, BASE, "base", rendered(asked.test), said, wanted))
        if items:
            jobs.append(_job(setting, RETENTION["base"], "base", general, _graded(items), answers))
    return jobs


def _graded(items: Sequence[Item]) -> Callable[[Question, Generation], Line]:
    """Lines of general items: right or wrong by the item's own comparator."""
    by_id = {item.id: item for item in items}

    def line(question: Question, answer: Generation) -> Line:
        item = by_id[question.id]
        finish = "stop" if answer.finished else "length"
        correct = item.is_right(answer.text)
        return {"id": item.id, "set": item.set, "correct": correct, "output": answer.text, "finish": finish}

    return line


def _job(
    setting: Setting, name: str, side: Side, questions: list[Question], line_of: Any, wanted: Sequence[str]
) -> Job:
    """A file's job. Both sides may use twice the tokens of the longest wanted text and some: room, but not for ever."""
    from train.rendering import encode

    longest = max((len(ids) for ids in encode(setting.subject.tokenizer, wanted)), default=0)
    most = setting.request.max_new_tokens or 2 * longest + 32
    size = setting.request.batch_size
    hashes = {role: one.sha256 for role, one in inputs_of(setting).items()}
    key = sha256_value([hashes, side, most, size])[:16]

    def answer(prompts: list[str]) -> list[Generation]:
        return setting.subject.answer(side, prompts, most)

    return Job(setting.directory / name, questions, key, answer, line_of, size)


def write_scores(setting: Setting, answers: Answers, inputs: dict[str, Input]) -> dict[str, Any]:
    """Grade, score, judge; scores, pages and, last, the manifest."""
    from eval.failures import find_failures
    from eval.predictions import Prediction
    from eval.report import write_report
    from eval.retention import Result, retention_numbers
    from eval.scored import allowed_drop
    from eval.scoring import assemble_scores, grade, score_graded, score_predictions

    behaviour, asked, directory = setting.behaviour, setting.asked, setting.directory

    def predictions(name: str) -> dict[str, Prediction]:
        return {line["id"]: Prediction.model_validate(line) for line in answers.get(name, [])}

    graded = grade(behaviour, asked.test, predictions(TUNED))
    tuned = score_graded(behaviour, graded, (asked.calibration, predictions(CALIBRATION)))
    baseline = score_predictions(behaviour, asked.test, predictions(BASE)) if BASE in answers else None
    retention = None
    if RETENTION["base"] in answers:
        sides = [[Result.model_validate(one) for one in answers[RETENTION[side]]] for side in ("base", "tuned")]
        retention = retention_numbers(sides[0], sides[1], allowed_drop(behaviour))
    made_from = sources(setting.subject, setting.release, asked, len(setting.items), inputs)
    scores = assemble_scores(behaviour, tuned, baseline, retention, made_from)
    write_json(directory / SCORES, scores)
    write_report(directory, scores, find_failures(behaviour, graded))
    write_manifest(directory, "report", directory.name, inputs, {"verdict": scores["verdict"]})
    return scores


def rewrite_pages(directory: Path) -> Path:
    """Write a finished report's pages again from its scores and failures; returns the page's path.

    Only the pages' hashes change in the manifest: whatever else was altered is refused, not blessed. Raises
    `WorkspaceError`.
    """
    from curate.files import sha256_file
    from eval.comparing import read_scores
    from eval.failures import NAME as FAILURES
    from eval.failures import read_failures
    from eval.report import HTML, MARKDOWN, write_pages

    manifest = read_manifest(directory, "report")
    scores = read_scores(directory)
    failures = read_failures(directory / FAILURES)
    if manifest.files.get(FAILURES) != sha256_file(directory / FAILURES):
        fix = "tutelage verify says what changed; score again to get a report that holds"
        raise WorkspaceError("it was changed after it was written", where=str(directory / FAILURES), fix=fix)
    page = write_pages(directory, scores, failures)
    files = {**manifest.files, **{name: sha256_file(directory / name) for name in (HTML, MARKDOWN)}}
    write_manifest(directory, "report", manifest.name, manifest.inputs, manifest.details, files)
    return page
