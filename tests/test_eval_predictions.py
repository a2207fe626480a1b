from __future__ import annotations

import json
from pathlib import Path

import pytest

from curate.errors import PredictionError
from curate.pairs import Pair
from eval.predictions import Prediction, match_predictions, read_predictions
from eval.retention import read_results

GOOD = '{"id": "a", "output": "x"}'


def written(directory: Path, *lines: str) -> Path:
    file = directory / "predictions.jsonl"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def pairs(*ids: str) -> list[Pair]:
    return [Pair(id=one, question="?", output="x") for one in ids]


def predictions(*ids: str) -> dict[str, Prediction]:
    return {one: Prediction(id=one, output="x") for one in ids}


def test_a_file_is_read_with_what_it_says_and_without_what_it_need_not(tmp_path: Path) -> None:
    full = {
        "id": "b",
        "output": "",
        "confidence": 1,
        "finish": "length",
        "correct": False,
        "abstained": None,
        "latency_seconds": 0.4,
        "logprobs": [1, 2],
    }
    found = read_predictions(written(tmp_path, GOOD, "", json.dumps(full)))
    assert list(found) == ["a", "b"]
    assert found["a"] == Prediction(id="a", output="x")
    assert (found["b"].confidence, found["b"].finish, found["b"].correct) == (1.0, "length", False)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", "not valid JSON"),
        ('{"id": "b", "output": "x"', "not valid JSON"),
        ('{"id": "b", "output": "x"} {}', "not valid JSON"),
        ("[1]", "a line is one JSON object"),
        ('"b"', "a line is one JSON object"),
        ('{"output": "x"}', "id: is missing"),
        ('{"id": "b"}', "output: is missing"),
        ('{"id": 3, "output": "x"}', "id: "),
        ('{"id": "", "output": "x"}', "id: "),
        ('{"id": "b", "output": {"status": "unknown"}}', "output: Input should be a valid string"),
        ('{"id": "b", "output": null}', "output: "),
        ('{"id": "b", "output": "\\ud83d"}', "surrogate"),
        ('{"id": "b", "output": "x", "confidence": 1.01}', "confidence: "),
        ('{"id": "b", "output": "x", "confidence": -0.1}', "confidence: "),
        ('{"id": "b", "output": "x", "confidence": "0.9"}', "confidence: "),
        ('{"id": "b", "output": "x", "confidence": true}', "confidence: "),
        ('{"id": "b", "output": "x", "confidence": NaN}', "NaN is not JSON"),
        ('{"id": "b", "output": "x", "confidence": 1e999}', "too large"),
        ('{"id": "b", "output": "x", "finish": "eos"}', "finish: "),
        ('{"id": "b", "output": "x", "correct": 1}', "correct: "),
        ('{"id": "b", "output": "x", "output": "y"}', "stands twice"),
        ('{"id": "a", "output": "y"}', "the id 'a' stands twice: here and in line 1"),
    ],
)
def test_a_bad_line_is_named_with_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    file = written(tmp_path, GOOD, line)
    with pytest.raises(PredictionError) as raised:
        read_predictions(file)
    assert raised.value.where == f"{file}, line 2"
    assert message in raised.value.what


def test_a_byte_order_mark_before_the_file_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"id": "a", "output": "x", "correct": true}\n')
    assert list(read_predictions(file)) == ["a"]
    file.write_bytes(b'\xef\xbb\xbf{"id": "a", "correct": true}\n')
    assert [one.id for one in read_results(file)] == ["a"]


def test_files_that_are_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(PredictionError, match="no such file"):
        read_predictions(tmp_path / "nothing.jsonl")
    with pytest.raises(PredictionError, match="cannot be read"):
        read_predictions(tmp_path)
    with pytest.raises(PredictionError, match="holds no predictions"):
        read_predictions(written(tmp_path, "", " "))
    (tmp_path / "latin.jsonl").write_bytes(b'{"id": "a", "output": "caf\xe9"}\n')
    with pytest.raises(PredictionError, match="line 1: not UTF-8"):
        read_predictions(tmp_path / "latin.jsonl")


def test_predictions_are_matched_to_all_pairs() -> None:
    found = match_predictions(predictions("c", "b", "a"), pairs("a", "b"), "p", also=pairs("c"))
    assert [one.id for one in found] == ["a", "b"]


def test_missing_pairs_are_refused_and_counted_unless_partial() -> None:
    asked = pairs(*"abcdefgh")
    with pytest.raises(PredictionError) as raised:
        match_predictions(predictions("a"), asked, "p.jsonl")
    assert "7 (b, c, d, e, f, …) of 8 pairs have no prediction" in raised.value.what
    assert raised.value.where == "p.jsonl"
    assert [one.id for one in match_predictions(predictions("a"), asked, "p", partial=True)] == ["a"]


def test_unknown_ids_are_refused_even_in_part() -> None:
    for partial in (False, True):
        with pytest.raises(PredictionError, match=r"1 \(z\) of 2 predictions have an id that no pair has"):
            match_predictions(predictions("a", "z"), pairs("a"), "p", partial=partial)


def test_predictions_of_no_test_pair_are_refused_even_in_part() -> None:
    with pytest.raises(PredictionError, match="no pair of the test split"):
        match_predictions(predictions("c"), pairs("a"), "p", also=pairs("c"), partial=True)
