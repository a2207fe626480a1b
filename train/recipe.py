"""The recipe: what base, how quantised, which adapter, how trained, under which guards. What people write in YAML."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from curate.errors import RecipeError, all_faults
from curate.strict_yaml import Loader

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


class _Loader(Loader):
    """YAML 1.1 reads the key `on` as true; here, as in YAML 1.2, only true and false are Booleans."""


_BOOLEAN = "tag:yaml.org,2002:bool"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in found if tag != _BOOLEAN]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOLEAN, re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF"))


class _Written(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)


class Base(_Written):
    """The model that is tuned."""

    model: str = Field(min_length=1, description="A directory (relative to the recipe) or a name on the hub.")
    revision: str | None = Field(default=None, description="Of a hub model: branch, tag or commit.")
    template_arguments: dict[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")], bool | int | str] = Field(
        default={}, description="What the chat template is told, e.g. {enable_thinking: false}; written into it."
    )

    @property
    def is_directory(self) -> bool:
        """Whether `model` names a directory; decided by how it is written, then by what exists."""
        return self.model.startswith((".", "/", "~")) or Path(self.model).is_dir()


class Quantization(_Written):
    """How the base's weights are held while the adapter is trained."""

    bits: Literal[4] | None = Field(default=4, description="4, or null for the weights as they are.")
    kind: Literal["nf4", "fp4"] = Field(default="nf4", description="The 4-bit data type.")
    double: bool = Field(default=True, description="Quantise the quantisation constants too.")
    compute: Literal["bfloat16", "float16", "float32"] = Field(default="bfloat16", description="Type of arithmetic.")


class Lora(_Written):
    """The adapter."""

    rank: int = Field(default=16, ge=1, description="Rank of the update.")
    alpha: int = Field(default=32, ge=1, description="The update is scaled by alpha / rank.")
    dropout: float = Field(default=0.05, ge=0, lt=1, description="Dropout on the adapter's input.")
    targets: str | tuple[str, ...] = Field(
        default="all-linear", description="all-linear, a list of modules' names, or an expression for whole names."
    )

    @field_validator("targets")
    @classmethod
    def _compiles(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not value:
            raise ValueError("no module is named; all-linear means every linear layer")
        try:
            re.compile(value if isinstance(value, str) else "")
        except re.error as error:
            raise ValueError(f"{value!r} is no regular expression: {error}") from None
        return value


class Training(_Written):
    """How the adapter is trained."""

    epochs: float = Field(default=2, gt=0, description="Passes over the training pairs and the rehearsal.")
    learning_rate: float = Field(default=1e-4, gt=0, description="Peak learning rate of AdamW.")
    schedule: Literal["cosine", "linear", "constant"] = Field(default="cosine", description="After the warm-up.")
    warmup: float = Field(default=0.05, ge=0, lt=1, description="Share of the steps in which the rate rises.")
    batch: int = Field(default=16, ge=1, description="Examples per optimiser step.")
    micro_batch: int = Field(default=2, ge=1, description="Examples per forward pass; divides `batch`.")
    max_length: int = Field(default=4096, ge=8, description="Tokens per example, prompt and answer together.")
    packing: bool = Field(default=False, description="Not offered: batches are grouped by length instead.")
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW's weight decay on the adapter.")
    gradient_clip: float = Field(default=1.0, gt=0, description="Largest norm of the gradient.")
    gradient_checkpointing: bool | None = Field(default=None, description="null: on a GPU yes, on a CPU no.")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: the GPU where there is one.")
    report_to: tuple[str, ...] = Field(default=(), description="Trackers of transformers, e.g. tensorboard; none.")
    seed: int = Field(default=17, ge=0, lt=2**32, description="Of initialisation, order, dropout and sampling.")

    @model_validator(mode="after")
    def _agree(self) -> Training:
        if self.batch % self.micro_batch:
            raise ValueError(f"batch ({self.batch}) is no multiple of micro_batch ({self.micro_batch})")
        if self.packing:
            raise ValueError("packing is not offered: batches are grouped by length; set it to false")
        return self


class Rehearsal(_Written):
    """General examples mixed into training so that retention holds."""

    source: str = Field(default="self", description="self: the base's own answers; or a file of items with answers.")
    share: float = Field(default=0.10, gt=0, lt=1, description="Share of the training examples that are rehearsal.")
    prompts: str | None = Field(default=None, description="General items (JSONL) to answer; null: the built-in ones.")


class KlToBase(_Written):
    """A penalty on moving away from the base: weight x KL(base || tuned), nats per token."""

    weight: float = Field(default=0.1, gt=0, description="Weight beside the loss on the answers.")
    on: Literal["rehearsal", "all"] = Field(default="rehearsal", description="On which examples' answers.")


class RetentionBudget(_Written):
    """Training goes back and stops when the loss on held-out general items rises too far."""

    loss_rise: float = Field(default=0.05, gt=0, description="Nats per token above the base's own loss.")
    every: int = Field(default=50, ge=1, description="Steps between two evaluations; checkpoints are taken there.")
    sets: str | None = Field(default=None, description="General items (JSONL) to hold out; null: the built-in ones.")
    sample: int = Field(default=200, ge=1, description="At most so many items per evaluation.")


class AdapterScale(_Written):
    """After training: the largest scale of the adapter that keeps retention is shipped."""

    candidates: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(0.25, 0.5, 0.75, 1.0), alias="from", min_length=1, description="Scales to try, each in (0, 1]."
    )
    margin: float = Field(default=0.02, ge=0, lt=1, description="Largest drop in general accuracy, as a share.")
    pairs: int = Field(default=200, ge=1, description="At most so many validation pairs are answered per scale.")
    items: int = Field(
        default=400,
        ge=1,
        description="At most so many general items (those of retention_budget.sets) per scale.",
    )


