"""Intervals for rates, paired tests and bounds, and how many items would settle a question.

`k` of `n` are counts; where a count stands for an effective one (clustered data) it may be a fraction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple, TypedDict

CONFIDENCE = 0.95
POWER = 0.8  # how often the number of items that is asked for settles a question
FEWEST_CHANGED = 10  # groups with a change, from which on their design effect can be estimated
MOST_ITEMS = 10_000_000  # more than this settles nothing in practice


class Rate(TypedDict):
    """A share with its two-sided 95 % Wilson interval and its denominator."""

    value: float
    low: float
    high: float
    n: int


class Interval(NamedTuple):
    """A lower and an upper limit."""

    low: float
    high: float


def wilson(k: float, n: float, confidence: float = CONFIDENCE) -> Interval:
    """Two-sided score interval of a binomial share (Wilson, 1927). `n` must be positive."""
    _check_counts(k, n)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    return Interval(_wilson_limit(k, n, -z), _wilson_limit(k, n, z))


def _wilson_limit(k: float, n: float, z: float) -> float:
    if (k == 0 and z < 0) or (k == n and z > 0):  # exact in theory, a rounding error away in floats
        return 0.0 if z < 0 else 1.0
    centre = k + z * z / 2
    spread = z * math.sqrt(k * (n - k) / n + z * z / 4)
    return min(1.0, max(0.0, (centre + spread) / (n + z * z)))


def rate(k: int, n: int) -> Rate | None:
    """`k` of `n` as a rate; None where there is nothing to divide by."""
    if n == 0:
        return None
    low, high = wilson(k, n)
    return Rate(value=k / n, low=low, high=high, n=n)


def clopper_pearson_bound(k: float, n: float, side: str, confidence: float = CONFIDENCE) -> float:
    """One-sided exact bound; it is wrong in at most 1 − confidence of all samples, whatever the true share is."""
    from scipy.special import betaincinv

    _check_counts(k, n)
    if side == "lower":
        return 0.0 if k == 0 else float(betaincinv(k, n - k + 1, 1 - confidence))
    return 1.0 if k == n else float(betaincinv(k + 1, n - k, confidence))


def _check_counts(k: float, n: float) -> None:
    if not (n > 0 and 0 <= k <= n):
        raise ValueError(f"{k} of {n} is no share")


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided exact p-value that both are right equally often, from the discordant counts (McNemar, 1947).

    Binomial(only_first + only_second, ½); 1 where nothing is discordant.
    """
    from scipy.special import bdtr

    n = only_first + only_second
    return 1.0 if n == 0 else min(1.0, 2 * float(bdtr(min(only_first, only_second), n, 0.5)))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number (Holm, 1979), in the order given."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def paired_bounds(only_base: float, only_tuned: float, n: float, confidence: float = CONFIDENCE) -> Interval:
    """One-sided bounds, each at `confidence`, of the difference tuned − base of two shares on the same `n` items.

    `only_base` items are right with the base alone, `only_tuned` with the tuned model alone. The variances of the two
    discordant shares are recovered from their Clopper-Pearson limits and joined with their multinomial correlation
    (MOVER: Zou & Donner, Stat Med 2008; Newcombe, Stat Med 1998 for paired shares). Without discordant items a bound is
    not 0 but what "none of n" leaves open. Summed over all samples its error is at most 5 % from n = 30 on (7 % at
    n = 10 with nine of ten items discordant); that of Tango's (1998) score bound reaches 9 %. `n` must be positive.
    """
    p, q = only_base / n, only_tuned / n
    lower = _recovered(p, q, only_tuned, only_base, n, confidence)
    upper = _recovered(p, q, only_base, only_tuned, n, confidence)
    return Interval(max(-1.0, q - p - lower), min(1.0, q - p + upper))


