"""A workspace with a release and a run made by hand from a tiny base, and `eval run` on it in a few tokens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import eval_cases
import yaml

from curate.behaviour import Behaviour
from curate.files import write_json, write_text
from curate.manifest import Input, read_manifest, write_manifest
from curate.pairs import Pair, write_pairs
from curate.release import Options, make_release
from curate.workspace import Workspace
from eval.planning import Request
from eval.running import evaluate

FILES = {
    *("predictions.jsonl", "predictions-base.jsonl", "calibration-predictions.jsonl", "retention-base.jsonl"),
    *("retention-tuned.jsonl", "closed-book.jsonl", "scores.json", "failures.jsonl", "report.html", "report.md"),
    "junit.xml",
}


def write_behaviour(root: Path, behaviour: Behaviour) -> None:
    document = behaviour.model_dump(mode="json", by_alias=True, exclude={"schema_document"}, exclude_none=True)
    write_text(root / "behaviour.yaml", yaml.safe_dump(document))
    write_json(root / "schema.json", eval_cases.SCHEMA)


def make_run(root: Path, base: Path, name: str = "first") -> Path:
    """A run as `train run` leaves it, its adapter random and large enough to change every answer."""
    import torch

    from train.model import attach_lora, base_input, load_base, versions
    from train.recipe import load_recipe, relative_document
    from train.rendering import contract

    write_text(
        root / "recipe.yaml", f"base: {{model: {base}}}\nquantization: {{compute: float32}}\nlora: {{rank: 2}}\n"
    )
    recipe = load_recipe(root / "recipe.yaml")
    model, tokenizer = load_base(recipe.base, recipe.quantization, "cpu")
    tuned = attach_lora(model, recipe.lora, seed=1)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter_name, parameter in tuned.named_parameters():
            if "lora_B" in parameter_name:
                parameter.normal_(std=0.5)
    run = root / "runs" / name
    tuned.save_pretrained(str(run / "adapter"), safe_serialization=True)
    items = [
        {"id": f"{kind}{i}", "set": kind, "prompt": f"{kind} {i}", "answer": str(i)}
        for kind in ("count", "copy")
        for i in range(6)
    ]
    write_text(run / "retention.jsonl", "".join(json.dumps(item) + "\n" for item in items))
    shutil.copyfile(root / "recipe.yaml", run / "recipe.yaml")
    release = read_manifest(root / "releases/r", "release")
    curve = [
        {"scale": scale, "task": scale, "pairs": 9, "retention": {"all": 1 - scale / 2}} for scale in (0.0, 0.5, 1.0)
    ]
    details = {
        "recipe": relative_document(recipe, run),
        "contract": contract(tokenizer, [tokenizer.eos_token_id]),
        "scale": 0.5,
        "scaling": {"margin": 0.02, "kept": True, "note": "", "curve": curve},
        "versions": versions(),
    }
    inputs = {
        "release": Input(path="../../releases/r", sha256=release.sha256),
        "recipe": Input(path="recipe.yaml", sha256="0" * 64),
        "base": base_input(recipe.base, run),
    }
    write_manifest(run, "run", name, inputs, details)
    return run


def made_pairs() -> list[Pair]:
    return eval_cases.pairs(60)


def prepare_run(root: Path, base: Path) -> Path:
    """A workspace at `root` with a release `r` of made pairs and the run `first`."""
    root.mkdir()
    write_behaviour(root, eval_cases.behaviour())
    write_pairs(root / "pairs.jsonl", made_pairs())
    make_release(Workspace(root), Options(name="r"))
    shutil.copytree(base, root / "base")
    make_run(root, root / "base")
    return root


def ask(root: Path, **changes: Any) -> tuple[Path, dict[str, Any]]:
    fields = {"model": "first", "max_new_tokens": 5, "batch_size": 8, "device": "cpu", **changes}
    return evaluate(Workspace(root), Request(**fields))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
