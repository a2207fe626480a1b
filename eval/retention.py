"""Whether the tuned model still does what the base could: paired non-inferiority, set by set."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from curate.errors import PredictionError, first_fault
from curate.files import parse_json
from eval.statistics import (
    CONFIDENCE,
    Interval,
    clustered_mean,
    effective_n,
    mcnemar,
    paired_bounds,
    rate,
    smallest_n,
    student,
    unlucky,
)

MARGIN = 0.02  # of accuracy that may be lost
LOSS_MARGIN = 0.05  # nats per token that the loss may rise
TWO_SIDED = (1 + CONFIDENCE) / 2


class Result(BaseModel):
    """What one model did on one general item: right or wrong, or its loss on the item's text."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)

    id: str = Field(min_length=1)
    set: str = Field(default="all", min_length=1)
    group: str | int | None = Field(default=None, description="Items of one group are not independent.")
    correct: bool | None = None
    nats_per_token: float | None = Field(default=None, ge=0, le=1e6, description="Mean loss of the item's tokens.")
    tokens: int | None = Field(default=None, gt=0, le=10**12, description="How many tokens that loss is the mean of.")

    @field_validator("correct", mode="before")
    @classmethod
    def _zero_or_one(cls, value: Any) -> Any:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return bool(value) if number and value in (0, 1) else value

    @model_validator(mode="after")
    def _one_kind(self) -> Result:
        if (self.correct is None) == (self.nats_per_token is None):
            raise ValueError("give exactly one of correct (true or false) and nats_per_token")
        return self

    @property
    def key(self) -> tuple[str, str]:
        return self.set, self.id


def read_results(path: Path) -> list[Result]:
    """The results of a JSONL file; raises `PredictionError` with file and line where one is bad or stands twice."""
    found: dict[tuple[str, str], Result] = {}
    try:
        with path.open("rb") as handle:
            for number, raw in enumerate(handle, start=1):
                if raw.strip():
                    result = _parse_result(raw, f"{path}, line {number}")
                    if result.key in found:
                        what = f"the id {result.id!r} stands twice in the set {result.set!r}"
                        raise PredictionError(what, where=f"{path}, line {number}")
                    found[result.key] = result
    except FileNotFoundError:
        raise PredictionError("there is no such file", where=str(path)) from None
    except OSError as error:
        raise PredictionError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if not found:
        raise PredictionError("it holds no results", where=str(path))
    return list(found.values())


def _parse_result(raw: bytes, where: str) -> Result:
    fix = 'every line is {"id": "…", "correct": true or false}, with "set" and "group" where there are any'
    try:
        return Result.model_validate(parse_json(raw.decode("utf-8-sig")))
    except ValidationError as error:
        raise PredictionError(first_fault(error, "result"), where=where, fix=fix) from None
    except ValueError as error:  # not UTF-8, or not JSON
        raise PredictionError(f"not valid JSON: {error}", where=where, fix=fix) from None


class PairedResult(NamedTuple):
    """One item, done by both."""

    base: Result
    tuned: Result

    @property
    def groups_differ(self) -> bool:
        """Whether the two sides put the item into different groups."""
        return None not in (self.base.group, self.tuned.group) and self.base.group != self.tuned.group

    @property
    def group(self) -> Hashable:
        """What the item is independent of the others by: its group, else itself."""
        given = self.base.group if self.base.group is not None else self.tuned.group
        return given if given is not None else ("item", self.base.id)


