"""Answers to many prompts, in batches. The sweep after training and `eval run` both answer through here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from curate.errors import TrainingError
from train.rendering import encode


@dataclass(frozen=True)
class Generation:
    """One answer. `token_ids` and `logprobs` (nats, or None where not asked for) include the stop token."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    finished: bool  # a stop token ended it; otherwise max_new_tokens did


@dataclass(frozen=True)
class Decoding:
    """How the next token is chosen: the likeliest, or drawn at `temperature` from `seed`.

    `constrain` is told the width of a batch's prompts and gives a logits processor that forbids tokens.
    """

    with_logprobs: bool = False
    temperature: float = 0.0
    seed: int = 0
    constrain: Callable[[int], Any] | None = None


GREEDY = Decoding()


class _Recorder:
    """A logits processor that changes nothing and notes the log-probability of the greedy choice at each step."""

    def __init__(self) -> None:
        self.steps: list[Any] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        wide = scores.float()
        self.steps.append((wide.max(-1).values - wide.logsumexp(-1)).cpu())
        return scores


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    max_new_tokens: int,
    batch_size: int = 16,
    how: Decoding = GREEDY,
    progress: Callable[[int], None] | None = None,
) -> list[Generation]:
    """Answer rendered prompts, in their order; stops at the model's stop tokens.

    Batches are padded on the left and sorted by length, the longest first, so that memory runs out at once or not at
    all; a batch that does not fit on the GPU is halved. `text` is what was produced before the stop token, as it is.
    `progress` is told how many more prompts are done. Raises `TrainingError` where not even one prompt fits.
    """
    ids = encode(tokenizer, prompts)
    order = sorted(range(len(ids)), key=lambda i: (-len(ids[i]), i))
    found: list[Generation | None] = [None] * len(ids)
    was_training = model.training
    model.eval()
    try:
        _seed(how)
        at, size = 0, max(1, batch_size)
        while at < len(order):
            batch = order[at : at + size]
            answers = _answer(model, tokenizer, [ids[i] for i in batch], max_new_tokens, how)
            if answers is None:
                if size == 1:
                    raise TrainingError("out of memory: one prompt alone does not fit", fix="take shorter passages")
                size = (size + 1) // 2
                continue
            for i, answer in zip(batch, answers, strict=True):
                found[i] = answer
            at += len(batch)
            if progress:
                progress(len(batch))
    finally:
        model.train(was_training)
    return [one for one in found if one is not None]


def _answer(
    model: Any, tokenizer: Any, batch: list[list[int]], max_new_tokens: int, how: Decoding
) -> list[Generation] | None:
    """One batch of token ids -> its answers; None where the GPU's memory does not hold it."""
    import torch
    from transformers import LogitsProcessorList

    stop = set(model.generation_config.eos_token_id or ())
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(stop, default=0)
    width = max(map(len, batch))
    ids = torch.tensor([[pad] * (width - len(one)) + one for one in batch], device=model.device)
    mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in batch], device=model.device)
    recorder = _Recorder()
    processors = [how.constrain(width)] if how.constrain else []
    processors += [recorder] if how.with_logprobs else []
    # the whole distribution is drawn from: shares of samples then estimate the model's own probabilities
    drawn = {"temperature": how.temperature, "top_k": 0, "top_p": 1.0} if how.temperature else {}
    try:
        with torch.no_grad():
            out = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=max_new_tokens,
                do_sample=bool(how.temperature),
                use_cache=True,
                pad_token_id=pad,
                logits_processor=LogitsProcessorList(processors),
                **drawn,
            )
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None
    logprobs = torch.stack(recorder.steps, dim=1).tolist() if recorder.steps else None
    return [
        _cut(tokenizer, row, logprobs[i] if logprobs else None, stop) for i, row in enumerate(out[:, width:].tolist())
    ]


def _seed(how: Decoding) -> None:
    if how.temperature:
        import torch

        torch.manual_seed(how.seed)


def _cut(tokenizer: Any, row: list[int], logprobs: list[float] | None, stop: set[int]) -> Generation:
    """A generated row without what the batch padded it with."""
    end = next((i for i, one in enumerate(row) if one in stop), None)
    kept = row if end is None else row[: end + 1]
    said = kept if end is None else kept[:-1]
    text = tokenizer.decode(said, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return Generation(text, tuple(kept), tuple(logprobs[: len(kept)]) if logprobs else None, end is not None)
