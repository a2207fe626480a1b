"""The demo's workspace: a behaviour, a recipe, a small base model, a RAG log and general items, made from one seed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from curate.errors import WorkspaceError
from curate.files import atomic_directory, write_text

from .general import general
from .world import traces

HERE = Path(__file__).parent
SEED = 17
WRITTEN = ("behaviour.yaml", "schema.json", "recipe.yaml")

# From the log's own names to a pair's; the logged answers of unanswerable questions were made up, so they are replaced.
IMPORT = (
    *("curate", "import", "rag-log.jsonl"),
    *("--map", "id=trace_id", "--map", "question=query", "--map", "answerable=answerable"),
    *("--map", "passages=documents", "--map", "passages.id=doc_id", "--map", "output.answer=answer"),
    *("--map", "output.citations=gold_doc", "--set", "output.status=answered"),
    *("--abstain-unanswerable", "--renumber-passages"),
)


def make_workspace(root: Path, pairs: int = 1600, items_per_set: int = 500) -> None:
    """Write the demo's inputs into `root`; what is there already is left as it is.

    `pairs` is the number of logged requests, `items_per_set` that of held-out general items in each retention set.
    Raises `WorkspaceError` where `root` holds another workspace.
    """
    if (root / "behaviour.yaml").exists() and not same_text(root / "behaviour.yaml", HERE / "behaviour.yaml"):
        raise WorkspaceError("this is another workspace", where=str(root), fix="tutelage demo ANOTHER-DIRECTORY")
    for name in WRITTEN:
        if not (root / name).exists():
            write_text(root / name, (HERE / name).read_text(encoding="utf-8"))
    if not (root / "base").exists():
        with atomic_directory(root / "base") as temporary:
            shutil.copytree(HERE / "base", temporary, dirs_exist_ok=True)
    _write_lines(root / "rag-log.jsonl", traces(SEED, pairs))
    _write_lines(root / "rehearsal.jsonl", general(SEED, 600, held_out=False))
    sets = len({item["set"] for item in general(SEED, 50, held_out=True)})
    _write_lines(root / "retention.jsonl", general(SEED, sets * items_per_set, held_out=True))


def same_text(one: Path, other: Path) -> bool:
    """Whether two files hold the same text."""
    return one.read_text(encoding="utf-8") == other.read_text(encoding="utf-8")


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    if not path.exists():
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
