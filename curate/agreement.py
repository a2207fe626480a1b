"""How far reviewers agree: Krippendorff's alpha, reviewers who stand out, pairs the gate still needs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from curate.power import COUNTED, pairs_to_show

if TYPE_CHECKING:
    from curate.behaviour import Behaviour

Ratings = Mapping[str, Mapping[str, str]]  # unit (a pair) -> reviewer -> value

_DRAWS, _SEED = 2000, 17
_DRAWS_AT_ONCE = 50  # so that 100,000 pairs fit in memory
_Z_TWO_SIDED = 1.959963984540054
_SLOW_SECONDS = 15 * 60  # a longer pause is a break, not a review


class Alpha(NamedTuple):
    """Krippendorff's alpha of one question. `n` is the number of pairs that two or more reviewers answered."""

    alpha: float | None
    low: float | None
    high: float | None
    n: int

    def document(self) -> dict[str, float | int | None]:
        """As `--json` prints it."""
        return self._asdict()


def _table(ratings: Ratings) -> Any:
    """Counts of each value per unit, units with fewer than two values left out: a sparse array (units, values).

    Sparse, since of corrected outputs nearly each is a value of its own.
    """
    import numpy as np
    from scipy.sparse import csr_array

    units = [list(values.values()) for _, values in sorted(ratings.items()) if len(values) >= 2]
    names = {value: index for index, value in enumerate(sorted({value for unit in units for value in unit}))}
    rows = [row for row, unit in enumerate(units) for _ in unit]
    columns = [names[value] for unit in units for value in unit]
    return csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(units), len(names)))


def _alpha_of(pairable: Any, totals: Any, disagreeing: Any) -> Any:
    """alpha = 1 - (n - 1) Σ_u d_u / (n² - Σ_c n_c²), nominal, elementwise; NaN where only one value was ever given.

    `d_u` = (m_u² - Σ_c n_uc²) / (m_u - 1) for a unit of m_u values, n_uc of them c. Source: Krippendorff, Content
    Analysis, 4th edition (2019), chapter 12, the coincidence matrix written out for nominal data.
    """
    import numpy as np

    expected = pairable**2 - (totals**2).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected > 0, 1 - (pairable - 1) * disagreeing / expected, np.nan)


def krippendorff(ratings: Ratings, draws: int = _DRAWS) -> Alpha:
    """Nominal alpha over units, with a 95 % percentile bootstrap over units (Hayes & Krippendorff, 2007); seeded.

    null where no unit has two values, or all values are the same (nothing could have disagreed). Draws in which only
    one value turns up say nothing and are left out of the interval; with fewer than half left there is none.
    """
    import numpy as np

    table = _table(ratings)
    n = table.shape[0]
    if n == 0:
        return Alpha(None, None, None, 0)
    sizes = table.sum(axis=1)
    per_unit = (sizes**2 - (table * table).sum(axis=1)) / (sizes - 1)
    value = float(_alpha_of(sizes.sum(), table.sum(axis=0), per_unit.sum()))
    if math.isnan(value):
        return Alpha(None, None, None, n)
    dice, blocks = np.random.default_rng(_SEED), []
    for begun in range(0, draws, _DRAWS_AT_ONCE):
        count = min(_DRAWS_AT_ONCE, draws - begun)
        weights = dice.multinomial(n, np.full(n, 1 / n), size=count).astype(float)
        blocks.append(_alpha_of(weights @ sizes, weights @ table, weights @ per_unit))
    drawn = np.concatenate(blocks)
    drawn = drawn[~np.isnan(drawn)]
    if len(drawn) * 2 < draws or n < 2:
        return Alpha(value, None, None, n)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Alpha(value, float(low), float(high), n)


class Rate(NamedTuple):
    """A share with its 95 % interval (Wilson, 1927) and the count below the line; null where that is 0."""

    value: float | None
    low: float | None
    high: float | None
    n: int


def wilson(successes: float, n: int) -> Rate:
    """The share `successes / n` with Wilson's interval."""
    if n == 0:
        return Rate(None, None, None, 0)
    share, squared = successes / n, _Z_TWO_SIDED**2
    centre = (share + squared / (2 * n)) / (1 + squared / n)
    half = _Z_TWO_SIDED * math.sqrt(share * (1 - share) / n + squared / (4 * n * n)) / (1 + squared / n)
    return Rate(share, max(0.0, centre - half), min(1.0, centre + half), n)


class Reviewer(NamedTuple):
    """One reviewer's part: what was submitted, how often the others say the same, seconds a review takes."""

    name: str
    submitted: int
    draft: int
    discarded: int
    returned: int
    agreement: Rate
    median_seconds: float | None
    stands_out: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {**self._asdict(), "agreement": self.agreement._asdict(), "stands_out": list(self.stands_out)}


def agreement_with_others(ratings: Sequence[Ratings]) -> dict[str, Rate]:
    """Of each reviewer: the share of comparisons with another reviewer of the same pair in which both say the same."""
    same: dict[str, int] = defaultdict(int)
    made: dict[str, int] = defaultdict(int)
    for question in ratings:
        for values in question.values():
            for name, value in values.items():
                others = [other for reviewer, other in values.items() if reviewer != name]
                made[name] += len(others)
                same[name] += sum(other == value for other in others)
    return {name: wilson(same[name], made[name]) for name in made}


def seconds_per_review(moments: Sequence[float]) -> float | None:
    """The median time between one submission and the next, breaks left out; None with fewer than five to go by."""
    ordered = sorted(moments)
    gaps = [later - earlier for earlier, later in pairwise(ordered)]
    gaps = [gap for gap in gaps if gap <= _SLOW_SECONDS]
    return median(gaps) if len(gaps) >= 5 else None


def stand_out(name: str, agreement: Mapping[str, Rate], seconds: Mapping[str, float | None]) -> tuple[str, ...]:
    """Why a reviewer is worth a talk: agrees less than the others do (beyond chance), or is far quicker."""
    said = []
    mine = agreement.get(name)
    rest = [rate for other, rate in agreement.items() if other != name and rate.n]
    if mine and mine.high is not None and rest:
        usual = sum((rate.value or 0) * rate.n for rate in rest) / sum(rate.n for rate in rest)
        if mine.high < usual:
            said.append(f"agrees with the others in {mine.value:.0%} of cases; usual is {usual:.0%}")
    pace = seconds.get(name)
    paces = [one for other, one in seconds.items() if other != name and one is not None]
    if pace is not None and paces and pace < median(paces) / 3:
        said.append(f"takes {pace:.0f} s a pair; usual is {median(paces):.0f} s")
    return tuple(said)


def pairs_wanted(
    behaviour: Behaviour, answerable: int, unanswerable: int, test_share: float
) -> dict[str, dict[str, int | None]]:
    """Per gate line: test pairs of its kind it needs at the very least, and settled pairs still wanted for that.

    `answerable` and `unanswerable` count the settled pairs; `test_share` is the share of them that a release tests on.
    """
    wanted: dict[str, dict[str, int | None]] = {}
    held = {None: answerable + unanswerable, True: answerable, False: unanswerable}
    for line, kind in COUNTED.items():
        bound = behaviour.gate.get(line)
        if bound is None:
            continue
        needed = pairs_to_show(bound)
        more = None if needed is None else max(0, math.ceil(needed / test_share - 1e-9) - held[kind])
        wanted[line] = {"test_pairs": needed, "settled_pairs_still_wanted": more}
    return wanted
