"""A workspace: the directory that holds a behaviour, its pairs, and what was made of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from curate.errors import WorkspaceError
from curate.files import hold

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Workspace:
    """Where things lie in a workspace. Nothing is read or made until it is asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.behaviour = root / "behaviour.yaml"
        self.recipe = root / "recipe.yaml"
        self.pairs = root / "pairs.jsonl"
        self.review = root / "review"
        self.releases = root / "releases"
        self.runs = root / "runs"
        self.reports = root / "reports"
        self.exports = root / "exports"

    def require(self) -> Workspace:
        """This workspace, or `WorkspaceError` where the directory holds none."""
        if not self.behaviour.is_file():
            raise WorkspaceError(
                "this is no workspace: it has no behaviour.yaml",
                where=str(self.root.resolve()),
                fix=f"tutelage init {self.root.resolve()}, or name the workspace: tutelage -C DIR …",
            )
        return self

    @contextmanager
    def lock(self, seconds: float = 30) -> Iterator[None]:
        """Hold the workspace while its pairs are rewritten; a lock of a killed process is free again at once."""
        with hold(self.root / ".lock", self.root.resolve(), seconds):
            yield

    def find(self, kind: str, name: str | Path | None) -> Path:
        """The release, run or report called `name` (or at that path); the newest one where no name is given.

        `kind` is "release", "run" or "report". Raises `WorkspaceError` with the names there are.
        """
        parent: Path = {"release": self.releases, "run": self.runs, "report": self.reports}[kind]
        done = finished(parent)
        if name is None:
            if not done:
                raise WorkspaceError(f"there is no {kind} yet", where=str(parent), fix=HOW_TO_MAKE[kind])
            return max(done, key=lambda path: ((path / "manifest.json").stat().st_mtime_ns, path.name))
        for candidate in (parent / str(name), Path(name), self.root / str(name)):
            if (candidate / "manifest.json").is_file():
                return candidate
        if kind in HOW_TO_GO_ON and is_name(str(name)) and (parent / str(name)).is_dir():
            raise WorkspaceError(
                f"the {kind} {str(name)!r} was begun and is not finished",
                where=str(parent / str(name)),
                fix=HOW_TO_GO_ON[kind].format(name=name),
            )
        known = ", ".join(path.name for path in done) or "none yet"
        raise WorkspaceError(f"there is no {kind} {str(name)!r} (there is: {known})", fix=HOW_TO_MAKE[kind])


def finished(parent: Path) -> list[Path]:
    """The releases, runs, reports or exports in a directory that have their manifest, by name."""
    return sorted(path.parent for path in parent.glob("*/manifest.json") if not path.parent.name.startswith("."))


def is_name(text: str) -> bool:
    """Whether a release, run or report may be called so: letters, digits, dots, dashes and underscores."""
    return _NAME.fullmatch(text) is not None


def next_name(parent: Path, head: str) -> str:
    """The first of `head`1, `head`2, … that nothing in a directory bears."""
    taken = {path.name for path in parent.glob("*")}
    return next(name for name in (f"{head}{number}" for number in range(1, len(taken) + 2)) if name not in taken)


HOW_TO_GO_ON = {
    "run": "go on with it: tutelage train run RECIPE --resume --name {name}",
    "report": "go on with it: the tutelage eval run that began it, once more",
}
HOW_TO_MAKE = {
    "release": "tutelage curate release",
    "run": "tutelage train run recipe.yaml",
    "report": "tutelage eval run RUN",
}
