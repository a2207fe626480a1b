"""`train run` as a page to read: pre-flight, base, rehearsal, training under guard, the scale, the manifest."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.console import say
from curate.errors import TrainingError
from curate.files import atomic_directory, need_space, read_json, sha256_file, write_bytes, write_json
from curate.findings import Finding, document
from curate.manifest import NAME, Input, hash_files, write_manifest
from curate.pairs import Pair
from curate.release import Release, load_release
from curate.workspace import Workspace
from train.adapter import load_adapter, save_adapter
from train.bars import TrainingBar, counting
from train.checkpoints import newest_whole, step_of
from train.items import sample_evenly, write_items
from train.log import Log
from train.order import total_steps
from train.preparation import Prepared, prepare
from train.processes import check_processes, count, from_main, is_main, is_sharded, join, share
from train.recipe import Recipe, named_files, read_bytes, recipe_of, relative_document
from train.rendering import render_prompt
from train.run import ADAPTER, CHECKPOINTS, LOG, RECIPE, RETENTION, Run, load_run
from train.state import OUTCOME, check_name, check_same, open_together
from train.trackers import check_trackers, write_beside_runs

if TYPE_CHECKING:
    from train.fitting import Fit
    from train.trainer import Data

BATCH = 64  # prompts answered at once by the sweep; halved where memory does not hold them


class Refused(Exception):
    """Pre-flight found errors; nothing was trained."""

    def __init__(self, findings: list[Finding]) -> None:
        super().__init__("pre-flight found errors")
        self.findings = findings


@dataclass(frozen=True)
class Request:
    """What `train run` was asked for."""

    recipe: Path
    release: str | None = None
    name: str | None = None
    resume: bool = False


def train(workspace: Workspace, request: Request) -> Run:
    """Train, or go on training, and return the finished run. Raises `Refused` and the `TutelageError`s."""
    from train.fitting import check_memory, check_targets, fit_of
    from train.model import choose_device, memory_errors, quiet
    from train.preflight import preflight, summary
    from train.scaling import check_scale

    if request.name is not None:
        check_name(request.name)  # before anything that takes time
    written = read_bytes(request.recipe)  # once: the file may be edited for the next run while this one trains
    recipe = recipe_of(written, request.recipe)
    check_processes(recipe)
    quiet()
    from train.gathering import gather  # brings TRL, which reads the environment once: not before quiet()

    check_trackers(recipe.training.report_to)
    join(choose_device(recipe.training.device))
    release = load_release(workspace.find("release", request.release))
    inputs = _inputs(workspace, written, recipe, release)
    finished = workspace.runs / request.name if request.name else None
    if request.resume and finished and (finished / NAME).is_file():
        done = load_run(finished)
        check_same(finished, done.manifest.inputs, inputs)
        if is_main():
            say(f"{finished}: this run is finished already; nothing was trained.")
        return done
    prepared = prepare(recipe, release)
    fit = fit_of(prepared)
    findings = [*preflight(prepared), *check_targets(recipe), *check_memory(fit)]
    if any(one.level == "error" for one in findings):
        raise Refused(findings)
    if findings and is_main():
        say(summary(findings))
    with open_together(workspace, request.name, request.resume, inputs) as directory, _how_to_go_on(directory):
        from_main(lambda: _keep_what_was_written(directory, written, recipe))
        write_beside_runs(workspace.root, directory.name)
        log = Log(directory / LOG)
        model, data, targets = gather(prepared, inputs["base"].sha256, workspace.root / ".cache")
        _begin_log(log, data, targets.report)
        with memory_errors("a training step", lambda: _when_memory_ran_out(fit, directory)):
            model, outcome = _train(model, prepared, data, directory, log)
        scale = _scale(model, prepared, data, log)
        findings += check_scale(scale)
        told = {"training": outcome, **scale, "targets": targets.report, "findings": document(findings)["counts"]}
        from_main(lambda: _write(directory, inputs, prepared, model, told))
    return load_run(directory)


def _when_memory_ran_out(fit: Fit, directory: Path) -> str:
    """What to lower, and what of the work so far is kept."""
    from train.fitting import what_to_lower

    last = newest_whole(directory / CHECKPOINTS)
    kept = f"the checkpoint of step {step_of(last)} is kept" if last else "no checkpoint was due yet"
    return (
        f"{what_to_lower(fit)}. A changed recipe begins another run (--name NAME). This one is not lost: {kept}; where "
        f"something else held the memory, free it and go on with --resume --name {directory.name}"
    )


def _keep_what_was_written(directory: Path, written: bytes, recipe: Recipe) -> None:
    """The recipe and the files of items it names, as they are now: they may be edited for the next run meanwhile."""
    write_bytes(directory / RECIPE, written)
    for role, path in named_files(recipe).items():
        write_bytes(directory / f"{role}.jsonl", path.read_bytes())


@contextmanager
def _how_to_go_on(directory: Path) -> Iterator[None]:
    """Say, where training is interrupted or the disk is full, by which command it goes on."""
    go_on = f"the same command with --resume --name {directory.name}"
    try:
        with need_space(directory, f"free some space there, then go on from the last checkpoint: {go_on}"):
            yield
    except KeyboardInterrupt:
        if is_main():
            say(f"To go on with this run: {go_on}")
        raise


def _inputs(workspace: Workspace, written: bytes, recipe: Recipe, release: Release) -> dict[str, Input]:
    """What the run is made from, as seen from a directory in `runs/`."""
    from train.model import base_input

    somewhere = workspace.runs / "any"
    return {
        "release": Input(path=_relative(release.directory, somewhere), sha256=release.manifest.sha256),
        "recipe": Input(path=RECIPE, sha256=hashlib.sha256(written).hexdigest()),  # the copy beside the manifest
        "base": base_input(recipe.base, somewhere),
        **{
            role: Input(path=f"{role}.jsonl", sha256=sha256_file(path))  # copies too
            for role, path in named_files(recipe).items()
        },
    }


def _relative(path: Path, start: Path) -> str:
    return Path(os.path.relpath(path, start)).as_posix()


def _begin_log(log: Log, data: Data, report: dict[str, Any] | None) -> None:
    if report:
        log.once({"event": "targets", **report})
    rehearsal = sum(one.rehearsal for one in data.train)
    pairs = len(data.train) - rehearsal
    log.once(
        {
            "event": "start",
            "pairs": pairs,
            "rehearsal": rehearsal,
            "retention": len(data.retention),
            "processes": count(),
        }
    )


def _train(model: Any, prepared: Prepared, data: Data, directory: Path, log: Log) -> tuple[Any, dict[str, Any]]:
    """Train to the end or to the budget. Returns the model with the adapter that is to be shipped, and the outcome."""
    from train.trainer import GuardedTrainer

    checkpoints = directory / CHECKPOINTS
    start = from_main(lambda: newest_whole(checkpoints))
    recipe = prepared.recipe
    steps = total_steps(len(data.train), recipe.training.epochs, recipe.training.batch)
    if (checkpoints / OUTCOME).is_file() and start:
        outcome: dict[str, Any] = read_json(checkpoints / OUTCOME)
        _end_log(log, outcome)
        return _with_adapter(model, prepared, start), outcome
    log.keep_until(step_of(start) if start else 0)
    with TrainingBar(steps) as bar:

        def tell(event: dict[str, Any]) -> None:
            log.add(event)
            bar.show(event)

        trainer = GuardedTrainer(model, prepared.tokenizer, recipe, data, checkpoints, tell)
        if start and is_sharded():  # before it is in pieces, and after TRL has rounded what it found
            load_adapter(model, start)
        trainer.measure_base()
        log.once({"event": "base", **trainer.watch.base})
        trainer.train(resume_from_checkpoint=str(start) if start else None)
    last = from_main(lambda: newest_whole(checkpoints))
    stopped = trainer.watch.stopped
    if last is None:
        assert stopped is not None
        from_main(lambda: shutil.rmtree(checkpoints))
        budget = recipe.guards.retention_budget
        assert budget is not None
        raise TrainingError(
            f"retention's loss {rise_in_words(stopped)} at the first evaluation "
            f"(step {stopped['step']}); the budget is {budget.loss_rise:g}, and there is no earlier checkpoint",
            where=str(directory),
            fix="lower training.learning_rate, raise guards.rehearsal.share or guards.kl_to_base.weight, evaluate more "
            "often (guards.retention_budget.every), or widen guards.retention_budget.loss_rise",
        )
    outcome = {"steps": step_of(last), "of": steps, "base": trainer.watch.base, "stopped": stopped}
    _end_log(log, outcome)
    from_main(lambda: write_json(checkpoints / OUTCOME, outcome))
    return _with_adapter(model, prepared, last), outcome


def _with_adapter(model: Any, prepared: Prepared, checkpoint: Path) -> Any:
    """The model with a checkpoint's adapter; after FSDP, whose model is in pieces, one that is loaded anew."""
    from train.model import attach_lora, load_base

    if is_sharded():
        recipe = prepared.recipe
        base, _ = load_base(recipe.base, recipe.quantization, recipe.training.device)
        model = attach_lora(base, recipe.lora, recipe.training.seed)
    load_adapter(model, checkpoint)
    return model


