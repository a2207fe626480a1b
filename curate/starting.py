"""The files a new workspace begins with."""

from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path

from curate.errors import WorkspaceError
from curate.files import unwritable, write_text

BASE = "Qwen/Qwen3-4B-Instruct-2507"


def start_workspace(root: Path, as_text: bool, base: str | None) -> dict[str, str]:
    """Write the files; returns name -> what it is for. Raises `WorkspaceError` where any of them exists."""
    kind = "text" if as_text else "json"
    plan = {
        "behaviour.yaml": (f"behaviour.{kind}.yaml", "what good output is"),
        "schema.json": ("schema.json", "the form of an output"),
        "recipe.yaml": ("recipe.yaml", "how the adapter is trained"),
        "examples.jsonl": (f"examples.{kind}.jsonl", "eight pairs to try the commands with"),
        ".gitignore": ("gitignore", "what git should leave alone"),
    }
    if as_text:
        del plan["schema.json"]
    # behaviour.yaml is written last: until it is there this is no workspace, and a killed init can be run again.
    texts = {name: template(source) for name, (source, _) in plan.items()}
    if base is not None:
        texts["recipe.yaml"] = _with_base(texts["recipe.yaml"], base, root)
    existing = [name for name in texts if _differs(root / name, texts[name])]
    if existing or (root / "behaviour.yaml").exists():
        named = ", ".join(existing or ["behaviour.yaml"])
        raise WorkspaceError(
            f"nothing was written, since there is already {named}",
            where=str(root),
            fix="move it away, or name another directory: tutelage init DIR",
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(root, error) from error
    for name in sorted(texts, key="behaviour.yaml".__eq__):
        write_text(root / name, texts[name])
    return {name: what for name, (_, what) in plan.items()}


def template(name: str) -> str:
    """The text of a packaged template."""
    return (files("curate") / "templates" / name).read_text(encoding="utf-8")


def _differs(path: Path, text: str) -> bool:
    """Whether something stands there that is not what would be written."""
    if not os.path.lexists(path):
        return False
    try:
        return path.read_text(encoding="utf-8") != text
    except (OSError, UnicodeDecodeError):
        return True


def _with_base(recipe: str, base: str, root: Path) -> str:
    """The recipe with another base; a directory is named relative to the workspace, so that both can move."""
    model = os.path.relpath(base, root) if Path(base).is_dir() else base
    if Path(base).is_dir() and not model.startswith("."):
        model = f"./{model}"
    old = f"model: {BASE} "
    assert old in recipe
    return recipe.replace(old, f"model: {json.dumps(model, ensure_ascii=False)} ", 1)
