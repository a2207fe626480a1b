"""What is evaluated: a run of ours beside its base, or a plain model alone. Weights are loaded when they are needed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from curate.errors import WorkspaceError
from curate.files import sha256_value
from curate.manifest import NAME, Input
from curate.release import Release
from curate.workspace import Workspace
from train.recipe import Base, Quantization
from train.run import Run, load_run

if TYPE_CHECKING:
    from curate.pairs import Pair
    from train.generation import Generation

Side = Literal["tuned", "base"]


class Subject:
    """A run or a plain model, and how it answers. `device` is auto, cpu or cuda."""

    def __init__(self, name: str, base: Base, run: Run | None, device: str = "auto") -> None:
        self.name = name
        self.base = base
        self.run = run
        self.device = device

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer; raises `TrainingError`, or `WorkspaceError` where a run's template is no longer the one."""
        from train.model import load_tokenizer

        tokenizer = load_tokenizer(self.base)
        if self.run:
            check_contract(self.run, tokenizer)
        return tokenizer

    @cached_property
    def _model(self) -> Any:
        from train.model import load_base, load_tuned

        if self.run:
            return load_tuned(self.run, self.device)[0]
        return load_base(self.base, Quantization(bits=None, compute=_precision(self.device)), self.device)[0]

    def answer(self, side: Side, prompts: Sequence[str], max_new_tokens: int) -> list[Generation]:
        """Answers of the tuned model (a plain model is that), or of the base with the adapter switched off."""
        from train.generation import generate
        from train.guards import base_of
        from train.model import memory_errors

        with memory_errors("answering"), base_of(self._model) if side == "base" else nullcontext():
            return generate(
                self._model, self.tokenizer, prompts, max_new_tokens, batch_size=len(prompts), with_logprobs=True
            )

    def input(self, directory: Path) -> tuple[str, Input]:
        """The role and the input that a report in `directory` names this subject by."""
        from train.model import base_input

        if self.run:
            path = Path(os.path.relpath(self.run.directory.resolve(), directory.resolve())).as_posix()
            return "run", Input(path=path, sha256=self.run.manifest.sha256)
        return "model", base_input(self.base, directory)


def _precision(device: str) -> Literal["bfloat16", "float32"]:
    from train.model import choose_device

    return "bfloat16" if choose_device(device) == "cuda" else "float32"


def find_subject(workspace: Workspace, named: str, device: str = "auto") -> Subject:
    """The run of that name or path, the model in that directory, or the model of that name on the hub."""
    path = Path(named)
    if (path / "config.json").is_file() and not (path / NAME).is_file():
        return Subject(path.resolve().name, Base(model=str(path.resolve())), None, device)
    try:
        run = load_run(workspace.find("run", named))
    except WorkspaceError:
        looks_local = path.exists() or (workspace.runs / named).exists() or named.startswith((".", "/", "~"))
        if looks_local or named.count("/") != 1:
            raise
        return Subject(named.rpartition("/")[2], Base(model=named), None, device)
    return Subject(run.manifest.name, run.recipe.base, run, device)


def check_contract(run: Run, tokenizer: Any) -> None:
    """Raise `WorkspaceError` where prompts would be written otherwise than in training."""
    from train.rendering import contract

    trained = run.contract
    stop = [one["id"] for one in trained["stop_tokens"]]
    now = contract(tokenizer, stop, trained["example"]["messages"])
    parts = ("template_sha256", "stop_tokens", "bos_token", "example")
    changed = [part for part in parts if now[part] != trained[part]]
    if changed:
        raise WorkspaceError(
            f"the base's tokenizer is not what this run was trained with: {', '.join(changed)} changed, so the answers "
            "would say nothing about the run",
            where=str(run.directory),
            fix="put back the tokenizer and its chat template, or train again",
        )


@dataclass(frozen=True)
class Asked:
    """What is asked: the pairs of the test and the calibration split."""

    test: list[Pair]
    calibration: list[Pair]
    partial: bool


def choose_pairs(release: Release, run: Run | None, limit: int | None) -> Asked:
    """The test and calibration pairs, at most `limit` of each; raises `WorkspaceError` where a run has learned some."""
    test, calibration = release.pairs("test"), release.pairs("calibration")
    if not test:
        raise WorkspaceError("its test split is empty", where=str(release.directory), fix="release more pairs")
    if run and run.manifest.inputs["release"].sha256 != release.manifest.sha256:
        _check_unlearned(run, [*test, *calibration], release)
    chosen = [sorted(split, key=lambda pair: pair.content_hash())[:limit] for split in (test, calibration)]
    if limit is None:
        chosen = [test, calibration]
    return Asked(chosen[0], chosen[1], partial=len(chosen[0]) < len(test))


def _check_unlearned(run: Run, asked: Sequence[Pair], release: Release) -> None:
    """Against another release than the one trained on, no pair may have been trained on."""
    from curate.release import load_release

    trained_on = load_release(run.release_directory())
    seen = [pair for split in ("train", "validation") for pair in trained_on.pairs(split)]
    known = {pair.id for pair in seen} | {_question(pair) for pair in seen}
    learned = [pair.id for pair in asked if pair.id in known or _question(pair) in known]
    if learned:
        shown = ", ".join(learned[:5]) + (", …" if len(learned) > 5 else "")
        raise WorkspaceError(
            f"the run {run.manifest.name} was trained on {len(learned)} of the pairs that would test it: {shown}",
            where=str(release.directory),
            fix=f"test against the release it was trained on: --release {trained_on.manifest.name}",
        )


def _question(pair: Pair) -> str:
    """What makes two pairs the same input."""
    passages = [passage.text for passage in pair.passages]
    return sha256_value([pair.question, [turn.model_dump() for turn in pair.history], passages])
