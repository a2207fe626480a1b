"""The model with a fresh adapter, and everything it is trained and measured on, as token ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from train.guards import Example
from train.items import Item, sample_evenly
from train.model import attach_lora, load_base, memory_errors
from train.own import OwnWords
from train.preparation import Prepared
from train.rehearsal import choose_prompts, own_examples, rehearsal_count, written_examples
from train.targets import Targets, make_targets
from train.trainer import Data


def gather(prepared: Prepared, base_sha256: str, cache: Path) -> tuple[Any, Data, Targets]:
    """(model, data, targets). The base answers for rehearsal and rewrites targets first, where the recipe says so."""
    recipe = prepared.recipe
    model, tokenizer = load_base(recipe.base, recipe.quantization, recipe.training.device)
    own = OwnWords(model, tokenizer, recipe.quantization, base_sha256, cache)
    with memory_errors("the base's own targets"):
        targets = make_targets(own, prepared)
    train = [
        Example(row.ids, row.prompt_tokens, masked=masked)
        for row, masked in zip(targets.rows, targets.masked, strict=True)
    ]
    data = Data(
        train=train + _rehearsal(own, prepared, len(train)),
        validation=[Example(one.ids, one.prompt_tokens) for one in prepared.kept(prepared.validation)],
        retention=_retention(prepared),
    )
    return attach_lora(model, recipe.lora, recipe.training.seed), data, targets


def _rehearsal(own: OwnWords, prepared: Prepared, pairs: int) -> list[Example]:
    guard = prepared.recipe.guards.rehearsal
    if not guard:
        return []
    count = rehearsal_count(pairs, guard.share)
    items = choose_prompts(prepared.prompts, count, prepared.retention, prepared.recipe.training.seed)
    if guard.source != "self":
        return written_examples(own.tokenizer, items, prepared.stop)
    with memory_errors("the base's answers for rehearsal"):
        return own_examples(own, items)


def _retention(prepared: Prepared) -> list[Example]:
    budget = prepared.recipe.guards.retention_budget
    items: Sequence[Item] = sample_evenly(prepared.retention, budget.sample) if budget else []
    wanted = {item.id for item in items}
    return [
        Example(one.ids, one.prompt_tokens) for one in prepared.retention_rows if one.id in wanted and not one.faults
    ]
