import csv
import gzip
import json

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from output_form import UNKNOWN

from curate import records
from curate.behaviour import Behaviour
from curate.errors import PairError, TutelageError
from curate.importing import read_files
from curate.mapping import Plan, parse_plan, to_pair
from curate.pairs import Pair
from curate.parquet import write_parquet
from curate.records import Record, Unreadable
from curate.shapes import is_true
from curate.sources import read_records

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
ROWS = [{"q": "A?", "n": 1}, {"q": "B?", "n": 2}]


def read(path):
    found = list(read_records(path))
    good = [one.data for one in found if isinstance(one, Record)]
    return good, [one for one in found if isinstance(one, Unreadable)]


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINES),
        ("a.log", LINES),
        ("a.jsonl", "\ufeff" + LINES.replace("\n", "\r\n\r\n")),
        ("a.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)),
        ("a.json", json.dumps(ROWS, indent=2)),
        ("a.json", LINES),
        ("a", json.dumps(ROWS)),
    ],
)
def test_json_in_its_kinds(tmp_path, name, content):
    assert read(write(tmp_path, name, content)) == (ROWS, [])


def test_tables(tmp_path):
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = [{"q": "A?", "n": "1"}, {"q": "B?", "n": "2"}]
    assert read(write(tmp_path, "a.csv", "\ufeffq,n\r\nA?,1\r\n\r\nB?,2\r\n")) == (texts, [])
    assert read(write(tmp_path, "b.csv", "q;n\nA?;1\nB?;2")) == (texts, [])
    assert read(write(tmp_path, "a.tsv", "q\tn\nA?\t1\nB?\t2\n")) == (texts, [])
    cells = read(write(tmp_path, "c.csv", 'q,docs\n"two\nlines","[{""text"": ""x""}]"\n'))
    assert cells == ([{"q": "two\nlines", "docs": [{"text": "x"}]}], [])
    (tmp_path / "many" / "sub").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(ROWS[:1]), tmp_path / "many" / "1.parquet")
    pq.write_table(pa.Table.from_pylist([{**ROWS[1], "x": float("nan")}]), tmp_path / "many" / "sub" / "2.parquet")
    assert read(tmp_path / "many") == ([ROWS[0], {**ROWS[1], "x": None}], [])
    whole = datasets.Dataset.from_list(ROWS)
    whole.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": whole.select([0]), "test": whole.select([1])}).save_to_disk(tmp_path / "two")
    assert read(tmp_path / "one") == (ROWS, [])
    assert read(tmp_path / "two") == (ROWS, [])


@pytest.mark.parametrize(
    ("name", "content", "kept", "faults"),
    [
        ("a.jsonl", '{"q": 1}\n{"q":\n{"q": 2}\n', 2, [(2, "not valid JSON")]),
        (
            "a.jsonl",
            '{"q": NaN}\n{"q": 1, "q": 2}\n[1]\n3\n',
            0,
            [(1, "NaN"), (2, "twice"), (3, "list"), (4, "number")],
        ),
        ("a.jsonl", b'{"q": 1}\n{"q": "\xe9"}\n', 1, [(2, "not UTF-8")]),
        ("a.jsonl", '{"q": 1}\n'.encode("utf-16"), 0, [(1, "UTF-16")]),
        ("a.jsonl", b"", 0, [(None, "empty")]),
        ("a.jsonl", "[" * 100_000 + "\n" + '{"q": 1}', 1, [(1, "deep")]),
        ("a.jsonl.gz", gzip.compress(LINES.encode() * 999, mtime=0)[:-20], None, [(None, "gzip")]),
        ("a.json", '[{"q": 1},\n{"q": 1, "q": 2},\n{"q": 3}]', 2, [(2, "twice")]),
        ("a.json", '[{"q": 1},\n{"q": \n', 1, [(3, "rest of the array")]),
        ("a.json", '[{"q": 1}', 1, [(1, "not closed")]),
        ("a.json", '[{"q": 1}] x', 1, [(1, "follows")]),
        ("a.csv", "q,n\nA,1,2\nB,2\n", 1, [(2, "3 fields and the header 2")]),
        ("a.csv", 'q,n\nA,1\n"B,2\nC,3\n', 1, [(3, "quotation mark")]),
        ("a.csv", "q,q\nA,1\n", 0, [(1, "same name")]),
        ("a.csv", b"q,n\nA,1\n\xe9,2\n", 1, [(3, "not UTF-8")]),
        ("a.csv", b"q,n\nA,1\nB\0,2\nC,3\n", None, []),
        ("a.parquet", b"PAR1 and then nothing", 0, [(None, "Parquet")]),
        ("a.png", b"\x89PNG\r\n", 0, [(None, "none of the kinds")]),
    ],
)
def test_what_cannot_be_read_is_named_and_the_rest_kept(tmp_path, name, content, kept, faults):
    good, bad = read(write(tmp_path, name, content))
    assert kept is None or len(good) == kept
    for (line, reason), one in zip(faults, bad, strict=False):
        assert one.line == line
        assert reason in one.reason
    assert len(bad) >= len(faults)


