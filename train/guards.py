"""What the guards measure: losses on answers, and the divergence of the tuned model from its base."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor

from train.processes import is_sharded

EVALUATED = 4  # micro-batches that an evaluation takes at once
TILE = 256  # positions whose logits are held at once when a loss is measured


@dataclass(frozen=True)
class Example:
    """One row of training or evaluation: token ids; from `prompt_tokens` on they carry loss, but for those `masked`."""

    ids: tuple[int, ...]
    prompt_tokens: int
    rehearsal: bool = False
    masked: tuple[int, ...] = ()


@dataclass(frozen=True)
class Measured:
    """Over all answer tokens of some examples: mean loss and mean KL(base || tuned), both nats per token."""

    loss: float
    kl: float | None
    tokens: int


def collate(examples: Sequence[Example], pad: int) -> dict[str, Tensor]:
    """Pad on the right: input_ids, attention_mask, labels (-100: no loss), each [rows, length], and rehearsal [rows].

    Padding is told by position and never by token id, so a stop token that is also the pad token keeps its loss.
    """
    width = max(len(one.ids) for one in examples)
    ids = torch.full((len(examples), width), pad, dtype=torch.long)
    mask = torch.zeros((len(examples), width), dtype=torch.long)
    labels = torch.full((len(examples), width), -100, dtype=torch.long)
    for row, one in enumerate(examples):
        ids[row, : len(one.ids)] = torch.tensor(one.ids)
        mask[row, : len(one.ids)] = 1
        labels[row, one.prompt_tokens : len(one.ids)] = torch.tensor(one.ids[one.prompt_tokens :])
        labels[row, list(one.masked)] = -100
    rehearsal = torch.tensor([one.rehearsal for one in examples])
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, "rehearsal": rehearsal}


def causal_model(model: Any) -> Any:
    """The model with the language head, below PEFT where there is PEFT."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def head_logits(causal: Any, hidden: Tensor) -> Tensor:
    """The model's own logits for hidden states [n, width] -> [n, vocabulary] in float32.

    Some families scale their logits or cap them softly; the names are those of their configurations in transformers.
    """
    config = causal.config.get_text_config()
    logits = causal.get_output_embeddings()(hidden).float()
    for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):
        if getattr(config, name, None) is not None:
            logits = logits * getattr(config, name)
            break
    else:
        if getattr(config, "logits_scaling", None):
            by = config.logits_scaling
            logits = logits * by if config.model_type == "hyperclovax" else logits / by
    cap = getattr(config, "final_logit_softcapping", None)
    capped: Tensor = torch.tanh(logits / cap) * cap if cap else logits
    return capped


