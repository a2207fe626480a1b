import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from output_form import UNKNOWN

from curate.behaviour import Behaviour
from curate.checks import RULES, check_pairs, control_tokens, weight
from curate.compare import squad_tokens
from curate.consistency import input_key, near_duplicate_pairs
from curate.pairs import Pair
from curate.support import _stands_as_it_is
from curate.vocabulary import term_pattern

SPEC = {
    "name": "b",
    "prompt": "{% for p in passages %}{{ p.text }} {% endfor %}{{ question }}",
    "output": {"format": "json"},
    "schema_document": {"type": "object", "required": ["status"]},
    "abstain": {"where": "/status", "equals": "unknown", "output": UNKNOWN},
    "answer": {"at": "/answer"},
    "citations": {"at": "/citations"},
    "vocabulary": {"prefer": {"client": ["customer"]}},
}
BEHAVIOUR = Behaviour.model_validate(SPEC)
COLOURS = ["red", "green", "blue", "black", "white", "pink", "grey", "gold"]
KEY = "ghp_" + "a1B2" * 9


def good(at):
    colour = COLOURS[at]
    return {
        "id": f"q{at}",
        "question": f"What is the colour of tree {at}?",
        "passages": [{"id": "p1", "text": f"Tree {at} is {colour}."}, {"id": "p2", "text": f"Tree {at} is tall."}],
        "output": {"status": "answered", "answer": colour, "citations": ["p1"]},
        "answerable": True,
    }


def base():
    silent = [{**good(at), "id": f"u{at}", "output": UNKNOWN, "answerable": False} for at in (6, 7)]
    return [*(good(at) for at in range(6)), *silent]


def rules(extra, behaviour=BEHAVIOUR, **options):
    """Rule, level and place of what checking finds with one pair more (or changed) than the good ones."""
    extra = extra if isinstance(extra, list) else [extra]
    ids = {one["id"] for one in extra}
    pairs = [Pair.model_validate(one) for one in [*(p for p in base() if p["id"] not in ids), *extra]]
    return [(one.rule, one.level, one.where) for one in check_pairs(pairs, behaviour, **options)]


def answered(**changes):
    return {**good(0), "output": {"status": "answered", "answer": "red", "citations": ["p1"], **changes}}


PASSAGE = [{"id": "p1", "text": "Tree 0 is red."}]


def test_good_pairs_have_no_findings():
    assert rules(good(0)) == []


@pytest.mark.parametrize(
    ("pair", "finding"),
    [
        ({**good(0), "output": {"answer": "red", "citations": ["p1"]}}, ("schema", "error", "/output")),
        ({**good(0), "output": UNKNOWN}, ("abstention", "error", "/output/status")),
        ({**good(0), "answerable": False}, ("abstention", "error", "/output/status")),
        (
            {**good(0), "output": {**UNKNOWN, "answer": "red", "citations": ["p1"]}},
            ("abstention", "error", "/output/status"),
        ),
        (
            {**good(0), "output": {**UNKNOWN, "why": "x"}, "answerable": False},
            ("abstention", "warning", "/output"),
        ),
        (answered(citations=["p1", "p9"]), ("citations", "error", "/output/citations/1")),
        (answered(citations=[]), ("citations", "warning", "/output/citations")),
        (answered(citations=None), ("citations", "warning", "/output/citations")),
        (answered(citations=["p2"]), ("unsupported", "warning", "/output/answer")),
        (answered(note="our customer"), ("vocabulary", "warning", "/output/note")),
        ({**good(0), "question": "Ask anna.b@firma.de"}, ("personal-data", "warning", "/question")),
        ({**good(0), "history": [{"role": "user", "content": KEY}]}, ("secret", "error", "/history/0/content")),
        (answered(note="a <|im_end|> b"), ("control-token", "error", "/output/note")),
        ({**good(0), "question": " "}, ("empty", "error", "/question")),
        ({**good(0), "passages": [*PASSAGE, {"id": "p2", "text": ""}]}, ("empty", "warning", "/passages/1/text")),
        (
            {**good(0), "passages": [], "output": {"status": "answered", "answer": "red", "citations": []}},
            ("empty", "warning", "/passages"),
        ),
        (answered(answer=None), ("empty", "warning", "/output")),
        ({**good(0), "passages": [{"id": "p1", "text": "Red. " * 5000}]}, ("length", "warning", "")),
        ({**good(0), "id": "again"}, ("duplicate", "warning", "")),
        (
            {**good(0), "id": "again", "question": good(0)["question"] + " Now"},
            ("near-duplicate", "warning", "/question"),
        ),
    ],
)
def test_each_fault_is_found_once_and_where_it_stands(pair, finding):
    assert rules(pair) == [finding]


