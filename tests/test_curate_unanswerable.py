import pytest
from output_form import UNKNOWN

from curate.behaviour import Behaviour
from curate.checks import check_pairs
from curate.errors import BehaviourError
from curate.pairs import Pair
from curate.support import answer_texts, stands_in
from curate.unanswerable import make_twins, twins_wanted

BEHAVIOUR = Behaviour.model_validate(
    {
        "name": "b",
        "prompt": "{{ question }}",
        "output": {"format": "json"},
        "abstain": {"where": "/status", "equals": "unknown", "output": UNKNOWN},
        "answer": {"at": "/answer"},
        "citations": {"at": "/citations"},
    }
)
TREES = ["Alder", "Birch", "Cedar", "Dogwood", "Elm", "Fir", "Ginkgo", "Hazel", "Ivy", "Juniper"]
COLOURS = ["red", "green", "blue", "black", "white", "pink", "grey", "gold", "brown", "violet"]


def pair(at, count=2, **changes):
    texts = [
        f"{TREES[at]} is {COLOURS[at]} all year.",
        f"{TREES[at]} grows by the river {at}.",
        f"Nobody eats {TREES[at]}.",
    ]
    data = {
        "id": f"q{at}",
        "question": f"What is the colour of {TREES[at]}?",
        "passages": [{"id": f"p{n + 1}", "text": texts[n], "source": f"tree{at}#{n}"} for n in range(count)],
        "output": {"status": "answered", "answer": COLOURS[at], "citations": ["p1"]},
        "answerable": True,
    }
    return Pair.model_validate({**data, **changes})


def check(twin, pairs):
    original = next(one for one in pairs if one.id == twin.meta["twin_of"])
    answers = answer_texts(original, BEHAVIOUR)
    assert answers
    assert not any(stands_in(answer, passage.text) for answer in answers for passage in twin.passages)
    assert twin.output == UNKNOWN
    assert twin.answerable is False
    assert twin.question == original.question
    assert [passage.id for passage in twin.passages] == [f"p{n + 1}" for n in range(len(twin.passages))]
    return original


def test_twins_made_after_each_import_tie_few_documents():
    pairs = []
    for at in range(0, 40, 4):
        new = [pair(at % 10, 1, id=f"q{n}", question=f"What is tree{n}?", passages=alone(n)) for n in range(at, at + 4)]
        pairs += new
        pairs += make_twins(pairs, BEHAVIOUR, 0.45).made
    groups = {}
    for one in pairs:
        names = {passage.document for passage in one.passages} | {one.meta.get("twin_of", one.id)}
        touched = [group for group in groups.values() if group & names]
        merged = set().union(names, *touched)
        groups |= dict.fromkeys(merged, merged)
    documents = [{name for name in group if name.startswith("tree")} for group in groups.values()]
    assert max(map(len, documents)) <= 8


def alone(number):
    return [{"id": "p1", "text": f"All of tree{number} is {COLOURS[number % 10]}.", "source": f"tree{number}#0"}]


@pytest.mark.parametrize(("how", "fewer"), [("swap", 0), ("remove", 1)])
def test_twins_hold_no_answer_and_reach_the_share(how, fewer):
    pairs = [pair(at) for at in range(10)]
    twins = make_twins(pairs, BEHAVIOUR, 0.3, how)
    assert len(twins.made) == twins.wanted == 5  # 5 of 15 is the first to reach 30 %
    for twin in twins.made:
        original = check(twin, pairs)
        assert len(twin.passages) == len(original.passages) - fewer
        assert twin.passages[0].document == original.passages[0].document  # or a split would tie two documents
    assert make_twins([*pairs, *twins.made], BEHAVIOUR, 0.3, how).made == []
    assert [one.id for one in make_twins(pairs, BEHAVIOUR, 0.3, how).made] == [one.id for one in twins.made]
    assert {one.id for one in make_twins([*pairs, *twins.made], BEHAVIOUR, 0.45, how).made}.isdisjoint(
        one.id for one in twins.made
    )


def test_both_ways_and_single_passages():
    pairs = [pair(at) for at in range(10)]
    ways = {one.id.rsplit("-", 1)[1] for one in make_twins(pairs, BEHAVIOUR, 0.4, "both").made}
    assert ways == {"swap", "remove"}
    single = [pair(at, count=1) for at in range(10)]
    made = make_twins(single, BEHAVIOUR, 0.4, "both").made
    assert made
    for twin in made:
        check(twin, single)
        assert twin.id.endswith("-swap")
    removed = make_twins(single, BEHAVIOUR, 0.4, "remove")
    assert not removed.made
    assert removed.skipped == {"without the supporting passage none is left": 10}


