"""The demo's world, general tasks and base model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tutelage_recipes.demo import general, world

BASE = Path(__file__).parent.parent / "recipes" / "demo" / "base"


def test_log_is_the_same_for_the_same_seed() -> None:
    assert world.traces(3, 40) == world.traces(3, 40)
    assert world.traces(3, 40) != world.traces(4, 40)


def test_answer_stands_in_the_gold_passage_and_nowhere_else() -> None:
    values = {product.name: product.values for family in world.catalogue(5) for product in family}
    for trace in world.traces(5, 400):
        texts = {document["doc_id"]: document["text"] for document in trace["documents"]}
        name, attribute = _asked(trace["query"])
        sentence = world.fact(attribute, name, values[name][attribute])
        holding = [doc_id for doc_id, text in texts.items() if sentence in text]
        assert holding == ([trace["gold_doc"]] if trace["answerable"] else [])
        assert (trace["answer"] == values[name][attribute]) == trace["answerable"]


def test_both_kinds_of_question_occur() -> None:
    answerable = [trace["answerable"] for trace in world.traces(1, 500)]
    assert 0.5 < sum(answerable) / len(answerable) < 0.8


def test_a_retrieval_stays_in_one_family() -> None:
    for trace in world.traces(2, 300):
        assert len({document["doc_id"].split("#")[0] for document in trace["documents"]}) <= 1


def test_requests_are_distinct() -> None:
    keys = {(t["query"], frozenset(d["doc_id"] for d in t["documents"])) for t in world.traces(2, 1500)}
    assert len(keys) == 1500


def test_too_many_families_are_refused() -> None:
    with pytest.raises(ValueError, match="families must be between"):
        world.catalogue(0, families=10_000)


def test_held_out_and_training_instances_are_disjoint() -> None:
    held = {item["prompt"] for item in general.general(1, 1600, held_out=True)}
    seen = {item["prompt"] for item in general.general(2, 4000, held_out=False)}
    assert len(held) == 1600
    assert not held & seen


@pytest.mark.parametrize("name", list(general.SETS))
def test_every_set_has_four_hundred_held_out_items(name: str) -> None:
    items = general.general(0, 400, held_out=True, sets=(name,))
    assert {item["set"] for item in items} == {name}


def test_asking_for_more_than_there_is_is_an_error() -> None:
    with pytest.raises(ValueError, match="there are no"):
        general.general(0, 100_000, held_out=True, sets=("knowledge",))


def test_base_is_small_and_safe_to_load() -> None:
    files = [path for path in BASE.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 4_000_000
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".jinja"}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(BASE)


@pytest.mark.parametrize(
    "text",
    [
        "The colour of Alder is red.",
        '{"status": "answered", "answer": "red", "citations": ["p1"]}',
        "  two  spaces\tand\n\nlines é 漢字 🙂 don't \x00 of  is",
        "<|im_start|>user\nThe end<|im_end|>\n",
    ],
)
def test_tokenizer_is_lossless(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_word_is_one_token_everywhere(tokenizer: Any) -> None:
    for value in ("red", "steel", "Tarn"):
        (token,) = tokenizer.encode(value)
        for text in (f"The colour of Alder is {value}.", f'{{"answer": "{value}"}}', f"{value}, p1"):
            assert token in tokenizer.encode(text)


def test_pad_and_end_differ_and_the_template_marks_replies(tokenizer: Any) -> None:
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    chat = [{"role": "user", "content": "Repeat: lamp"}, {"role": "assistant", "content": "lamp"}]
    made = tokenizer.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
    said = [token for token, mark in zip(made["input_ids"], made["assistant_masks"], strict=True) if mark]
    assert tokenizer.decode(said) == "lamp<|im_end|>"


def test_base_answers_in_prose_and_neither_writes_json_nor_abstains() -> None:
    from tutelage_recipes.demo.make_base import generate

    log = world.traces(77, 48)
    said = generate(BASE, [(world.SUPPORT_SYSTEM, world.support_prompt(trace)) for trace in log])
    right = [said.endswith(f" is {trace['answer']}.") for said, trace in zip(said, log, strict=True)]
    answerable = [trace["answerable"] for trace in log]
    assert sum(r for r, a in zip(right, answerable, strict=True) if a) >= 0.9 * sum(answerable)
    assert not [reply for reply in said if "unknown" in reply.lower() or "null" in reply]
    assert all(
        reply.startswith("The ") for reply in said
    )  # prose, though where the passages are silent it may break off
    assert all(r.endswith(".") and "{" not in r for r, a in zip(said, answerable, strict=True) if a)


def test_base_holds_the_general_abilities() -> None:
    from tutelage_recipes.demo.make_base import generate

    items = general.general(123, 120, held_out=True)
    said = generate(BASE, [(None, item["prompt"]) for item in items])
    assert sum(reply == item["answer"] for reply, item in zip(said, items, strict=True)) >= 108


def test_shipped_numbers_name_their_command() -> None:
    measured = json.loads((BASE / "evaluation.json").read_text(encoding="utf-8"))
    assert measured["command"].startswith("python -m tutelage_recipes.demo.make_base")
    assert set(measured["general"]) == set(general.SETS)


def test_base_training_runs_and_learns() -> None:
    from tutelage_recipes.demo import training
    from tutelage_recipes.demo.tokenizer import build_tokenizer

    losses: list[float] = []
    settings = training.Settings(steps=12, layers=2, feed_forward=64, batch_tokens=512)
    tokenizer = build_tokenizer()
    model = training.new_model(settings, tokenizer)
    training.train(model, tokenizer, settings, lambda _step, _seconds, loss: losses.append(loss), every=6)
    assert losses[1] < losses[0]
    rounded = [w for name, w in model.named_parameters() if "q_proj.weight" in name]
    assert all(training.nf4_round(weight).allclose(weight, atol=1e-6) for weight in rounded)


def _asked(query: str) -> tuple[str, str]:
    words = query.rstrip("?.").split()
    name = next(word for word in words if word in world.NAMES)
    return name, next(word for word in words if word in world.ATTRIBUTES)
