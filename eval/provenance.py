"""Where a report's numbers come from, for its last section: names and hashes, never a path of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curate.manifest import Input, Manifest
from eval.planning import Setting, decoding_facts

Link = dict[str, str]


def sources(setting: Setting) -> dict[str, Any]:
    """The "sources" of scores.json: title, subtitle, chain from the report backwards, facts, the run's scale curve."""
    subject, asked = setting.subject, setting.asked
    pairs = f"{len(asked.test):,} test pairs of release {setting.release.manifest.name}"
    general = f", {len(setting.items):,} general items" if setting.items else ""
    facts = {**subject.facts(), "Calibration pairs": f"{len(asked.calibration):,}", **decoding_facts(setting)}
    scaling = subject.run.manifest.details.get("scaling") if subject.run else None
    return {
        "title": f"{setting.behaviour.name}: {subject.name}",
        "subtitle": f"Answered {pairs}{general}.{' Only a part of the split was asked.' if asked.partial else ''}",
        "partial": asked.partial,
        "chain": chain(setting),
        "facts": [[name, value] for name, value in facts.items()],
        "scales": scaling and {**scaling, "chosen": subject.run.scale if subject.run else 1.0},
    }


def chain(setting: Setting) -> list[Link]:
    """From the report backwards to the pairs. The report's own hash stands in its manifest: no file holds its own."""
    subject, release, inputs = setting.subject, setting.release.manifest, setting.inputs
    links = [_link("report", setting.behaviour.name, "", inputs)]
    if subject.run:
        manifest = subject.run.manifest
        links.append(_link("run", manifest.name, manifest.sha256, manifest.inputs))
        links += [_input(role, manifest) for role in ("recipe", "base") if role in manifest.inputs]
    else:
        links.append(_link("model", subject.name, inputs["model"].sha256, {}))
    links.append(_link("release", release.name, release.sha256, release.inputs))
    links += [_input(role, release) for role in release.inputs]
    return links


def _link(role: str, name: str, sha256: str, made_from: Mapping[str, Input]) -> Link:
    return {"role": role, "name": name, "sha256": sha256, "made_from": ", ".join(made_from)}


def _input(role: str, manifest: Manifest) -> Link:
    one = manifest.inputs[role]
    name = one.path.rstrip("/").rpartition("/")[2] if one.path.startswith(".") else one.path
    return {"role": role, "name": name, "sha256": one.sha256, "made_from": ""}
