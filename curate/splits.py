"""Splits without a leak: what must stay together, and which split each group goes to. Pure and deterministic.

Pairs are tied by keys: the documents and passages they rest on, their input, their cluster of near-duplicates, the
pair a twin was made from, and their conversation. Pairs that share a key, directly or through others, go to one split.
Splits of earlier releases are kept, so a test set stays a test set while the data grows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Literal, NamedTuple

from curate.compare import normalise
from curate.consistency import input_key
from curate.errors import WorkspaceError
from curate.files import sha256_text, sha256_value
from curate.pairs import Pair, Passage
from curate.support import supporting_passages

if TYPE_CHECKING:
    from curate.behaviour import Behaviour

Split = Literal["train", "validation", "calibration", "test"]
GroupBy = Literal["document", "passage"]
SPLITS: tuple[Split, ...] = ("train", "validation", "calibration", "test")

# The verdict rests on the test split: a one-sided 95 % bound of 0.98 on a rate needs some 130 pairs even without one
# failure, and a threshold at a risk of 5 % needs some 60 pairs for calibration. So test gets twice what is usual.
FRACTIONS: dict[Split, float] = {"train": 0.6, "validation": 0.1, "calibration": 0.1, "test": 0.2}


def parse_fractions(text: str) -> dict[Split, float]:
    """`0.6,0.1,0.1,0.2` as shares of train, validation, calibration and test.

    Raises `WorkspaceError` where these are not four numbers of 0 or more that add up to 1, or leave train or test out.
    """
    fix = "four numbers that add up to 1, for train, validation, calibration and test: --fractions 0.6,0.1,0.1,0.2"
    try:
        shares = [float(part) for part in text.split(",")]
    except ValueError:
        raise WorkspaceError(f"--fractions {text}: not numbers", fix=fix) from None
    if len(shares) != len(SPLITS) or not all(0 <= share <= 1 for share in shares) or abs(sum(shares) - 1) > 1e-6:
        raise WorkspaceError(f"--fractions {text}: not four shares of a whole", fix=fix)
    fractions = dict(zip(SPLITS, shares, strict=True))
    for split in ("train", "test"):
        if not fractions[split]:
            raise WorkspaceError(f"--fractions {text}: nothing is left for {split}", fix=fix)
    return fractions


class Member(NamedTuple):
    """A pair as the splitter sees it. `split` is set where an earlier release holds this very pair."""

    id: str
    keys: frozenset[str]
    answerable: bool
    split: Split | None = None
    twin: bool = False  # made of another pair: where one of the two has to go, this one does


class Anchor(NamedTuple):
    """What an earlier release put where: the keys of one of its pairs, still in the working set or not."""

    keys: frozenset[str]
    split: Split


@dataclass(frozen=True)
class Assignment:
    """Where each pair goes; `excluded` says for the others which splits they would tie together."""

    splits: dict[str, Split]
    excluded: dict[str, str]
    groups: int
    counts: dict[Split, Counter[bool]] = field(default_factory=dict)  # split -> answerable -> pairs


def _document(passage: Passage, group_by: GroupBy) -> str:
    """A passage's source document; for `passage` the part after the `#` too; its text's hash where it has no source."""
    named = passage.source if group_by == "passage" else passage.document
    return named or _text_hash(passage)


def _text_hash(passage: Passage) -> str:
    return f"text:{sha256_text(' '.join(passage.text.split()))}"


def tie(
    pairs: Sequence[Pair], behaviour: Behaviour, clusters: Iterable[Sequence[int]], group_by: GroupBy = "document"
) -> list[frozenset[str]]:
    """The keys of each pair, in order. `clusters` holds the indices of near-duplicates (`curate.duplicates`).

    Beside its documents (of its supporting passages, or of its first one where none is known), a pair is tied by the
    text of its supporting passages, since one text may stand in two documents, and by its input, since two pairs may
    ask the same and cite different passages. A later turn of a conversation has the answer of the earlier one in its
    prompt, so that the two belong together.
    """
    keys = [_own_keys(pair, behaviour, group_by) for pair in pairs]
    turns = [_turns(pair) for pair in pairs]
    asked = {one[-1] for pair, one in zip(pairs, turns, strict=True) if _tells(pair, behaviour)}
    told = asked & {turn for one in turns for turn in one[:-1]}
    for own, one in zip(keys, turns, strict=True):
        own |= {f"turn:{turn}" for turn in told.intersection(one)}
    for cluster in clusters:
        name = "dup:" + min(pairs[index].id for index in cluster)
        for index in cluster:
            keys[index].add(name)
    return [frozenset(one) for one in keys]


def _own_keys(pair: Pair, behaviour: Behaviour, group_by: GroupBy) -> set[str]:
    keys = {f"id:{pair.id}", f"same:{sha256_value(input_key(pair))}"}
    supporting = supporting_passages(pair, behaviour)
    keys |= {f"doc:{_document(passage, group_by)}" for passage in supporting or pair.passages[:1]}
    keys |= {_text_hash(passage) for passage in supporting}
    twin = pair.meta.get("twin_of")
    return keys | {f"id:{twin}"} if isinstance(twin, str) and twin else keys


def _turns(pair: Pair) -> list[str]:
    """What the user has said up to each of their turns, hashed; the pair's own question is the last."""
    said = [normalise(one) for one in (*(t.content for t in pair.history if t.role == "user"), pair.question)]
    return [sha256_value(said[: end + 1]) for end in range(len(said))]