def test_huge_lines_directories_and_missing_files(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "MAX_LINE_BYTES", 1000)
    path = write(tmp_path, "a.jsonl", '{"q": 1}\n{"q": "' + "x" * 5000 + '"}\n{"q": 2}\n')
    good, bad = read(path)
    assert good == [{"q": 1}, {"q": 2}]
    assert bad[0].line == 2
    assert "longer than" in bad[0].reason
    (tmp_path / "empty").mkdir()
    assert "holds no dataset" in read(tmp_path / "empty")[1][0].reason
    with pytest.raises(PairError, match="no such file"):
        read(tmp_path / "none.jsonl")


@given(
    st.sampled_from(["a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet", "a.jsonl.gz", "a"]), st.binary(max_size=200)
)
def test_garbage_raises_nothing_but_our_error(tmp_path_factory, name, content):
    heads = {"a.parquet": b"PAR1", "a.jsonl.gz": b"\x1f\x8b\x08\x00", "a.json": b"["}
    for head in (b"", heads.get(name, b'{"question": ')):
        path = write(tmp_path_factory.mktemp("garbage"), name, head + content)
        try:
            read_files([path], parse_plan(["question=q"], [], False, False), BEHAVIOUR)
            read_files([path], parse_plan([], [], True, True), BEHAVIOUR)
        except TutelageError as error:
            assert str(error)  # noqa: PT017


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.sampled_from(["id", "text"]), inner),
    max_leaves=6,
)
KEYS = st.sampled_from(["question", "id", "answerable", "accepted", "history", "passages", "output", "meta", "other"])


@given(st.dictionaries(KEYS, JSON), st.booleans())
def test_any_record_makes_a_pair_or_a_reason(data, renumber):
    plan = parse_plan(["output.citations=other"] if renumber else [], [], True, renumber)
    made = to_pair(Record("f", 1, data), plan, BEHAVIOUR)
    assert made.record() if not isinstance(made, Unreadable) else made.reason


TRACE = {
    "trace_id": 17,
    "query": "Colour?",
    "documents": [
        {"doc_id": "A#1", "text": "Alder is red.", "score": 0.5},
        {"doc_id": "A#2", "page_content": "x", "metadata": {"source": "a.md"}},
    ],
    "answer": "red",
    "gold_doc": "A#2",
    "accepted_answers": ["red", "crimson"],
    "feedback": "up",
}
LOG = [
    *("id=trace_id", "question=query", "passages=documents", "output.answer=answer", "output.citations=gold_doc"),
    *("answerable=accepted_answers", "accepted=accepted_answers"),
]


def pair_of(data, maps=LOG, sets=("output.status=answered",), abstain=True, renumber=False):
    return to_pair(Record("dir/log.jsonl", 3, data), parse_plan(maps, sets, abstain, renumber), BEHAVIOUR)