def _end_log(log: Log, outcome: dict[str, Any]) -> None:
    """Let the log end where training ended; what a killed process logged after that is done again."""
    stopped = outcome["stopped"]
    log.keep_until(stopped["step"] if stopped else outcome["steps"])
    if stopped:
        log.add({"event": "stopped", **stopped, "back_to": outcome["steps"]})


def rise_in_words(stopped: dict[str, Any]) -> str:
    """How far the loss had risen where training stopped."""
    rise = stopped["retention_rise"]
    return "is no number any more" if rise is None else f"rose by {rise:.3f} nats per token"


def _scale(model: Any, prepared: Prepared, data: Data, log: Log) -> dict[str, Any]:
    """Choose the adapter's scale; 1 where the guard is off."""
    from peft.helpers import rescale_adapter_scale

    from train.generation import generate
    from train.guards import base_of
    from train.model import memory_errors
    from train.scaling import describe, is_wanted, sweep

    guard = prepared.recipe.guards.adapter_scale
    if not guard:
        return {"scale": 1.0, "scaling": None}
    pairs, prompts = _task_prompts(prepared, guard.pairs)
    items = sample_evenly(prepared.retention, guard.items)
    asked = [render_prompt(prepared.tokenizer, item.messages()) for item in items]
    lengths = [len(one.ids) - one.prompt_tokens for one in data.train]
    lengths += [len(row.ids) - row.prompt_tokens for row in (*prepared.validation, *prepared.retention_rows)]
    longest = max(lengths, default=64)
    total = (len(prompts) + len(asked)) * (1 + len(set(guard.candidates)))
    model.eval()
    with counting("adapter scale", total) as progress, memory_errors("answering for the adapter's scale"):

        def answer(scale: float) -> tuple[list[bool], list[bool]]:
            with base_of(model) if scale == 0 else rescale_adapter_scale(model, scale):
                texts = share(
                    [*prompts, *asked],
                    lambda part: [
                        one.text
                        for one in generate(model, prepared.tokenizer, part, longest + 16, BATCH, progress=progress)
                    ],
                )
            task = [is_wanted(prepared.behaviour, pair, text) for pair, text in zip(pairs, texts, strict=False)]
            right = [item.is_right(text) for item, text in zip(items, texts[len(pairs) :], strict=True)]
            return task, right

        scale, curve, kept = sweep(answer, items, guard)
    note = describe(scale, curve, kept, guard.margin)
    for point in curve:
        log.add({"event": "scale", **point})
    log.add({"event": "chosen", "scale": scale, "kept": kept, "note": note})
    return {"scale": scale, "scaling": {"margin": guard.margin, "kept": kept, "note": note, "curve": curve}}