def hidden_states(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """Last hidden states [rows, length, width] of the model as it stands (adapter on or off)."""
    out: Tensor = causal_model(model).base_model(input_ids=ids, attention_mask=mask, use_cache=False)[0]
    return out


def kl_sum(base: Tensor, tuned: Tensor) -> Tensor:
    """Sum over positions of KL(base || tuned) in nats, from logits [n, vocabulary]."""
    reference = functional.log_softmax(base, -1)
    return functional.kl_div(functional.log_softmax(tuned, -1), reference, log_target=True, reduction="sum")


@torch.no_grad()
def measure(
    model: Any,
    examples: Sequence[Example],
    pad: int,
    batch: int,
    with_kl: bool = False,
    kept: list[Tensor] | None = None,
) -> Measured:
    """Loss (and KL to the base, which needs PEFT's `disable_adapter`) over the answers; leaves the mode as it was.

    `kept` is a list for the base's hidden states at the answers: the first call with these examples fills it, and later
    ones spare the base's forward pass. Without `with_kl` the model is its base just now, and is what is measured.
    """
    was_training = model.training
    model.eval()
    loss, kl, tokens = 0.0, 0.0, 0
    try:
        for number, rows in enumerate(_batches(examples, batch)):
            inputs = {key: value.to(model.device) for key, value in collate(rows, pad).items()}
            labels = inputs["labels"][:, 1:]
            at = labels != -100
            is_base = kept is not None and not with_kl
            states = _base_states(model, inputs, at, kept, number) if is_base else _answer_states(model, inputs, at)
            before = None
            if with_kl:
                with model.disable_adapter():
                    before = _base_states(model, inputs, at, kept, number)
            for tile, wanted in enumerate(labels[at].split(TILE)):
                tuned = _logits_of(model, states, tile)
                loss += functional.cross_entropy(tuned, wanted, reduction="sum").item()
                if before is not None:
                    kl += kl_sum(_logits_of(model, before, tile), tuned).item()
            tokens += int(at.sum())
    finally:
        model.train(was_training)
    if not tokens:
        return Measured(math.nan, None, 0)
    return Measured(loss / tokens, kl / tokens if with_kl else None, tokens)


@torch.no_grad()
def answer_logprobs(model: Any, examples: Sequence[Example], pad: int, batch: int) -> list[list[float]]:
    """Per example the log-probability (nats) of each answer token, by a model in eval mode."""
    found: dict[int, list[float]] = {}
    order = sorted(range(len(examples)), key=lambda i: -len(examples[i].ids))
    for start in range(0, len(order), batch):
        numbers = order[start : start + batch]
        inputs = {key: value.to(model.device) for key, value in collate([examples[i] for i in numbers], pad).items()}
        labels = inputs["labels"][:, 1:]
        at = labels != -100
        states = _answer_states(model, inputs, at)
        tiles = enumerate(labels[at].split(TILE))
        told = iter([one for tile, wanted in tiles for one in _logprobs_of(model, states, tile, wanted)])
        for i, count in zip(numbers, at.sum(dim=1).tolist(), strict=True):
            found[i] = [next(told) for _ in range(count)]
    return [found[i] for i in range(len(examples))]


def pooled(parts: Sequence[Measured]) -> Measured:
    """What was measured on parts of some examples, over all of their tokens."""
    some = [one for one in parts if one.tokens]
    if len(some) < 2:
        return some[0] if some else parts[0]
    tokens = sum(one.tokens for one in some)
    kl = None if some[0].kl is None else math.fsum((one.kl or 0.0) * one.tokens for one in some) / tokens
    return Measured(math.fsum(one.loss * one.tokens for one in some) / tokens, kl, tokens)


def base_of(model: Any) -> AbstractContextManager[Any]:
    """Within it, a PEFT model is its base; a plain model is one already."""
    context: AbstractContextManager[Any] = (
        model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext()
    )
    return context


def _base_states(model: Any, inputs: dict[str, Tensor], at: Tensor, kept: list[Tensor] | None, number: int) -> Tensor:
    """Of a model that is its base just now: `_answer_states` of batch `number`, from `kept` where they are there."""
    if kept is None or is_sharded():  # a sharded model's head cannot be called alone
        return _answer_states(model, inputs, at)
    if number == len(kept):
        kept.append(_answer_states(model, inputs, at).cpu())
    return kept[number].to(model.device)


def _answer_states(model: Any, inputs: dict[str, Tensor], at: Tensor) -> Tensor:
    """Hidden states [positions, width] from which the answers are predicted; of a sharded model its logits already."""
    if is_sharded():  # its parts cannot be called one by one
        whole: Tensor = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        return whole[:, :-1][at]
    return hidden_states(model, inputs["input_ids"], inputs["attention_mask"])[:, :-1][at]


def _logits_of(model: Any, states: Tensor, tile: int) -> Tensor:
    """Logits in float32 of one tile of positions: a row takes as many numbers as the vocabulary has tokens."""
    some = states[tile * TILE : (tile + 1) * TILE]
    return some.float() if is_sharded() else head_logits(causal_model(model), some)


def _logprobs_of(model: Any, states: Tensor, tile: int, wanted: Tensor) -> list[float]:
    table = functional.log_softmax(_logits_of(model, states, tile), -1)
    found: list[float] = table.gather(1, wanted[:, None])[:, 0].tolist()
    return found


def _batches(examples: Sequence[Example], size: int) -> Iterator[list[Example]]:
    ordered = sorted(examples, key=lambda one: -len(one.ids))
    for at in range(0, len(ordered), size):
        yield ordered[at : at + size]
