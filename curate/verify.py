"""Verify: walk a report back to its run, its release and its pairs, and name everything that differs on the way."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curate.errors import TutelageError
from curate.files import sha256_file, sha256_tree
from curate.findings import Finding
from curate.findings import document as findings_document
from curate.manifest import NAME, Input, Manifest, read_manifest
from curate.pairs import Pair, iterate_pairs
from curate.splits import SPLITS

PLACES = ("releases", "runs", "reports", "exports")
CHECKPOINTS = "checkpoints"  # of runs: they come and go, and what counts of them is the adapter
_HUB = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?(@\S+)?")


@dataclass
class Node:
    """One thing in the chain and what it was made from."""

    role: str
    path: Path
    said: str = ""
    holds: bool = True
    made_from: list[Node] = field(default_factory=list)


@dataclass
class Verification:
    """What a walk found. `notes` are no faults: pairs that came later, a model on a hub."""

    chain: Node
    findings: list[Finding]
    notes: list[str]


def verify(directory: Path, workspace: Path | None = None) -> Verification:
    """Check a release, run or report and all it was made from; inputs that moved are looked for in `workspace` too.

    Raises `WorkspaceError` where `directory` has no manifest at all.
    """
    if not (directory / NAME).is_file():
        read_manifest(directory)  # raises, with the words for it
    walk = _Walk([directory.resolve().parent.parent, *([workspace.resolve()] if workspace else [])])
    return Verification(walk.directory(directory, None, None), walk.findings, walk.notes)


class _Walk:
    """The state of one walk: what was found, and what was seen already."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = roots
        self.findings: list[Finding] = []
        self.notes: list[str] = []
        self.seen: set[Path] = set()

    def find(self, rule: str, where: Path, message: str, fix: str, pair: str | None = None) -> None:
        self.findings.append(Finding(rule=rule, level="error", pair=pair, where=str(where), message=message, fix=fix))

    def directory(self, path: Path, role: str | None, wanted: Input | None, alone: bool = False) -> Node:
        """Check a directory with a manifest. `alone`: itself, not the working files it was made from."""
        before = len(self.findings)
        manifest = self._manifest(path)
        if manifest is None:
            return Node(role or "directory", path, "its manifest cannot be read", holds=False)
        node = Node(role or manifest.kind, path)
        if wanted and manifest.sha256 != wanted.sha256:
            message = f"this {manifest.kind} is not the one it was made from ({wanted.sha256[:12]}…)"
            self.find("input-changed", path / NAME, message, RESTORE)
        if path.resolve() in self.seen:
            node.said, node.holds = "see above", len(self.findings) == before
            return node
        self.seen.add(path.resolve())
        self._files(path, manifest)
        node.said = f"{len(manifest.files)} files"
        if manifest.kind == "release":
            node.said += f", {sum(1 for _ in self._rows(path, manifest)):,} pairs"
        node.holds = len(self.findings) == before
        for name, one in manifest.inputs.items():
            if not alone or name == "previous":
                node.made_from.append(self.input(path, manifest, name, one))
        return node

    def _manifest(self, path: Path) -> Manifest | None:
        where = path / NAME
        try:
            manifest = read_manifest(path)
            text = where.read_bytes().decode("utf-8")
        except (TutelageError, UnicodeDecodeError) as error:
            self.find("manifest-unreadable", where, getattr(error, "what", str(error)), RESTORE)
            return None
        if manifest.seal != manifest.seal_hash() or text != manifest.text():
            self.find("manifest-changed", where, "the manifest was edited after it was written", RESTORE)
        elif manifest.sha256 != manifest.content_hash():
            self.find("manifest-changed", where, "its sha256 is not the hash of what it says", RESTORE)
        if manifest.name != path.resolve().name:
            self.notes.append(f"{path}: this {manifest.kind} was called {manifest.name} when it was made")
        return manifest

    def _files(self, path: Path, manifest: Manifest) -> None:
        for name, sha256 in manifest.files.items():
            file = path / name
            if not file.is_file():
                self.find("file-missing", file, "the manifest lists this file and it is gone", RESTORE)
            elif self._hash(file) not in (sha256, None):
                self.find("file-changed", file, "its bytes are not those the manifest lists", RESTORE)
        for file in sorted(path.rglob("*")):
            name = file.relative_to(path).as_posix()
            exempt = manifest.kind == "run" and name.startswith(f"{CHECKPOINTS}/")
            if (file.is_file() or file.is_symlink()) and name != NAME and name not in manifest.files and not exempt:
                self.find("file-unlisted", file, "the manifest does not list this file", "move it somewhere else")

    def _hash(self, file: Path) -> str | None:
        try:
            return sha256_file(file)
        except OSError as error:
            self.find("file-unreadable", file, error.strerror or str(error), "check the permissions")
            return None

    def _rows(self, path: Path, manifest: Manifest) -> Iterator[Pair]:
        """The pairs of a release, each held against its own hash, all against the release's content hash."""
        from curate.behaviour import load_behaviour
        from curate.draft import data_hash
        from curate.parquet import read_rows, row_pair

        splits: dict[Any, list[Pair]] = {split: [] for split in SPLITS}
        before = len(self.findings)
        for split in SPLITS:
            file = path / f"{split}.parquet"
            try:
                for number, row in enumerate(read_rows(file), start=1):
                    pair = row_pair(row, f"{file}, row {number}")
                    if pair.content_hash() != row.get("sha256"):
                        message = f"row {number} is not what its sha256 says"
                        self.find("pair-damaged", file, message, RESTORE, pair.id)
                    splits[split].append(pair)
                    yield pair
            except TutelageError as error:
                if file.is_file():
                    self.find("file-unreadable", file, error.what, RESTORE)
        if len(self.findings) > before:
            return
        try:
            content = data_hash(load_behaviour(path / "behaviour.yaml"), splits)
        except TutelageError as error:
            self.find("file-unreadable", path / "behaviour.yaml", error.what, RESTORE)
            return
        if content != manifest.details.get("data_sha256"):
            message = "its content is not what details.data_sha256 says"
            self.find("manifest-changed", path / NAME, message, RESTORE)

    def input(self, made: Path, manifest: Manifest, role: str, wanted: Input) -> Node:
        """Check one thing a directory was made from."""
        found = self._locate(made, role, wanted.path)
        if found is None:
            return self._absent(made, role, wanted)
        before = len(self.findings)
        node = Node(role, found)
        if (found / NAME).is_file():
            return self.directory(found, role, wanted, alone=role == "previous")
        if role == "pairs" and manifest.kind == "release":
            node.said = self._pairs(made, found, wanted)
        elif found.is_dir() and not any(found.iterdir()):
            self.find("input-missing", found, f"the {role} this was made from is an empty directory", RESTORE)
        elif found.is_dir() and role in ("release", "run", "report", "previous"):
            self.find("input-missing", found / NAME, f"the {role} this was made from has no {NAME}", RESTORE)
        elif sha256_tree(found) != wanted.sha256:
            message = f"the {role} changed after {made} was made"
            if role in ("behaviour", "schema"):
                message += "; the copy in the release is the one that was used"
            self.find("input-changed", found, message, RESTORE)
        node.holds = len(self.findings) == before
        return node

    def _locate(self, made: Path, role: str, path: str) -> Path | None:
        """Where an input lies: as recorded, else at the same place in a workspace."""
        if path and (made.resolve() / path).exists():
            return _short(made.resolve() / path)
        place, name = (Path(path).parent.name, Path(path).name)
        if place not in PLACES:
            place = "releases" if role == "previous" else ""
        found = (root / place / name for root in self.roots if name)
        return next((_short(one) for one in found if one.exists()), None)

    def _absent(self, made: Path, role: str, wanted: Input) -> Node:
        path = Path(wanted.path)
        if role == "model" and wanted.path.startswith("endpoint:"):
            self.notes.append(f"{wanted.path}: a model on a server, which cannot be verified")
            return Node(role, path, "on a server; not verified")
        if role in ("base", "model") and _HUB.fullmatch(wanted.path):
            self.notes.append(f"{role} {wanted.path}: a model on a hub, which cannot be verified here")
            return Node(role, path, "on a hub; not verified here")
        lost = _short(made.resolve() / path)
        self.find("input-missing", lost, f"the {role} that {made} was made from is not there", RESTORE)
        return Node(role, lost, "missing", holds=False)

    def _pairs(self, release: Path, file: Path, wanted: Input) -> str:
        """Hold each released pair against the working set, which may have grown since."""
        if self._hash(file) == wanted.sha256:
            return ""
        from curate.behaviour import load_behaviour
        from curate.draft import frozen
        from curate.parquet import read_parquet
        from curate.reviewed import AUDIT, audited_versions, is_as_reviewed

        audit = release / AUDIT
        try:
            behaviour = load_behaviour(release / "behaviour.yaml")
            held = {pair.id: pair for split in SPLITS for pair in read_parquet(release / f"{split}.parquet")}
            reviewed = audited_versions(audit.read_text(encoding="utf-8")) if audit.is_file() else {}
        except TutelageError:
            return "not compared: the release itself is damaged"
        except (ValueError, KeyError, TypeError) as error:
            self.find("file-unreadable", audit, f"no line of a review: {error}", RESTORE)
            return "not compared"

        def unchanged(pair: Pair, one: Pair) -> bool:
            if pair.id in reviewed:
                return is_as_reviewed(pair, one, reviewed[pair.id])
            return frozen(pair, behaviour).content_hash() == one.content_hash()

        left, total = dict(held), 0
        try:
            for pair in iterate_pairs(file):
                total += 1
                one = left.pop(pair.id, None)
                if one is not None and not unchanged(pair, one):
                    self.find("pair-changed", file, f"pair {pair.id} changed after the release", PAIR, pair.id)
        except TutelageError as error:
            self.find("file-unreadable", file, str(error), "mend the line")
            return "cannot be read"
        for name in left:
            self.find("pair-gone", file, f"pair {name} was released and is gone", PAIR, name)
        others = total - len(held) + len(left)
        self.notes.append(f"{file}: changed since the release; it holds {others:,} pairs that {release} does not")
        return f"{others:,} pairs are not in the release"


