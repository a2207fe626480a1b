"""Checkpoints that count only when they are whole: sealed with the hashes of their files, last of all."""

from __future__ import annotations

import shutil
from pathlib import Path

from curate.errors import TutelageError
from curate.files import read_json, write_json
from curate.manifest import hash_files

SEAL = "sealed.json"


def seal(directory: Path) -> None:
    """Mark a checkpoint as whole."""
    files = {name: digest for name, digest in hash_files(directory).items() if name != SEAL}
    write_json(directory / SEAL, files)


def is_whole(directory: Path) -> bool:
    """Whether a checkpoint is sealed and its files are those that were sealed."""
    try:
        wanted = read_json(directory / SEAL)
    except TutelageError:
        return False
    return bool({name: digest for name, digest in hash_files(directory).items() if name != SEAL} == wanted)


def step_of(directory: Path) -> int:
    """The optimiser step after which a checkpoint was taken."""
    return int(directory.name.rpartition("-")[2])


def newest_whole(parent: Path) -> Path | None:
    """The newest whole checkpoint below `parent`; what a killed process left half written is removed."""
    found = sorted((path for path in parent.glob("checkpoint-*") if path.is_dir()), key=step_of, reverse=True)
    whole = None
    for path in found:
        if whole is None and is_whole(path):
            whole = path
        elif whole is None:
            shutil.rmtree(path)
    return whole
