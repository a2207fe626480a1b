"""Targets nearer to the base: outputs it wrote again in its own words, and no loss on tokens it finds very unlikely.

Self-distillation follows arXiv:2402.13669, the masking arXiv:2501.14315, with what a rigid output needs left alone: the
syntax of JSON, keys, enumerated values, cited ids, the whole abstention and the stop token.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from curate.behaviour import Behaviour
from curate.checks import ANY_LENGTH, check_pairs
from curate.errors import TrainingError
from curate.files import parse_json
from curate.pairs import Pair
from train.guards import Example, answer_logprobs
from train.own import OwnWords
from train.preparation import Prepared
from train.recipe import SelfDistillation
from train.rendering import Rendered, pad_of, render_pairs, render_prompt
from train.scaling import is_wanted

MEASURED = 8  # rows per forward pass when the base's probabilities are looked up
_JSON = re.compile(r'(?P<string>"(?:[^"\\]|\\.)*")(?P<key>\s*:)?|(?P<number>-?\d[\d.eE+-]*)|\w+|[^\w"]')


@dataclass(frozen=True)
class Targets:
    """What is trained on in place of the pairs as they were written; `report` goes into the log and the manifest."""

    rows: list[Rendered]  # in the order of the pairs, those that are too long left out
    masked: list[tuple[int, ...]]  # per row: positions in its ids that carry no loss
    report: dict[str, Any] | None


def make_targets(own: OwnWords, prepared: Prepared) -> Targets:
    """The training rows under the recipe's guards; just `prepared.kept(prepared.train)` where both are off."""
    guards, rows = prepared.recipe.guards, list(prepared.train)
    pairs, report = list(prepared.pairs), {}
    if guards.self_distillation:
        pairs, rows, report["self_distillation"] = _rewritten(own, prepared, guards.self_distillation)
    most = prepared.recipe.training.max_length
    both = [(pair, row) for pair, row in zip(pairs, rows, strict=True) if len(row.ids) <= most]
    kept = [row for _, row in both]
    masked: list[tuple[int, ...]] = [()] * len(kept)
    if guards.mask_unlikely:
        below = guards.mask_unlikely.below
        masked = _unlikely(own, prepared.behaviour, both, below)
        answers = sum(len(row.ids) - row.prompt_tokens for row in kept)
        report["mask_unlikely"] = {"below": below, "masked_tokens": sum(map(len, masked)), "answer_tokens": answers}
    return Targets(kept, masked, report or None)


def _rewritten(
    own: OwnWords, prepared: Prepared, guard: SelfDistillation
) -> tuple[list[Pair], list[Rendered], dict[str, Any]]:
    """Pairs and rows with the outputs the base wrote in its own words where it may; abstentions stay as they are."""
    behaviour, tokenizer = prepared.behaviour, own.tokenizer
    asked = [pair for pair in prepared.pairs if behaviour.is_answerable(pair)]
    prompts = [render_prompt(tokenizer, _request(behaviour, pair, guard.ask)) for pair in asked]
    answers = own.answers("self-distillation", prompts, guard.tokens)
    stop, found, why = set(prepared.stop), {}, Counter[str]()
    for pair, prompt in zip(asked, prompts, strict=True):
        ids = answers[prompt]
        ended = bool(ids) and ids[-1] in stop
        text = tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=False).strip()
        new, reason = _accepted(behaviour, pair, text) if ended else (None, "unfinished")
        why[reason] += 1
        if new is not None:
            found[pair.id] = new
    refused = {one.pair for one in check_pairs(list(found.values()), behaviour, ANY_LENGTH) if one.level == "error"}
    rendered = render_pairs(
        tokenizer,
        [(one.id, behaviour.render(one), behaviour.text(one.output)) for one in found.values()],
        prepared.stop,
    )
    most = prepared.recipe.training.max_length
    good = {row.id: row for row in rendered if not row.faults and len(row.ids) <= most and row.id not in refused}
    why["kept"] -= len(found) - len(good)
    why["refused-by-a-check"] += len(found) - len(good)
    pairs = [found[pair.id] if pair.id in good else pair for pair in prepared.pairs]
    rows = [good.get(row.id, row) for row in prepared.train]
    changed = sum(new.answer != old.answer for new, old in zip(rows, prepared.train, strict=True))
    counts = {reason: count for reason, count in sorted(why.items()) if count or reason == "kept"}
    return pairs, rows, {"asked": len(asked), "changed": changed, **counts}


