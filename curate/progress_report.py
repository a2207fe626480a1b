"""How far a review is, as a document and as a page of text. Pure."""

from __future__ import annotations

from typing import Any

from curate.agreement import Reviewer, pairs_wanted
from curate.behaviour import Behaviour
from curate.power import COUNTED
from curate.review_log import ReviewState, Terms

_WIDTH = 30
_NAMES = {
    "decision": "is the output right",
    "answerable": "do the passages hold the answer",
    "corrected": "the output it comes to",
}


def status_document(state: ReviewState, terms: Terms, behaviour: Behaviour, test_share: float) -> dict[str, Any]:
    """What `curate status --json` prints."""
    settled = [one for one in state.settled().values() if one.outcome != "rejected"]
    answerable = sum(one.answerable is True for one in settled)
    counts = state.counts()
    return {
        "pairs": len(state.pairs),
        "settled": len(state.settled()),
        "to_adjudicate": counts.get("to adjudicate", 0),
        "to_go": len(state.pairs) - len(state.settled()) - counts.get("to adjudicate", 0),
        "outcomes": counts,
        "overlap": terms.overlap,
        "agreement": {question: alpha.document() for question, alpha in state.agreement.items()},
        "reviewers": [one.document() for one in state.reviewers],
        "wanted": pairs_wanted(behaviour, answerable, len(settled) - answerable, test_share),
    }


def status_text(document: dict[str, Any], reviewers: tuple[Reviewer, ...]) -> str:
    """The same for people."""
    total, settled = document["pairs"], document["settled"]
    parts = [
        f"{bar(settled, total)}  {settled} of {total} pairs settled"
        f" ({_outcomes(document['outcomes'])}), {document['to_adjudicate']} to adjudicate, {document['to_go']} to go"
    ]
    parts.append(_reviewers(reviewers, total) or "No reviewer has submitted anything yet.")
    parts.append(_agreement(document["agreement"]))
    parts.append(_wanted(document["wanted"]))
    return "\n\n".join(part for part in parts if part)


def bar(done: int, total: int) -> str:
    """A bar of fixed width, full where all is done and not before."""
    filled = _WIDTH * done // total if total else 0
    return "█" * filled + "░" * (_WIDTH - filled)


def _outcomes(counts: dict[str, int]) -> str:
    return ", ".join(f"{counts.get(name, 0)} {name}" for name in ("accepted", "corrected", "rejected"))


def _reviewers(reviewers: tuple[Reviewer, ...], total: int) -> str:
    width = max((len(one.name) for one in reviewers), default=0)
    lines = []
    for one in reviewers:
        more = [f"{one.submitted} submitted"]
        more += [f"{count} {word}" for count, word in ((one.draft, "draft"), (one.discarded, "discarded")) if count]
        if one.returned:
            more.append(f"{one.returned} returned")
        if one.agreement.value is not None:
            more.append(f"agrees with the others {_share(one.agreement._asdict())}")
        if one.median_seconds is not None:
            more.append(f"{one.median_seconds:.0f} s a pair")
        lines.append(f"{one.name:<{width}}  {bar(min(one.submitted, total), total)}  {', '.join(more)}")
        lines += [f"{'':<{width}}  ! {why}" for why in one.stands_out]
    return "\n".join(lines)


def _share(rate: dict[str, Any]) -> str:
    return f"{rate['value']:.0%} ({rate['low']:.0%} to {rate['high']:.0%})"


def _agreement(agreement: dict[str, dict[str, Any]]) -> str:
    lines = ["Agreement (Krippendorff's alpha: 1 is full, 0 is chance; below 0.67 the guidelines need work)"]
    for question, one in agreement.items():
        if one["alpha"] is None:
            said = "all answers are the same" if one["n"] else "no pair has two answers yet"
            lines.append(f"  {_NAMES[question]:<32} —     {said} (n = {one['n']})")
            continue
        interval = f"{one['low']:.2f} to {one['high']:.2f}" if one["low"] is not None else "too few for an interval"
        lines.append(f"  {_NAMES[question]:<32} {one['alpha']:.2f}  95 %: {interval} (n = {one['n']})")
    return "\n".join(lines)


def _wanted(wanted: dict[str, dict[str, int | None]]) -> str:
    if not wanted:
        return ""
    lines = ["Settled pairs still wanted before the gate can pass at all (a flawless model; a real one needs more)"]
    for line, one in wanted.items():
        more = one["settled_pairs_still_wanted"]
        if more is None:
            lines.append(f"  {line:<24} no number of pairs is enough: the bound allows no error at all")
        else:
            kind = {None: "", True: " answerable", False: " unanswerable"}[COUNTED[line]]  # type: ignore[index]
            lines.append(f"  {line:<24} {more} more{kind}" + (f" (for {one['test_pairs']} in test)" if more else ""))
    return "\n".join(lines)