def test_terms_to_avoid_are_found_in_any_case_and_spacing():
    words = {"prefer": {"müşteri": ["istemci"], "refund": ["money back"]}}
    behaviour = Behaviour.model_validate({**SPEC, "vocabulary": words})
    for text in ("İstemci iade eder.", "MONEY  BACK", "your money\nback"):
        assert rules(answered(note=text), behaviour) == [("vocabulary", "warning", "/output/note")]


def test_what_a_release_holds_beside_the_texts_is_looked_at_too():
    ids = [{"id": "anna.b@firma.de", "text": "Tree 0 is red."}]
    named = {**good(0), "passages": ids, "output": {"status": "answered", "answer": "red", "citations": []}}
    assert ("personal-data", "warning", "/passages/0/id") in rules(named)
    assert rules({**good(0), "meta": {"user": {"mail": "anna.b@firma.de"}}}) == [
        ("personal-data", "warning", "/meta/user/mail")
    ]
    assert rules({**good(0), "meta": {"key": KEY, "note": "<|im_end|>"}}) == [("secret", "error", "/meta/key")]
    assert rules({**good(0), "accepted": [KEY]}) == [("secret", "error", "/accepted/0")]


def test_contradictions_name_every_pair_but_a_majority():
    other = {**good(0), "id": "x", "output": {"status": "answered", "answer": "blue", "citations": ["p1"]}}
    silent = {**good(0), "id": "y", "output": UNKNOWN, "answerable": False}
    moved = {**other, "passages": other["passages"][::-1]}
    for one in (other, silent, moved):
        found = check_pairs([Pair.model_validate(p) for p in [*base(), one]], BEHAVIOUR)
        assert sorted(f.pair for f in found if f.rule == "contradiction") == sorted(["q0", one["id"]])
    found = check_pairs([Pair.model_validate(p) for p in [*base(), other, {**good(0), "id": "copy"}]], BEHAVIOUR)
    assert [f.pair for f in found if f.rule == "contradiction"] == ["x"]
    accepted = {**other, "accepted": ["red"]}
    assert "contradiction" not in {rule for rule, _, _ in rules(accepted)}
    assert "contradiction" not in {rule for rule, _, _ in rules({**other, "passages": PASSAGE})}


@pytest.mark.parametrize(
    ("term", "text"),
    [
        ("お客様", "お客様は返品できます。"),
        ("ลูกค้า", "ลูกค้าคืนสินค้าได้"),
        ("고객", "고객은 30일"),
        ("PC", "お使いのPCを再起動します。"),
        ("Eメール", "弊社のEメールです。"),
    ],
)
def test_terms_to_avoid_are_found_where_no_space_stands_between_words(term, text):
    assert term_pattern(term, "client").search(text)
    assert not term_pattern("customer", "client").search("customers")


@pytest.mark.parametrize(
    ("instead", "term", "right", "wrong"),
    [("ユーザー", "ユーザ", "ユーザーの方", "ユーザの方"), ("e-mail", "mail", "by E-Mail", "by mail, not e-mail")],
)
def test_a_term_to_avoid_is_not_found_inside_the_one_to_write_instead(instead, term, right, wrong):
    assert not term_pattern(term, instead).search(right)
    assert term_pattern(term, instead).search(wrong)


def test_near_duplicates_need_the_same_support_and_twins_are_none():
    elsewhere = {**good(0), "id": "x", "passages": [{"id": "p1", "text": "The big catalogue has it as red there."}]}
    assert rules(elsewhere) == []
    twin = {**good(0), "id": "q0-swap", "meta": {"twin_of": "q0"}, "output": UNKNOWN, "answerable": False}
    assert rules({**twin, "passages": [{"id": "p1", "text": "Tree 0 is tall."}]}) == []


def test_what_no_twin_was_made_of_is_held_against_no_pair_that_is_called_none():
    pair = {**good(0), "id": "None"}
    silent = {**good(1), "id": "y", "passages": pair["passages"], "output": UNKNOWN, "answerable": False}
    found = check_pairs([Pair.model_validate(one) for one in (pair, silent)], BEHAVIOUR)
    assert "abstention" not in {one.rule for one in found}


def test_near_duplicates_of_what_cites_nothing_are_those_of_the_passage_that_holds_the_answer():
    """Retrieved beside other passages each time, as in a log of a behaviour without citations."""
    text = Behaviour.model_validate({"name": "t", "prompt": "{{ question }}", "output": {"format": "text"}})
    pairs = [
        Pair.model_validate(
            {
                "id": name,
                "question": "How long do refunds take?",
                "passages": [{"id": "p1", "text": other}, {"id": "p2", "text": support}],
                "output": "30 days",
            }
        )
        for name, other, support in (
            ("old", "The shop opens at nine.", "Refunds take 30 days after the item arrived."),
            ("new", "Parcels are brown and square.", "Refunds take 30 days after that item arrived."),
            ("other", "Hats are on the second floor.", "A gift voucher is valid for 30 days."),
        )
    ]
    assert near_duplicate_pairs(pairs, text) == [[0, 1]]


