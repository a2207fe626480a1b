"""Release + recipe -> everything that is trained and measured on, rendered, before any weights are loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from curate.behaviour import Behaviour
from curate.pairs import Pair
from curate.release import Release
from curate.splits import SPLITS, GroupBy
from train.items import Item, read_items
from train.recipe import Recipe
from train.rendering import Rendered, contract, render_pairs


@dataclass(frozen=True)
class Prepared:
    """What pre-flight looks at and training takes. Rendered rows stand in the order of their pairs or items."""

    recipe: Recipe
    behaviour: Behaviour
    tokenizer: Any
    stop: tuple[int, ...]
    splits: dict[str, list[Pair]]  # all four; only train and validation are rendered
    group_by: GroupBy  # what the release kept together
    train: list[Rendered]
    validation: list[Rendered]
    retention: list[Item]
    retention_rows: list[Rendered]
    prompts: list[Item]  # for rehearsal
    vocabulary: int  # rows of the base's embedding
    context: int | None = None  # the most tokens the base was made for; None where its configuration does not say

    @property
    def pairs(self) -> list[Pair]:
        """The pairs that are trained on."""
        return self.splits["train"]

    @property
    def over_length(self) -> list[Rendered]:
        """The training and validation rows that are longer than the recipe permits."""
        most = self.recipe.training.max_length
        return [one for one in (*self.train, *self.validation) if len(one.ids) > most]

    def kept(self, rows: Sequence[Rendered]) -> list[Rendered]:
        """The rows without those that are too long."""
        return [one for one in rows if len(one.ids) <= self.recipe.training.max_length]

    @cached_property
    def prompt_rows(self) -> list[Rendered]:
        """The prompts for rehearsal, rendered; with a stand-in for an answer that the base has yet to give."""
        rehearsal = self.recipe.guards.rehearsal
        written = rehearsal is not None and rehearsal.source != "self"
        items = [(one.id, one.messages(), str(one.answer) if written else "answer") for one in self.prompts]
        return render_pairs(self.tokenizer, items, self.stop)

    def kept_pairs(self, split: str) -> list[Pair]:
        """The pairs of train or validation whose rows are kept."""
        long = {row.id for row in self.over_length}
        return [pair for pair in self.splits[split] if pair.id not in long]

    def contract(self) -> dict[str, Any]:
        """The template contract, with the first training prompt as its example."""
        messages = self.behaviour.render(self.pairs[0]) if self.pairs else None
        return contract(self.tokenizer, self.stop, messages)


def prepare(recipe: Recipe, release: Release) -> Prepared:
    """Load the tokenizer, render every pair and item. Raises `TrainingError`, `BehaviourError`, `WorkspaceError`."""
    from train.model import load_config, load_stop_ids, load_tokenizer

    tokenizer = load_tokenizer(recipe.base)
    stop = load_stop_ids(recipe.base, tokenizer)
    behaviour = release.behaviour
    splits = {split: release.pairs(split) for split in SPLITS}
    retention, prompts = retention_items(recipe), rehearsal_prompts(recipe)
    text = load_config(recipe.base).get_text_config()
    return Prepared(
        recipe=recipe,
        behaviour=behaviour,
        tokenizer=tokenizer,
        stop=stop,
        splits={str(split): pairs for split, pairs in splits.items()},
        group_by=release.manifest.details.get("group_by", "document"),
        train=_render(tokenizer, behaviour, splits["train"], stop),
        validation=_render(tokenizer, behaviour, splits["validation"], stop),
        retention=retention,
        retention_rows=render_pairs(tokenizer, [(one.id, one.messages(), str(one.answer)) for one in retention], stop),
        prompts=prompts,
        vocabulary=int(text.vocab_size),
        context=getattr(text, "max_position_embeddings", None),
    )


def retention_items(recipe: Recipe) -> list[Item]:
    """The held-out general items: the recipe's file, or the built-in sets."""
    from train.general import held_out_items

    budget = recipe.guards.retention_budget
    return read_items(Path(budget.sets), answers=True) if budget and budget.sets else held_out_items()


def rehearsal_prompts(recipe: Recipe) -> list[Item]:
    """What rehearsal draws from; [] where the guard is off."""
    from train.general import rehearsal_items

    rehearsal = recipe.guards.rehearsal
    if not rehearsal:
        return []
    if rehearsal.source != "self":
        return read_items(Path(rehearsal.source), answers=True)
    return read_items(Path(rehearsal.prompts), answers=False) if rehearsal.prompts else rehearsal_items()


def _render(tokenizer: Any, behaviour: Behaviour, pairs: Sequence[Pair], stop: Sequence[int]) -> list[Rendered]:
    return render_pairs(
        tokenizer, [(pair.id, behaviour.render(pair), behaviour.text(pair.output)) for pair in pairs], stop
    )