def test_a_trace_of_a_rag_log():
    pair = pair_of(TRACE, renumber=True)
    assert pair.id == "17"
    assert [(p.id, p.text, p.source) for p in pair.passages] == [("p1", "Alder is red.", "A#1"), ("p2", "x", "a.md")]
    assert pair.output == {"answer": "red", "citations": ["p2"], "status": "answered"}
    assert pair.answerable is True
    assert pair.accepted == ("red", "crimson")
    assert pair.source == "log.jsonl"
    assert pair.meta == {"feedback": "up"}
    assert [p.id for p in pair_of(TRACE).passages] == ["A#1", "A#2"]


def test_parts_of_an_output_stand_in_one_order():
    schema = {"properties": {"answer": {}, "status": {}, "tone": {}, "citations": {}}}
    behaviour = BEHAVIOUR.model_copy(update={"schema_document": schema})
    maps = ["question=q", "output.zeal=z", "output.tone=t", "output.citations=c", "output.answer=a"]
    plan = parse_plan(maps, ["output.status=answered"], False, False)
    row = {"q": "A?", "a": "x", "c": ["p1"], "t": "dry", "z": 1, "passages": [{"id": "p1", "text": "x"}]}
    pair = to_pair(Record("f", 1, row), plan, behaviour)
    assert list(pair.output) == ["status", "answer", "citations", "tone", "zeal"], (
        "the abstention's, the schema's, rest"
    )


def test_renumbered_passages_keep_their_names_as_sources_but_numbers_are_none():
    plan = parse_plan(["passages=documents"], [], False, True)
    rows = (["x", "y"], [{"text": "x"}, {"id": 2, "text": "y"}], [{"id": "a.md#1", "text": "x"}])
    pairs = [
        to_pair(Record("f", 1, {"question": "A?", "output": {}, "documents": row}), plan, BEHAVIOUR) for row in rows
    ]
    assert [[one.source for one in pair.passages] for pair in pairs] == [[None, None], [None, None], ["a.md#1"]]
    assert [[one.id for one in pair.passages] for pair in pairs] == [["p1", "p2"], ["p1", "p2"], ["p1"]]


def test_chunks_of_one_name_are_told_apart_by_the_answer():
    chunks = [{"doc_id": "A#2", "text": "Birch is blue."}, {"doc_id": "A#2", "text": "Alder is red."}]
    assert pair_of({**TRACE, "documents": chunks}, renumber=True).output["citations"] == ["p2"]
    made = pair_of({**TRACE, "documents": chunks, "answer": "green"}, renumber=True)
    assert isinstance(made, Unreadable)
    assert "A#2 is cited, 2 passages have that id, and the answer stands in none of them" in made.reason
    silent = pair_of({**TRACE, "documents": chunks, "answer": "green", "accepted_answers": []}, renumber=True)
    assert silent.output == UNKNOWN, "what it cited does not matter"


def test_what_could_not_be_read_again_is_not_imported():
    deep = json.loads("[" * 199 + "]" * 199)
    made = pair_of({"query": "A?", "output": {}, "deep": deep}, ["question=query"], ())
    assert isinstance(made, Unreadable)
    assert "nested more than" in made.reason


def test_a_field_that_a_path_does_not_reach_goes_to_meta():
    pair = pair_of({"query": "A?", "output": {}, "req": "plain"}, ["question=query", "history=req.history"], ())
    assert pair.meta == {"req": "plain"}


def test_what_no_pair_is_made_of_goes_to_meta():
    record = {"request": {"query": "A?", "user": "u1"}, "content": "x", "output": {}, "meta": "batch 7"}
    pair = pair_of(record, ["question=request.query", "passages.text=content"], ())
    assert pair.question == "A?"
    assert pair.meta == {"request": {"user": "u1"}, "content": "x", "meta": "batch 7"}


def test_roles_in_any_case():
    turns = [{"role": "User", "content": "a"}, {"role": "ASSISTANT", "content": "b"}]
    pair = pair_of({"query": "Q", "output": {}, "turns": turns}, ["question=query", "history=turns"], ())
    assert [turn.role for turn in pair.history] == ["user", "assistant"]


