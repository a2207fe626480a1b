"""Where a report's numbers come from, for its last section: names and hashes, never a path of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from curate.manifest import Input, Manifest
from curate.release import Release
from eval.subject import Asked, Subject

if TYPE_CHECKING:
    from eval.endpoint import Endpoint

Link = dict[str, str]


def sources(
    subject: Subject | Endpoint,
    release: Release,
    asked: Asked,
    items: int,
    inputs: Mapping[str, Input],
    decoding: Mapping[str, str],
) -> dict[str, Any]:
    """The "sources" of scores.json: title, subtitle, chain from the report backwards, facts, the run's scale curve.

    `decoding` are the facts about how the questions were asked.
    """
    behaviour = release.behaviour.name
    pairs = f"{len(asked.test):,} test pairs of release {release.manifest.name}"
    general = f", {items:,} general items" if items else ""
    facts = {**subject.facts(), "Calibration pairs": f"{len(asked.calibration):,}", **decoding}
    scaling = subject.run.manifest.details.get("scaling") if subject.run else None
    return {
        "title": f"{behaviour}: {subject.name}",
        "subtitle": f"Answered {pairs}{general}.{' Only a part of the split was asked.' if asked.partial else ''}",
        "partial": asked.partial,
        "chain": chain(subject, release, inputs),
        "facts": [[name, value] for name, value in facts.items()],
        "scales": scaling and {**scaling, "chosen": subject.run.scale if subject.run else 1.0},
    }


def chain(subject: Subject | Endpoint, release: Release, inputs: Mapping[str, Input]) -> list[Link]:
    """From the report backwards to the pairs. The report's own hash stands in its manifest: no file holds its own."""
    links = [_link("report", release.behaviour.name, "", inputs)]
    if subject.run:
        manifest = subject.run.manifest
        links.append(_link("run", manifest.name, manifest.sha256, manifest.inputs))
        links += [_input(role, manifest) for role in ("recipe", "base") if role in manifest.inputs]
    else:
        links.append(_link("model", subject.name, inputs["model"].sha256, {}))
    links.append(_link("release", release.manifest.name, release.manifest.sha256, release.manifest.inputs))
    links += [_input(role, release.manifest) for role in release.manifest.inputs]
    return links


def _link(role: str, name: str, sha256: str, made_from: Mapping[str, Input]) -> Link:
    return {"role": role, "name": name, "sha256": sha256, "made_from": ", ".join(made_from)}


def _input(role: str, manifest: Manifest) -> Link:
    one = manifest.inputs[role]
    name = one.path.rstrip("/").rpartition("/")[2] if one.path.startswith(".") else one.path
    return {"role": role, "name": name, "sha256": one.sha256, "made_from": ""}