def _tells(pair: Pair, behaviour: Behaviour) -> bool:
    """Whether a later turn would hold an answer of this one: a greeting has none, and would tie all that begin with it.

    A retriever finds passages for a greeting too; its output cites none of them.
    """
    if not pair.passages or not pair.answerable:
        return False
    return behaviour.citations_of(pair.output) != [] or bool(supporting_passages(pair, behaviour))


def assign(
    members: Sequence[Member], anchors: Sequence[Anchor] = (), fractions: Mapping[Split, float] = FRACTIONS
) -> Assignment:
    """Put every member into a split; the same members give the same splits in any order and on any machine.

    Members an earlier release holds keep their split. What is tied to one earlier split follows it; a pair that would
    tie two together is excluded. The rest goes, group by group, where most is missing. Raises `WorkspaceError` where
    there are fewer groups than splits.
    """
    wanted = [split for split in SPLITS if fractions[split] > 0]
    members = sorted(members, key=lambda member: (sha256_text(member.id), member.id))
    owners = _owners([*anchors, *(Anchor(m.keys, m.split) for m in members if m.split)])
    splits: dict[str, Split] = {member.id: member.split for member in members if member.split}
    free, excluded = _follow([member for member in members if not member.split], owners, splits)
    groups = sorted(_components(free), key=lambda group: (-len(group), sha256_text(group[0].id)))
    counts: dict[Split, Counter[bool]] = {split: Counter() for split in SPLITS}
    for member in members:
        if member.id in splits:
            counts[splits[member.id]][member.answerable] += 1
    _need_groups(groups, counts, wanted)
    placed = [member for member in members if member.id not in excluded]
    totals = Counter(member.answerable for member in placed)
    targets = {split: {kind: totals[kind] * fractions[split] for kind in totals} for split in wanted}
    chosen, counts = _place_best(groups, targets, counts, totals)
    for group, split in zip(groups, chosen, strict=True):
        splits |= dict.fromkeys((member.id for member in group), split)
    return Assignment(splits, excluded, len(_components(placed)), counts)


def _owners(anchors: Iterable[Anchor]) -> dict[str, set[Split]]:
    """Key -> the earlier splits that hold it: of several, where they were made by an older rule.

    A turn that an older rule put into several owns nothing: all that begins with the same words would be left out.
    """
    owners: dict[str, set[Split]] = {}
    for anchor in anchors:
        for key in anchor.keys:
            owners.setdefault(key, set()).add(anchor.split)
    return {key: held for key, held in owners.items() if len(held) == 1 or not key.startswith("turn:")}


def _follow(
    members: Sequence[Member], owners: dict[str, set[Split]], splits: dict[str, Split]
) -> tuple[list[Member], dict[str, str]]:
    """Pull members after the earlier splits their keys belong to; what follows owns its keys in turn.

    Step by step from the earlier splits, and a twin only once nothing else is left to follow. Fills `owners` and
    `splits`. Returns the members that nothing ties to an earlier split, and the excluded ones.
    """
    by_id = {member.id: member for member in members}
    holders: dict[str, list[Member]] = {}
    for member in members:
        for key in member.keys:
            holders.setdefault(key, []).append(member)
    excluded: dict[str, str] = {}
    queue = [_priority(member, 0) for member in members if any(key in owners for key in member.keys)]
    heapify(queue)
    while queue:
        _, step, _, name = heappop(queue)
        if name in splits or name in excluded:
            continue
        keys = by_id[name].keys
        found = set().union(*(owners[key] for key in keys if key in owners))
        if len(found) > 1:
            ties = sorted({spoken(key) for key in keys if key in owners})
            excluded[name] = f"it would tie {' and '.join(sorted(found))} together, by {', '.join(ties)}"
            continue
        splits[name] = next(iter(found))
        for key in keys - owners.keys():
            owners[key] = found
            for member in holders[key]:
                heappush(queue, _priority(member, step + 1))
    return [m for m in members if m.id not in splits and m.id not in excluded], excluded


