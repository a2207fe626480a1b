"""What a person or a source has reached already: the releases that hold something of it, and their runs and reports."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from curate.manifest import Manifest, read_manifest
from curate.pairs import Pair
from curate.release import load_release
from curate.reviewed import comes_from
from curate.splits import SPLITS
from curate.workspace import Workspace


def containing(workspace: Workspace, names: Collection[str]) -> dict[str, list[str]]:
    """The releases that hold something of these names, the runs trained on them, the reports on either."""

    def made(directory: Path) -> list[tuple[str, Manifest]]:
        found = sorted(path.parent for path in directory.glob("*/manifest.json") if path.parent.name[0] != ".")
        return [(path.name, read_manifest(path)) for path in found]

    tainted: dict[str, list[str]] = {"releases": [], "runs": [], "reports": []}
    hashes = set()
    for name, manifest in made(workspace.releases):
        release = load_release(workspace.releases / name)
        if any(_names(pair, names) for split in SPLITS for pair in release.pairs(split)):
            tainted["releases"].append(name)
            hashes.add(manifest.sha256)
    for kind, place in (("runs", workspace.runs), ("reports", workspace.reports)):
        for name, manifest in made(place):
            if any(one.sha256 in hashes for one in manifest.inputs.values()):
                tainted[kind].append(name)
                hashes.add(manifest.sha256)
    return tainted


def _names(pair: Pair, names: Collection[str]) -> bool:
    """Whether a released pair comes from one of the names, or was judged by one of them."""
    review = pair.meta.get("review")
    said = [*review.get("by", []), review.get("adjudicator")] if isinstance(review, dict) else []
    return comes_from(pair, names) or any(name in said for name in names)