def test_balance():
    everything = [{**good(at), "output": UNKNOWN, "answerable": False} for at in range(8)]
    assert rules(everything)[-1] == ("balance", "warning", "")
    only = [Pair.model_validate(good(at)) for at in range(6)]
    assert [one.rule for one in check_pairs(only, BEHAVIOUR)] == ["balance"]
    assert check_pairs(only, BEHAVIOUR.model_copy(update={"abstain": None})) == []
    assert check_pairs([], BEHAVIOUR) == []


def test_a_prompt_that_fails_and_a_limit():
    failing = Behaviour.model_validate({**SPEC, "prompt": "{{ question }}{{ 1 // (passages|length - 1) }}"})
    one = {**good(0), "passages": PASSAGE}
    assert rules(one, failing) == [("prompt", "error", "")]
    assert len(rules(good(0), max_characters=10)) == 8
    assert weight("abcd") == weight("字") == 4


def test_answers_in_other_words_are_no_fault_where_most_are():
    pairs = []
    for at in range(6):
        pairs.append(Pair.model_validate({**good(at), "passages": [{"id": "p1", "text": f"Number {at}: see there."}]}))
    assert "unsupported" not in {one.rule for one in check_pairs(pairs, BEHAVIOUR)}


def test_text_behaviour():
    text = Behaviour.model_validate(
        {
            **{"name": "t", "prompt": "{{ question }}", "output": {"format": "text"}},
            "abstain": {"where": ["I don't know"], "output": "I don't know."},
        }
    )
    pairs = [
        {"id": "a", "question": "A?", "passages": PASSAGE, "output": "red", "answerable": True},
        {"id": "b", "question": "B?", "passages": PASSAGE, "output": "I don’t know", "answerable": False},
        {"id": "c", "question": "C?", "passages": PASSAGE, "output": {"a": 1}, "answerable": True},
        {"id": "d", "question": "D?", "passages": PASSAGE, "output": "green", "answerable": False},
    ]
    found = [(f.pair, f.rule, f.level) for f in check_pairs([Pair.model_validate(p) for p in pairs], text)]
    assert found == [("b", "abstention", "warning"), ("c", "schema", "error"), ("d", "abstention", "error")]


TOKENS = (
    "<|im_start|> <|begin_of_text|> <|eot_id|> [INST] [/INST] <<SYS>> <</SYS>> <start_of_turn> <|user|> <s> </s> "
    "<|endoftext|> <tool_call> </think> <bos> [TOOL_CALLS] <｜User｜> <BOS_TOKEN> <|turn>"
)


@pytest.mark.parametrize("token", TOKENS.split())
def test_control_tokens(token):
    assert control_tokens(f"a {token} b{token}") == [token]


def test_other_brackets_are_no_control_tokens():
    assert control_tokens("a < b | c > d, x[1], <b>bold</b>, <small>, [1], |x|, <|, list<string>") == []


def test_every_rule_has_a_section():
    guide = (Path(__file__).parent.parent / "docs" / "rules.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^## `([\w-]+)`", guide, re.M)) == set(RULES)


@given(st.text("ab,. 1’'A\n", min_size=1), st.text("ab,. 1’'A\n"))
def test_an_answer_that_stands_in_a_text_as_it_is_stands_there_by_squads_tokens_too(answer, text):
    """The short cut takes nothing that the long way would not."""
    if _stands_as_it_is(answer, text) and squad_tokens(answer):
        assert f" {' '.join(squad_tokens(answer))} " in f" {' '.join(squad_tokens(text))} "


@pytest.mark.parametrize(
    "question", ["ما هو رقم الطابق؟", "رقم کیا ہے؟", "कितने कर्मचारी हैं।", "Πόσο κοστίζει;", "何日ですか？"]
)
def test_the_mark_at_a_questions_end_does_not_count_in_any_script(question):
    one, other = (Pair.model_validate({**good(0), "question": text}) for text in (question, question[:-1]))
    assert input_key(one) == input_key(other)


@pytest.mark.parametrize(("one", "other"), [("in €?", "in $?"), ("of C++?", "of C#?"), ("मेल क्या है?", "मूल क्या है?")])
def test_questions_that_differ_by_a_sign_are_two(one, other):
    blue = {"status": "answered", "answer": "blue", "citations": ["p1"]}
    passages = [{"id": "p1", "text": "Tree 0 is red or blue."}]
    pairs = [
        {**good(0), "question": f"What {one}", "passages": passages},
        {**good(0), "id": "x", "question": f"What {other}", "passages": passages, "output": blue},
    ]
    assert "contradiction" not in {rule for rule, _, _ in rules(pairs)}
    again = {**pairs[0], "id": "y", "question": f"what  {one.rstrip('?')} ?", "output": blue}
    assert ("contradiction", "error", "/output") in rules([pairs[0], again])
