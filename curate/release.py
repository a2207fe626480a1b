"""Releases: the working set split, frozen, hashed and described, so that a number can always be traced to its data."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.card import dataset_card
from curate.draft import SCHEMA, Draft, frozen, frozen_behaviour, make_draft, planned_splits
from curate.errors import TutelageError, WorkspaceError
from curate.files import atomic_directory, sha256_file, write_text
from curate.manifest import Input, Manifest, read_manifest, write_manifest
from curate.pairs import Pair, read_pairs
from curate.parquet import read_parquet, write_parquet
from curate.review_log import review_state
from curate.reviewed import AUDIT, Taken, audit_lines, check_erasable, say_who, take
from curate.splits import FRACTIONS, SPLITS, GroupBy, Split
from curate.workspace import Workspace, finished, is_name, next_name

if TYPE_CHECKING:
    from curate.behaviour import Behaviour
    from curate.findings import Finding


@dataclass(frozen=True)
class Release:
    """A frozen dataset on disk."""

    directory: Path
    manifest: Manifest
    behaviour: Behaviour

    def pairs(self, split: str) -> list[Pair]:
        """The pairs of `train`, `validation`, `calibration` or `test`, in the order of the file."""
        if split not in SPLITS:
            raise ValueError(f"there is no split {split!r}; there are {', '.join(SPLITS)}")
        return read_parquet(self.directory / f"{split}.parquet")


@dataclass(frozen=True)
class Options:
    """How to release. `fresh` splits anew instead of keeping the earlier splits; `unreviewed` takes pairs nobody has
    settled too; `erase` names sources, documents and reviewers of whom nothing goes in."""

    name: str | None = None
    fractions: Mapping[Split, float] | None = None
    group_by: GroupBy = "document"
    fresh: bool = False
    unreviewed: bool = False
    erase: tuple[str, ...] = ()


@dataclass(frozen=True)
class Released:
    """A release that was made, or that stood there already with the same content."""

    release: Release
    created: bool


def load_release(directory: Path) -> Release:
    """The release in a directory; raises `WorkspaceError` or `BehaviourError` where it is none or is damaged."""
    from curate.behaviour import load_behaviour

    manifest = read_manifest(directory, "release")
    return Release(directory, manifest, load_behaviour(directory / "behaviour.yaml"))


def make_release(workspace: Workspace, options: Options | None = None) -> Released:
    """Split and freeze the working set; nothing is written where a release with this content stands there already.

    Raises `WorkspaceError` where too little is left to split, or the name is taken by other content.
    """
    from curate.behaviour import load_behaviour

    options = options or Options()
    _check_name(options.name)
    with workspace.lock():
        written = load_behaviour(workspace.behaviour)
        behaviour = frozen_behaviour(written)
        taken = _take(workspace, written, options)
        if not taken.pairs and taken.excluded:
            raise _nothing_settled(taken)
        pairs = [frozen(pair, behaviour) for pair in taken.pairs]
        past = [] if options.fresh else earlier_releases(workspace)
        _check_grouping(past, options.group_by)
        draft = make_draft(pairs, behaviour, _held(past), options.fractions or FRACTIONS, options.group_by)
        held = {pair.id for split in SPLITS for pair in draft.splits[split]}
        draft.details["previous"] = past[0].manifest.name if past else None
        draft.details["reviewed"] = sum(one.pair in held for one in taken.settlements)
        draft.details["unreviewed"] = len(held) - draft.details["reviewed"]
        draft.details["review"] = say_who(taken.review, held, taken.settlements)
        draft.details["excluded"] = sorted(
            [*draft.details["excluded"], *taken.excluded], key=lambda one: (one["rule"], one["pair"])
        )
        standing = _standing(workspace, options, draft.details["data_sha256"])
        if standing:
            return Released(standing, created=False)
        name = options.name or next_name(workspace.releases, "r")
        audit = audit_lines(held, taken.settlements)
        return Released(_freeze(workspace, name, draft, past, audit), created=True)


def _take(workspace: Workspace, behaviour: Behaviour, options: Options) -> Taken:
    """The pairs people settled where there is a review, all of them where there is none."""
    pairs = read_pairs(workspace.pairs)
    if options.erase:
        everyone = {one.name for one in review_state(workspace, pairs, behaviour).reviewers}
        released = [pair for pair, _ in _held([load_release(path) for path in finished(workspace.releases)])]
        check_erasable([*pairs, *released], everyone, options.erase)
    state = review_state(workspace, pairs, behaviour, without=options.erase)
    return take(pairs, state, options.unreviewed, options.erase)


def earlier_releases(workspace: Workspace) -> list[Release]:
    """The newest release and those it was made after, newest first; [] where there is none."""
    made = {path.name: read_manifest(path, "release") for path in finished(workspace.releases)}
    before = {manifest.inputs["previous"].sha256 for manifest in made.values() if "previous" in manifest.inputs}
    heads = [name for name, manifest in made.items() if manifest.sha256 not in before]
    if not heads:
        return []
    by_hash = {manifest.sha256: name for name, manifest in made.items()}
    # Two heads: someone split anew, or releases were copied together. The clock decides only then.
    age = {name: (workspace.releases / name / "manifest.json").stat().st_mtime_ns for name in heads}
    name: str | None = max(heads, key=lambda head: (age[head], head))
    chain = []
    while name is not None:
        chain.append(load_release(workspace.releases / name))
        previous = made.pop(name).inputs.get("previous")
        found = by_hash.get(previous.sha256) if previous else None
        name = found if found in made else None
    return chain


def _check_grouping(past: Sequence[Release], group_by: GroupBy) -> None:
    """Documents whose passages an earlier release put into two splits cannot be kept together any more."""
    if group_by == "document" and any(release.manifest.details.get("group_by") == "passage" for release in past):
        raise WorkspaceError(
            f"the earlier release {past[0].manifest.name} was grouped by passage, so its documents stand in two splits",
            fix="release with --group-by passage too, or with --fresh, which splits anew",
        )


def _nothing_settled(taken: Taken) -> WorkspaceError:
    counts = Counter(one["rule"] for one in taken.excluded)
    said = ", ".join(f"{rule} {count:,}" for rule, count in sorted(counts.items()))
    fix = "add pairs from other sources"
    if counts.keys() - {"erased"}:
        fix = "tutelage curate pull, then status, which says who still has what to judge"
    if counts["not-reviewed"]:
        fix += "; or take the pairs as they are: --unreviewed"
    return WorkspaceError(f"none of the {len(taken.excluded):,} pairs may be released ({said})", fix=fix)


def _held(past: Sequence[Release]) -> list[tuple[Pair, Split]]:
    return [(pair, split) for release in past for split in SPLITS for pair in release.pairs(split)]


def next_splits(
    workspace: Workspace, pairs: Sequence[Pair], behaviour: Behaviour, findings: Sequence[Finding]
) -> dict[str, Split]:
    """Pair -> the split the next release would put it into, split as the last one was; see `planned_splits`."""
    try:
        past = earlier_releases(workspace)
        held = _held(past)
    except TutelageError:  # a damaged release: the split is only a label here
        return {}
    details = past[0].manifest.details if past else {}
    fractions, group_by = details.get("fractions", FRACTIONS), details.get("group_by", "document")
    plain = [frozen(pair, behaviour) for pair in pairs]
    return planned_splits(plain, behaviour, findings, held, fractions, group_by)


def _freeze(workspace: Workspace, name: str, draft: Draft, past: Sequence[Release], audit: str) -> Release:
    directory = workspace.releases / name
    with atomic_directory(directory) as temporary:
        for split in SPLITS:
            write_parquet(temporary / f"{split}.parquet", draft.splits[split])
        schema = _freeze_behaviour(workspace, temporary)
        if audit:
            write_text(temporary / AUDIT, audit)
        write_text(temporary / "README.md", dataset_card(draft.behaviour.name, draft.details))
        inputs = {
            "pairs": Input(path="../../pairs.jsonl", sha256=sha256_file(workspace.pairs)),
            "behaviour": Input(path="../../behaviour.yaml", sha256=sha256_file(workspace.behaviour)),
        }
        if schema:
            inputs["schema"] = Input(path=f"../../{schema}", sha256=sha256_file(workspace.root / schema))
        if past:
            inputs["previous"] = Input(path=f"../{past[0].directory.name}", sha256=past[0].manifest.sha256)
        write_manifest(temporary, "release", name, inputs, draft.details)
    return load_release(directory)


def _freeze_behaviour(workspace: Workspace, directory: Path) -> str | None:
    """Copy the behaviour and its schema; the schema's path in the workspace, None where there is none."""
    import yaml

    text = workspace.behaviour.read_text(encoding="utf-8")
    data = yaml.safe_load(text)
    named: str | None = data["output"].get("schema")
    if named:
        shutil.copyfile(workspace.root / named, directory / SCHEMA)
        if named != SCHEMA:
            data["output"]["schema"] = SCHEMA
            text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    write_text(directory / "behaviour.yaml", text)
    return named