REWRITE = (
    "The right output is given below. Write it again in your own words: the same facts, the same format, the same "
    "citations. Write the output and nothing else."
)


class SelfDistillation(_Written):
    """The base writes the wanted outputs again; those that still conform and are right are trained on instead."""

    ask: str = Field(default=REWRITE, min_length=1, description="What the base is asked, the wanted output after it.")
    tokens: int = Field(default=512, ge=8, description="Outputs that are longer when written again are not taken.")


class MaskUnlikely(_Written):
    """No loss on tokens of free text that the base finds very unlikely."""

    below: float = Field(default=0.1, gt=0, lt=1, description="The base's probability under which a token is masked.")


class UnanswerableShare(_Written):
    """How many of the training pairs must be unanswerable, so that abstention is learned."""

    at_least: float = Field(default=0.15, gt=0, lt=1, description="Share of the training pairs.")


def _off(value: Any) -> Any:
    return None if value is False else value


OFF = BeforeValidator(_off)


class Guards(_Written):
    """What keeps the base's abilities. Each may be null or false: off."""

    rehearsal: Annotated[Rehearsal | None, OFF] = Field(default=Rehearsal(), description="Replay of general data.")
    kl_to_base: Annotated[KlToBase | None, OFF] = Field(default=KlToBase(), description="Penalty on leaving the base.")
    retention_budget: Annotated[RetentionBudget | None, OFF] = Field(
        default=RetentionBudget(), description="Stop when general loss rises."
    )
    adapter_scale: Annotated[AdapterScale | None, OFF] = Field(
        default=AdapterScale(), description="Scale down after training."
    )
    unanswerable_share: Annotated[UnanswerableShare | None, OFF] = Field(
        default=UnanswerableShare(), description="Enough abstentions to learn from."
    )
    self_distillation: Annotated[SelfDistillation | None, OFF] = Field(
        default=None, description="Train on outputs in the base's own words; off unless given ({} for its defaults)."
    )
    mask_unlikely: Annotated[MaskUnlikely | None, OFF] = Field(
        default=None, description="No loss on tokens the base finds very unlikely; off unless given."
    )

    @model_validator(mode="after")
    def _agree(self) -> Guards:
        if self.kl_to_base and self.kl_to_base.on == "rehearsal" and not self.rehearsal:
            raise ValueError("kl_to_base.on is rehearsal, but rehearsal is off; set on: all, or kl_to_base: null")
        return self


class Length(_Written):
    """What happens to pairs longer than `training.max_length`. Nothing is ever cut."""

    over: Literal["error", "drop"] = Field(default="error", description="error, or drop (each one is listed).")


class Recipe(_Written):
    """The whole recipe. Only `base` must be given."""

    base: Base
    quantization: Quantization = Quantization()
    lora: Lora = Lora()
    training: Training = Training()
    guards: Guards = Guards()
    length: Length = Length()

    def document(self) -> dict[str, Any]:
        """The resolved recipe as plain data, every key there, spelled as people write it."""
        return self.model_dump(mode="json", by_alias=True)


def load_recipe(path: Path) -> Recipe:
    """Read a recipe; relative paths in it become absolute. Raises `RecipeError` with every fault there is."""
    return recipe_of(read_bytes(path), path)


