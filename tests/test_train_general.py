"""The built-in general items: one right answer each, enough of them, and none rehearsed that is held out."""

from __future__ import annotations

import datetime
import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from curate.errors import TrainingError
from train.general import MAKERS, PER_SET, held_out_items, is_held_out, rehearsal_items
from train.items import Item, read_items, sample_evenly, sample_sets, write_items
from train.log import Log
from train.rehearsal import choose_prompts, rehearsal_count
from train.words import CAPITALS, OPPOSITES


def every(name: str, tries: int = 20_000) -> Iterator[Any]:
    """What a set can ask, by trying."""
    rng = random.Random(f"tutelage-{name}")
    for _ in range(tries):
        yield MAKERS[name](rng)


def test_enough_of_each_set() -> None:
    assert Counter(item.set for item in held_out_items()) == dict.fromkeys(MAKERS, PER_SET)
    assert len({item.id for item in held_out_items()}) == PER_SET * len(MAKERS)
    for name in MAKERS:
        assert len({question for _, question, _ in every(name)}) >= 400, name


def test_held_out_and_rehearsal_share_neither_question_nor_content() -> None:
    held, rehearsed = held_out_items(), rehearsal_items()
    assert not {item.key() for item in held} & {item.key() for item in rehearsed}
    assert len({item.key() for item in rehearsed}) == len(rehearsed)
    about = {item.prompt: (item.set, key) for item in held for key in [item.answer]}
    countries = {side: {c for c in CAPITALS for item in items if item.set == "capitals" and f" {c}" in str(item.prompt)}
                 for side, items in (("held", held), ("rehearsed", rehearsed))}  # fmt: skip
    assert about
    exact = {"Guinea", "Niger", "Sudan", "Ireland", "Oman"}  # names that stand inside other names
    assert not (countries["held"] & countries["rehearsed"]) - exact


def test_a_question_has_one_answer() -> None:
    for name in MAKERS:
        answers: dict[str, set[str]] = {}
        for _, question, answer in every(name, 5000):
            answers.setdefault(question, set()).add(answer)
        assert all(len(found) == 1 for found in answers.values()), name


def test_every_item_takes_its_own_answer_and_no_other_sets() -> None:
    for item in held_out_items():
        assert item.is_right(f"{item.answer}")
        assert item.is_right(f"The answer is {item.answer}.")
        assert not item.is_right("")
        assert not item.is_right("I do not know.")


def test_answers_are_computed_right() -> None:
    for item in held_out_items():
        text = str(item.prompt)
        if item.set == "arithmetic":
            a, kind, b = re.search(r"(\d+) ([-+*]) (\d+)", text).groups()  # type: ignore[union-attr]
            assert int(str(item.answer)) == {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[kind]
        if item.set == "dates":
            days, start = re.search(r"is (\d+) days after (\S+)\?", text).groups()  # type: ignore[union-attr]
            assert item.answer == str(datetime.date.fromisoformat(start) + datetime.timedelta(days=int(days)))
        if item.set == "records":
            assert all(f"{key} is {value}" in text for key, value in json.loads(str(item.answer)).items())


def test_opposites_go_both_ways_and_sides_fall_about_evenly() -> None:
    assert OPPOSITES["hot"] == "cold"
    assert OPPOSITES["cold"] == "hot"
    assert "light" not in OPPOSITES  # dark, and heavy
    sides = Counter(is_held_out(f"x{i}") for i in range(2000))
    assert 900 < sides[True] < 1100


def test_items_round_trip_and_faults_name_the_line(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    items = [
        Item(id="a", prompt="q", answer="x", accepted=("y",)),
        Item(id="b", prompt=({"role": "user", "content": "q"},)),
    ]  # type: ignore[arg-type]
    write_items(path, items)
    assert read_items(path, answers=False) == items
    assert items[0].is_right(" Y ")
    assert items[1].messages() == [{"role": "user", "content": "q"}]
    with pytest.raises(TrainingError, match=r"line 2.*'b' has no answer"):
        read_items(path, answers=True)
    for bad, said in (
        ('{"id": "a"}', "prompt"),
        ("{", "JSON"),
        ("", "no items"),
        ('{"id": "a", "prompt": "q", "x": 1}', "x"),
    ):
        path.write_text(bad)
        with pytest.raises(TrainingError, match=said):
            read_items(path, answers=False)


def test_samples_are_even_and_stable() -> None:
    items = held_out_items()
    some = sample_evenly(items, 50)
    assert len(some) <= 50
    assert set(Counter(item.set for item in some).values()) == {50 // len(MAKERS)}
    assert some == sample_evenly(list(reversed(items)), 50)
    assert {item.id for item in sample_sets(items, 3)} <= {item.id for item in sample_sets(items, 4)}


def test_prompts_for_rehearsal() -> None:
    prompts = [Item(id=str(i), prompt=f"say {i}") for i in range(10)]
    held = [Item(id="h", prompt="say 3")]
    chosen = choose_prompts(prompts, 20, held, 1)
    assert chosen == choose_prompts(prompts, 20, held, 1)
    assert Counter(item.id for item in chosen)["3"] == 0
    assert set(Counter(item.id for item in chosen).values()) == {2, 3}
    with pytest.raises(TrainingError, match="every rehearsal prompt"):
        choose_prompts(held, 3, held, 1)
    assert rehearsal_count(90, 0.1) == 10


def test_a_text_may_hold_any_line_separator(tmp_path: Path) -> None:
    strange = "one\u2028two\u2029three\x85four\x1cfive"
    items = [Item(id="a", prompt=strange, answer=strange), Item(id="b", prompt="next", answer="yes")]
    write_items(tmp_path / "items.jsonl", items)
    assert read_items(tmp_path / "items.jsonl", answers=True) == items
    log = Log(tmp_path / "log.jsonl")
    log.add({"event": "start", "example": strange})
    log.add({"event": "step", "step": 1})
    assert log.events() == [{"event": "start", "example": strange}, {"event": "step", "step": 1}]
    log.keep_until(1)
    assert len(log.events()) == 2
