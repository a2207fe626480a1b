import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.compare import as_number, normalise, score, token_f1


@pytest.mark.parametrize(
    ("comparator", "given_", "wanted", "expected"),
    [
        ("exact", " RED ", ["red"], 1),
        ("exact", "red", ["reddish"], 0),
        ("exact", True, ["true"], 1),
        ("exact", "ﬁne", ["fine"], 1),
        ("f1", "the red car", ["red car"], 1),
        ("f1", "red car", ["red bus"], 0.5),
        ("f1", "", ["x"], 0),
        ("number", "about 1,200 EUR", [1200], 1),
        ("number", "12 %", [0.12], 1),
        ("number", "3 or 4", [3], 0),
        ("number", True, [1], 0),
        ("set", ["b", "A"], [["a", "B"]], 1),
        ("set", ["a", "b"], [["b", "c"]], 1 / 3),
        ("set", [], [[]], 1),
        ("contains", "it is red wine", ["red wine"], 1),
        ("contains", "red and wine", ["red wine"], 0),
        ("contains", "返品は30日以内に限ります。", ["30日以内"], 1),
        ("contains", "返品は130日以内に限ります。", ["30日以内"], 0),
        ("contains", "คืนได้ภายใน 30 วันหลังซื้อ", ["30 วัน"], 1),
        ("f1", "수도는 서울입니다", ["수도는 서울"], 10 / 13),
        ("exact", "x", [], 0),
    ],
)
def test_scores(comparator, given_, wanted, expected):
    assert score(comparator, given_, wanted) == pytest.approx(expected)


@pytest.mark.parametrize("huge", ["1e999", "9" * 400, "-1e999", 10**400, "1e999%"])
def test_a_number_too_large_for_a_float_is_no_right_answer(huge):
    assert as_number(huge) is None
    assert score("number", huge, [5]) == 0
    assert score("number", 5, [huge]) == 0


def test_numbers():
    assert as_number("-1.5e3") == -1500
    assert as_number("none") is None
    assert as_number(None) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(["exact", "f1", "number", "set", "contains"]), JSON, st.lists(JSON, max_size=3))
def test_any_value_has_a_score_between_0_and_1(comparator, given_, wanted):
    assert 0 <= score(comparator, given_, wanted) <= 1


@given(st.text())
def test_a_text_equals_itself(text):
    assert score("exact", text, [text]) == score("f1", text, [text]) == score("contains", text, [text]) == 1
    assert normalise(normalise(text)) == normalise(text)


@given(st.text(), st.text())
def test_token_f1_is_symmetric(left, right):
    assert token_f1(left, right) == token_f1(right, left)
