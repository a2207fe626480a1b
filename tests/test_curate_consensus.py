"""From what reviewers said to settled pairs: consensus, adjudication, what goes back. Pure."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from review_cases import (
    ACCEPT,
    BEHAVIOUR,
    PAIR,
    REJECT,
    UNKNOWN,
    entry,
    fix,
    output,
    ruling,
)

from curate.consensus import (
    SETTLED,
    read_judgement,
    reviewed_pair,
    settle,
    version_of,
)
from curate.pulling import notice_text, standing_faults


def test_two_who_agree_settle_a_pair() -> None:
    one = settle(PAIR, [entry("anna", ACCEPT), entry("ben", ACCEPT)], 2, BEHAVIOUR)
    assert (one.outcome, one.by, one.answerable, one.output) == ("accepted", ("anna", "ben"), True, PAIR.output)


def test_one_of_two_does_not() -> None:
    assert settle(PAIR, [entry("anna", ACCEPT)], 2, BEHAVIOUR).outcome == "open"


def test_the_same_correction_spelled_differently_is_agreement() -> None:
    other = {
        "decision": "fix",
        "answerable": "yes",
        "corrected": '{"citations":["p1"],\u00a0"answer":"blue","status":"answered"}',
    }
    one = settle(PAIR, [entry("anna", fix("blue")), entry("ben", other)], 2, BEHAVIOUR)
    assert (one.outcome, one.output) == ("corrected", output("blue"))


@pytest.mark.parametrize(
    "others",
    [
        [ACCEPT, ACCEPT, REJECT],
        [ACCEPT, fix("blue")],
        [fix("blue"), fix("green")],
        [ACCEPT, ACCEPT, ACCEPT, fix("blue")],
    ],
    ids=["two to one", "accept and fix", "two fixes", "three to one"],
)
def test_who_disagree_go_to_adjudication_whatever_the_majority_says(others: list[dict[str, str]]) -> None:
    said = [entry(f"reviewer-{number}", answers) for number, answers in enumerate(others)]
    assert settle(PAIR, said, 2, BEHAVIOUR).outcome == "to adjudicate"


def test_adjudication_decides_and_is_void_once_the_answers_change() -> None:
    anna, ben = entry("anna", ACCEPT), entry("ben", fix("blue"))
    dora = ruling("dora", fix("blue"), anna, ben)
    one = settle(PAIR, [anna, ben, dora], 2, BEHAVIOUR)
    assert (one.outcome, one.adjudicator, one.by) == ("corrected", "dora", ("anna", "ben"))
    changed = entry("ben", fix("green"))
    assert settle(PAIR, [anna, changed, dora], 2, BEHAVIOUR).outcome == "to adjudicate"


def test_two_adjudicators_who_differ_settle_nothing() -> None:
    anna, ben = entry("anna", ACCEPT), entry("ben", fix("blue"))
    both = [ruling("dora", fix("blue"), anna, ben), ruling("emil", ACCEPT, anna, ben)]
    assert settle(PAIR, [anna, ben, *both], 2, BEHAVIOUR).outcome == "to adjudicate"


def test_rejection_needs_agreement_on_nothing_else() -> None:
    said = [entry("anna", REJECT), entry("ben", {**REJECT, "answerable": "yes", "corrected": "{broken"})]
    assert settle(PAIR, said, 2, BEHAVIOUR).outcome == "rejected"


def test_what_was_said_of_another_content_does_not_count() -> None:
    changed = PAIR.model_copy(update={"output": output("blue")})
    assert settle(changed, [entry("anna", ACCEPT), entry("ben", ACCEPT)], 2, BEHAVIOUR).outcome == "open"
    described = PAIR.model_copy(update={"source": "elsewhere", "meta": {"k": 1}})
    assert settle(described, [entry("anna", ACCEPT), entry("ben", ACCEPT)], 2, BEHAVIOUR).outcome == "accepted"


@pytest.mark.parametrize(
    ("answers", "fault"),
    [
        (fix("blue", "p9"), "cites p9; the passages here are p1"),
        ({**ACCEPT, "decision": "fix", "corrected": "{"}, "cannot be read"),
        ({**ACCEPT, "decision": "fix", "corrected": '{"answer": "blue"}'}, "does not have the form"),
        ({**ACCEPT, "decision": "fix", "corrected": "```json\n{}\n```"}, "cannot be read"),
        ({**ACCEPT, "decision": "fix"}, "is empty or unchanged"),
        ({"decision": "fix", "answerable": "yes"}, "is empty or unchanged"),  # of an emptied box nothing comes
        (fix("red"), "says the same as before"),
        ({**fix("blue"), "decision": "accept"}, "yet changed it"),
        ({**ACCEPT, "answerable": "no"}, "yet the output answers"),
        ({**fix("x"), "corrected": json.dumps(UNKNOWN)}, "yet the output says that it does not know"),
        ({"decision": "accept"}, "need an answer"),
        ({**ACCEPT, "decision": "fix", "corrected": ""}, "cannot be read"),
    ],
)
def test_answers_that_cannot_be_used_are_named(answers: dict[str, str], fault: str) -> None:
    judged = read_judgement(entry("anna", answers), PAIR, BEHAVIOUR)
    assert judged.fault is not None
    assert fault in judged.fault
    one = settle(PAIR, [entry("anna", answers), entry("ben", ACCEPT)], 1, BEHAVIOUR)
    assert one.outcome == "returned"
    assert one.by == ("ben",)


statuses = st.sampled_from(["submitted", "draft", "discarded", "withdrawn"])
said_strategy = st.sampled_from([ACCEPT, REJECT, fix("blue"), fix("green"), fix("blue", "p9"), {}])


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["anna", "ben", "chris", "dora"]), st.tuples(said_strategy, statuses)),
    st.integers(1, 3),
    st.randoms(),
)
def test_settled_means_that_enough_people_said_so_and_nobody_else_otherwise(
    said: dict[str, tuple[dict[str, str], str]], overlap: int, shuffle: Any
) -> None:
    entries = [entry(name, answers, status) for name, (answers, status) in said.items()]
    one = settle(PAIR, entries, overlap, BEHAVIOUR)
    shuffle.shuffle(entries)
    assert settle(PAIR, entries, overlap, BEHAVIOUR) == one
    submitted = [read_judgement(e, PAIR, BEHAVIOUR) for e in entries if e.status == "submitted"]
    usable = [judged for judged in submitted if judged.fault is None]
    assert one.settled == (
        len(usable) >= overlap and len({judged.key() for judged in usable}) == 1 and len(usable) == len(submitted)
    )
    if one.outcome in SETTLED[:2]:
        assert BEHAVIOUR.conforms(one.output)
        assert set(one.output["citations"]) <= {"p1"}


@pytest.mark.parametrize("said", ["yes", "no"])
def test_a_pair_without_passages_is_answerable_as_its_output_says(said: str) -> None:
    """Whatever is ticked: else a settled pair would contradict itself, and no release could take it."""
    for wanted, answerable in ((output("hello"), True), (UNKNOWN, False)):
        bare = PAIR.model_copy(update={"passages": (), "output": wanted})
        ticked = {"decision": "accept", "answerable": said}
        one = settle(bare, [entry("anna", ticked, pair=bare), entry("ben", ticked, pair=bare)], 2, BEHAVIOUR)
        assert (one.outcome, one.answerable) == ("accepted", answerable)


def test_notice_stays_until_a_usable_answer_and_names_the_reviewer() -> None:
    wrong, draft = entry("anna", fix("blue", "p9")), entry("anna", fix("blue", "p9"), "draft")
    version = version_of(PAIR)
    faults = standing_faults(PAIR, version, [wrong, draft], BEHAVIOUR)
    assert "anna" in (notice_text(faults) or "")
    assert standing_faults(PAIR, version, [wrong, draft, entry("anna", fix("blue"))], BEHAVIOUR) == {}
    assert notice_text({}) is None
    assert "<b>" not in (notice_text({"anna": "what <b>is</b> this"}) or "")


def test_reviewed_pair_drops_accepted_answers_of_another_output() -> None:
    pair = PAIR.model_copy(update={"accepted": ("crimson",)})
    said = [entry("anna", fix("blue"), pair=pair), entry("ben", fix("blue"), pair=pair)]
    assert reviewed_pair(pair, settle(pair, said, 2, BEHAVIOUR)).accepted == ()
    same = [entry("anna", ACCEPT, pair=pair), entry("ben", ACCEPT, pair=pair)]
    assert reviewed_pair(pair, settle(pair, same, 2, BEHAVIOUR)).accepted == ("crimson",)
