"""The adapter-scale sweep: task score and retention at each scale; the largest scale that keeps retention is shipped.

Scaling an adapter by λ in [0, 1] is weight interpolation between base and tuned model (WiSE-FT, arXiv:2109.01903).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from curate.behaviour import Behaviour
from curate.files import parse_json
from curate.findings import Finding
from curate.pairs import Pair
from train.items import Item, accuracy_by_set
from train.recipe import AdapterScale

Z95 = 1.6448536269514722  # one-sided 95 % of the normal distribution
Curve = list[dict[str, Any]]


def is_wanted(behaviour: Behaviour, pair: Pair, text: str) -> bool:
    """Whether a raw output does what the behaviour wants of this pair: well formed, and right or rightly abstaining."""
    output: Any = text
    if behaviour.is_json:
        try:
            output = parse_json(text)
        except ValueError:
            return False
    if not behaviour.conforms(output):
        return False
    abstains = behaviour.abstains(output)
    if behaviour.is_answerable(pair):
        return not abstains and behaviour.is_right(output, pair)
    return abstains


def paired_drop(base: Sequence[bool], tuned: Sequence[bool]) -> dict[str, float]:
    """Accuracy lost from base to tuned on the same items, with one-sided 95 % bounds.

    d = mean(base − tuned); standard error sqrt(var(base − tuned) / n), where the variance takes at least one item as
    changed, so that no change at all in a few items proves nothing.
    """
    n = len(base)
    differences = [int(b) - int(t) for b, t in zip(base, tuned, strict=True)]
    drop = sum(differences) / n
    changed = max(1, sum(map(abs, differences))) / n
    error = math.sqrt(max(changed - drop * drop, 1 / n - 1 / n**2) / n) if n > 1 else 1.0
    return {"drop": drop, "low": drop - Z95 * error, "high": drop + Z95 * error, "n": n}


def is_kept(drop: dict[str, float], margin: float) -> bool:
    """Whether retention is kept: by the bound where the items suffice to prove it, else by the estimate.

    They suffice where no drop at all, with the same spread, would be proven to be inside the margin.
    """
    provable = drop["high"] - drop["drop"] <= margin
    return drop["high" if provable else "drop"] <= margin + 1e-12


def sweep(
    answer: Callable[[float], tuple[list[bool], list[bool]]], items: Sequence[Item], guard: AdapterScale
) -> tuple[float, Curve, bool]:
    """(scale, curve, whether retention is kept there). `answer(λ)` says which pairs and which items are right at λ.

    The curve begins with the base (λ = 0). Where no scale keeps retention, the smallest one is taken.
    """
    base_task, base_items = answer(0.0)
    curve: Curve = [_point(0.0, base_task, base_items, base_items, items)]
    for scale in sorted(set(guard.candidates)):
        task, right = answer(scale)
        point = _point(scale, task, base_items, right, items)
        drop = point.get("retention_drop")
        point["kept"] = drop is None or (is_kept(drop, guard.margin) and not _proven_lost(point, guard.margin))
        point["proven"] = drop is not None and drop["high"] <= guard.margin
        curve.append(point)
    kept = [point["scale"] for point in curve[1:] if point["kept"]]
    return (max(kept), curve, True) if kept else (min(guard.candidates), curve, False)


def _point(
    scale: float, task: Sequence[bool], base: Sequence[bool], right: Sequence[bool], items: Sequence[Item]
) -> dict[str, Any]:
    point: dict[str, Any] = {"scale": scale, "task": sum(task) / len(task) if task else None, "pairs": len(task)}
    if items:
        point["retention"] = accuracy_by_set(items, right)
        point["retention_drop"] = paired_drop(base, right)
        point["sets"] = _by_set(items, base, right)
    return point


def _by_set(items: Sequence[Item], base: Sequence[bool], right: Sequence[bool]) -> dict[str, dict[str, float]]:
    rows: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for item, one, other in zip(items, base, right, strict=True):
        rows[item.set].append((one, other))
    return {name: paired_drop([b for b, _ in found], [t for _, t in found]) for name, found in sorted(rows.items())}


def _proven_lost(point: dict[str, Any], margin: float) -> bool:
    """Whether one set has certainly lost more than the margin, however well the others did."""
    return any(one["low"] > margin for one in point["sets"].values())


def check_scale(chosen: dict[str, Any]) -> list[Finding]:
    """Rule `scale-without-task`: retention decides the scale, and what is left may no longer do the task."""
    scaling = chosen["scaling"]
    why = _without_task(chosen["scale"], scaling["curve"]) if scaling else None
    fix = "widen guards.adapter_scale.margin or try other scales (from), or train with more rehearsal or a larger KL"
    return [Finding(rule="scale-without-task", level="warning", where="scaling", message=why, fix=fix)] if why else []


def _without_task(scale: float, curve: Curve) -> str | None:
    """What to say where no validation pair is answered as wanted at the chosen scale; None where one is."""
    chosen = next(point for point in curve if point["scale"] == scale)
    if chosen["task"] is None or chosen["task"] > 0:
        return None
    best = max(curve, key=lambda point: point["task"])
    more = (
        f"; at scale {best['scale']:g}, {best['task']:.0%} are" if best["task"] > 0 else " (at no other scale either)"
    )
    return f"at scale {scale:g} none of {chosen['pairs']} validation pairs is answered as wanted{more}"


def describe(scale: float, curve: Curve, kept: bool, margin: float) -> str:
    """The choice in a sentence, and in another that it no longer does the task, where that is so."""
    useless, right = _without_task(scale, curve), curve[0].get("retention", {}).get("all")
    silent = right is not None and right <= margin
    return (
        _choice(scale, curve, kept, margin)
        + (f"; but {useless}" if useless else "")
        + (f"; but the base itself answers only {right:.1%} of these items, too few to show a loss" if silent else "")
    )


def _choice(scale: float, curve: Curve, kept: bool, margin: float) -> str:
    chosen = next(point for point in curve if point["scale"] == scale)
    drop = chosen.get("retention_drop")
    if drop is None:
        return f"adapter scale {scale:g}: there are no general items to hold it against"
    seen = f"retention drop {drop['drop']:+.3f} (one-sided 95 % bound {drop['high']:+.3f}, n = {drop['n']})"
    if not kept:
        return f"no adapter scale keeps retention inside {margin:g}; the smallest, {scale:g}, is taken: {seen}"
    if chosen["proven"]:
        return f"adapter scale {scale:g}: {seen}, inside {margin:g}"
    return f"adapter scale {scale:g}: {seen}; inside {margin:g} by the estimate, too few items to prove it"