def pair_results(base: Sequence[Result], tuned: Sequence[Result]) -> dict[str, list[PairedResult]]:
    """Set -> its items done by both; raises `PredictionError` where an item was done by one model only."""
    left, right = {one.key: one for one in base}, {one.key: one for one in tuned}
    alone = [key for key in left if key not in right] + [key for key in right if key not in left]
    if alone:
        shown = ", ".join(f"{name}/{one}" for name, one in alone[:5]) + (", …" if len(alone) > 5 else "")
        what = f"{len(alone)} of {len(left.keys() | right.keys())} items were done by one model only: {shown}"
        raise PredictionError(what, fix="give both models the same items; a comparison is paired or it is none")
    sets: dict[str, list[PairedResult]] = {}
    for key, result in left.items():
        if (result.correct is None) != (right[key].correct is None):
            raise PredictionError(
                f"item {result.id!r} of {result.set!r} has a loss on one side and a grade on the other"
            )
        sets.setdefault(result.set, []).append(PairedResult(result, right[key]))
    for name, items in sets.items():
        torn = next((one.base.id for one in items if one.groups_differ), None)
        if torn is not None:
            raise PredictionError(f"item {torn!r} of {name!r} is in one group on one side and in another on the other")
        if len({one.base.correct is None for one in items}) > 1:
            raise PredictionError(f"the set {name!r} mixes losses and grades", fix="give them different sets")
    return sets


def retention_numbers(
    base: Sequence[Result], tuned: Sequence[Result], margin: float = MARGIN, loss_margin: float = LOSS_MARGIN
) -> dict[str, Any]:
    """DESIGN 6's `retention`: {"margin", "loss_margin", "non_inferior", "drop", "sets"}.

    `sets` has an entry per set: `base`, `tuned`, `difference` (tuned − base), its two-sided 95 % `low` and `high`, the
    one-sided 95 % `bound` on the side of harm and the `opposite_bound`, and the `limit` the bound must stay inside.
    `non_inferior` is True where it does, False where the other bound is outside too, None where the items are too few:
    then `needed_n` says how many would settle it at the differences seen, if any number does. It is None too where a
    set is `silent`: the base answers so few of its items that losing all of them would be inside the margin. `drop` is
    the loss of accuracy on the set whose bound is worst: what the gate's `retention_drop` is about.
    """
    if not 0 <= margin < 1 or loss_margin < 0:
        raise PredictionError(f"the margin {margin} is no share between 0 and 1", fix="--margin 0.02 allows two points")
    paired = pair_results(base, tuned)
    if not paired:
        raise PredictionError("there is no item to compare on")
    sets = {
        name: _accuracy_set(items, margin) if items[0].base.correct is not None else _loss_set(items, loss_margin)
        for name, items in sorted(paired.items())
    }
    verdicts = [one["non_inferior"] for one in sets.values()]
    return {
        "margin": margin,
        "loss_margin": loss_margin,
        "non_inferior": False if False in verdicts else None if None in verdicts else True,
        "drop": _worst_drop(sets),
        "sets": sets,
    }


def _accuracy_set(items: Sequence[PairedResult], margin: float) -> dict[str, Any]:
    n = len(items)
    only_base = sum(bool(one.base.correct) and not one.tuned.correct for one in items)
    only_tuned = sum(bool(one.tuned.correct) and not one.base.correct for one in items)
    differences = [float(bool(one.tuned.correct)) - float(bool(one.base.correct)) for one in items]
    mean = clustered_mean(differences, [one.group for one in items])
    worth = effective_n(mean, differences)
    silent = sum(bool(one.base.correct) for one in items) <= margin * n
    bounds = _scaled_bounds(only_base, only_tuned, n, worth)
    low, high = _scaled_bounds(only_base, only_tuned, n, worth, TWO_SIDED)
    entry = {
        "kind": "accuracy",
        "n": n,
        "groups": mean.clusters if mean.clusters < n else None,
        "effective_n": worth,
        "base": rate(sum(bool(one.base.correct) for one in items), n),
        "tuned": rate(sum(bool(one.tuned.correct) for one in items), n),
        "difference": (only_tuned - only_base) / n,
        "standard_error": mean.standard_error,
        "low": low,
        "high": high,
        "bound": bounds.low,
        "opposite_bound": bounds.high,
        "limit": -margin,
        "only_base": only_base,
        "only_tuned": only_tuned,
        "mcnemar_p": mcnemar(only_base, only_tuned),
        "silent": silent,
        "non_inferior": None if silent else True if bounds.low > -margin else False if bounds.high < -margin else None,
        "needed_n": None,
    }
    if entry["non_inferior"] is None and not silent:
        entry["needed_n"] = items_needed(entry, margin)
    return entry


