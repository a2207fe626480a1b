"""Each pre-flight rule finds the fault it is for, planted, and nothing where there is none."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from output_form import UNKNOWN
from shared_base import CHATML, make_tokenizer

from curate.behaviour import Abstain, Answer, Behaviour, Citations, Output
from curate.pairs import Pair, Passage
from train.guards import Example, collate
from train.items import Item
from train.preflight import check_collated, check_sizes, length_statistics, preflight, summary
from train.preparation import Prepared
from train.recipe import Recipe
from train.rendering import render_pairs

BEHAVIOUR = Behaviour(
    name="x",
    prompt="{% for p in passages %}[{{ p.id }}] {{ p.text }}\n{% endfor %}{{ question }}",
    output=Output(format="json"),
    abstain=Abstain(where="/status", equals="unknown", output=UNKNOWN),
    answer=Answer(at="/answer"),
    citations=Citations(at="/citations"),
    schema_document={"type": "object", "required": ["status", "answer", "citations"], "additionalProperties": False,
                     "properties": {"status": {}, "answer": {}, "citations": {}}},
)  # fmt: skip
COLOURS = ("red", "blue", "green", "white", "black", "brown", "grey", "pink", "gold", "teal", "plum", "rose")


def pair(number: int, **changes: Any) -> Pair:
    """A good pair about a thing of its own; every fourth is unanswerable."""
    colour, known = COLOURS[number % len(COLOURS)], number % 4 != 3
    output = {"status": "answered", "answer": colour, "citations": ["p1"]} if known else UNKNOWN
    thing = f"gadget{number}x{number * number}"
    text = f"The {thing} is {colour}." if known else f"The {thing} is heavy."
    data = {
        "id": f"p{number}",
        "question": f"Which colour has the {thing}?",
        "passages": (Passage(id="p1", text=text, source=f"d{number}.md"),),
        "output": output,
        "answerable": known,
    }
    return Pair.model_validate({**data, **changes})


def prepared(
    train: list[Pair] | None = None,
    test: list[Pair] | None = None,
    template: str = CHATML,
    recipe: dict[str, Any] | None = None,
    **changes: Any,
) -> Prepared:
    tokenizer = make_tokenizer(template)
    splits = {
        "train": [pair(i) for i in range(8)] if train is None else train,
        "validation": [pair(i) for i in range(20, 24)],
        "calibration": [pair(i) for i in range(30, 34)],
        "test": [pair(i) for i in range(40, 44)] if test is None else test,
    }

    def render(pairs: list[Pair]) -> Any:
        rows = [(one.id, BEHAVIOUR.render(one), BEHAVIOUR.text(one.output)) for one in pairs]
        return render_pairs(tokenizer, rows, (3,))

    retention = [Item(id=f"h{i}", prompt=f"What is {i} + 1?", answer=str(i + 1)) for i in range(5)]
    rows = render_pairs(tokenizer, [(one.id, one.messages(), str(one.answer)) for one in retention], (3,))
    found = Prepared(
        recipe=Recipe.model_validate({"base": {"model": "a/b"}, **(recipe or {})}),
        behaviour=BEHAVIOUR,
        tokenizer=tokenizer,
        stop=(3,),
        splits=splits,
        group_by="document",
        train=render(splits["train"]),
        validation=render(splits["validation"]),
        retention=retention,
        retention_rows=rows,
        prompts=[Item(id=f"r{i}", prompt=f"Say {i}.") for i in range(9)],
        vocabulary=320,
    )
    return dataclasses.replace(found, **changes)


def rules(found: Prepared, level: str = "error") -> set[str]:
    return {one.rule for one in preflight(found) if one.level == level}


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    assert preflight(prepared()) == []


def swap(old: str, new: str) -> str:
    assert old in CHATML
    return CHATML.replace(old, new)


TEMPLATES = {
    "prompt-mismatch": swap("'<|im_start|>assistant\n'", "'<|im_start|>model\n'"),
    "stop-token-not-learned": swap("m['content'] + '<|im_end|>\n'", "m['content'] + '\n'"),
}


def test_a_template_that_writes_todays_date_is_found_once() -> None:
    dated = "{{- strftime_now('%d %b %Y') -}}" + CHATML
    found = [one for one in preflight(prepared(template=dated)) if one.level == "error"]
    assert [(one.rule, one.pair) for one in found] == [("template-date", None)]


@pytest.mark.parametrize("rule", TEMPLATES)
def test_templates(rule: str) -> None:
    found = [one for one in preflight(prepared(template=TEMPLATES[rule])) if one.level == "error"]
    assert {one.rule for one in found} == {rule}
    assert {one.pair for one in found} >= {f"p{i}" for i in range(8)}
    assert all(one.fix for one in found)


@pytest.mark.parametrize(
    ("rule", "bad"),
    [
        ("schema", {"output": {"status": "answered"}}),
        ("abstention", {"answerable": False}),
        ("citations", {"output": {"status": "answered", "answer": "red", "citations": ["p9"]}}),
        ("control-token", {"question": "Which colour <|im_end|>?"}),
        ("control-token", {"question": "Which colour [INST]?"}),
    ],
)
def test_pairs(rule: str, bad: dict[str, Any]) -> None:
    train = [pair(i) for i in range(8)]
    found = [one for one in preflight(prepared([pair(0, **bad), *train[1:]])) if one.rule == rule]
    assert found
    assert {one.pair for one in found} == {"p0"}
    assert {one.level for one in found} == {"error"}


def test_contradiction() -> None:
    other = {"status": "answered", "answer": "purple", "citations": ["p1"]}
    train = [*(pair(i) for i in range(8)), pair(0, id="again", output=other)]
    assert "contradiction" in {one.rule for one in preflight(prepared(train))}


def mask_by_id(rows: list[Example], pad: int) -> dict[str, Any]:
    """What trainers do that tell padding by the token."""
    batch = collate(rows, pad)
    batch["labels"][batch["input_ids"] == pad] = -100
    return batch


def learn_all(rows: list[Example], pad: int) -> dict[str, Any]:
    batch = collate(rows, pad)
    return {**batch, "labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)}


def learn_nothing(rows: list[Example], pad: int) -> dict[str, Any]:
    batch = collate(rows, pad)
    return {**batch, "labels": batch["labels"].fill_(-100)}


@pytest.mark.parametrize(
    ("collator", "rule"),
    [(mask_by_id, "stop-token-not-learned"), (learn_all, "loss-on-prompt"), (learn_nothing, "no-loss-tokens")],
)
def test_faults_of_a_collator(collator: Any, rule: str) -> None:
    rows = prepared().train
    found = check_collated(rows, (3,), pad=3, collate=collator)
    assert {one.rule for one in found} == {rule}
    assert {one.pair for one in found} == {row.id for row in rows}


def test_ours_keeps_the_stop_token_though_it_is_the_pad_token() -> None:
    assert check_collated(prepared().train, (3,), pad=3) == []


@pytest.mark.parametrize(("over", "level"), [("error", "error"), ("drop", "warning")])
def test_too_long_is_listed_one_by_one(over: str, level: str) -> None:
    text = "A long passage. " * 30
    train = [*(pair(i) for i in range(6)), *(pair(i, question=f"{text} What of gadget{i}?") for i in (8, 9))]
    found = prepared(train, recipe={"training": {"max_length": 300}, "length": {"over": over}})
    named = [(one.rule, one.level, one.pair) for one in preflight(found) if one.rule == "over-length"]
    assert named == [("over-length", level, "p8"), ("over-length", level, "p9")]
    assert [row.id for row in found.kept(found.train)] == [f"p{i}" for i in range(6)]
    assert [row.id for row in found.over_length] == ["p8", "p9"]


def test_the_test_split_in_training() -> None:
    found = [one for one in preflight(prepared(test=[pair(2, id="copy")])) if one.level == "error"]
    assert [(one.rule, one.pair, one.where) for one in found] == [("test-split-in-training", "copy", "test")]


def test_a_document_on_both_sides_leaks() -> None:
    shared_document = (Passage(id="p1", text="Other words of the same page.", source="d2.md#later"),)
    found = preflight(prepared(test=[pair(50, passages=shared_document)]))
    assert [(one.rule, one.pair) for one in found if one.level == "error"] == [("leak", "p50")]


def test_a_near_duplicate_on_both_sides_leaks() -> None:
    words = "The long passage tells of many things, of ships and sails and sealing wax, of cabbages and kings. " * 3
    train = [
        *(pair(i) for i in range(8)),
        pair(60, passages=(Passage(id="p1", text=f"{words} So it is blue.", source="a"),)),
    ]
    other = pair(60, id="q60", passages=(Passage(id="p1", text=f"{words} So it is  Blue!", source="b"),))
    found = preflight(prepared(train, test=[other]))
    assert [(one.rule, one.pair) for one in found if one.level == "error" and one.where == "test"] == [("leak", "q60")]


@pytest.mark.parametrize("answer", ["I cannot tell.", "unknown"])
def test_an_abstention_in_other_words_than_the_behaviours(answer: str) -> None:
    other = {"status": "answered", "answer": answer, "citations": []}
    train = [*(pair(i) for i in range(8)), pair(63, output=other)]
    assert {(one.rule, one.pair) for one in preflight(prepared(train)) if one.level == "error"} == {
        ("abstention", "p63")
    }


def test_too_few_unanswerable() -> None:
    answerable = [pair(i) for i in range(20, 60) if i % 4 != 3]
    few = prepared([*answerable[:9], pair(3)], validation=[])
    assert "unanswerable-share" in rules(few)
    off = prepared([*answerable[:9], pair(3)], recipe={"guards": {"unanswerable_share": None}})
    assert "unanswerable-share" not in rules(off)


def test_a_tokenizer_larger_than_the_embedding() -> None:
    assert rules(prepared(vocabulary=100)) == {"tokenizer-embedding-size"}


@pytest.mark.parametrize("dropped", [False, True])
def test_empty_splits(dropped: bool) -> None:
    if dropped:
        made = prepared(recipe={"training": {"max_length": 8}, "length": {"over": "drop"}})
    else:
        made = prepared([], validation=[])
        made.splits["validation"].clear()
    found = check_sizes(made)
    assert [(one.rule, one.level, one.where) for one in found] == [
        ("no-pairs", "error", "train"),
        ("no-pairs", "warning", "validation"),
    ]
    assert ("all 8 pairs of the train split are longer" in found[0].message) == dropped


def test_the_share_of_unanswerable_pairs_is_that_of_what_is_left() -> None:
    pairs = [pair(i) for i in range(8)]
    long = [one for one in pairs if not BEHAVIOUR.is_answerable(one)]
    assert long
    padded = [
        one.model_copy(update={"passages": (Passage(id="p1", text="x " * 400), *one.passages[1:])})
        if one in long
        else one
        for one in pairs
    ]
    made = prepared(padded, recipe={"training": {"max_length": 600}, "length": {"over": "drop"}})
    assert {row.id for row in made.over_length} == {one.id for one in long}
    assert "unanswerable-share" in rules(made)


def test_rows_longer_than_the_base_was_made_for() -> None:
    found = [one for one in preflight(prepared(context=100)) if one.rule == "context-length"]
    assert len(found) == 12
    assert all("made for 100 at most" in one.message for one in found)
    over = preflight(prepared(context=100, recipe={"training": {"max_length": 90}}))
    assert all("raise training.max_length" not in one.fix for one in over if one.rule == "over-length")
    assert not any(one.rule == "context-length" for one in over)


def test_one_pair_that_the_template_refuses_is_named() -> None:
    strict = "{%- if messages[1] is defined and messages[0]['role'] == messages[1]['role'] -%}"
    strict += "{{ raise_exception('roles must alternate') }}{%- endif -%}"
    twice = [{"role": "user", "content": "a"}]
    made = prepared([*(pair(i) for i in range(7)), pair(7, history=twice)], template=strict + CHATML)
    assert [(one.rule, one.pair) for one in preflight(made) if one.level == "error"] == [("template-refuses", "p7")]


@pytest.mark.parametrize(
    ("item", "says"),
    [
        (Item(id="bad", prompt="A <|im_end|> B"), "stands in it"),
        (Item(id="bad", prompt="pillow " * 1000), "more than training.max_length"),
    ],
)
def test_rehearsal_items_are_looked_at_one_by_one(item: Item, says: str) -> None:
    prompts = [Item(id=f"r{i}", prompt=f"Say {i}.") for i in range(9)]
    found = [one for one in preflight(prepared(prompts=[*prompts, item])) if one.level == "error"]
    assert [(one.rule, one.pair) for one in found] == [("rehearsal-prompts", "bad")]
    assert says in found[0].message


def test_rehearsal_answers_of_a_file_are_rendered() -> None:
    prompts = [Item(id=f"r{i}", prompt=f"Say {i}.", answer="one<|im_end|>two" if i == 3 else "one") for i in range(9)]
    made = prepared(prompts=prompts, recipe={"guards": {"rehearsal": {"source": "general.jsonl"}}})
    assert [(one.rule, one.pair) for one in preflight(made) if one.level == "error"] == [("rehearsal-prompts", "r3")]


def test_rehearsal_prompts_that_are_held_out_or_too_few() -> None:
    held = [Item(id=f"r{i}", prompt=f"What is {i} + 1?") for i in range(5)]
    assert rules(prepared(prompts=held)) == {"rehearsal-prompts"}
    some = prepared(prompts=[*held, Item(id="new", prompt="Say so.")])
    assert rules(some) == set()
    assert rules(some, "warning") == {"rehearsal-prompts"}


def test_lengths_and_summary() -> None:
    found = prepared()
    lengths = length_statistics(found.train)
    assert lengths["examples"] == 8
    assert lengths["tokens"]["sum"] == sum(len(row.ids) for row in found.train)
    assert length_statistics([])["tokens"] is None
    assert summary([]) == ""
    bad = preflight(prepared(template=TEMPLATES["stop-token-not-learned"]))
    text = summary(bad)
    assert text.startswith("error: stop-token-not-learned")
    assert "more (--json shows all)" in text
    json.dumps([one.model_dump() for one in bad])
