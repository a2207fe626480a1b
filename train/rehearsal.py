"""Rehearsal: general examples replayed in training, answered by the base itself or by a file."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curate.errors import TrainingError
from curate.files import parse_json, sha256_value, write_text
from train.bars import counting
from train.generation import generate
from train.guards import Example
from train.items import Item
from train.recipe import Recipe
from train.rendering import encode, render_pairs, render_prompt

ANSWER_TOKENS = 256  # the base's own answers end here at the latest; such an end is not trained as one
BATCH = 64


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


def own_examples(
    model: Any, tokenizer: Any, items: Sequence[Item], recipe: Recipe, base_sha256: str, cache: Path
) -> list[Example]:
    """Rehearsal from the base's own greedy answers, made once and kept in `cache`.

    The tokens are those the base produced, so nothing is tokenised anew. An answer that did not end within
    `ANSWER_TOKENS` is replayed without a stop token: the base did not stop there.
    """
    prompts = list(dict.fromkeys(render_prompt(tokenizer, item.messages()) for item in items))
    key = sha256_value([base_sha256, recipe.quantization.model_dump(), prompts, ANSWER_TOKENS])
    path = cache / f"rehearsal-{key[:32]}.jsonl"
    answers = _read(path, prompts)
    if answers is None:
        with counting("the base answers for rehearsal", len(prompts)) as progress:
            found = generate(model, tokenizer, prompts, ANSWER_TOKENS, BATCH, progress=progress)
        answers = {prompt: list(one.token_ids) for prompt, one in zip(prompts, found, strict=True)}
        lines = (json.dumps({"prompt": prompt, "token_ids": ids}) for prompt, ids in answers.items())
        write_text(path, "".join(f"{line}\n" for line in lines))
    examples = []
    for item in items:
        prompt = render_prompt(tokenizer, item.messages())
        start = encode(tokenizer, [prompt])[0]
        examples.append(Example((*start, *answers[prompt]), len(start), rehearsal=True))
    return [one for one in examples if len(one.ids) > one.prompt_tokens]


def _read(path: Path, prompts: Sequence[str]) -> dict[str, list[int]] | None:
    """The kept answers; None where there are none, or not for just these prompts."""
    try:
        rows = [parse_json(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        answers = {row["prompt"]: [int(one) for one in row["token_ids"]] for row in rows}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return answers if list(answers) == list(prompts) else None