def _scaled_bounds(only_base: int, only_tuned: int, n: int, worth: float, confidence: float = CONFIDENCE) -> Interval:
    """`paired_bounds` for clustered items: the counts shrunk to what they are worth."""
    share = worth / n
    return paired_bounds(min(only_base * share, worth), min(only_tuned * share, worth), worth, confidence)


def items_needed(entry: Mapping[str, Any], margin: float) -> int | None:
    """How many items would show a drop inside `margin`, four times in five, were the shares as seen.

    None where the drop seen is not inside it.
    """
    if entry["difference"] <= -margin:
        return None
    falls, rises = entry["only_base"] / entry["n"], entry["only_tuned"] / entry["n"]
    worth = entry["effective_n"] / entry["n"]

    def settles(n: int) -> bool:
        many = n * worth
        lost = unlucky(0.0, many * (falls + rises - (falls - rises) ** 2))
        fell = lost * falls / (falls + rises) if lost else 0.0  # the rest of the ill luck: fewer rises than expected
        return paired_bounds(falls * many + fell, max(0.0, rises * many - (lost - fell)), many).low > -margin

    return smallest_n(settles, int(entry["n"]) + 1)


def _loss_set(items: Sequence[PairedResult], margin: float) -> dict[str, Any]:
    """A set of losses, each item weighted with its tokens; the bound is Student's with groups − 1 degrees."""
    weights = [float(one.base.tokens or one.tuned.tokens or 1) for one in items]
    before = [one.base.nats_per_token or 0.0 for one in items]
    after = [one.tuned.nats_per_token or 0.0 for one in items]
    differences = [late - early for early, late in zip(before, after, strict=True)]
    mean = clustered_mean(differences, [one.group for one in items], weights)
    total = math.fsum(weights)
    error = mean.standard_error
    reach = [None if error is None else student(one, mean.clusters - 1) * error for one in (CONFIDENCE, TWO_SIDED)]
    low, high, opposite, bound = (
        None if size is None else mean.value + sign * size
        for sign, size in ((-1, reach[1]), (1, reach[1]), (-1, reach[0]), (1, reach[0]))
    )
    settled = None
    if bound is not None and opposite is not None:
        settled = True if bound < margin else False if opposite > margin else None
    needed = None
    if settled is None and reach[0] is not None and mean.value < margin:
        needed = math.ceil(len(items) * (unlucky(reach[0], (error or 0.0) ** 2) / (margin - mean.value)) ** 2) + 1
    return {
        "kind": "loss",
        "n": len(items),
        "groups": mean.clusters if mean.clusters < len(items) else None,
        "tokens": int(total),
        "base": math.fsum(w * x for w, x in zip(weights, before, strict=True)) / total,
        "tuned": math.fsum(w * x for w, x in zip(weights, after, strict=True)) / total,
        "difference": mean.value,
        "standard_error": error,
        "low": low,
        "high": high,
        "bound": bound,
        "opposite_bound": opposite,
        "limit": margin,
        "non_inferior": settled,
        "needed_n": needed,
    }


def _worst_drop(sets: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """The drop of the accuracy set whose bound reaches furthest, as a number with its interval; None without one."""
    graded = {name: one for name, one in sets.items() if one["kind"] == "accuracy"}
    if not graded:
        return None
    name = min(graded, key=lambda one: (graded[one]["bound"], one))
    worst = graded[name]
    return {
        "value": 0.0 - worst["difference"],
        "low": -worst["high"],
        "high": -worst["low"],
        "n": worst["n"],
        "set": name,
    }