def _recovered(p: float, q: float, falls: float, rises: float, n: float, confidence: float) -> float:
    """The distance of a bound when the share of `falls` may be smaller and that of `rises` larger than seen."""
    fall = falls / n - clopper_pearson_bound(falls, n, "lower", confidence)
    rise = clopper_pearson_bound(rises, n, "upper", confidence) - rises / n
    spread = (1 - p) * (1 - q)
    correlation = -min(1.0, math.sqrt(p * q / spread)) if spread > 0 else 0.0
    return math.sqrt(fall**2 + rise**2 - 2 * correlation * fall * rise)


class Mean(NamedTuple):
    """A mean with its standard error.

    `clusters` is the number of independent units it rests on, `changed` how many of them carry a value other than 0:
    (Σ t²)² / Σ t⁴ of their totals t, which is their number where all carry the same, and little where a few carry most.
    """

    value: float
    standard_error: float | None
    clusters: int
    changed: float


def clustered_mean(values: Sequence[float], groups: Sequence[object], weights: Sequence[float] | None = None) -> Mean:
    """The (weighted) mean of `values` and its standard error with items of one group taken as one observation.

    The sandwich estimator Σ_g (Σ_{i∈g} w_i (x_i − m))² with the factor G/(G−1) (Liang & Zeger, 1986; Miller, 2024,
    "Adding error bars to evals"). The standard error is None with fewer than two groups.
    """
    weight = weights if weights is not None else [1.0] * len(values)
    total = math.fsum(weight)
    mean = math.fsum(w * x for w, x in zip(weight, values, strict=True)) / total
    sums: dict[object, float] = {}
    totals: dict[object, float] = {}
    for x, w, group in zip(values, weight, groups, strict=True):
        sums[group] = sums.get(group, 0.0) + w * (x - mean)
        totals[group] = totals.get(group, 0.0) + w * x
    count, squares = len(sums), [t * t for t in totals.values() if t]
    error = None if count < 2 else math.sqrt(count / (count - 1) * math.fsum(s * s for s in sums.values())) / total
    changed = math.fsum(squares) ** 2 / math.fsum(s * s for s in squares) if squares else 0.0
    return Mean(mean, error, count, changed)


def student(confidence: float, degrees: int) -> float:
    """The quantile of Student's t: what a normal quantile becomes when the standard error rests on few groups."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, confidence))


def effective_n(mean: Mean, values: Sequence[float]) -> float:
    """How many independent items clustered ones are worth: n over the design effect (Kish, 1965), at most n.

    Degrees of freedom are paid for as Korn & Graubard (1998) do. Where fewer than `FEWEST_CHANGED` groups carry what
    changed, the design effect cannot be seen, and no group counts for more than one item: otherwise one item lost
    would prove more than none.
    """
    n = len(values)
    if mean.clusters == n:
        return float(n)
    alone = math.fsum((x - mean.value) ** 2 for x in values) / n / (n - 1) if n > 1 else 0.0
    if mean.standard_error is None or alone <= 0:
        return float(mean.clusters)
    if mean.standard_error == 0:
        return float(mean.clusters)
    # a cluster cannot be worth more than its items, nor all items less than one group would be
    degrees = (student(CONFIDENCE, n - 1) / student(CONFIDENCE, mean.clusters - 1)) ** 2
    most = float(n if mean.changed >= FEWEST_CHANGED else mean.clusters)
    return min(most, max(1.0, n * alone / mean.standard_error**2 * degrees))


def unlucky(expected: float, variance: float) -> float:
    """A number that only one sample in five exceeds (1 − `POWER`), by the normal approximation."""
    return expected + NormalDist().inv_cdf(POWER) * math.sqrt(variance)


def smallest_n(settles: Callable[[int], bool], start: int) -> int | None:
    """The smallest number of items at or above `start` that settles a question; None where ten million do not.

    `settles` must stay true once it is.
    """
    low = high = max(1, start)
    while not settles(high):
        if high >= MOST_ITEMS:
            return None
        low, high = high, min(2 * high, MOST_ITEMS)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if settles(middle) else (middle + 1, high)
    return low
