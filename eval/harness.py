"""Tasks of the lm-evaluation-harness as retention sets: base and tuned on the same items, paired one by one.

The harness is the real library; it is handed our model, with the adapter on or off, and asks in the model's chat
template. One task by one side is done as a whole and kept, so an interrupted run goes on with the next.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from curate.errors import WorkspaceError
from curate.files import sha256_tree
from eval.answering import MADE_BY, Line, all_lines, append_lines, write_lines
from eval.planning import Setting, key_of, would_lose
from eval.subject import Side, Subject

FILES: dict[Side, str] = {"base": "tasks-base.jsonl", "tuned": "tasks-tuned.jsonl"}
INSTALL = "pip install 'tutelage[harness]'"
GRADES = ("exact_match", "acc", "acc_norm", "pass@1", "prompt_level_strict_acc")  # which of a task's measures decides


class Tasks(NamedTuple):
    """The tasks asked for, the harness's manager of them, and side -> task -> what marks its lines."""

    names: list[str]
    manager: Any
    keys: dict[Side, dict[str, str]]


def find_tasks(setting: Setting) -> Tasks:
    """The tasks asked for; of no tasks no manager. Before anything is answered.

    Raises `WorkspaceError` for tasks that the harness does not have, and where answers to tasks would be thrown away.
    """
    request, subject = setting.request, setting.subject
    names = list(dict.fromkeys(request.tasks))
    if names and (not isinstance(subject, Subject) or subject.run is None):
        raise WorkspaceError(
            "tasks of the harness compare a run with its base, and both must be here",
            fix="name a run, and leave --endpoint out",
        )
    own = sha256_tree(request.tasks_path) if request.tasks_path and request.tasks_path.is_dir() else None
    keys: dict[Side, dict[str, str]] = {
        side: {name: key_of(setting, side, 0, [name, own]) for name in names} for side in FILES
    }
    for side, file in FILES.items():
        path = setting.directory / file
        lost = sum(line.get(MADE_BY) not in keys[side].values() for line in all_lines(path))
        if lost:
            raise would_lose(lost, path)
    return Tasks(names, _manager(names, request.tasks_path) if names else None, keys)


def answer_tasks(setting: Setting, tasks: Tasks) -> dict[str, list[Line]]:
    """File -> lines {"id", "set", "correct"} of every task, by both sides; {} where none is asked for.

    Raises `WorkspaceError` for tasks with no right and wrong per item.
    """
    return {FILES[side]: _answer_side(setting, side, tasks) for side in FILES} if tasks.names else {}


def _manager(names: Sequence[str], path: Path | None) -> Any:
    from train.model import quiet

    quiet()  # first: the harness brings the hub's client, which reads the environment once
    try:
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise WorkspaceError("tasks need the lm-evaluation-harness", fix=INSTALL) from None
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    if path is not None and not path.is_dir():
        raise WorkspaceError("there is no such directory of tasks", where=str(path))
    manager = None
    if path is not None:  # the harness's own tasks are thousands of files: read where they are needed
        manager = TaskManager(include_path=str(path.resolve()), include_defaults=False)
    if manager is None or any(name not in manager.all_tasks for name in names):
        manager = TaskManager(include_path=None if path is None else str(path.resolve()))
    unknown = [name for name in names if name not in manager.all_tasks]
    if unknown:
        fix = "lm-eval ls tasks lists them all; --tasks-path names a directory of your own"
        raise WorkspaceError(f"the harness has no task {', '.join(unknown)}", fix=fix)
    return manager


def _answer_side(setting: Setting, side: Side, tasks: Tasks) -> list[Line]:
    from curate.console import say

    path, wanted = setting.directory / FILES[side], tasks.keys[side]
    there = list(all_lines(path))  # of a group of tasks several lines bear one id
    done = {name: [line for line in there if line.get(MADE_BY) == key] for name, key in wanted.items()}
    done = {name: lines for name, lines in done.items() if lines and len(lines) == lines[0]["of"]}
    write_lines(path, [line for lines in done.values() for line in lines])
    for name in tasks.names:
        if name in done:
            continue
        say(f"{name}: asked by the harness, {side}")
        found = _evaluate(setting, side, name, tasks.manager)
        done[name] = [{**line, "of": len(found), MADE_BY: wanted[name]} for line in found]
        append_lines(path, done[name])
    lines = [line for name in tasks.names for line in done[name]]
    write_lines(path, lines)
    return lines


def _evaluate(setting: Setting, side: Side, name: str, manager: Any) -> list[Line]:
    """One task (or group of them) by one side, greedy and seeded as the harness does it."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    request, subject = setting.request, setting.subject
    assert isinstance(subject, Subject)  # see `find_tasks`
    with subject.weights(side) as model:
        asker = HFLM(
            pretrained=getattr(model, "get_base_model", lambda: model)(),
            tokenizer=subject.tokenizer,
            backend="causal",
            batch_size=request.batch_size,
            device=str(model.device),
        )
        found = simple_evaluate(
            asker,
            tasks=[name],
            task_manager=manager,
            limit=request.limit,
            apply_chat_template=True,
            bootstrap_iters=0,
            verbosity="ERROR",
        )
    if found is None:
        raise WorkspaceError(f"the harness gave no result for {name}")
    return [line for task, samples in sorted(found["samples"].items()) for line in graded_lines(task, samples)]


def graded_lines(task: str, samples: Sequence[Mapping[str, Any]]) -> list[Line]:
    """The harness's samples of a task as results: right or wrong by the first of `GRADES` that is one of 0 and 1.

    With several filters the first one decides. An item's id is its number in the task.
    """
    filters = list(dict.fromkeys(str(one.get("filter", "none")) for one in samples))
    kept = [one for one in samples if str(one.get("filter", "none")) == filters[0]] if filters else []
    offered = [str(name) for name in (kept[0].get("metrics") or []) if name in kept[0]] if kept else []
    ranked = [*(name for name in GRADES if name in offered), *(name for name in offered if name not in GRADES)]
    grade = next((name for name in ranked if all(_is_grade(one.get(name)) for one in kept)), None)
    if grade is None:
        measured = ", ".join(offered) or "nothing"
        raise WorkspaceError(
            f"the task {task} says of no item that it is right or wrong (it measures {measured})",
            fix="take tasks with acc or exact_match, such as multiple choice ones",
        )
    return [{"id": str(one["doc_id"]), "set": task, "correct": bool(one[grade]), "measure": grade} for one in kept]


def _is_grade(value: Any) -> bool:
    return isinstance(value, (int, float)) and float(value) in (0.0, 1.0)