def test_a_question_that_stands_among_the_messages_is_asked_once():
    earlier = [{"role": "user", "content": "France?"}, {"role": "assistant", "content": "20 %"}]
    record = {"query": "Germany?", "output": {}, "messages": [*earlier, {"role": "user", "content": "Germany?"}]}
    pair = pair_of(record, ["question=query", "history=messages"], ())
    assert [turn.content for turn in pair.history] == ["France?", "20 %"]


def test_a_chat_log_of_messages_alone_is_mapped_by_places_from_the_end():
    told = json.dumps(UNKNOWN)
    said = [("system", "Be brief."), ("user", "France?"), ("assistant", "20 %"), ("user", "Hm?"), ("assistant", told)]
    record = {"messages": [{"role": role, "content": text} for role, text in said], "documents": []}
    mapped = ["question=messages.-2.content", "output=messages.-1.content", "history=messages"]
    pair = pair_of(record, mapped, ())
    assert (pair.question, pair.output) == ("Hm?", UNKNOWN)
    assert [turn.content for turn in pair.history] == ["France?", "20 %"]
    record["messages"].insert(1, {"role": "tool", "content": "…"})
    refused = pair_of(record, mapped, ())
    assert isinstance(refused, Unreadable)
    assert "a message of the role 'tool'" in refused.reason


def test_contents_in_parts_are_one_text():
    parts = [{"type": "text", "text": "And in "}, {"type": "text", "text": "France?"}]
    said = [("user", [{"type": "text", "text": "Germany?"}]), ("assistant", "19 %"), ("user", parts)]
    record = {"messages": [{"role": role, "content": content} for role, content in said], "output": UNKNOWN}
    pair = pair_of(record, ["question=messages.-1.content", "history=messages"], ())
    assert pair.question == "And in France?"
    assert [turn.content for turn in pair.history] == ["Germany?", "19 %"]


@pytest.mark.parametrize(
    ("roles", "says"),
    [(("assistant", "user"), "role 'assistant', which says no question"), (("user", "user"), "says no output")],
)
def test_a_chat_that_does_not_end_as_mapped_makes_no_pair(roles, says):
    record = {"messages": [{"role": role, "content": "Thanks."} for role in roles]}
    made = pair_of(record, ["question=messages.-2.content", "output.answer=messages.-1.content"])
    assert isinstance(made, Unreadable)
    assert says in made.reason
    other = {"request": {"role": "customer", "content": "A?"}, "answer": "x"}
    assert pair_of(other, ["question=request.content", "output.answer=answer"]).question == "A?"


def test_an_answer_mapped_into_an_output_is_not_shown_before_it_is_asked_for():
    said = [("user", "France?"), ("assistant", "20 %"), ("user", "Germany?"), ("assistant", "19 %")]
    record = {"messages": [{"role": role, "content": text} for role, text in said], "answer": "19 %"}
    for source in ("messages.-1.content", "answer"):
        maps = ["question=messages.-2.content", f"output.answer={source}", "history=messages"]
        pair = pair_of(record, maps)
        assert pair.output["answer"] == "19 %"
        assert [turn.content for turn in pair.history] == ["France?", "20 %"]


def test_a_release_is_imported_as_it_was(tmp_path):
    twin = Pair.model_validate({"id": "t", "question": "A?", "output": UNKNOWN, "meta": {"twin_of": "q"}})
    spoken = Pair.model_validate({"id": "q", "question": "A?", "output": {"answer": "30"}, "accepted": ["30 days"]})
    write_parquet(tmp_path / "train.parquet", [twin, spoken])
    read = [to_pair(one, Plan(), BEHAVIOUR) for one in read_records(tmp_path / "train.parquet")]
    assert read == [twin, spoken]


def test_a_blank_line_before_the_header_is_none(tmp_path):
    path = write(tmp_path, "a.csv", "\nquestion,output\nA?,x\n")
    assert [one.data for one in read_records(path)] == [{"question": "A?", "output": "x"}]


