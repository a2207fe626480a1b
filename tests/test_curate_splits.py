"""Splits: nothing on two sides, the same split in any order, stable when pairs are added."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from release_cases import documents_of

from curate.behaviour import Behaviour, Citations, Output
from curate.errors import WorkspaceError
from curate.pairs import Pair, Passage, make_pair
from curate.splits import (
    FRACTIONS,
    SPLITS,
    Anchor,
    Assignment,
    Member,
    assign,
    distance,
    parse_fractions,
    tie,
)

BEHAVIOUR = Behaviour(
    name="b", prompt="{{ question }}", output=Output(format="json"), citations=Citations(at="/citations")
)


def members_of(drawn: Sequence[tuple[set[int], bool]]) -> list[Member]:
    return [
        Member(f"m{number}", frozenset({f"id:m{number}"} | {f"doc:{d}" for d in documents}), answerable)
        for number, (documents, answerable) in enumerate(drawn)
    ]


drawn_members = st.lists(
    st.tuples(st.sets(st.integers(0, 40), min_size=1, max_size=2), st.booleans()), min_size=1, max_size=60
).map(members_of)


def assigned(members: Sequence[Member], anchors: Sequence[Anchor] = ()) -> Assignment | None:
    try:
        return assign(members, anchors)
    except WorkspaceError:
        return None


def groups_of(members: Sequence[Member]) -> int:
    """Connected components, the plain way."""
    groups: list[set[str]] = []
    for member in members:
        touched = [group for group in groups if group & member.keys]
        groups = [group for group in groups if not group & member.keys]
        groups.append(set(member.keys).union(*touched))
    return len(groups)


def sides(members: Sequence[Member], assignment: Assignment) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for member in members:
        for key in member.keys:
            if member.id in assignment.splits:
                found.setdefault(key, set()).add(assignment.splits[member.id])
    return found


@given(drawn_members)
def test_no_key_is_on_two_sides_and_no_split_is_empty(members: list[Member]) -> None:
    assignment = assigned(members)
    if assignment is None:
        assert groups_of(members) < len(SPLITS)
        return
    assert assignment.groups == groups_of(members)
    assert assignment.splits.keys() == {member.id for member in members}
    assert all(len(splits) == 1 for splits in sides(members, assignment).values())
    assert set(assignment.splits.values()) == set(SPLITS)


@given(drawn_members, st.randoms(use_true_random=False))
def test_order_of_input_does_not_matter(members: list[Member], rng: random.Random) -> None:
    shuffled = rng.sample(members, len(members))
    first, second = assigned(members), assigned(shuffled)
    assert (first and first.splits) == (second and second.splits)


@given(drawn_members, drawn_members)
def test_added_pairs_change_no_split_and_leak_nothing(old: list[Member], extra: list[Member]) -> None:
    first = assigned(old)
    if first is None:
        return
    kept = [member._replace(split=first.splits[member.id]) for member in old]
    new = [member._replace(id=f"n{member.id}", keys=member.keys - {f"id:{member.id}"}) for member in extra]
    second = assign([*new, *kept])
    assert all(second.splits[member.id] == member.split for member in kept)
    assert all(len(splits) == 1 for splits in sides([*kept, *new], second).values())
    assert second.splits.keys() | second.excluded.keys() == {member.id for member in [*kept, *new]}
    shuffled = assign([*kept, *reversed(new)])
    assert (shuffled.splits, shuffled.excluded) == (second.splits, second.excluded)


def test_a_pair_that_would_tie_two_earlier_splits_is_left_out_alone() -> None:
    anchors = [Anchor(frozenset({"doc:a"}), "train"), Anchor(frozenset({"doc:b"}), "test")]
    more = [Anchor(frozenset({"doc:v"}), "validation"), Anchor(frozenset({"doc:c"}), "calibration")]
    new = [
        Member("bridge", frozenset({"doc:a", "doc:b"}), True),
        Member("follows", frozenset({"doc:b", "doc:new"}), True),
        Member("follows-it", frozenset({"doc:new"}), True),
        *(Member(name, frozenset({f"doc:{name}"}), True) for name in "wxyz"),
    ]
    done = assign(new, [*anchors, *more])
    assert set(done.excluded) == {"bridge"}
    assert "test and train" in done.excluded["bridge"]
    assert "document a" in done.excluded["bridge"]
    assert done.splits["follows"] == done.splits["follows-it"] == "test"


@pytest.mark.parametrize("name", "abcdef")  # whichever hash comes first
def test_a_twin_gives_way_to_the_pair_it_was_made_of(name: str) -> None:
    """Its distractor stands in another split's document: a pair of the team's own must not be left out for it."""
    anchors = [Anchor(frozenset({f"doc:{split}"}), split) for split in SPLITS]
    pair = Member(name, frozenset({f"id:{name}", "doc:new"}), True)
    bridge = Member("bridge", frozenset({"doc:new", "doc:train"}), True)
    twin = Member(f"{name}-swap", frozenset({f"id:{name}-swap", f"id:{name}", "doc:test"}), False, twin=True)
    free = [Member(f"m{i}", frozenset({f"id:m{i}"}), True) for i in range(4)]
    done = assign([pair, bridge, twin, *free], anchors)
    assert done.splits[name] == done.splits["bridge"] == "train"
    assert done.excluded.keys() == {twin.id}
    alone = assign([pair, twin, *free], anchors)
    assert alone.splits[name] == alone.splits[twin.id] == "test", "nothing else ties them"


def test_earlier_splits_that_share_a_document_are_refused() -> None:
    anchors = [Anchor(frozenset({"doc:a"}), "train"), Anchor(frozenset({"doc:a"}), "test")]
    with pytest.raises(WorkspaceError, match="--group-by"):
        assign([Member("x", frozenset({"doc:x"}), True)], anchors)


def test_one_group_is_refused_with_the_way_out() -> None:
    members = [Member(f"m{i}", frozenset({"doc:handbook"}), True) for i in range(50)]
    with pytest.raises(WorkspaceError, match=r"all pairs hang together(?s:.)*conversations(?s:.)*--group-by passage"):
        assign(members)


def test_fractions_and_balance_are_met_with_many_groups() -> None:
    rng = random.Random(3)
    members = [
        Member(f"m{i}", frozenset({f"id:m{i}", f"doc:{rng.randrange(400)}"}), rng.random() < 0.7) for i in range(2000)
    ]
    done = assign(members)
    for split in SPLITS:
        count = done.counts[split]
        assert count.total() == pytest.approx(2000 * FRACTIONS[split], rel=0.02)
        assert count[True] / count.total() == pytest.approx(0.7, abs=0.03)
    assert distance(done, FRACTIONS) == []


@given(st.lists(st.tuples(st.integers(1, 400), st.integers(0, 400)), min_size=4, max_size=8))
def test_few_large_groups_fill_four_splits(sizes: list[tuple[int, int]]) -> None:
    members = [
        Member(f"{g}-{i}", frozenset({f"doc:{g}"}), i < answerable)
        for g, (answerable, unanswerable) in enumerate(sizes)
        for i in range(answerable + unanswerable)
    ]
    done = assign(members)
    assert all(done.counts[split].total() for split in SPLITS)


def test_each_split_gets_both_kinds_where_four_groups_hold_them() -> None:
    groups = [(300, 0), (200, 0), (100, 0), (50, 5), (40, 5), (30, 5), (20, 5)]
    members = [
        Member(f"{g}-{i}", frozenset({f"doc:{g}"}), i < a) for g, (a, u) in enumerate(groups) for i in range(a + u)
    ]
    done = assign(members)
    assert all(done.counts[split][False] and done.counts[split][True] for split in SPLITS)


def test_the_few_pairs_of_a_rare_kind_do_not_all_end_in_one_split() -> None:
    """Twins of pairs with one passage: the groups that hold them are the largest, and most groups hold none."""
    twins = [Member(f"{g}-{i}", frozenset({f"doc:{g}"}), i > 0) for g in range(100) for i in range(4)]
    done = assign([*twins, *(Member(f"m{i}", frozenset({f"id:m{i}"}), True) for i in range(1600))])
    for split, fraction in FRACTIONS.items():
        assert done.counts[split][False] == pytest.approx(100 * fraction, abs=6)
        assert done.counts[split].total() == pytest.approx(2000 * fraction, abs=8)


def test_far_from_the_wanted_fractions_is_said() -> None:
    sizes = Counter({"a": 90, "b": 5, "c": 3, "d": 2})
    members = [Member(f"{g}{i}", frozenset({f"doc:{g}"}), True) for g, size in sizes.items() for i in range(size)]
    lines = distance(assign(members), FRACTIONS)
    assert any(line.startswith("train has 90 pairs, 90%, where 60% was wanted") for line in lines)


def test_a_split_may_be_done_without() -> None:
    fractions = parse_fractions("0.7,0,0,0.3")
    done = assign([Member(f"m{i}", frozenset({f"doc:{i}"}), True) for i in range(10)], (), fractions)
    assert Counter(done.splits.values()) == {"train": 7, "test": 3}


@pytest.mark.parametrize("text", ["", "1", "0.5,0.5", "0.5,0.5,0.5,0.5", "a,b,c,d", "0,0,0,1", "1,0,0,0", "nan,0,0,1"])
def test_wrong_fractions_are_refused(text: str) -> None:
    with pytest.raises(WorkspaceError, match="--fractions"):
        parse_fractions(text)


def pair(name: str, cited: Sequence[str], passages: Sequence[Passage], **meta: str) -> Pair:
    return Pair(id=name, question="q", passages=tuple(passages), output={"citations": list(cited)}, meta=meta)


def test_source_documents() -> None:
    one = Passage(id="p1", text="one", source="handbook.md#returns")
    two = Passage(id="p2", text="two", source="handbook.md#damage")
    bare = Passage(id="p3", text="bare")
    assert documents_of(pair("a", ["p2"], [one, two, bare]), BEHAVIOUR) == {"handbook.md"}
    assert documents_of(pair("a", ["p2"], [one, two, bare]), BEHAVIOUR, "passage") == {"handbook.md#damage"}
    assert documents_of(pair("a", [], [one, bare]), BEHAVIOUR, "passage") == {"handbook.md#returns"}
    (named,) = documents_of(pair("a", ["p3"], [one, bare]), BEHAVIOUR)
    assert named.startswith("text:")
    assert documents_of(pair("a", ["p9"], [one]), BEHAVIOUR) == {"handbook.md"}, "cited, but not there"
    assert documents_of(pair("a", [], []), BEHAVIOUR) == set()
    tickets = [Passage(id=f"p{i}", text="x", source=f"Ticket #{i}") for i in (1, 2)]
    assert documents_of(pair("a", ["p1", "p2"], tickets), BEHAVIOUR) == {"Ticket #1", "Ticket #2"}


def test_twins_and_near_duplicates_are_tied() -> None:
    passages = [[Passage(id="p1", text=name, source=name)] for name in "abc"]
    pairs = [pair("x", [], passages[0]), pair("y", [], passages[1], twin_of="x"), pair("z", [], passages[2])]
    keys = tie(pairs, BEHAVIOUR, clusters=[[1, 2]])
    assert keys[0] & keys[1] == {"id:x"}
    assert keys[1] & keys[2] == {"dup:y"}


def test_turns_of_one_conversation_are_tied() -> None:
    """A later turn has the earlier answer in its prompt; a greeting holds none and ties nothing."""

    def turn(name: str, question: str, *earlier: str, passages: bool = True, output: object = None) -> Pair:
        said = [{"role": role, "content": one} for one in earlier for role in ("user", "assistant")]
        found = [Passage(id="p1", text=name, source=name)] if passages else []
        record = {"id": name, "question": question, "history": said, "passages": found}
        return make_pair({**record, "output": output or {}, "answerable": True}, "test")

    pairs = [
        turn("first", "How long do refunds take?"),
        turn("later", "And in France?", "how long do  refunds take?"),
        turn("last", "Why?", "How long do refunds take?", "And in France?"),
        turn("other", "And in France?"),
        turn("hello", "Hello!", passages=False),
        turn("greeted", "Where are you?", "Hello!"),
        turn("greeted too", "Who are you?", "Hello!"),
        turn("hi", "Hi!", output={"citations": []}),  # what was retrieved all the same
        turn("well", "Where is it?", "Hi!"),
    ]
    keys = tie(pairs, BEHAVIOUR, [])
    assert keys[0] & keys[1]
    assert keys[1] & keys[2]
    for alone in range(3, len(pairs)):
        assert not keys[alone] & frozenset().union(*keys[:alone], *keys[alone + 1 :])


def test_the_split_does_not_hang_on_the_hash_seed() -> None:
    code = (
        "from curate.splits import *\n"
        "m=[Member(f'm{i}', frozenset({f'id:m{i}', f'doc:{i%37}', f'dup:{i%53}' if i%5==0 else f'id:m{i}'}), i%3>0)"
        " for i in range(300)]\n"
        "print(sorted(assign(m).splits.items()))"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(runs) == 1


def test_a_split_that_nothing_is_left_for_is_named() -> None:
    """Where others keep the splits of an earlier release, more pairs or a new split are the way out."""
    members = [Member(f"m{i}", frozenset({f"doc:{i}"}), True, "train") for i in range(5)]
    with pytest.raises(WorkspaceError, match=r"nothing is left for validation and calibration and test(?s:.)*--fresh"):
        assign(members)


def test_what_cites_nothing_rests_on_the_passage_its_answer_stands_in() -> None:
    text = Behaviour.model_validate({"name": "t", "prompt": "{{ question }}", "output": {"format": "text"}})
    noise = Passage(id="p1", text="The shop opens at nine.", source="shop.md")
    gold = Passage(id="p2", text="Refunds take 30 days.", source="handbook.md#refunds")
    answered = make_pair({"id": "a", "question": "How long?", "passages": [noise, gold], "output": "30 days"}, "test")
    assert documents_of(answered, text) == {"handbook.md"}
    twice = [noise, gold, Passage(id="p3", text="Parcels take 30 days.", source="parcels.md")]
    short = make_pair({"id": "c", "question": "How long?", "passages": twice, "output": "30 days"}, "test")
    assert documents_of(short, text) == {"handbook.md"}, "the first of those that hold it"
    other = make_pair({"id": "b", "question": "How long?", "passages": [noise, gold], "output": "A month."}, "test")
    assert documents_of(other, text) == {"shop.md"}, "it stands nowhere: the first"


def test_one_input_and_one_text_are_never_on_two_sides() -> None:
    """The same question over the same passages, citing others of them; one text under two names and spacings."""
    first = Passage(id="p1", text="Refunds take 30 days.", source="a.md")
    second = Passage(id="p2", text="Money is back in 30 days.", source="b.md")
    spaced = Passage(id="p1", text="Refunds  take 30 days.", source="https://kb/a?session=2")
    pairs = [
        pair("one", ["p1"], [first, second]),
        pair("two", ["p2"], [first, second]),
        pair("three", ["p1"], [spaced]),
        pair("four", ["p1"], [Passage(id="p1", text="Something else.", source="c.md")]),
    ]
    one, two, three, four = tie(pairs, BEHAVIOUR, [])
    assert one & two
    assert one & three
    assert not (one | two | three) & four


def test_a_turn_that_an_older_rule_put_on_two_sides_leaves_nothing_out() -> None:
    anchors = [Anchor(frozenset({f"id:{split}", "turn:hello"}), split) for split in SPLITS]
    new = Member("new", frozenset({"id:new", "turn:hello"}), True)
    free = [Member(f"m{i}", frozenset({f"id:m{i}"}), True) for i in range(8)]
    assert assign([new, *free], anchors).excluded == {}
    for one in anchors:
        assert assign([new, *free], [one]).splits["new"] == one.split


def test_what_touches_a_document_that_an_older_rule_put_on_two_sides_is_left_out() -> None:
    anchors = [Anchor(frozenset({"doc:a"}), "train"), Anchor(frozenset({"doc:a"}), "test")]
    others = [Member(f"m{i}", frozenset({f"id:m{i}"}), True) for i in range(8)]
    done = assign([Member("new", frozenset({"id:new", "doc:a"}), True), *others], anchors)
    assert done.excluded == {"new": "it would tie test and train together, by the document a"}
    assert len(done.splits) == 8