def _standing(workspace: Workspace, options: Options, content: str) -> Release | None:
    """The release that has this content already; raises `WorkspaceError` where the name wanted has another."""
    if options.name:
        directory = workspace.releases / options.name
        if not directory.exists():
            return None
        if read_manifest(directory, "release").details.get("data_sha256") == content:
            return load_release(directory)
        raise WorkspaceError(
            "this release exists and its content differs from what would be released now",
            where=str(directory),
            fix="choose another --name, or leave it out; a release is never changed",
        )
    # The newest alone, since that is what later commands take: an older one with this content is released anew.
    if finished(workspace.releases):
        newest = load_release(workspace.find("release", None))
        return newest if newest.manifest.details.get("data_sha256") == content else None
    return None


def _check_name(name: str | None) -> None:
    if name is not None and not is_name(name):
        raise WorkspaceError(
            f"{name!r} cannot be a release's name", fix="letters, digits, dots, dashes and underscores, e.g. r1"
        )


def release_document(made: Released) -> dict[str, Any]:
    """What `--json` prints of a release."""
    manifest = made.release.manifest
    return {
        "name": manifest.name,
        "directory": str(made.release.directory),
        "created": made.created,
        "sha256": manifest.sha256,
        **manifest.details,
    }


def describe(made: Released) -> str:
    """What people read about a release."""
    manifest = made.release.manifest
    details = manifest.details
    total = sum(one["pairs"] for one in details["splits"].values())
    if made.created:
        lines = [f"Release {manifest.name}: {total:,} pairs in {details['groups']:,} groups"]
    else:
        lines = [f"Release {manifest.name} holds exactly this already; nothing was written"]
    for split, one in details["splits"].items():
        lines.append(f"  {split:<12}{one['pairs']:>8,}  {one['unanswerable']:,} of them unanswerable")
    if details["excluded"]:
        counts = Counter(one["rule"] for one in details["excluded"])
        said = ", ".join(f"{rule} {count:,}" for rule, count in sorted(counts.items()))
        lines.append(f"  left out {len(details['excluded']):>11,}  {said} (each named in manifest.json)")
    return "\n".join([*lines, f"  content     {details['data_sha256']}", f"  {made.release.directory}"])
