"""What `eval run` asks, of whom, into which file; and the asking."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from curate.behaviour import Behaviour
from curate.errors import WorkspaceError
from curate.files import sha256_text, sha256_value
from curate.manifest import Input
from curate.pairs import Pair
from curate.release import Release
from eval.answering import MADE_BY, Job, Line, Question, agreement, all_lines, answer_all
from eval.reply import Reply
from eval.subject import LIKELIEST, Asked, Manner, Side, Subject

if TYPE_CHECKING:
    from eval.endpoint import Endpoint, Served
    from train.items import Item

TUNED, BASE, CALIBRATION = "predictions.jsonl", "predictions-base.jsonl", "calibration-predictions.jsonl"
CLOSED_BOOK = "closed-book.jsonl"
CONSTRAINED: dict[Side, str] = {"tuned": "predictions-constrained.jsonl", "base": "predictions-base-constrained.jsonl"}
RETENTION: dict[Side, str] = {"base": "retention-base.jsonl", "tuned": "retention-tuned.jsonl"}
FILES = (TUNED, BASE, CALIBRATION, CLOSED_BOOK, *CONSTRAINED.values(), *RETENTION.values())
TEMPERATURE = 1.0  # of drawn answers: their shares then estimate the model's own probabilities


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
    samples: int = 0
    constrained: bool = False
    closed_book: bool = True
    tasks: tuple[str, ...] = ()
    tasks_path: Path | None = None
    served: Served | None = None
    slices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Setting:
    """All that the answers depend on."""

    subject: Subject | Endpoint
    release: Release
    asked: Asked
    items: list[Item]
    request: Request
    directory: Path

    @property
    def behaviour(self) -> Behaviour:
        return self.release.behaviour

    @cached_property
    def inputs(self) -> dict[str, Input]:
        """What the report is made from, as its manifest names it; a model in a directory is hashed for it, once."""
        role, subject = self.subject.input(self.directory)
        path = Path(os.path.relpath(self.release.directory.resolve(), self.directory.resolve())).as_posix()
        return {role: subject, "release": Input(path=path, sha256=self.release.manifest.sha256)}


def held_out_items(subject: Subject | Endpoint, limit: int | None) -> list[Item]:
    """The general items held out when the run was trained; none where there is no base to have lost from."""
    from train.items import read_items, sample_sets

    run = subject.run
    if run is None or "base" not in subject.sides or not run.retention.is_file() or not run.retention.stat().st_size:
        return []
    items = read_items(run.retention, answers=True)
    return items if limit is None else sample_sets(items, limit)


class Told(NamedTuple):
    """The likeliest answer (a `Generation` or a `Reply`), and the texts drawn beside it."""

    answer: Any
    samples: tuple[str, ...]


Answers = dict[str, list[Line]]  # file -> its lines


def answer_everything(setting: Setting) -> Answers:
    """Every file of answers: the test split by both models, calibration by the tuned one, general items by both."""
    from train.bars import counting

    jobs = plan(setting)
    check_kept(setting.directory, jobs)
    with counting("answering", sum(len(job.questions) for job in jobs)) as progress:
        answers = {job.path.name: answer_all(job, progress) for job in jobs}
    for name in set(FILES) - set(answers):
        (setting.directory / name).unlink(missing_ok=True)
    return answers


def check_kept(directory: Path, jobs: Sequence[Job]) -> None:
    """Raise `WorkspaceError` where answers that are there would be thrown away: each of them has cost time on a GPU."""
    planned = {job.path.name: job for job in jobs}
    for name in FILES:
        path, job = directory / name, planned.get(name)
        asked = {question.id for question in job.questions} if job else set()
        lost = sum(not job or line.get(MADE_BY) != job.made_by or line["id"] not in asked for line in all_lines(path))
        if lost:
            raise would_lose(lost, path)


def would_lose(answers: int, path: Path) -> WorkspaceError:
    """The error for a command under which `answers` in a file would be thrown away."""
    return WorkspaceError(
        f"{answers:,} of the answers there were given otherwise (other options, another device or address, an older"
        " version), or would not be asked for now",
        where=str(path),
        fix="take the options it was begun with, give this one another name (--name), or delete the directory",
    )


def plan(setting: Setting) -> list[Job]:
    """What is to be answered, by whom, into which file."""
    jobs: list[Job] = []
    pairs, request = _PairJobs(setting), setting.request
    for side in setting.subject.sides:
        jobs.append(pairs.job(TUNED if side == "tuned" else BASE, side, setting.asked.test, request.samples))
        if request.constrained:
            bound = Manner(schema=setting.behaviour.schema_document or {})
            jobs.append(pairs.job(CONSTRAINED[side], side, setting.asked.test, manner=bound))
        if setting.items:
            jobs.append(_general_job(setting, side))
    if setting.asked.calibration:
        jobs.insert(1, pairs.job(CALIBRATION, "tuned", setting.asked.calibration, request.samples))
    closed = [_without_passages(pair) for pair in _memorable(setting)] if request.closed_book else []
    return jobs + ([pairs.job(CLOSED_BOOK, "tuned", closed)] if closed else [])


def _memorable(setting: Setting) -> list[Pair]:
    """The pairs whose answer could be known by heart: those that have one, and passages to take away."""
    return [pair for pair in setting.asked.test if pair.passages and setting.behaviour.is_answerable(pair)]


def _without_passages(pair: Pair) -> Pair:
    return pair.model_copy(update={"passages": ()})


class _PairJobs:
    """Jobs whose questions are pairs. All may use twice the tokens of the longest wanted text and some: room, not
    for ever."""

    def __init__(self, setting: Setting) -> None:
        behaviour, asked = setting.behaviour, setting.asked
        wanted = [behaviour.text(pair.output) for pair in (*asked.test, *asked.calibration)]
        self._setting = setting
        self._most = room(setting, wanted)

    def job(self, name: str, side: Side, pairs: Sequence[Pair], samples: int = 0, manner: Manner = LIKELIEST) -> Job:
        setting, subject, most = self._setting, self._setting.subject, self._most
        questions = [Question(pair.id, subject.render(setting.behaviour.render(pair))) for pair in pairs]

        def answer(prompts: list[str]) -> list[Told]:
            found = subject.answer(side, prompts, most, manner)
            drawn = [subject.answer(side, prompts, most, _draw(i, prompts)) for i in range(samples)]
            return [Told(one, tuple(draws[i].text for draws in drawn)) for i, one in enumerate(found)]

        def line_of(question: Question, told: Told) -> Line:
            return prediction_line(setting, question, told)

        key = key_of(setting, side, most, [samples and [samples, TEMPERATURE], manner.schema])
        return Job(setting.directory / name, questions, key, answer, line_of, setting.request.batch_size)


def _draw(number: int, prompts: Sequence[str]) -> Manner:
    """One draw for a batch: other batches and other draws have other seeds, the same ones whenever asked again."""
    return Manner(TEMPERATURE, int(sha256_text(f"{number} {prompts[0]}")[:8], 16) & 0x7FFFFFFF)


def prediction_line(setting: Setting, question: Question, told: Told) -> Line:
    """A line of `predictions.jsonl`, less what the batch adds."""
    answer, behaviour = told.answer, setting.behaviour
    if told.samples:
        confidence = agreement(behaviour, answer.text, told.samples)
    else:
        confidence = setting.subject.confidence(behaviour, answer)
    return {
        "id": question.id,
        "output": answer.text,
        "confidence": confidence,
        "finish": "stop" if answer.finished else "length",
        **_cost(answer),
        **({"samples": list(told.samples)} if told.samples else {}),
    }


def _cost(answer: Any) -> Line:
    """Tokens made, and for an answer that came over the wire how long it took: there a batch's time says nothing."""
    if isinstance(answer, Reply):
        timed = {"latency_seconds": round(answer.seconds, 6)}
        return timed if answer.count is None else {"tokens": answer.count, **timed}
    return {"tokens": len(answer.token_ids)}