def _task_prompts(prepared: Prepared, most: int) -> tuple[list[Pair], list[str]]:
    """The validation pairs that the sweep answers, chosen by the hash of their content, and their prompts."""
    rows = {one.id: one.prompt for one in prepared.kept(prepared.validation)}
    pairs = sorted((pair for pair in prepared.splits["validation"] if pair.id in rows), key=Pair.content_hash)[:most]
    return pairs, [rows[pair.id] for pair in pairs]


def _write(directory: Path, inputs: dict[str, Input], prepared: Prepared, model: Any, told: dict[str, Any]) -> None:
    """The adapter and all that goes with it; the manifest last, then the checkpoints are taken away."""
    from train.model import versions

    shutil.rmtree(directory / ADAPTER, ignore_errors=True)
    with atomic_directory(directory / ADAPTER) as temporary:
        save_adapter(model, prepared.recipe.base, temporary)
    write_items(directory / RETENTION, prepared.retention)
    files = {name: one for name, one in hash_files(directory).items() if not name.startswith(f"{CHECKPOINTS}/")}
    details = {
        "recipe": relative_document(prepared.recipe, directory),
        "contract": prepared.contract(),
        **told,
        "dropped": [one.id for one in prepared.over_length],
        "versions": versions(),
    }
    write_manifest(directory, "run", directory.name, inputs, details, files)
    shutil.rmtree(directory / CHECKPOINTS, ignore_errors=True)
