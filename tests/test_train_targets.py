"""Targets nearer to the base: what may be written anew, which tokens lose their loss, and that off changes nothing."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from curate.behaviour import Abstain, Answer, Behaviour, Citations, Output
from curate.pairs import Pair
from train.model import load_base, load_stop_ids
from train.own import OwnWords
from train.preparation import Prepared
from train.recipe import Base, Quantization, Recipe
from train.rendering import render_pairs, render_prompt
from train.targets import free_positions, free_spans, make_targets

DEMO = Path(__file__).parent.parent / "recipes" / "demo" / "base"
UNKNOWN = {"status": "unknown", "answer": None, "citations": [], "score": 0}
BEHAVIOUR = Behaviour(
    name="x",
    system="Answer from the passages.",
    prompt="{% for p in passages %}[{{ p.id }}] {{ p.text }}\n{% endfor %}{{ question }}",
    output=Output(format="json"),
    abstain=Abstain(where="/status", equals="unknown", output=UNKNOWN),
    answer=Answer(at="/answer", compare="f1", at_least=0.5),
    citations=Citations(at="/citations"),
    schema_document={
        "type": "object",
        "required": ["status", "answer", "citations"],
        "properties": {"status": {"enum": ["answered", "unknown"]}, "answer": {"type": ["string", "null"]}},
    },
)


def pair(number: int, known: bool = True) -> Pair:
    output = (
        {"status": "answered", "answer": 'It is "pale" red', "citations": ["p1"], "score": 12} if known else UNKNOWN
    )
    return Pair.model_validate(
        {
            "id": f"q{number}",
            "question": f"Which colour has item {number}?",
            "passages": [{"id": "p1", "text": f"The item {number} is pale red.", "source": "a.md"}],
            "output": output,
            "answerable": known,
        }
    )


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    return load_base(Base(model=str(DEMO)), Quantization(compute="float32"), "cpu")


def prepared(loaded: tuple[Any, Any], **guards: Any) -> Prepared:
    recipe = Recipe.model_validate({"base": {"model": str(DEMO)}, "guards": guards, "training": {"max_length": 400}})
    tokenizer, pairs = loaded[1], [pair(0), pair(1), pair(2, known=False)]
    stop = load_stop_ids(recipe.base, tokenizer)
    rows = render_pairs(tokenizer, [(one.id, BEHAVIOUR.render(one), BEHAVIOUR.text(one.output)) for one in pairs], stop)
    return Prepared(
        recipe=recipe,
        behaviour=BEHAVIOUR,
        tokenizer=tokenizer,
        stop=stop,
        splits={"train": pairs, "validation": [], "calibration": [], "test": []},
        group_by="document",
        train=rows,
        validation=[],
        retention=[],
        retention_rows=[],
        prompts=[],
        vocabulary=len(tokenizer),
    )


def own(loaded: tuple[Any, Any], cache: Path) -> OwnWords:
    return OwnWords(loaded[0], loaded[1], Quantization(compute="float32"), "a" * 64, cache)


def test_free_text_is_the_inside_of_values_that_are_not_listed_anywhere() -> None:
    text = BEHAVIOUR.text(pair(0).output)
    found = [text[low:high] for low, high in free_spans(BEHAVIOUR, pair(0), text)]
    assert found == ['It is \\"pale\\" red', "12"]


def test_a_text_output_is_free_as_a_whole() -> None:
    plain = BEHAVIOUR.model_copy(update={"output": Output(format="text")})
    assert list(free_spans(plain, pair(0), "so it is")) == [(0, 8)]


def test_an_abstention_and_the_stop_token_are_never_free(loaded: tuple[Any, Any]) -> None:
    ready = prepared(loaded)
    answered, _, unknown = ready.train
    assert free_positions(loaded[1], BEHAVIOUR, ready.pairs[2], unknown) == []
    free = free_positions(loaded[1], BEHAVIOUR, ready.pairs[0], answered)
    said = loaded[1].decode([answered.ids[at] for at in free], clean_up_tokenization_spaces=False)
    assert "".join(said.split()) == 'Itis\\"pale\\"red12'
    assert len(answered.ids) - 1 not in free


def test_just_the_free_tokens_that_the_base_finds_unlikely_lose_their_loss(
    loaded: tuple[Any, Any], tmp_path: Path
) -> None:
    import torch

    from train.guards import Example, collate

    below = 0.2
    ready = prepared(loaded, mask_unlikely={"below": below})
    targets = make_targets(own(loaded, tmp_path), ready)
    for one, row, masked in zip(ready.pairs, targets.rows, targets.masked, strict=True):
        with torch.no_grad():  # the base's probabilities, by the model's own forward on one row
            table = torch.log_softmax(loaded[0](torch.tensor([row.ids])).logits[0].float(), -1)
        free = free_positions(loaded[1], BEHAVIOUR, one, row)
        assert masked == tuple(at for at in free if table[at - 1, row.ids[at]] < math.log(below))
        labels = collate([Example(row.ids, row.prompt_tokens, masked=masked)], 0)["labels"][0].tolist()
        wanted = [i for i in range(row.prompt_tokens, len(row.ids)) if i not in masked]
        assert [i for i, one in enumerate(labels) if one != -100] == wanted
    assert targets.report is not None
    told = targets.report["mask_unlikely"]
    assert 0 < told["masked_tokens"] < told["answer_tokens"]
    assert told["masked_tokens"] == sum(map(len, targets.masked))


def script(
    monkeypatch: pytest.MonkeyPatch, loaded: tuple[Any, Any], answers: list[str], ended: bool = True
) -> list[str]:
    """Let the base write these texts, one per prompt; the prompts it was asked are noted."""
    import train.own as module
    from train.generation import Generation

    asked: list[str] = []

    def written(_: Any, tokenizer: Any, prompts: list[str], *__: Any, **___: Any) -> list[Generation]:
        asked.extend(prompts)
        stop = tokenizer.eos_token_id
        return [
            Generation(
                text, (*tokenizer(text, add_special_tokens=False)["input_ids"], *([stop] if ended else [])), None, ended
            )
            for text in answers[: len(prompts)]
        ]

    monkeypatch.setattr(module, "generate", written)
    return asked


def output(**changes: Any) -> str:
    return json.dumps({**pair(0).output, **changes})  # type: ignore[dict-item]


def test_an_output_in_the_bases_words_is_taken_where_it_is_right(
    loaded: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = script(monkeypatch, loaded, [output(answer="pale red"), output(answer="green")])
    ready = prepared(loaded, self_distillation={})
    targets = make_targets(own(loaded, tmp_path), ready)
    assert targets.rows[0].answer == output(answer="pale red")
    assert targets.rows[1:] == ready.train[1:]  # wrong, and the abstention, which nobody is asked about
    assert targets.report == {"self_distillation": {"asked": 2, "changed": 1, "kept": 1, "not-right": 1}}
    assert len(asked) == 2
    assert all('It is \\"pale\\" red' in prompt and "own words" in prompt for prompt in asked)
    assert list(targets.rows[0].ids[: targets.rows[0].prompt_tokens]) == list(
        loaded[1](render_prompt(loaded[1], BEHAVIOUR.render(ready.pairs[0])), add_special_tokens=False)["input_ids"]
    )


@pytest.mark.parametrize(
    ("text", "ended", "reason"),
    [
        ('{"status": "answered"', True, "not-right"),
        ('{"status": "sure", "answer": "pale red", "citations": ["p1"]}', True, "not-right"),  # breaks the schema
        ('{"status": "answered", "answer": "pale red", "citations": []}', True, "other-citations"),
        (json.dumps(UNKNOWN), True, "not-right"),
        (output(answer="pale red"), False, "unfinished"),
        (output(answer="pale red <|im_end|>"), True, "refused-by-a-check"),  # a control token
        (output(note="so " * 300), True, "refused-by-a-check"),  # longer than training.max_length
    ],
)
def test_an_output_that_is_not_right_is_left(
    loaded: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, ended: bool, reason: str
) -> None:
    script(monkeypatch, loaded, [text, text], ended)
    ready = prepared(loaded, self_distillation={})
    targets = make_targets(own(loaded, tmp_path), ready)
    assert targets.rows == ready.train
    assert targets.report is not None
    assert targets.report["self_distillation"]["kept"] == 0
    assert targets.report["self_distillation"][reason] == 2


def test_the_real_base_is_asked_once_and_its_words_are_kept_by_hash(
    loaded: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = prepared(loaded, self_distillation={"tokens": 40}, mask_unlikely={"below": 0.01})
    first = make_targets(own(loaded, tmp_path), ready)
    assert [path.name.rpartition("-")[0] for path in tmp_path.iterdir()] == ["self-distillation"]
    monkeypatch.setattr("train.own.generate", None)
    again = make_targets(own(loaded, tmp_path), ready)
    assert again == first
    other = dataclasses.replace(own(loaded, tmp_path), base_sha256="b" * 64)
    with pytest.raises(TypeError):  # another base has to be asked
        make_targets(other, ready)


def test_off_changes_nothing(loaded: tuple[Any, Any], tmp_path: Path) -> None:
    ready = prepared(loaded)
    targets = make_targets(own(loaded, tmp_path), ready)
    assert targets.rows == ready.train
    assert targets.masked == [(), (), ()]
    assert targets.report is None
    assert not list(tmp_path.iterdir())