def _general_job(setting: Setting, side: Side) -> Job:
    subject, items = setting.subject, setting.items
    most = room(setting, [str(item.answer) for item in items])
    questions = [Question(item.id, subject.render(item.messages())) for item in items]

    def answer(prompts: list[str]) -> Sequence[Any]:
        return subject.answer(side, prompts, most)

    key = key_of(setting, side, most)
    path = setting.directory / RETENTION[side]
    return Job(path, questions, key, answer, _graded(items), setting.request.batch_size)


def _graded(items: Sequence[Item]) -> Callable[[Question, Any], Line]:
    """Lines of general items: right or wrong by the item's own comparator."""
    by_id = {item.id: item for item in items}

    def line(question: Question, answer: Any) -> Line:
        item = by_id[question.id]
        finish = "stop" if answer.finished else "length"
        correct = item.is_right(answer.text)
        return {"id": item.id, "set": item.set, "correct": correct, "output": answer.text, "finish": finish}

    return line


def room(setting: Setting, wanted: Sequence[str]) -> int:
    """How many tokens an answer may take where `wanted` are the right ones."""
    return setting.request.max_new_tokens or 2 * setting.subject.longest(wanted) + 32


def key_of(setting: Setting, side: Side, most: int, more: Sequence[Any] = ()) -> str:
    """What marks the lines of one asker and one way of asking."""
    hashes = {role: one.sha256 for role, one in setting.inputs.items()}
    request = setting.request
    made = [hashes, side, most, request.batch_size, request.limit, *setting.subject.key(side), *more]
    return sha256_value(made)[:16]


def decoding_facts(setting: Setting) -> dict[str, str]:
    """How the questions were asked, for the report's last section."""
    request = setting.request
    found = {"Decoding": "greedy"}
    if request.samples:
        found["Confidence"] = f"agreement of {request.samples} answers drawn at temperature {TEMPERATURE:g}"
    elif request.served is None or request.served.logprobs:
        found["Confidence"] = "geometric mean of the probabilities of the answer's tokens"
    return found
