import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import PairError
from curate.files import parse_json
from curate.pairs import Pair, parse_pair, read_pairs, write_pairs

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
PASSAGES = st.lists(
    st.builds(dict, id=TEXT.filter(bool), text=TEXT, source=st.none() | TEXT), max_size=3, unique_by=lambda p: p["id"]
)
PAIRS = st.builds(
    Pair,
    id=TEXT.filter(bool),
    question=TEXT,
    history=st.lists(st.builds(dict, role=st.sampled_from(["user", "assistant"]), content=TEXT), max_size=2),
    passages=PASSAGES,
    output=JSON,
    answerable=st.none() | st.booleans(),
    accepted=st.lists(JSON, max_size=2),
    source=st.none() | TEXT,
    meta=st.dictionaries(TEXT, JSON, max_size=2),
)


@given(st.lists(PAIRS, max_size=4, unique_by=lambda pair: pair.id))
def test_any_pairs_survive_a_round_trip(tmp_path_factory, pairs):
    path = tmp_path_factory.mktemp("round") / "pairs.jsonl"
    write_pairs(path, pairs)
    back = read_pairs(path)
    assert back == pairs
    assert [pair.content_hash() for pair in back] == [pair.content_hash() for pair in pairs]


def test_an_id_is_made_from_the_content_and_unknown_keys_go_to_meta():
    line = '{"question": "Q", "output": {"a": 1}, "stars": 5}'
    one = parse_pair(line, "here")
    assert one.meta == {"stars": 5}
    assert one.id == parse_pair(line, "there").id
    assert one.id != parse_pair(line.replace("1", "2"), "here").id


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not valid JSON"),
        ("[]", "a pair is a JSON object"),
        ('{"question": "Q", "output": NaN}', "NaN"),
        ('{"question": "Q", "question": "R", "output": 1}', "stands twice"),
        ('{"question": "Q"}', "output"),
        ('{"question": 3, "output": 1}', "question"),
        ('{"question": "Q", "output": 1, "passages": [{"id": "a", "text": ""}, {"id": "a", "text": ""}]}', "same id"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, says):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"id": "a", "question": "Q", "output": 1}\n\n' + line + "\n")
    with pytest.raises(PairError, match=says) as caught:
        read_pairs(path)
    assert "line 3" in str(caught.value)


def test_an_id_that_stands_twice_and_a_file_that_is_no_text(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"id": "a", "question": "Q", "output": 1}\n' * 2)
    with pytest.raises(PairError, match="stands twice"):
        read_pairs(path)
    path.write_bytes(b'{"id": "\xff"}\n')
    with pytest.raises(PairError, match="line 1: not UTF-8"):
        read_pairs(path)
    with pytest.raises(PairError, match="no such file"):
        read_pairs(tmp_path / "none")


def test_writing_keeps_a_link_and_who_may_read(tmp_path):
    real, link = tmp_path / "real.jsonl", tmp_path / "pairs.jsonl"
    write_pairs(real, [])
    real.chmod(0o600)
    link.symlink_to(real)
    write_pairs(link, [Pair(id="a", question="A?", output="x")])
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o600
    assert len(read_pairs(real)) == 1


def test_half_a_character_is_named_and_nothing_is_lost(tmp_path):
    path = tmp_path / "pairs.jsonl"
    write_pairs(path, [Pair(id="a", question="A?", output="x")])
    before = path.read_bytes()
    with pytest.raises(PairError, match="'b' holds half a character"):
        write_pairs(path, [Pair(id="b", question="\ud83d", output="x")])
    assert path.read_bytes() == before


def test_a_mark_of_byte_order_before_the_first_pair_is_none(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"id": "a", "question": "A?", "output": "x"}\n', encoding="utf-8-sig")
    assert [pair.id for pair in read_pairs(path)] == ["a"]


def test_nesting_that_later_steps_could_not_walk_is_refused():
    with pytest.raises(ValueError, match="nested more than"):
        parse_json("[" * 300 + "]" * 300)
    assert parse_json("[" * 200 + "]" * 200)
    assert parse_json("[" + "[]," * 300 + "[]]")
