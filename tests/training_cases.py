"""A workspace that a tiny base is trained in, end to end, in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from curate.pairs import Pair, write_pairs
from curate.release import Options, make_release
from curate.workspace import Workspace

COLOURS = ("red", "blue", "green", "white", "black", "brown", "grey", "pink")


BEHAVIOUR = """
name: tiny
prompt: "{% for p in passages %}{{ p.text }} {% endfor %}{{ question }}"
output: {format: text}
abstain: {where: ["I do not know"], output: I do not know}
answer: {compare: exact}
"""


RECIPE: dict[str, Any] = {
    "base": {"model": "base"},
    "quantization": {"compute": "float32"},
    "lora": {"rank": 4, "alpha": 16, "dropout": 0.1},
    "training": {"epochs": 2, "learning_rate": 0.05, "batch": 4, "micro_batch": 2, "max_length": 200, "device": "cpu"},
    "guards": {
        "rehearsal": {"source": "general.jsonl", "share": 0.2},
        "retention_budget": {"loss_rise": 50, "every": 4, "sets": "held.jsonl"},
        "adapter_scale": {"from": [0.5, 1.0], "pairs": 2, "items": 2},
    },
}


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def make_workspace(root: Path, base: Path, **guards: Any) -> Workspace:
    """A workspace with a release of 40 small pairs, general items and a recipe."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "behaviour.yaml").write_text(BEHAVIOUR, encoding="utf-8")
    (root / "base").symlink_to(base)
    pairs = []
    for i in range(40):
        known, colour = i % 3 != 0, COLOURS[i % 8]
        thing = f"gadget{i * i}z{i}"
        passage = {"id": "p", "text": f"{thing} {colour}." if known else "Nothing.", "source": f"{i}.md"}
        output = colour if known else "I do not know"
        data = {"id": f"p{i}", "question": f"{thing}?", "passages": [passage], "output": output, "answerable": known}
        pairs.append(Pair.model_validate(data))
    write_pairs(root / "pairs.jsonl", pairs)
    write_lines(root / "general.jsonl", [{"id": f"g{i}", "prompt": f"{i}+1", "answer": str(i + 1)} for i in range(20)])
    write_lines(root / "held.jsonl", [{"id": f"h{i}", "prompt": f"{i}+2", "answer": str(i + 2)} for i in range(6)])
    write_recipe(root, **guards)
    place = Workspace(root)
    make_release(place, Options(name="r1"))
    return place


def write_recipe(root: Path, **guards: Any) -> Path:
    data = {**RECIPE, "guards": {**RECIPE["guards"], **guards}}
    (root / "recipe.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    return root / "recipe.yaml"


def events(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def adapter(directory: Path) -> bytes:
    return (directory / "adapter" / "adapter_model.safetensors").read_bytes()