def test_a_date_that_no_calendar_holds_is_named(tmp_path):
    import pyarrow as pa

    forever = pa.table({"question": ["A?"], "until": pa.array([2**63 - 1], pa.timestamp("us"))})
    pq.write_table(forever, tmp_path / "a.parquet")
    (only,) = read_records(tmp_path / "a.parquet")
    assert isinstance(only, Unreadable)


def test_a_hallucinated_answer_becomes_the_abstention():
    pair = pair_of({**TRACE, "accepted_answers": [], "gold_doc": None})
    assert pair.output == UNKNOWN
    assert pair.answerable is False
    assert pair.meta["logged_output"] == {"answer": "red", "citations": [], "status": "answered"}
    kept = pair_of({**TRACE, "accepted_answers": [], "gold_doc": None}, abstain=False)
    assert kept.output["answer"] == "red"


@pytest.mark.parametrize(
    ("changes", "maps", "says"),
    [
        ({"answer": "red"}, ["question=query", "output=answer"], "--map output.answer=FIELD"),
        ({}, [], "--map question=query --map passages=documents"),
        ({"documents": [{"score": 1}]}, LOG, "passages.text=FIELD"),
        ({"gold_doc": [{"doc": "A#1"}]}, LOG, 'gold_doc cites by {"doc": "A#1"}'),
        ({"documents": 3}, LOG, "list of objects or texts"),
        ({"query": "half \ud800"}, LOG, "surrogate"),
        ({"query": 5}, LOG, "question"),
        ({"documents": [{"id": "a", "text": "x"}, {"id": "a", "text": "y"}]}, LOG, "same id"),
    ],
)
def test_why_a_record_makes_no_pair(changes, maps, says):
    made = pair_of({**TRACE, **changes}, maps, ())
    assert isinstance(made, Unreadable)
    assert says in made.reason
    assert made.line == 3


def test_shapes():
    maps = ["question=request.messages.0.text", "history=turns", "passages=ctx", "output=out", "meta.user.id=who"]
    data = {"request": {"messages": [{"text": "Q"}]}, "turns": [["a", "b"]], "ctx": ["x", "y"], "who": 5}
    pair = pair_of({**data, "out": '{"status": "answered"}'}, maps, ())
    assert pair.question == "Q"
    assert [(t.role, t.content) for t in pair.history] == [("user", "a"), ("assistant", "b")]
    assert [(p.id, p.text) for p in pair.passages] == [("p1", "x"), ("p2", "y")]
    assert pair.output == {"status": "answered"}
    assert pair.meta == {"user": {"id": 5}}
    sharegpt = pair_of({**data, "out": {}, "turns": [{"from": "human", "value": "a"}], "ctx": {"k": "x"}}, maps, ())
    assert sharegpt.history[0].role == "user"
    assert sharegpt.passages[0].id == "k"


@pytest.mark.parametrize("value", [None, "", " ", "false", "No", "0", "0.0", "n/a", "nan", "[]", 0, 0.0, [], {}, False])
def test_what_says_no(value):
    assert not is_true(value)
    assert is_true([value])


@pytest.mark.parametrize("word", ["question", "colour=x", "question.x=y", "meta=x", "passages.colour=x", "question="])
def test_bad_maps(word):
    with pytest.raises(PairError, match="target=source"):
        parse_plan([word], [], False, False)


def test_a_mapped_field_that_is_nowhere_imports_nothing(tmp_path):
    path = write(tmp_path, "a.jsonl", json.dumps({"q": "A", "output": {}}))
    with pytest.raises(PairError, match=r"no record has anwser[\s\S]*q, output"):
        read_files([path], parse_plan(["question=q", "accepted=anwser"], [], False, False), BEHAVIOUR)


@given(st.lists(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"])), min_size=2, max_size=2)))
def test_csv_round_trip(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, quoting=csv.QUOTE_ALL)
        writer.writerow(["first", "second, too"])
        writer.writerows(rows)
    good, bad = read(path)
    assert not bad
    assert len(good) == len(rows)
    for row, data in zip(rows, good, strict=True):
        assert all(isinstance(v, (list, dict)) or v == t for v, t in zip(data.values(), row, strict=True))
