"""The state of an unfinished run: who may work on it, what it was begun with, whether that is still so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from curate.errors import TrainingError, WorkspaceError
from curate.files import read_json, write_json
from curate.manifest import NAME, Input
from curate.workspace import Workspace, is_name, next_name
from train.processes import from_main
from train.run import CHECKPOINTS, LOG

BEGUN, OUTCOME = "begun.json", "outcome.json"  # both in checkpoints/: they go when the run is finished


@contextmanager
def open_run(workspace: Workspace, name: str | None, resume: bool, inputs: dict[str, Input]) -> Iterator[Path]:
    """The directory of a run that is begun, or gone on with; `WorkspaceError` or `TrainingError` where that cannot be.

    One process at a time: the lock of a killed process is free again at once.
    """
    directory = _resumed(workspace, name) if resume else _begun(workspace, name)
    directory.parent.mkdir(parents=True, exist_ok=True)
    lock_path = directory.parent / f".{directory.name}.lock"
    try:
        with FileLock(lock_path, timeout=0):
            begun = directory / CHECKPOINTS / BEGUN
            if begun.is_file() and not resume:  # looked at under the lock: nobody deletes what is being trained
                raise WorkspaceError(
                    "this run was begun and is not finished",
                    where=str(directory),
                    fix=f"go on with it: --resume --name {directory.name}; or delete the directory to begin anew",
                )
            if begun.is_file():
                check_same(
                    directory, {role: Input.model_validate(one) for role, one in read_json(begun).items()}, inputs
                )
            else:
                (directory / LOG).unlink(missing_ok=True)  # of a run of that name that came to nothing
                write_json(begun, {role: one.model_dump() for role, one in inputs.items()})
            yield directory
    except Timeout:
        raise TrainingError("another process is training this run", where=str(directory)) from None
    lock_path.unlink(missing_ok=True)


@contextmanager
def open_together(workspace: Workspace, name: str | None, resume: bool, inputs: dict[str, Input]) -> Iterator[Path]:
    """`open_run` for several processes: the main one holds the run, all know which it is."""
    with ExitStack() as stack:
        yield from_main(lambda: stack.enter_context(open_run(workspace, name, resume, inputs)))


def unfinished(workspace: Workspace) -> list[Path]:
    """The runs that were begun and not finished, by name."""
    found = (path.parent.parent for path in workspace.runs.glob(f"*/{CHECKPOINTS}/{BEGUN}"))
    return sorted(path for path in found if not (path / NAME).is_file())


def check_name(name: str) -> None:
    """Raise `WorkspaceError` where a run cannot be called so."""
    if not is_name(name):
        raise WorkspaceError(
            f"{name!r} cannot be a run's name", fix="letters, digits, dots, dashes and underscores, e.g. run1"
        )


def _begun(workspace: Workspace, name: str | None) -> Path:
    """The directory of a new run."""
    open_runs = unfinished(workspace)
    if name is None:
        if open_runs:
            raise WorkspaceError(
                "this run was begun and is not finished",
                where=str(open_runs[-1]),
                fix=f"go on with it: --resume --name {open_runs[-1].name}; or begin another: --name NAME",
            )
        name = next_name(workspace.runs, "run")
    directory = workspace.runs / name
    if (directory / NAME).is_file():
        raise WorkspaceError("this run is finished; a run is never changed", where=str(directory), fix="--name NAME")
    return directory


def _resumed(workspace: Workspace, name: str | None) -> Path:
    """The directory of the run to go on with."""
    open_runs = unfinished(workspace)
    known = ", ".join(path.name for path in open_runs) or "none"
    if name is None:
        if len(open_runs) != 1:
            what = "there is no unfinished run" if not open_runs else f"there are several unfinished runs: {known}"
            fix = "train without --resume" if not open_runs else "say which: --resume --name NAME"
            raise WorkspaceError(what, where=str(workspace.runs), fix=fix)
        return open_runs[0]
    if workspace.runs / name not in open_runs:
        return _begun(workspace, name)
    return workspace.runs / name


def check_same(directory: Path, before: dict[str, Input], now: dict[str, Input]) -> None:
    """Raise `TrainingError` that names each input which is another than the run was begun with."""
    known = [role for role in now if role in before]  # a run begun by an older version names fewer
    changed = [role for role in known if before[role].sha256 != now[role].sha256]
    if changed:
        told = ", ".join(f"{role} ({before[role].path} -> {now[role].path})" for role in changed)
        raise TrainingError(
            f"the run was begun with another {told}; it cannot go on with this one",
            where=str(directory),
            fix="put back what was changed, or train a new run: --name NAME",
        )