RESTORE = "restore it from a copy, or make it again"
PAIR = "restore the pair, or make a new release; what was frozen stays as it is"


def _short(path: Path) -> Path:
    """A path as a person would type it from here."""
    path = path.resolve()
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path


def document(done: Verification) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "holds": not done.findings,
        **findings_document(done.findings),
        "notes": done.notes,
        "chain": _node_document(done.chain),
    }


def _node_document(node: Node) -> dict[str, Any]:
    parts = [_node_document(part) for part in node.made_from]
    return {"role": node.role, "path": str(node.path), "holds": node.holds, "said": node.said, "made_from": parts}


def tree(done: Verification) -> str:
    """The chain as a tree, then the findings and notes."""
    lines = list(_branches(done.chain, "", ""))
    lines += [f"\n{one.where}: {one.message}\n  To mend it: {one.fix}" for one in done.findings]
    lines += [f"\nNote: {one}" for one in done.notes]
    count = len(done.findings)
    lines.append("\nAll of it holds." if not count else f"\n{count} {'difference' if count == 1 else 'differences'}.")
    return "\n".join(lines)


def _branches(node: Node, stem: str, below: str) -> Iterator[str]:
    mark = "ok" if node.holds else "DIFFERS"
    yield f"{stem}{node.role} {node.path}  {mark}{f' ({node.said})' if node.said else ''}"
    for number, part in enumerate(node.made_from, start=1):
        last = number == len(node.made_from)
        yield from _branches(part, f"{below}{'└─ ' if last else '├─ '}", f"{below}{'   ' if last else '│  '}")