def _request(behaviour: Behaviour, pair: Pair, ask: str) -> list[dict[str, str]]:
    """The pair's own conversation with the wanted output shown and the wish to have it written anew."""
    *before, last = behaviour.render(pair)
    return [*before, {**last, "content": f"{last['content']}\n\n{ask}\n\n{behaviour.text(pair.output)}"}]


def _accepted(behaviour: Behaviour, pair: Pair, text: str) -> tuple[Pair | None, str]:
    """(the pair with that output, kept), or (None, the reason why not)."""
    if not is_wanted(behaviour, pair, text):
        return None, "not-right"
    output = parse_json(text) if behaviour.is_json else text
    before, after = behaviour.citations_of(pair.output), behaviour.citations_of(output)
    if set(before or ()) != set(after or ()):
        return None, "other-citations"
    return pair.model_copy(update={"output": output}), "kept"


def _unlikely(
    own: OwnWords, behaviour: Behaviour, both: Sequence[tuple[Pair, Rendered]], below: float
) -> list[tuple[int, ...]]:
    """Per row the positions of free text to which the base gives less than `below`."""
    if not own.tokenizer.is_fast:
        raise TrainingError(
            "guards.mask_unlikely needs a tokenizer that tells where its tokens stand (tokenizer.json)",
            fix="set guards.mask_unlikely: null, or take a base with a fast tokenizer",
        )
    told = answer_logprobs(
        own.model, [Example(row.ids, row.prompt_tokens) for _, row in both], pad_of(own.tokenizer), MEASURED
    )
    masked = []
    for (pair, row), logprobs in zip(both, told, strict=True):
        free = free_positions(own.tokenizer, behaviour, pair, row)
        masked.append(tuple(at for at in free if logprobs[at - row.prompt_tokens] < math.log(below)))
    return masked


def free_positions(tokenizer: Any, behaviour: Behaviour, pair: Pair, row: Rendered) -> list[int]:
    """Positions in `row.ids` whose token lies wholly within free text of the output."""
    if behaviour.abstains(pair.output) or not behaviour.is_answerable(pair):
        return []
    answer = row.answer.strip()
    start = row.text.index(answer, len(row.prompt))
    spans = [(start + low, start + high) for low, high in free_spans(behaviour, pair, answer)]
    offsets = tokenizer(row.text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return [
        at
        for at in range(row.prompt_tokens, len(row.ids) - 1)  # the stop token is always learned
        if any(low <= offsets[at][0] < offsets[at][1] <= high for low, high in spans)
    ]


def free_spans(behaviour: Behaviour, pair: Pair, answer: str) -> Iterator[tuple[int, int]]:
    """Where an output, as text, is the writer's to word: a text as a whole; of JSON the inside of its free values."""
    if not behaviour.is_json:
        yield 0, len(answer)
        return
    ids = {passage.id for passage in pair.passages}
    fixed = ids | set(_enumerated(behaviour.schema_document))
    for found in _JSON.finditer(answer):
        if found["number"]:
            if found["number"] not in ids and parse_json(found["number"]) not in fixed:
                yield found.span()
        elif found["string"] and not found["key"] and parse_json(found["string"]) not in fixed:
            yield found.start("string") + 1, found.end("string") - 1


def _enumerated(schema: Any) -> Iterator[str | float]:
    """Every string and number that a schema lists under `enum` or `const`, wherever that stands."""
    if isinstance(schema, dict):
        listed = [*(schema.get("enum") or []), schema.get("const")] if isinstance(schema.get("enum", []), list) else []
        yield from (one for one in listed if isinstance(one, (str, int, float)) and not isinstance(one, bool))
    for inner in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from _enumerated(inner)
