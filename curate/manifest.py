"""`manifest.json`: what a release, run, report or export holds and what it was made from, by SHA-256."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from curate.errors import TutelageError, WorkspaceError, first_fault
from curate.files import read_json, sha256_file, sha256_value, write_text

NAME = "manifest.json"
SCORES = "scores.json"  # of a report
Kind = Literal["release", "run", "report", "export"]


class Input(BaseModel):
    """Something a directory was made from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(description="Where it was, relative to the manifest's directory, or a name on a hub.")
    sha256: str = Field(description="Of a file: its bytes. Of a release, run or report: its manifest's `sha256`.")


class Manifest(BaseModel):
    """The manifest of one directory. `sha256` is the hash of all the rest but `name`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind
    name: str
    version: int = Field(default=1, description="Of this file's layout.")
    files: dict[str, str] = Field(description="Relative path -> SHA-256 of every file beside the manifest.")
    inputs: dict[str, Input] = Field(description="Role (pairs, behaviour, release, base, …) -> what it was made from.")
    details: dict[str, Any] = Field(default_factory=dict, description="What this kind of directory has to say.")
    sha256: str = ""
    seal: str = Field(default="", description="SHA-256 of all the rest of this file: name and paths included.")

    def content_hash(self) -> str:
        """What identifies the directory: everything but its name and where its inputs lay."""
        value = self.model_dump(mode="json", exclude={"sha256", "seal", "name"})
        value["inputs"] = {role: one.sha256 for role, one in self.inputs.items()}
        return sha256_value(value)

    def seal_hash(self) -> str:
        """What shows that the file itself was edited, where only the name or a path changed too."""
        return sha256_value(self.model_dump(mode="json", exclude={"seal"}))

    def text(self) -> str:
        """The file's one spelling; a byte of white space more is an edit."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def hash_files(directory: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of every file below `directory` but the manifest itself."""
    files = (path for path in sorted(directory.rglob("*")) if path.is_file() and path != directory / NAME)
    return {path.relative_to(directory).as_posix(): sha256_file(path) for path in files}


def write_manifest(
    directory: Path,
    kind: Kind,
    name: str,
    inputs: dict[str, Input],
    details: dict[str, Any],
    files: dict[str, str] | None = None,
) -> Manifest:
    """Hash what lies in `directory` (or take `files`) and write its manifest; returns it with its own hash set."""
    listed = hash_files(directory) if files is None else files
    draft = Manifest(kind=kind, name=name, files=listed, inputs=inputs, details=details)
    manifest = draft.model_copy(update={"sha256": draft.content_hash()})
    manifest = manifest.model_copy(update={"seal": manifest.seal_hash()})
    write_text(directory / NAME, manifest.text())
    return manifest


def check_seal(manifest: Manifest, path: Path) -> None:
    """Raise `WorkspaceError` where the manifest in the file `path` was edited after it was written."""
    if manifest.seal != manifest.seal_hash() or manifest.sha256 != manifest.content_hash():
        fix = "tutelage verify says what changed; restore it from a copy, or make it again"
        raise WorkspaceError("the manifest was edited after it was written", where=str(path), fix=fix)


def check_listed(manifest: Manifest, directory: Path, name: str) -> None:
    """Raise `WorkspaceError` where the file `name` of a report is not, byte for byte, the one its manifest lists."""
    path = directory / name
    if not path.is_file() or manifest.files.get(name) != sha256_file(path):
        what = "it was changed after it was written" if path.is_file() else "it is gone"
        fix = "tutelage verify says what changed; score again to get a report that holds"
        raise WorkspaceError(what, where=str(path), fix=fix)


RESTORE = "restore it from a copy, or move its directory away and make it again"


def read_manifest(directory: Path, kind: Kind | None = None) -> Manifest:
    """The manifest of `directory`; raises `WorkspaceError` where it is missing, unreadable or of another kind."""
    path = directory / NAME
    if not path.is_file():
        what = kind or "release, run, report or export"
        raise WorkspaceError(f"this is no finished {what}: it has no {NAME}", where=str(directory))
    try:
        manifest = Manifest.model_validate(read_json(path))
    except TutelageError as error:
        raise WorkspaceError(error.what, where=error.where, fix=RESTORE) from error
    except ValidationError as error:
        raise WorkspaceError(first_fault(error, "manifest"), where=str(path), fix=RESTORE) from error
    if kind and manifest.kind != kind:
        raise WorkspaceError(f"this is a {manifest.kind}, not a {kind}", where=str(directory))
    return manifest
