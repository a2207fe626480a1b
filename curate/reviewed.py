"""What of the working set a release takes: the pairs that people settled, without what is to be erased."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from curate.consensus import Settlement, reviewed_pair, version_of
from curate.errors import WorkspaceError
from curate.files import parse_json
from curate.pairs import Pair
from curate.pointer import same_json
from curate.review_log import ReviewState, read_terms
from curate.workspace import Workspace

AUDIT = "review.jsonl"  # of a release: who said what of each of its pairs

_WHY = {
    "open": ("not-reviewed", "fewer reviewers than agreed have judged it"),
    "returned": ("not-reviewed", "a reviewer's answer went back and has not been mended"),
    "to adjudicate": ("to-adjudicate", "reviewers disagree, and nobody has decided between them"),
    "rejected": ("rejected", "the reviewers reject the question"),
}


@dataclass(frozen=True)
class Taken:
    """What goes on to the release, what does not and why, and what the manifest says of the review (None: none)."""

    pairs: list[Pair]
    excluded: list[dict[str, str]] = field(default_factory=list)
    review: dict[str, Any] | None = None
    settlements: tuple[Settlement, ...] = ()


def take(pairs: Sequence[Pair], state: ReviewState, unreviewed: bool, erase: Collection[str] = ()) -> Taken:
    """The pairs a release may hold. `state` is that of the review without the people in `erase`.

    With `unreviewed` pairs that nobody has settled go in as they are; what reviewers reject or dispute does not.
    """
    excluded = [
        {"pair": pair.id, "rule": "erased", "message": "it comes from a source that was asked to be erased"}
        for pair in pairs
        if comes_from(pair, erase)
    ]
    gone = {one["pair"] for one in excluded}
    left = [pair for pair in pairs if pair.id not in gone]
    if state.terms is None:
        return Taken(left, excluded)
    taken, settlements = [], []
    for pair in left:
        one = state.pairs[pair.id]
        if one.settled and one.outcome != "rejected":
            taken.append(reviewed_pair(pair, one))
            settlements.append(one)
        elif unreviewed and one.outcome in ("open", "returned"):
            taken.append(pair)
        else:
            rule, message = _WHY[one.outcome]
            excluded.append({"pair": pair.id, "rule": rule, "message": message})
    review = {
        "overlap": state.terms.overlap,
        "unreviewed_pairs_taken": unreviewed,
        "outcomes": dict(sorted(state.counts().items())),
        "agreement": {question: alpha.document() for question, alpha in state.agreement.items()},
    }
    return Taken(taken, excluded, review, tuple(settlements))


def say_who(review: dict[str, Any] | None, held: Collection[str], settlements: Sequence[Settlement]) -> dict[str, Any]:
    """The manifest's `review`: how many of the pairs in the release each reviewer judged; {} where there was none."""
    if review is None:
        return {}
    inside = [one for one in settlements if one.pair in held]
    judged = Counter(name for one in inside for name in one.by)
    decided = Counter(one.adjudicator for one in inside if one.adjudicator)
    return {**review, "reviewers": dict(sorted(judged.items())), "adjudicators": dict(sorted(decided.items()))}


def audit_lines(held: Collection[str], settlements: Sequence[Settlement]) -> str:
    """The lines of `AUDIT`."""
    inside = sorted((one for one in settlements if one.pair in held), key=lambda one: one.pair)
    return "".join(json.dumps(one.document(), ensure_ascii=False) + "\n" for one in inside)


def audited_versions(text: str) -> dict[str, str]:
    """Pair -> the version that was reviewed (`version_of`), from the lines of a release's `review.jsonl`."""
    lines = [parse_json(line) for line in text.split("\n") if line]  # not splitlines(): a text may hold U+2028
    return {line["pair"]: line["version"] for line in lines}


def is_as_reviewed(pair: Pair, released: Pair, version: str) -> bool:
    """Whether a pair of the working set still is what a review made `released` of: what was judged, source and meta."""
    meta = [{key: value for key, value in one.meta.items() if key != "review"} for one in (pair, released)]
    return version_of(pair) == version and pair.source == released.source and same_json(*meta)


def comes_from(pair: Pair, names: Collection[str]) -> bool:
    """Whether a pair, or one of its passages, comes from a source or a document of one of the names."""
    sources = {pair.source, *(p.source for p in pair.passages), *(p.document for p in pair.passages)}
    return any(name in sources for name in names)


def bears(pair: Pair, names: Collection[str]) -> bool:
    """Whether a released pair comes from one of the names, or was judged by one of them."""
    review = pair.meta.get("review")
    review = review if isinstance(review, dict) else {}  # a log may have had a `review` of its own
    by = review.get("by")
    said = [*(by if isinstance(by, list) else []), review.get("adjudicator")]
    return comes_from(pair, names) or any(name in said for name in names)


def require_review(workspace: Workspace, unreviewed: bool) -> None:
    """Raise `WorkspaceError` where nobody has reviewed anything and it was not said that this is meant."""
    if not unreviewed and read_terms(workspace) is None:
        raise WorkspaceError(
            "nobody has reviewed these pairs",
            where=str(workspace.root.resolve()),
            fix="let people review them (tutelage curate serve, then push), or release them as they are with"
            " --unreviewed: the manifest and the dataset card will say so",
        )


def check_erasable(pairs: Sequence[Pair], reviewers: Collection[str], names: Collection[str]) -> None:
    """Raise `WorkspaceError` for a name that neither a source, a document nor a reviewer bears: likely a slip.

    `pairs` are those of the working set and of earlier releases: what was deleted since is erased, and no slip.
    """
    for name in names:
        if name not in reviewers and not any(bears(pair, [name]) for pair in pairs):
            raise WorkspaceError(
                f"--erase {name}: no reviewer, source or document of this workspace is called so",
                fix="spell it as in pairs.jsonl (source, passages[].source) or as the reviewer's name in Argilla",
            )