def _priority(member: Member, step: int) -> tuple[bool, int, str, str]:
    """Who follows first: twins last, then the fewest steps from an earlier split, then by hash."""
    return member.twin, step, sha256_text(member.id), member.id


def spoken(key: str) -> str:
    """What ties two pairs, in words."""
    kind, _, name = key.partition(":")
    whole = {
        "text": "the text of a passage",
        "same": "the same question over the same passages",
        "turn": "a turn of one conversation",
    }
    if kind in whole:
        return whole[kind]
    return f"{ {'doc': 'the document', 'dup': 'near-duplicates of', 'id': 'the pair'}[kind] } {name}"


def _components(members: Sequence[Member]) -> list[list[Member]]:
    """Members tied by keys, directly or through others; order within follows that of `members`."""
    parent: dict[str, str] = {}

    def find(key: str) -> str:
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for member in members:
        first, *others = member.keys
        parent.setdefault(first, first)
        for key in others:
            parent[find(parent.setdefault(key, key))] = find(first)
    found: dict[str, list[Member]] = {}
    for member in members:
        found.setdefault(find(next(iter(member.keys))), []).append(member)
    return list(found.values())


def _need_groups(groups: Sequence[object], counts: Mapping[Split, Counter[bool]], wanted: Sequence[Split]) -> None:
    empty = [split for split in wanted if not counts[split]]
    if len(groups) >= len(empty):
        return
    if len(empty) < len(wanted):
        raise WorkspaceError(
            f"nothing is left for {' and '.join(empty)}: the other pairs keep the splits of earlier releases",
            fix="let people settle more pairs, or add some from other documents; or split anew with --fresh, where no"
            " model has been trained on the earlier release",
        )
    what = "all pairs hang together" if len(groups) == 1 else f"the pairs make only {len(groups)} groups"
    ties = "shared documents, texts or inputs, near-duplicates, twins and conversations"
    raise WorkspaceError(
        f"{what} (by {ties}), and {len(empty)} splits need one each",
        fix="add pairs from other documents; or `--group-by passage`, where two passages of one document may stand in "
        "two splits; or do without a split: `--fractions 0.7,0,0,0.3`",
    )


Targets = Mapping[Split, Mapping[bool, float]]


def _place_best(
    groups: Sequence[list[Member]], targets: Targets, counts: Mapping[Split, Counter[bool]], totals: Counter[bool]
) -> tuple[list[Split], dict[Split, Counter[bool]]]:
    """The split of each group and what each split then holds: of two ways, the one with the smaller chi-square.

    Weighed by pairs, sizes come out best, but the few of a rare kind may all end in one split; as shares they do not.
    """
    tries = []
    for power in (0, 2):
        have = {split: count.copy() for split, count in counts.items()}
        chosen = list(_place(groups, targets, have, {kind: 1 / totals[kind] ** power for kind in totals}))
        off = sum((have[split][kind] - want) ** 2 / want for split in targets for kind, want in targets[split].items())
        tries.append((off, chosen, have))
    return min(tries, key=lambda one: one[0])[1:]


def _place(
    groups: Sequence[list[Member]], targets: Targets, counts: dict[Split, Counter[bool]], weights: Mapping[bool, float]
) -> Iterator[Split]:
    """Large groups first, each where most of its kinds of pairs is missing; fills `counts`.

    No wanted split stays without answerable (or unanswerable) pairs, or empty, while there are groups left to give it
    some.
    """
    left: Counter[bool | None] = Counter()  # kind (None: any) -> groups that hold it, this one and those to come
    kinds = [{member.answerable for member in group} for group in groups]
    for found in kinds:
        left.update([None, *found])
    for group, found in zip(groups, kinds, strict=True):
        sizes = Counter(member.answerable for member in group)
        allowed = list(targets)
        for kind in (None, *sorted(found)):
            lacking = [s for s in targets if not (counts[s].total() if kind is None else counts[s][kind])]
            if lacking and left[kind] <= len(lacking):
                allowed = [split for split in allowed if split in lacking] or allowed
        missing = {s: {kind: targets[s][kind] - counts[s][kind] for kind in found} for s in allowed}
        split = max(allowed, key=lambda s: sum(weights[kind] * sizes[kind] * missing[s][kind] for kind in found))
        counts[split].update(sizes)
        left.subtract([None, *found])
        yield split


def distance(assignment: Assignment, fractions: Mapping[Split, float]) -> list[str]:
    """How far the splits are from the wanted fractions, a line for each one that is off by a quarter or more."""
    total = sum(count.total() for count in assignment.counts.values())
    lines = []
    for split in SPLITS:
        have, want = assignment.counts[split].total(), fractions[split] * total
        if abs(have - want) > max(2, 0.25 * want):
            lines.append(f"{split} has {have} pairs, {have / total:.0%}, where {fractions[split]:.0%} was wanted")
    return lines
