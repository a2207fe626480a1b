"""What the next release would hold: which pairs may go in, which split each goes to, and what there is to say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.consistency import input_key, near_duplicate_pairs
from curate.errors import WorkspaceError
from curate.files import sha256_text, sha256_value
from curate.pairs import Pair
from curate.parquet import encodable, json_text
from curate.power import COUNTED, pairs_to_show
from curate.splits import SPLITS, Anchor, Assignment, GroupBy, Member, Split, assign, distance, tie

if TYPE_CHECKING:
    from curate.behaviour import Behaviour, Bound
    from curate.findings import Finding

SCHEMA = "schema.json"
Excluded = dict[str, str]  # pair, rule, message


def frozen(pair: Pair, behaviour: Behaviour) -> Pair:
    """The pair as a release holds it: whether it is answerable is said, not left to the output."""
    return pair.model_copy(update={"answerable": behaviour.is_answerable(pair)})


def frozen_behaviour(behaviour: Behaviour) -> Behaviour:
    """The behaviour as a release holds it: its schema beside it, under one name."""
    if not behaviour.output.schema_file:
        return behaviour
    return behaviour.model_copy(update={"output": behaviour.output.model_copy(update={"schema_file": SCHEMA})})


@dataclass(frozen=True)
class Draft:
    """A release that is not written yet."""

    behaviour: Behaviour
    splits: dict[Split, list[Pair]]
    details: dict[str, Any]


def make_draft(
    pairs: Sequence[Pair],
    behaviour: Behaviour,
    old: Sequence[tuple[Pair, Split]],
    fractions: Mapping[Split, float],
    group_by: GroupBy,
) -> Draft:
    """Split what may go in. `old` holds the pairs of earlier releases, newest release first.

    Raises `WorkspaceError` where nothing, or too little to split, is left.
    """
    kept, excluded, aliases = _admit(pairs, behaviour, {pair.id for pair, _ in old}, None)
    if not kept:
        raise WorkspaceError(_nothing_left(pairs, excluded), fix="tutelage curate check")
    assignment = _assign(kept, old, aliases, behaviour, fractions, group_by)
    excluded += [{"pair": name, "rule": "split-bridge", "message": why} for name, why in assignment.excluded.items()]
    splits: dict[Split, list[Pair]] = {split: [] for split in SPLITS}
    for pair in sorted(kept, key=lambda pair: pair.id):
        if pair.id in assignment.splits:
            splits[assignment.splits[pair.id]].append(pair)
    details = {
        "data_sha256": data_hash(behaviour, splits),
        "splits": {s: _counts(assignment, s) for s in SPLITS},
        "groups": assignment.groups,
        "group_by": group_by,
        "fractions": dict(fractions),
        "sources": _sources([pair for held in splits.values() for pair in held]),
        "excluded": sorted(excluded, key=lambda one: (one["rule"], one["pair"])),
        "warnings": [*distance(assignment, fractions), *_too_few(behaviour, assignment)],
    }
    return Draft(behaviour, splits, details)


def planned_splits(
    pairs: Sequence[Pair],
    behaviour: Behaviour,
    findings: Sequence[Finding],
    old: Sequence[tuple[Pair, Split]],
    fractions: Mapping[Split, float],
    group_by: GroupBy,
) -> dict[str, Split]:
    """Pair -> the split it went to, were all of them released now; {} where they are too few to split.

    `findings` are those of `check_pairs`, the rest as for `make_draft`. Pairs that no release takes are not in it.
    """
    kept, _, aliases = _admit(pairs, behaviour, {pair.id for pair, _ in old}, findings)
    try:
        return _assign(kept, old, aliases, behaviour, fractions, group_by).splits if kept else {}
    except WorkspaceError:
        return {}


def data_hash(behaviour: Behaviour, splits: Mapping[Split, Sequence[Pair]]) -> str:
    """What a release says, whatever wrote it: the behaviour, and each split's pairs in any order.

    The spelling of an output counts too, since the order of its keys is what a model learns.
    """
    hashes = {
        split: sorted(sha256_text(pair.content_hash() + json_text(pair.output)) for pair in splits[split])
        for split in SPLITS
    }
    return sha256_value({"behaviour": behaviour.digest(), "splits": hashes})


def _admit(
    pairs: Sequence[Pair], behaviour: Behaviour, released: set[str], findings: Sequence[Finding] | None
) -> tuple[list[Pair], list[Excluded], dict[str, list[str]]]:
    """The pairs that may go in, those that may not with the rule, and kept id -> ids of its exact duplicates."""
    excluded: list[Excluded] = []
    kept: dict[str, Pair] = {}
    aliases: dict[str, list[str]] = {}
    for pair in sorted(pairs, key=lambda pair: (pair.id not in released, pair.id)):
        if not encodable(pair):
            message = "a text holds half of a surrogate pair, which no file in UTF-8 can hold"
            excluded.append({"pair": pair.id, "rule": "not-unicode", "message": message})
            continue
        key = sha256_value(pair.model_dump(mode="json", include={"question", "history", "passages", "output"}))
        first = kept.setdefault(key, pair)
        if first is not pair:
            aliases.setdefault(first.id, []).append(pair.id)
            message = f"the same question, passages and output as {first.id}"
            excluded.append({"pair": pair.id, "rule": "exact-duplicate", "message": message})
    wrong = _wrong(list(kept.values()), behaviour, findings)
    return [pair for pair in kept.values() if pair.id not in wrong], [*excluded, *wrong.values()], aliases


def _wrong(pairs: Sequence[Pair], behaviour: Behaviour, findings: Sequence[Finding] | None) -> dict[str, Excluded]:
    """Pair -> the first error found in it. Of a contradiction all sides are wrong: nobody has said which is right."""
    from curate.checks import check_pairs

    wrong: dict[str, Excluded] = {}
    disputed: set[object] = set()
    by_id = {pair.id: pair for pair in pairs}
    for finding in check_pairs(pairs, behaviour) if findings is None else findings:
        if finding.level == "error" and finding.pair is not None and finding.pair in by_id:
            one = {"pair": finding.pair, "rule": finding.rule, "message": finding.message}
            wrong.setdefault(finding.pair, one)
            if finding.rule == "contradiction":
                disputed.add(input_key(by_id[finding.pair]))
    for pair in pairs if disputed else ():
        if pair.id not in wrong and input_key(pair) in disputed:
            message = "another pair wants another output for the same input"
            wrong[pair.id] = {"pair": pair.id, "rule": "contradiction", "message": message}
    return wrong


def _assign(
    kept: Sequence[Pair],
    old: Sequence[tuple[Pair, Split]],
    aliases: Mapping[str, list[str]],
    behaviour: Behaviour,
    fractions: Mapping[Split, float],
    group_by: GroupBy,
) -> Assignment:
    """Pairs an earlier release holds unchanged keep their split; a changed one goes where its ties are."""
    held = {pair.content_hash(): (pair, split) for pair, split in reversed(old)}  # of two, the newer release is right
    same = [held.pop(pair.content_hash(), (pair, None))[1] if held else None for pair in kept]
    everything = [*kept, *(pair for pair, _ in held.values())]  # what is gone still ties: a model was trained on it
    keys = tie(everything, behaviour, near_duplicate_pairs(everything, behaviour), group_by)
    anchors = [Anchor(one, split) for one, (_, split) in zip(keys[len(kept) :], held.values(), strict=True)]
    members = []
    for pair, one, split in zip(kept, keys, same, strict=False):
        tied = one | {f"id:{name}" for name in aliases.get(pair.id, ())}
        members.append(Member(pair.id, tied, bool(pair.answerable), split, bool(pair.meta.get("twin_of"))))
    return assign(members, anchors, fractions)


def _counts(assignment: Assignment, split: Split) -> dict[str, int]:
    count = assignment.counts[split]
    return {"pairs": count.total(), "answerable": count[True], "unanswerable": count[False]}


def _sources(pairs: Sequence[Pair]) -> dict[str, int]:
    counts = Counter(Path(pair.source).name if pair.source else "not said" for pair in pairs)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _nothing_left(pairs: Sequence[Pair], excluded: Sequence[Excluded]) -> str:
    if not pairs:
        return "there is no pair to release; at least four are needed, and some hundreds for a verdict"
    counts = Counter(one["rule"] for one in excluded)
    said = ", ".join(f"{rule} {count}" for rule, count in sorted(counts.items()))
    return f"none of the {len(pairs)} pairs may be released ({said}); at least four are needed"


def _too_few(behaviour: Behaviour, assignment: Assignment) -> list[str]:
    """Gate lines that the test split is too small to show, even without one failure."""
    lines = []
    for line, kind in COUNTED.items():
        bound = behaviour.gate.get(line)
        if bound is None:
            continue
        need = pairs_to_show(bound)
        if need is None:
            lines.append(f"no number of pairs can show {line} {_spoken(bound)}; ask for a little less in the gate")
            continue
        have = assignment.counts["test"].total() if kind is None else assignment.counts["test"][kind]
        if have < need:
            what = {None: "", True: "answerable ", False: "unanswerable "}[kind] + ("pair" if have == 1 else "pairs")
            lines.append(f"test has {have} {what}; to show {line} {_spoken(bound)} takes {need} even without a failure")
    return lines


def _spoken(bound: Bound) -> str:
    """A bound as people write it."""
    return f"≥ {bound.at_least:g}" if bound.at_least is not None else f"≤ {bound.at_most:g}"
