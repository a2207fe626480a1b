"""Rehearsal: general examples replayed in training, answered by the base itself or by a file."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from curate.errors import TrainingError
from train.guards import Example
from train.items import Item
from train.own import OwnWords
from train.rendering import encode, render_pairs, render_prompt

ANSWER_TOKENS = 256  # the base's own answers end here at the latest; such an end is not trained as one


def rehearsal_count(pairs: int, share: float) -> int:
    """How many rehearsal examples make up `share` of all examples beside so many pairs."""
    return round(pairs * share / (1 - share))


def choose_prompts(prompts: Sequence[Item], count: int, held_out: Sequence[Item], seed: int) -> list[Item]:
    """`count` prompts in an order fixed by the seed, none of them a held-out item; repeated where there are fewer."""
    held = {item.key() for item in held_out}
    free = list({item.key(): item for item in prompts if item.key() not in held}.values())
    if not free:
        raise TrainingError(
            "every rehearsal prompt is also a held-out retention item, so retention could not be measured",
            fix="name other prompts at guards.rehearsal.prompts",
        )
    shuffled = random.Random(seed).sample(free, len(free))
    return [shuffled[i % len(shuffled)] for i in range(count)]


def written_examples(tokenizer: Any, items: Sequence[Item], stop: Sequence[int]) -> list[Example]:
    """Rehearsal from answers that a file gives; raises `TrainingError` where one cannot be trained on."""
    rendered = render_pairs(tokenizer, [(item.id, item.messages(), str(item.answer)) for item in items], stop)
    for one in rendered:
        if one.faults:
            raise TrainingError(f"the rehearsal item {one.id!r} cannot be trained on: {one.faults[0].message}")
    return [Example(one.ids, one.prompt_tokens, rehearsal=True) for one in rendered]


def own_examples(own: OwnWords, items: Sequence[Item]) -> list[Example]:
    """Rehearsal from the base's own greedy answers, token by token.

    An answer that did not end within `ANSWER_TOKENS` is replayed without a stop token: the base did not stop there.
    """
    prompts = [render_prompt(own.tokenizer, item.messages()) for item in items]
    answers = own.answers("rehearsal", prompts, ANSWER_TOKENS)
    examples = []
    for prompt, start in zip(prompts, encode(own.tokenizer, prompts), strict=True):
        examples.append(Example((*start, *answers[prompt]), len(start), rehearsal=True))
    return [one for one in examples if len(one.ids) > one.prompt_tokens]
