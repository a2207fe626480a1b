"""Batched greedy generation says what one prompt at a time would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from train.generation import Decoding, generate
from train.model import load_base
from train.recipe import Base, Quantization

PROMPTS = ["a", "a much longer prompt than the others, to be padded for", "middle one", "b", "12 + 3", "x" * 40]


@pytest.fixture(scope="module")
def loaded(tiny_base: Path) -> Any:
    return load_base(Base(model=str(tiny_base)), Quantization(compute="float32"), "cpu")


def test_batched_equals_unbatched(loaded: Any) -> None:
    model, tokenizer = loaded
    one_by_one = [generate(model, tokenizer, [prompt], 12, 1, Decoding(True))[0] for prompt in PROMPTS]
    done: list[int] = []
    batched = generate(model, tokenizer, PROMPTS, 12, 4, Decoding(True), done.append)
    assert [one.token_ids for one in batched] == [one.token_ids for one in one_by_one]
    assert [one.text for one in batched] == [one.text for one in one_by_one]
    for left, right in zip(batched, one_by_one, strict=True):
        assert left.logprobs == pytest.approx(right.logprobs, abs=1e-4)
    assert done == [4, 2]


def test_logprobs_are_the_models(loaded: Any) -> None:
    import torch

    model, tokenizer = loaded
    answer = generate(model, tokenizer, ["hello"], 6, how=Decoding(True))[0]
    prompt = tokenizer("hello", add_special_tokens=False)["input_ids"]
    ids = torch.tensor([prompt + list(answer.token_ids)])
    with torch.no_grad():
        table = torch.log_softmax(model(ids).logits[0].float(), -1)
    wanted = [table[len(prompt) - 1 + i, token].item() for i, token in enumerate(answer.token_ids)]
    assert answer.logprobs == pytest.approx(wanted, abs=1e-4)


def test_stops_at_any_stop_token_and_leaves_it_out_of_the_text(loaded: Any) -> None:
    model, tokenizer = loaded
    free = generate(model, tokenizer, PROMPTS, 10)
    assert not any(one.finished for one in free)
    before = model.generation_config.eos_token_id
    stop = free[0].token_ids[2]
    model.generation_config.eos_token_id = [*before, stop]
    try:
        stopped = generate(model, tokenizer, PROMPTS, 10, how=Decoding(True))
    finally:
        model.generation_config.eos_token_id = before
    assert stopped[0].finished
    for left, right in zip(stopped, free, strict=True):
        end = right.token_ids.index(stop) if stop in right.token_ids else None
        assert left.finished == (end is not None)
        assert left.token_ids == (right.token_ids if end is None else right.token_ids[: end + 1])
        assert len(left.logprobs or ()) == len(left.token_ids)
        if end is not None:
            assert left.text == tokenizer.decode(right.token_ids[:end])


def test_nothing_to_answer(loaded: Any) -> None:
    assert generate(*loaded, [], 4) == []


def test_training_mode_is_kept(loaded: Any) -> None:
    model, tokenizer = loaded
    model.train()
    generate(model, tokenizer, ["a"], 2)
    assert model.training
    model.eval()


def test_samples_follow_their_seed(loaded: Any) -> None:
    model, tokenizer = loaded
    one, same, other = (
        [one.token_ids for one in generate(model, tokenizer, PROMPTS, 8, 4, Decoding(temperature=1.0, seed=seed))]
        for seed in (1, 1, 2)
    )
    assert one == same
    assert one != other
    cold = generate(model, tokenizer, PROMPTS, 8, 4, Decoding(temperature=1e-6, seed=3))
    assert [one.token_ids for one in cold] == [one.token_ids for one in generate(model, tokenizer, PROMPTS, 8)]


def test_what_is_forbidden_is_not_said(loaded: Any) -> None:
    model, tokenizer = loaded
    free = {token for one in generate(model, tokenizer, PROMPTS, 8) for token in one.token_ids}
    widths = []

    def constrain(width: int) -> Any:
        def forbid(ids: Any, scores: Any) -> Any:
            scores[:, list(free)] = float("-inf")
            return scores

        widths.append(width)
        return forbid

    bound = generate(model, tokenizer, PROMPTS, 8, 6, Decoding(True, constrain=constrain))
    assert not free & {token for one in bound for token in one.token_ids}
    assert widths == [max(len(prompt) for prompt in PROMPTS)]
    assert all(one.logprobs and max(one.logprobs) <= 0 for one in bound)
