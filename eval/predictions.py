"""Reading predictions: what some model answered, one JSON object a line, strictly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from curate.errors import PredictionError
from curate.files import is_text, parse_json
from curate.pairs import Pair


class Prediction(BaseModel):
    """One raw output. Keys it does not know are left alone: files made elsewhere carry their own."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)

    id: str = Field(min_length=1, description="The pair's id.")
    output: str = Field(description="The raw text the model produced.")
    confidence: float | None = Field(default=None, ge=0, le=1)
    finish: Literal["stop", "length"] | None = None
    correct: bool | None = Field(default=None, description="A judge's word; overrules our own grading.")
    abstained: bool | None = Field(default=None, description="A judge's word; overrules our own grading.")
    latency_seconds: float | None = Field(default=None, ge=0, le=1e9)
    tokens: int | None = Field(default=None, ge=0, le=10**9, description="How many tokens the model produced.")

    @field_validator("id", "output")
    @classmethod
    def _is_text(cls, value: str) -> str:
        if is_text(value):
            return value
        raise ValueError("it holds half of a surrogate pair, which no text can; write U+FFFD in its place")


Predictions = Mapping[str, Prediction]


def parse_prediction(text: str, where: str) -> Prediction:
    """One line of a predictions file; raises `PredictionError` that names `where` and the field."""
    try:
        return Prediction.model_validate(parse_json(text))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "prediction"
        fix = FIXES.get(field) if first["type"] != "missing" else f"give every line {field!r}"
        message = "is missing" if first["type"] == "missing" else first["msg"].removeprefix("Value error, ")
        if field == "prediction":
            message = "a line is one JSON object"
        raise PredictionError(f"{field}: {message}", where=where, fix=fix) from None
    except ValueError as error:
        raise PredictionError(f"not valid JSON: {error}", where=where) from None


FIXES = {
    "prediction": 'every line is one JSON object: {"id": "…", "output": "the raw text"}',
    "output": "give the raw text as the model produced it, as one string; an object must be written out",
    "confidence": "give a number between 0 and 1, or leave the key out",
    "finish": 'give "stop" or "length", or leave the key out',
}


def read_predictions(path: Path) -> dict[str, Prediction]:
    """The predictions of a JSONL file by pair id, in the file's order.

    Raises `PredictionError` with file and line where a line is bad or an id stands twice, and for an empty file.
    """
    found: dict[str, Prediction] = {}
    first: dict[str, int] = {}
    try:
        with path.open("rb") as handle:
            for number, raw in enumerate(handle, start=1):
                where = f"{path}, line {number}"
                if not raw.strip():
                    continue
                prediction = parse_prediction(_decode(raw, where), where)
                if prediction.id in found:
                    what = f"the id {prediction.id!r} stands twice: here and in line {first[prediction.id]}"
                    raise PredictionError(what, where=where, fix="keep one prediction for each pair")
                found[prediction.id], first[prediction.id] = prediction, number
    except FileNotFoundError:
        raise PredictionError("there is no such file", where=str(path)) from None
    except OSError as error:
        raise PredictionError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if not found:
        raise PredictionError("it holds no predictions", where=str(path))
    return found


def _decode(raw: bytes, where: str) -> str:
    try:
        return raw.decode("utf-8-sig")  # an editor or a shell may have put a BOM before the file
    except UnicodeDecodeError as error:
        raise PredictionError(f"not UTF-8: {error.reason} at byte {error.start}", where=where) from None


def match_predictions(
    predictions: Predictions,
    pairs: Sequence[Pair],
    where: str,
    also: Sequence[Pair] = (),
    partial: bool = False,
) -> list[Pair]:
    """The pairs that can be scored: all of them, or those with a prediction where `partial` allows it.

    `also` are pairs that predictions may speak of without being scored (the calibration split). Raises
    `PredictionError` for predictions of pairs nobody knows, and for pairs without one: the rest would flatter.
    """
    known = {pair.id for pair in pairs} | {pair.id for pair in also}
    unknown = [one for one in predictions if one not in known]
    if unknown:
        raise PredictionError(
            f"{_some(unknown)} of {len(predictions)} predictions have an id that no pair has",
            where=where,
            fix="score against the release these answers were made for, with --release or --pairs",
        )
    missing = [pair.id for pair in pairs if pair.id not in predictions]
    if missing and not partial:
        raise PredictionError(
            f"{_some(missing)} of {len(pairs)} pairs have no prediction",
            where=where,
            fix="answer them too (an empty output counts as malformed), or score what there is with --partial",
        )
    if len(missing) == len(pairs):
        raise PredictionError("no pair of the test split has a prediction", where=where)
    return [pair for pair in pairs if pair.id in predictions]


def _some(ids: Sequence[str]) -> str:
    shown = ", ".join(ids[:5]) + (", …" if len(ids) > 5 else "")
    return f"{len(ids)} ({shown})"
