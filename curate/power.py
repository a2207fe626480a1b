"""How many pairs it takes: of which kinds to teach something, and how many to show something."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from curate.behaviour import Bound, GateLine

# Share of unanswerable pairs: below, abstention is not learned; above, answering is unlearned.
LEAST_UNANSWERABLE, MOST_UNANSWERABLE = 0.15, 0.60

# gate line -> the test pairs it counts: answerable ones, unanswerable ones or, at most, all
COUNTED: dict[GateLine, bool | None] = {
    "schema_adherence": None,
    "hallucination_rate": False,
    "abstention_recall": False,
    "over_abstention_rate": True,
    "abstention_precision": None,
    "accuracy_when_answered": None,
    "coverage": None,
    "citation_validity": None,
}


def errorless_n(risk: float, delta: float = 0.05) -> int | None:
    """How many pairs without one failure prove a share of failures of at most `risk`; None where no number does.

    The exact one-sided bound at confidence 1 − delta (Clopper & Pearson, 1934) after no failure in n is 1 − δ^(1/n),
    which is at most `risk` from n ≥ ln δ / ln(1 − risk) on: 59 pairs for 5 %, 149 for 2 %.
    """
    if risk <= 0:
        return None
    if risk >= 1:
        return 1
    return max(1, math.ceil(math.log(delta) / math.log1p(-risk) - 1e-12))


def pairs_to_show(bound: Bound) -> int | None:
    """How many pairs without one failure show that a share is within a bound of the gate; None where no number does."""
    return errorless_n(1 - bound.at_least if bound.at_least is not None else bound.at_most or 0.0)
