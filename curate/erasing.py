"""What a person or a source has reached already: the releases that hold something of it, and all made from them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from curate.manifest import Manifest, read_manifest
from curate.release import load_release
from curate.reviewed import bears
from curate.splits import SPLITS
from curate.workspace import Workspace, finished


def containing(workspace: Workspace, names: Collection[str]) -> dict[str, list[str]]:
    """The releases that hold something of these names; the runs, exports and reports made of those, directly or not."""

    def made(directory: Path) -> list[tuple[str, Manifest]]:
        return [(path.name, read_manifest(path)) for path in finished(directory)]

    tainted: dict[str, list[str]] = {"releases": [], "runs": [], "exports": [], "reports": []}
    hashes: set[str] = set()
    for name, manifest in made(workspace.releases):
        release = load_release(workspace.releases / name)
        if any(bears(pair, names) for split in SPLITS for pair in release.pairs(split)):
            tainted["releases"].append(name)
            hashes.add(manifest.sha256)
    places = {"runs": workspace.runs, "exports": workspace.exports, "reports": workspace.reports}
    left = [(kind, name, manifest) for kind, place in places.items() for name, manifest in made(place)]
    while reached := [one for one in left if any(given.sha256 in hashes for given in one[2].inputs.values())]:
        left = [one for one in left if one not in reached]  # a run may stand on an export of another run
        for kind, name, manifest in reached:
            tainted[kind].append(name)
            hashes.add(manifest.sha256)
    return {kind: sorted(names) for kind, names in tainted.items()}
