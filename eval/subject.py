"""What is evaluated: a run of ours beside its base, or a plain model alone. Weights are loaded when they are needed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from curate.errors import WorkspaceError
from curate.files import sha256_value
from curate.manifest import Input
from curate.release import Release
from curate.workspace import Workspace
from train.recipe import Base, Quantization
from train.run import Run, check_contract, load_run

if TYPE_CHECKING:
    from curate.behaviour import Behaviour
    from curate.pairs import Pair
    from eval.constrained import Grammar
    from train.generation import Generation
    from train.rendering import Message

Side = Literal["tuned", "base"]


@dataclass(frozen=True)
class Manner:
    """How an answer is wanted: the likeliest, or drawn at a temperature; free, or bound to a JSON Schema."""

    temperature: float = 0.0
    seed: int = 0
    schema: Any = None


LIKELIEST = Manner()


class Subject:
    """A run or a plain model, and how it answers. `device` is auto, cpu or cuda."""

    def __init__(self, name: str, base: Base, run: Run | None, device: str = "auto") -> None:
        self.name = name
        self.base = base
        self.run = run
        self.device = device
        self._bound: Grammar | None = None

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

    @property
    def sides(self) -> tuple[Side, ...]:
        """Who can be asked: a plain model has no base beside it."""
        return ("tuned", "base") if self.run else ("tuned",)

    def render(self, messages: Sequence[Message]) -> str:
        """A conversation as the prompt that `answer` takes."""
        from train.rendering import render_prompt

        return render_prompt(self.tokenizer, messages)

    def longest(self, texts: Sequence[str]) -> int:
        """Tokens of the longest of the texts; 0 for none."""
        from train.rendering import encode

        return max((len(ids) for ids in encode(self.tokenizer, texts)), default=0)

    def answer(
        self, side: Side, prompts: Sequence[str], max_new_tokens: int, manner: Manner = LIKELIEST
    ) -> list[Generation]:
        """Answers of the tuned model (a plain model is that), or of the base with the adapter switched off.

        Drawn answers carry no log-probabilities: those of a draw say nothing of how sure the model is.
        """
        from train.generation import Decoding, generate
        from train.model import memory_errors

        constrain = None if manner.schema is None else self._grammar(manner.schema).processor
        how = Decoding(not manner.temperature, manner.temperature, manner.seed, constrain)
        with self.weights(side) as model, memory_errors("answering"):
            return generate(model, self.tokenizer, prompts, max_new_tokens, len(prompts), how)

    @contextmanager
    def weights(self, side: Side) -> Iterator[Any]:
        """The model, within it as that side has it."""
        from train.guards import base_of

        with base_of(self._model) if side == "base" else nullcontext():
            yield self._model

    def _grammar(self, schema: Any) -> Grammar:
        from eval.constrained import Grammar

        if self._bound is None:
            stop = self._model.generation_config.eos_token_id
            self._bound = Grammar(schema, self.tokenizer, stop, self._model.config.get_text_config().vocab_size)
        return self._bound

    def confidence(self, behaviour: Behaviour, answer: Generation) -> float | None:
        """See `answering.confidence_of`."""
        from eval.answering import confidence_of

        return confidence_of(behaviour, self.tokenizer, answer)

    def binding(self, schema: Any) -> dict[str, Any]:
        """What binds outputs to a schema, and the keywords it does not know."""
        from eval.constrained import engine_name, ignored_keywords

        return {"engine": engine_name(), "ignored": ignored_keywords(schema, self.tokenizer)}

    def facts(self) -> dict[str, str]:
        """What decides its answers, as a report names it."""
        found = {"Base model" if self.run else "Model": self.base.model.rstrip("/").rpartition("/")[2]}
        if self.run:
            recipe, run = self.run.recipe, self.run
            four = recipe.quantization
            bits = f"{four.kind}, double quantisation" if four.double else four.kind
            found["Weights"] = bits if four.bits else f"as they are, {four.compute}"
            found["Adapter"] = f"LoRA rank {recipe.lora.rank}, scale {run.scale:g}"
            found["Chat template"] = str(run.contract["template_sha256"])[:12]
            found["Trained with"] = ", ".join(f"{name} {one}" for name, one in run.manifest.details["versions"].items())
        return found

    def key(self, side: Side) -> list[str]:
        """What marks its answers beside the run or model and the side: the facts, and what kind of device computes."""
        from train.model import choose_device

        return [*self.facts().values(), choose_device(self.device)]

    def input(self, directory: Path) -> tuple[str, Input]:
        """The role and the input that a report in `directory` names this subject by."""
        from train.model import base_input

        if self.run:
            return run_input(self.run, directory)
        return "model", base_input(self.base, directory)


def run_input(run: Run, directory: Path) -> tuple[str, Input]:
    """The role and the input that a report in `directory` names a run by."""
    path = Path(os.path.relpath(run.directory.resolve(), directory.resolve())).as_posix()
    return "run", Input(path=path, sha256=run.manifest.sha256)


def _precision(device: str) -> Literal["bfloat16", "float32"]:
    from train.model import choose_device

    return "bfloat16" if choose_device(device) == "cuda" else "float32"


def find_subject(workspace: Workspace, named: str, device: str = "auto") -> Subject:
    """The run of that name or path, the model in that directory, or the model of that name on the hub."""
    path = Path(named)
    if (path / "config.json").is_file():  # a model; an exported one has a manifest beside it
        return Subject(path.resolve().name, Base(model=str(path.resolve())), None, device)
    try:
        run = load_run(workspace.find("run", named))
    except WorkspaceError:
        looks_local = path.exists() or (workspace.runs / named).exists() or named.startswith((".", "/", "~"))
        if looks_local or named.count("/") != 1:
            raise
        return Subject(named.rpartition("/")[2], Base(model=named), None, device)
    return Subject(run.manifest.name, run.recipe.base, run, device)


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
