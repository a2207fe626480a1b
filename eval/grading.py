"""Every output graded once, beside its pair: what it says and which cell it falls into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from curate.behaviour import Behaviour
from curate.pairs import Pair
from eval.abstention import ANSWERED, Cell, cell_of
from eval.predictions import Prediction, Predictions
from eval.reliability import Answer
from eval.schema import Reading, read_output


class Graded(NamedTuple):
    """One prediction beside its pair: what it says and the cell it falls into."""

    pair: Pair
    prediction: Prediction
    reading: Reading
    cell: Cell


def grade(behaviour: Behaviour, pairs: Sequence[Pair], predictions: Predictions) -> list[Graded]:
    """Every pair that has a prediction, graded, in the order of the pairs."""
    graded = []
    for pair in pairs:
        prediction = predictions.get(pair.id)
        if prediction is not None:
            reading = read_output(behaviour, prediction.output, prediction.finish)
            graded.append(Graded(pair, prediction, reading, cell_of(behaviour, pair, prediction, reading)))
    return graded


def answers_of(graded: Sequence[Graded]) -> list[Answer]:
    """The answered outputs that carry a confidence; an answer to an unanswerable question is an error."""
    return [
        Answer(one.prediction.confidence, one.cell == "answered_correct")
        for one in graded
        if one.cell in ANSWERED and one.prediction.confidence is not None
    ]
