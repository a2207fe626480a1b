import errno
import json
import os

import pytest
import yaml
from click.testing import CliRunner
from output_form import UNKNOWN

from curate.pairs import read_pairs
from tutelage import main

BEHAVIOUR = {
    "name": "b",
    "prompt": "{% for p in passages %}[{{ p.id }}] {{ p.text }}\n{% endfor %}{{ question }}",
    "output": {"format": "json"},
    "abstain": {"where": "/status", "equals": "unknown", "output": UNKNOWN},
    "answer": {"at": "/answer"},
    "citations": {"at": "/citations"},
}
COLOURS = ["red", "green", "blue", "black", "white", "pink", "grey", "gold", "brown", "violet"]
MAPS = [
    *("--map", "question=query", "--map", "id=n", "--map", "passages=documents", "--map", "output.answer=answer"),
    *("--map", "output.citations=gold", "--map", "answerable=ok", "--set", "output.status=answered"),
]


@pytest.fixture
def place(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "behaviour.yaml").write_text(yaml.safe_dump(BEHAVIOUR))
    traces = [
        {
            "n": at,
            "query": f"What is the colour of tree {at}?",
            "documents": [{"doc_id": f"t{at}", "text": f"Tree {at} is {c}."}, {"doc_id": f"u{at}", "text": "Tall."}],
            "answer": c,
            "gold": f"t{at}",
            "ok": [c],
        }
        for at, c in enumerate(COLOURS)
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(trace) + "\n" for trace in traces))
    return home


def run(place, *words, code=0):
    result = CliRunner().invoke(main, ["-C", str(place), "curate", *map(str, words)])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def test_one_way_through(place, tmp_path):
    log = tmp_path / "log.jsonl"
    done = json.loads(run(place, "import", log, *MAPS, "--json").stdout)
    assert (done["added"], done["updated"], done["unchanged"], done["unreadable"]) == (10, 0, 0, [])
    before = (place / "pairs.jsonl").stat().st_mtime_ns
    assert json.loads(run(place, "import", log, *MAPS, "--json").stdout)["unchanged"] == 10
    assert (place / "pairs.jsonl").stat().st_mtime_ns == before
    log.write_text(log.read_text().replace('"answer": "red"', '"answer": "Red"'))
    assert json.loads(run(place, "import", log, *MAPS, "--json").stdout)["updated"] == 1
    found = json.loads(run(place, "check", "--json", code=3).stdout)
    assert found["counts"] == {"balance": 1}
    assert set(found["findings"][0]) == {"rule", "level", "pair", "where", "message", "fix"}
    run(place, "check", "--level", "error")
    assert "balance" in run(place, "check", code=3).stdout
    run(place, "check", "--rule", "nonsense", code=2)
    made = json.loads(run(place, "unanswerable", "--share", "0.3", "--json").stdout)
    assert (made["made"], made["unanswerable"], made["total"]) == (5, 5, 15)
    assert json.loads(run(place, "unanswerable", "--json").stdout)["made"] == 0
    assert "no findings" in run(place, "check").stdout


