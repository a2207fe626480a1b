"""Import: files → pairs, merged by id into the workspace at once or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curate.behaviour import Behaviour
from curate.console import progress
from curate.errors import PairError
from curate.files import canonical_json
from curate.mapping import Plan, sources_of, to_pair, unfound
from curate.pairs import Pair, read_pairs, write_pairs
from curate.records import Record, Unreadable
from curate.sources import read_records
from curate.workspace import Workspace


@dataclass
class Reading:
    """What came of some files. `repeated` are the ids that stood there more than once with other content."""

    pairs: dict[str, Pair] = field(default_factory=dict)
    unreadable: list[Unreadable] = field(default_factory=list)
    repeated: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Merge:
    """What a merge did, by the ids of the pairs."""

    added: list[str]
    updated: list[str]
    unchanged: list[str]
    total: int

    def document(self, reading: Reading) -> dict[str, Any]:
        """What `--json` prints of an import."""
        return {
            "added": len(self.added),
            "updated": len(self.updated),
            "unchanged": len(self.unchanged),
            "total": self.total,
            "repeated": sorted(reading.repeated),
            "unreadable": [one._asdict() for one in reading.unreadable],
        }


def read_files(paths: Sequence[Path], plan: Plan, behaviour: Behaviour) -> Reading:
    """Every pair of the files; of two records with one id the later counts.

    Raises `PairError` where a file is not there, where a mapped field is in no record at all, and where abstentions
    are asked for that the behaviour does not spell out.
    """
    if plan.abstain_unanswerable and behaviour.abstain is None:
        fix = "say at abstain.where and abstain.output how it says that it does not know"
        raise PairError("--abstain-unanswerable: the behaviour has no abstention", where="behaviour.yaml", fix=fix)
    for path in paths:
        if not path.exists():
            raise PairError("there is no such file; nothing was imported", where=str(path))
    reading = Reading()
    still, names = sources_of(plan), dict[str, None]()
    seen = False
    for one in _all_records(paths):
        if isinstance(one, Record):
            seen = True
            still = unfound(one, still)
            if still:
                names |= dict.fromkeys(one.data)
        _take(to_pair(one, plan, behaviour) if isinstance(one, Record) else one, reading)
    if seen and still:
        missing = ", ".join(sorted(still))
        fix = f"map one of the fields there are: {', '.join(map(str, names))}"
        raise PairError(f"no record has {missing}; nothing was imported", where=str(paths[0]), fix=fix)
    return reading


def _all_records(paths: Iterable[Path]) -> Iterable[Record | Unreadable]:
    for path in paths:
        empty = True
        for one in progress(read_records(path), f"reading {path.name}"):
            empty = False
            yield one
        if empty:
            yield Unreadable(str(path), None, "there is no record in it")


def _take(one: Pair | Unreadable, reading: Reading) -> None:
    if isinstance(one, Unreadable):
        reading.unreadable.append(one)
        return
    before = reading.pairs.get(one.id)
    if before is not None and not _same(before, one):
        reading.repeated.add(one.id)
    reading.pairs[one.id] = one


def merge(workspace: Workspace, pairs: Iterable[Pair]) -> Merge:
    """Merge pairs by id into the workspace: new ones at the end, changed ones in their place.

    The file is rewritten whole under the workspace's lock, and not touched where nothing changes. Raises `PairError`
    where `pairs.jsonl` itself is damaged; it is then left as it is.
    """
    with workspace.lock():
        return merge_locked(workspace, pairs)


def merge_locked(workspace: Workspace, pairs: Iterable[Pair]) -> Merge:
    """`merge` for a caller that holds the workspace's lock."""
    kept = {pair.id: pair for pair in existing_pairs(workspace)}
    added: list[str] = []
    updated: list[str] = []
    unchanged: list[str] = []
    for pair in pairs:
        before = kept.get(pair.id)
        group = added if before is None else unchanged if _same(before, pair) else updated
        group.append(pair.id)
        kept[pair.id] = pair
    if added or updated:
        write_pairs(workspace.pairs, kept.values())
    return Merge(added, updated, unchanged, len(kept))


def existing_pairs(workspace: Workspace) -> list[Pair]:
    """The workspace's pairs, none where there is no file yet; raises `PairError` that names the damaged line."""
    if not workspace.pairs.exists():
        return []
    try:
        return read_pairs(workspace.pairs)
    except PairError as error:
        fix = error.fix or "mend or remove that line; the file was not touched"
        raise PairError(error.what, where=error.where, fix=fix) from error


def _same(left: Pair, right: Pair) -> bool:
    # Not ==, to which 1, 1.0 and true are one value.
    return canonical_json(left.record()) == canonical_json(right.record())