def read_bytes(path: Path) -> bytes:
    """A recipe's file as it is now. Raises `RecipeError`."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise RecipeError("there is no such file", where=str(path), fix="tutelage init DIR makes one to edit") from None
    except OSError as error:
        raise RecipeError(f"cannot be read: {error.strerror}", where=str(path)) from error


def recipe_of(written: bytes, path: Path) -> Recipe:
    """The recipe that a file of that path and content is; see `load_recipe`."""
    try:
        data = yaml.load(written.decode("utf-8-sig"), Loader=_Loader)  # a SafeLoader
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise RecipeError(f"cannot be read as YAML: {error}", where=str(path)) from error
    return parse_recipe(data, path.parent, str(path))


def named_files(recipe: Recipe) -> dict[str, Path]:
    """Role -> each file of items that the recipe names."""
    rehearsal, budget = recipe.guards.rehearsal, recipe.guards.retention_budget
    named = {
        "rehearsal-answers": rehearsal.source if rehearsal and rehearsal.source != "self" else None,
        "rehearsal-prompts": rehearsal.prompts if rehearsal else None,
        "retention-sets": budget.sets if budget else None,
    }
    return {role: Path(path) for role, path in named.items() if path}


def parse_recipe(data: Any, directory: Path, where: str, finished: bool = False) -> Recipe:
    """A recipe from plain data whose relative paths start at `directory`; `where` names it in errors.

    Of a `finished` run the files of items that it was trained with need not be there any more.
    """
    if not isinstance(data, dict):
        raise RecipeError("a recipe is a mapping of keys to values", where=where)
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError("\n  ".join(all_faults(error, "recipe")), where=where) from None
    recipe = _map_paths(recipe, lambda path: os.path.abspath(directory / Path(path).expanduser()), directory)
    faults = _base_faults(recipe.base) + ([] if finished else _missing(recipe))
    if faults:
        raise RecipeError("\n  ".join(faults), where=where)
    return recipe


def relative_document(recipe: Recipe, directory: Path) -> dict[str, Any]:
    """`recipe.document()` with its paths relative to `directory`, so that a workspace may be moved."""
    start = Path(os.path.abspath(directory))  # not resolved: a link in a workspace moves with it
    return _map_paths(recipe, lambda path: os.path.relpath(path, start), start).document()


def _map_paths(recipe: Recipe, change: Any, directory: Path) -> Recipe:
    """The recipe with `change` applied to each path it names; hub names and `self` are none."""
    base, guards = recipe.base, recipe.guards
    if base.is_directory or (directory / base.model).is_dir():
        moved = change(base.model)
        # a bare name would read as a hub name once it is relative
        base = base.model_copy(update={"model": moved if moved.startswith((".", "/")) else f"./{moved}"})
    rehearsal = guards.rehearsal
    if rehearsal:
        update = {"prompts": change(rehearsal.prompts) if rehearsal.prompts else None}
        if rehearsal.source != "self":
            update["source"] = change(rehearsal.source)
        rehearsal = rehearsal.model_copy(update=update)
    budget = guards.retention_budget
    if budget and budget.sets:
        budget = budget.model_copy(update={"sets": change(budget.sets)})
    guards = guards.model_copy(update={"rehearsal": rehearsal, "retention_budget": budget})
    return recipe.model_copy(update={"base": base, "guards": guards})


def _base_faults(base: Base) -> list[str]:
    faults = []
    if base.is_directory:
        if not (Path(base.model) / "config.json").is_file():
            faults.append(f"base.model: {base.model} holds no model (it has no config.json)")
        if base.revision:
            faults.append("base.revision: a directory has no revisions; drop it")
    elif not _HUB_ID.fullmatch(base.model):
        faults.append(f"base.model: {base.model!r} is neither a directory nor a name such as owner/model")
    return faults


def _missing(recipe: Recipe) -> list[str]:
    """The files of items that the recipe names and that are not there, or that nothing would read."""
    keys = {
        "rehearsal-answers": "guards.rehearsal.source",
        "rehearsal-prompts": "guards.rehearsal.prompts",
        "retention-sets": "guards.retention_budget.sets",
    }
    missing = ((role, path) for role, path in named_files(recipe).items() if not path.is_file())
    faults = [f"{keys[role]}: there is no file {path}" for role, path in missing]
    rehearsal = recipe.guards.rehearsal
    if rehearsal and rehearsal.prompts and rehearsal.source != "self":
        faults.append("guards.rehearsal.prompts: these the base answers (source: self); a file of answers needs none")
    return faults