BAD = {
    "broken.jsonl": (b'{"question": "A?", "output": {}, "id": "a"}\n{"question": \n', 3, "line 2"),
    "latin.jsonl": ('{"question": "é", "output": {}}'.encode("latin-1"), 1, "not UTF-8"),
    "utf16.jsonl": ('{"question": "A", "output": {}}'.encode("utf-16"), 1, "UTF-16"),
    "empty.jsonl": (b"", 1, "empty"),
    "nan.jsonl": (b'{"question": "A?", "output": {"x": NaN}}', 1, "NaN"),
    "twice.jsonl": (b'{"question": "A?", "question": "B?", "output": {}}', 1, "twice"),
    "columns.csv": (b"frage,antwort\na,b\n", 1, "frage"),
    "bare.csv": (b"question,output\na,b\n", 1, "--map output.answer=FIELD"),
    "surrogate.jsonl": (b'{"question": "\\ud800", "output": {}}', 1, "surrogate"),
    "half.parquet": (b"PAR1", 1, "Parquet"),
    "blank.jsonl": (b"\n\n", 1, "there is no record in it"),
    "deep.jsonl": (b"[" * 100_000, 1, "nested too deeply"),
    "sheet.xlsx": (b"PK\x03\x04", 1, "none of the kinds that can be read"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gives_one_clear_message_and_loses_nothing(place, tmp_path, name):
    run(place, "import", tmp_path / "log.jsonl", *MAPS)
    before = read_pairs(place / "pairs.jsonl")
    content, code, says = BAD[name]
    (tmp_path / name).write_bytes(content)
    result = run(place, "import", tmp_path / name, code=code)
    assert says in result.stderr
    assert name in result.stderr
    after = read_pairs(place / "pairs.jsonl")
    assert after[: len(before)] == before
    assert len(after) == len(before) + (code == 3)


def test_a_directory_a_missing_file_and_a_bad_map(place, tmp_path):
    assert "holds no dataset" in run(place, "import", tmp_path, code=1).stderr
    assert "no such file" in run(place, "import", tmp_path / "none.jsonl", code=1).stderr
    fault = run(place, "import", tmp_path / "log.jsonl", "--map", "question=qurey", code=1).stderr
    assert "qurey" in fault
    assert "query" in fault
    assert not (place / "pairs.jsonl").exists()
    many = run(place, "import", tmp_path / "log.jsonl", code=1).stderr
    assert many.count("unreadable:") == 1  # one reason for ten lines is said once
    assert "and 5 more" in many


def test_damaged_pairs_are_refused_and_kept(place, tmp_path):
    damaged = '{"id": "a", "question": "Q", "output": 1}\n{"id": \n'
    (place / "pairs.jsonl").write_text(damaged)
    for words in (("import", tmp_path / "log.jsonl", *MAPS), ("check",), ("unanswerable",)):
        assert "line 2" in run(place, *words, code=1).stderr
    assert (place / "pairs.jsonl").read_text() == damaged


def test_no_workspace_no_pairs_bad_schema(place, tmp_path):
    assert "no workspace" in run(tmp_path, "check", code=1).stderr
    assert "no such file" in run(place, "check", code=1).stderr
    (place / "schema.json").write_text('{"$ref": "#"}')
    (place / "behaviour.yaml").write_text(
        yaml.safe_dump({**BEHAVIOUR, "output": {"format": "json", "schema": "schema.json"}})
    )
    for words in (("check",), ("unanswerable",), ("release", "--unreviewed")):
        assert "never ends" in run(place, *words, code=1).stderr
    (place / "behaviour.yaml").write_text(yaml.safe_dump({**BEHAVIOUR, "promt": "x"}))
    assert "promt: unknown key" in run(place, "check", code=1).stderr


def test_a_disk_that_cannot_be_written(place, tmp_path, monkeypatch):
    run(place, "import", tmp_path / "log.jsonl", *MAPS)
    before = (place / "pairs.jsonl").read_bytes()
    (tmp_path / "more.jsonl").write_text('{"question": "A?", "output": {}}')

    def refuse(*_args, **_options):
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr("pathlib.Path.replace", refuse)
    assert "Read-only file system" in run(place, "import", tmp_path / "more.jsonl", code=1).stderr
    assert (place / "pairs.jsonl").read_bytes() == before
    assert not list(place.glob(".*.partial"))


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.ENOLCK, errno.EACCES])
def test_a_workspace_that_cannot_be_locked(place, tmp_path, monkeypatch, number):
    run(place, "import", tmp_path / "log.jsonl", *MAPS)
    before = (place / "pairs.jsonl").read_bytes()

    def refuse(*_args, **_options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    for words in (("import", tmp_path / "log.jsonl", *MAPS), ("unanswerable",), ("release", "--unreviewed")):
        fault = run(place, *words, code=1).stderr
        assert os.strerror(number) in fault
        assert "nothing that was there before has changed" in fault
    assert (place / "pairs.jsonl").read_bytes() == before


def test_a_pipe_is_refused_rather_than_waited_for(place, tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert "save it to a file first" in run(place, "import", tmp_path / "pipe.jsonl", code=1).stderr


@pytest.mark.parametrize("content", ["{garbage", "[]", "{}", "\x00"])
def test_a_release_whose_manifest_is_damaged(place, tmp_path, content):
    run(place, "import", tmp_path / "log.jsonl", *MAPS)
    run(place, "release", "--unreviewed")
    (place / "releases/r1/manifest.json").write_text(content)
    for words, code in ((("curate", "release", "--unreviewed"), 1), (("verify", "r1"), 3)):
        result = CliRunner().invoke(main, ["-C", str(place), *words])
        assert result.exit_code == code, result.output
        assert isinstance(result.exception, SystemExit)
        assert "releases/r1/manifest.json" in result.output
        assert "restore it from a copy" in result.output


def test_ids_that_stand_twice_are_said(place, tmp_path):
    (tmp_path / "two.jsonl").write_text(
        '{"id": "a", "question": "A?", "output": {}}\n{"id": "a", "question": "B?", "output": {}}'
    )
    result = run(place, "import", tmp_path / "two.jsonl")
    assert "more than once" in result.stderr
    assert [pair.question for pair in read_pairs(place / "pairs.jsonl")] == ["B?"]


@pytest.mark.parametrize("command", ["import", "check", "unanswerable"])
def test_help_ends_with_an_example(place, command):
    assert f"tutelage curate {command}" in run(place, command, "--help").stdout.split("Example:")[1]
