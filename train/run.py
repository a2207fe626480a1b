"""A run: what training leaves behind, and how it is read again."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.errors import WorkspaceError
from curate.manifest import Manifest, read_manifest
from train.recipe import Recipe, parse_recipe
from train.rendering import contract

_COMMIT = re.compile(r"[0-9a-f]{40}")
ADAPTER, CHECKPOINTS, LOG, RETENTION, RECIPE = "adapter", "checkpoints", "log.jsonl", "retention.jsonl", "recipe.yaml"


@dataclass(frozen=True)
class Run:
    """A finished run. Paths of its recipe are absolute again."""

    directory: Path
    manifest: Manifest
    recipe: Recipe

    @property
    def contract(self) -> dict[str, Any]:
        """The template contract: what a server must do exactly as training did."""
        return dict(self.manifest.details["contract"])

    @property
    def scale(self) -> float:
        """What the adapter's effect is multiplied by; the weights in `adapter` are unscaled."""
        return float(self.manifest.details["scale"])

    @property
    def adapter(self) -> Path:
        """The adapter as PEFT wrote it."""
        return self.directory / ADAPTER

    @property
    def retention(self) -> Path:
        """The held-out general items, as JSONL."""
        return self.directory / RETENTION

    def release_directory(self) -> Path:
        """Where the release lies that was trained on; raises `WorkspaceError` where it is gone or another."""
        named = self.manifest.inputs["release"]
        directory = Path(os.path.abspath(self.directory / named.path))
        found = read_manifest(directory, "release")
        if found.sha256 != named.sha256:
            raise WorkspaceError(
                "the release is not the one this run was trained on",
                where=str(directory),
                fix=f"put back the release with sha256 {named.sha256[:12]}, or train again",
            )
        return directory


def load_run(directory: Path) -> Run:
    """Read a finished run; raises `WorkspaceError` or `RecipeError` where it is unfinished or damaged."""
    manifest = read_manifest(directory, "run")
    for key in ("recipe", "contract", "scale"):
        if key not in manifest.details:
            raise WorkspaceError(f"details.{key} is missing", where=str(directory / "manifest.json"))
    recipe = parse_recipe(
        manifest.details["recipe"], directory, f"{directory}/manifest.json, details.recipe", finished=True
    )
    return Run(directory, manifest, _pinned(recipe, manifest))


def _pinned(recipe: Recipe, manifest: Manifest) -> Recipe:
    """The recipe with a hub's base at the commit that was trained on: a branch may be another model by now."""
    _, at, commit = manifest.inputs["base"].path.rpartition("@") if "base" in manifest.inputs else ("", "", "")
    if recipe.base.is_directory or not at or not _COMMIT.fullmatch(commit):
        return recipe
    return recipe.model_copy(update={"base": recipe.base.model_copy(update={"revision": commit})})


def check_contract(run: Run, tokenizer: Any) -> None:
    """Raise `WorkspaceError` where prompts would be written otherwise than in training."""
    trained = run.contract
    stop = [one["id"] for one in trained["stop_tokens"]]
    now = contract(tokenizer, stop, trained["example"]["messages"])
    parts = ("template_sha256", "stop_tokens", "bos_token", "example")
    changed = [part for part in parts if now[part] != trained[part]]
    if changed:
        raise WorkspaceError(
            f"the base's tokenizer is not what this run was trained with: {', '.join(changed)} changed, so the model "
            "would be asked in another way than it learned",
            where=str(run.directory),
            fix="put back the tokenizer and its chat template, or train again",
        )