def test_a_second_passage_that_holds_the_answer_goes_too_or_the_pair_is_skipped():
    text = "Everybody knows that it is Red."
    passages = [
        {"id": "p1", "text": "Alder is red."},
        {"id": "p2", "text": text},
        {"id": "p3", "text": "Nothing here."},
    ]
    twin = make_twins([pair(0, passages=passages), pair(1)], BEHAVIOUR, 0.5, "remove").made
    assert [p.text for one in twin if one.meta["twin_of"] == "q0" for p in one.passages] == ["Nothing here."]
    accepted = pair(0, accepted=["river 0"])
    assert make_twins([accepted], BEHAVIOUR, 0.5, "remove").skipped.total() == 1


def test_what_cannot_be_verified_is_skipped():
    flag = pair(0, output={"status": "answered", "answer": True, "citations": ["p1"]})
    assert "verified" in next(iter(make_twins([flag, pair(1)], BEHAVIOUR, 0.6).skipped))
    nowhere = pair(0, output={"status": "answered", "answer": "mauve", "citations": []})
    assert "no passage is known" in next(iter(make_twins([nowhere], BEHAVIOUR, 0.5).skipped))


def test_ids_that_are_names_stay():
    named = [{"id": "doc-a", "text": "Alder is red."}, {"id": "doc-b", "text": "Alder is tall."}]
    one = pair(0, passages=named, output={"status": "answered", "answer": "red", "citations": ["doc-a"]})
    assert [p.id for p in make_twins([one], BEHAVIOUR, 0.5, "remove").made[0].passages] == ["doc-b"]


def test_chains_of_single_passages_tie_few_documents_together():
    pairs = [
        pair(0, id=f"q{n}", passages=[{"id": "p1", "text": f"Thing {n} is red{n}.", "source": f"d{n}"}],
             question=f"What is thing {n}?", output={"status": "answered", "answer": f"red{n}", "citations": ["p1"]})
        for n in range(60)
    ]  # fmt: skip
    groups = {f"d{n}": {f"d{n}"} for n in range(60)}
    for twin in make_twins(pairs, BEHAVIOUR, 0.45).made:
        joined = groups[f"d{twin.meta['twin_of'][1:]}"] | groups[twin.passages[0].source]
        groups |= dict.fromkeys(joined, joined)
    assert 1 < max(map(len, groups.values())) <= 8


def test_shares_and_a_behaviour_that_cannot_abstain():
    assert [twins_wanted(n, u, s) for n, u, s in ((10, 0, 0.5), (10, 5, 0.5), (7, 0, 0.3), (0, 0, 0.3))] == [
        10,
        0,
        3,
        0,
    ]
    with pytest.raises(BehaviourError, match="no abstention"):
        make_twins([pair(0)], BEHAVIOUR.model_copy(update={"abstain": None}), 0.5)


def test_a_twin_whose_passages_hold_the_mended_answer_is_an_error():
    pairs = [pair(at) for at in range(4)]
    twins = make_twins(pairs, BEHAVIOUR, 0.5).made
    assert not [one for one in check_pairs([*pairs, *twins], BEHAVIOUR) if one.rule == "abstention"]
    mended = {"status": "answered", "answer": "by the river 0", "citations": ["p2"]}
    pairs[0] = pairs[0].model_copy(update={"output": mended})
    (found,) = (one for one in check_pairs([*pairs, *twins], BEHAVIOUR) if one.rule == "abstention")
    assert (found.pair, found.level) == (f"{pairs[0].id}-swap", "error")
    read = [one.model_copy(update={"meta": {**one.meta, "review": {"by": ["anna"]}}}) for one in twins]
    assert not [one for one in check_pairs([*pairs, *read], BEHAVIOUR) if one.rule == "abstention"]


@pytest.mark.parametrize(
    ("answer", "text", "there"),
    [
        ("กรุงเทพ", "เมืองหลวงคือกรุงเทพมหานคร", True),
        ("30 วัน", "คืนสินค้าได้ภายใน 30 วันหลังจากซื้อ", True),
        ("30 วัน", "คืนสินค้าได้ภายใน 130 วันหลังจากซื้อ", False),
        ("ភ្នំពេញ", "រាជធានីគឺភ្នំពេញ។", True),
        ("กรุงเทพ", "เมืองหลวงคือเชียงใหม่", False),
    ],
)
def test_an_answer_is_found_where_no_space_stands_between_words(answer, text, there):
    assert stands_in(answer, text) is there
