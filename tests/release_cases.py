"""Pairs to release, in a workspace of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from output_form import UNKNOWN

import tutelage
from curate.behaviour import Behaviour
from curate.pairs import Pair, make_pair, write_pairs
from curate.release import load_release
from curate.splits import SPLITS, GroupBy, tie
from curate.starting import start_workspace
from curate.workspace import Workspace


def pair(number: int, document: str, answerable: bool = True, **more: Any) -> Pair:
    output = {"status": "answered", "answer": f"word{number}", "citations": ["p1"]} if answerable else UNKNOWN
    data = {
        "id": f"pair-{number:04d}",
        "question": f"What is said about subject{number} here?",
        "passages": [{"id": "p1", "text": f"About subject{number} word{number} is said.", "source": f"{document}#1"}],
        "output": output,
        "answerable": answerable,
        "source": "log.jsonl",
        **more,
    }
    return make_pair(data, "test")


def some_pairs(count: int = 60, documents: int = 20) -> list[Pair]:
    return [pair(i, f"doc{i % documents}.md", answerable=i % 3 > 0) for i in range(count)]


def make_workspace(root: Path) -> Workspace:
    """A workspace with `some_pairs`."""
    start_workspace(root, as_text=False, base=None)
    place = Workspace(root)
    write_pairs(place.pairs, some_pairs())
    return place


def run(workspace: Workspace, *arguments: str) -> Result:
    return CliRunner().invoke(
        tutelage.main, ["-C", str(workspace.root), "curate", "release", "--unreviewed", *arguments]
    )


def split_of(directory: Path) -> dict[str, str]:
    return {one.id: split for split in SPLITS for one in load_release(directory).pairs(split)}


def documents_of(pair: Pair, behaviour: Behaviour, group_by: GroupBy = "document") -> set[str]:
    """The documents by which a pair is tied to others."""
    (keys,) = tie([pair], behaviour, [], group_by)
    return {key.removeprefix("doc:") for key in keys if key.startswith("doc:")}
