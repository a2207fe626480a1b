"""Predictions become scores: every number of DESIGN 6 that needs no second model, in one pure function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from curate.behaviour import Behaviour
from curate.pairs import Pair
from eval.abstention import ANSWERED, Cell, abstention_numbers, cell_of
from eval.calibration import Answer, calibration_numbers
from eval.grounding import grounding_numbers
from eval.predictions import Prediction, Predictions
from eval.schema import Reading, read_output, schema_numbers

PARTS = ("schema", "abstention", "calibration", "grounding", "retention")


class Graded(NamedTuple):
    """One prediction beside its pair: what it says and the cell it falls into."""

    pair: Pair
    prediction: Prediction
    reading: Reading
    cell: Cell


Calibration = tuple[Sequence[Pair], Predictions]


def grade(behaviour: Behaviour, pairs: Sequence[Pair], predictions: Predictions) -> list[Graded]:
    """Every pair that has a prediction, graded, in the order of the pairs."""
    graded = []
    for pair in pairs:
        prediction = predictions.get(pair.id)
        if prediction is not None:
            reading = read_output(behaviour, prediction.output, prediction.finish)
            graded.append(Graded(pair, prediction, reading, cell_of(behaviour, pair, prediction, reading)))
    return graded


def score_predictions(
    behaviour: Behaviour,
    pairs: Sequence[Pair],
    predictions: Predictions,
    calibration: Calibration | None = None,
    closed_book: Mapping[str, Prediction] | None = None,
) -> dict[str, Any]:
    """{"n", "schema", "abstention", "calibration", "grounding", "outcomes"} of the pairs that have a prediction.

    `calibration` is the calibration split with its predictions: the threshold is chosen there. `closed_book` are
    answers given without passages. `outcomes` maps each pair's id to its cell, for paired comparisons.
    """
    graded = grade(behaviour, pairs, predictions)
    return score_graded(behaviour, graded, calibration, closed_book)


def score_graded(
    behaviour: Behaviour,
    graded: Sequence[Graded],
    calibration: Calibration | None = None,
    closed_book: Mapping[str, Prediction] | None = None,
) -> dict[str, Any]:
    """`score_predictions` for what is graded already."""
    pairs = [one.pair for one in graded]
    readings = [one.reading for one in graded]
    cells = [one.cell for one in graded]
    told = any(one.prediction.abstained is not None for one in graded)
    held_out = None if calibration is None else answers_of(grade(behaviour, *calibration))
    return {
        "n": len(graded),
        "schema": schema_numbers(behaviour, pairs, readings),
        "abstention": abstention_numbers(cells, can_abstain=behaviour.abstain is not None or told),
        "calibration": calibration_numbers(answers_of(graded), held_out),
        "grounding": grounding_numbers(behaviour, pairs, readings, cells, closed_book),
        "outcomes": {one.pair.id: one.cell for one in graded},
    }


def answers_of(graded: Sequence[Graded]) -> list[Answer]:
    """The answered outputs that carry a confidence; an answer to an unanswerable question is an error."""
    return [
        Answer(one.prediction.confidence, one.cell == "answered_correct")
        for one in graded
        if one.cell in ANSWERED and one.prediction.confidence is not None
    ]
