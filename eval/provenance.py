"""Where a report's numbers come from, for its last section: names and hashes, never a path of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curate.manifest import Input, Manifest
from curate.release import Release
from eval.subject import Asked, Subject

Link = dict[str, str]


def sources(
    subject: Subject, release: Release, asked: Asked, items: int, inputs: Mapping[str, Input]
) -> dict[str, Any]:
    """The "sources" of scores.json: title, subtitle, chain from the report backwards, facts, the run's scale curve."""
    behaviour = release.behaviour.name
    pairs = f"{len(asked.test):,} test pairs of release {release.manifest.name}"
    general = f", {items:,} general items" if items else ""
    scaling = subject.run.manifest.details.get("scaling") if subject.run else None
    return {
        "title": f"{behaviour}: {subject.name}",
        "subtitle": f"Answered {pairs}{general}.{' Only a part of the split was asked.' if asked.partial else ''}",
        "partial": asked.partial,
        "chain": chain(subject, release, inputs),
        "facts": [[name, value] for name, value in facts(subject, asked).items()],
        "scales": scaling and {**scaling, "chosen": subject.run.scale if subject.run else 1.0},
    }


def chain(subject: Subject, release: Release, inputs: Mapping[str, Input]) -> list[Link]:
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


def facts(subject: Subject, asked: Asked) -> dict[str, str]:
    """What decides the numbers beside the data."""
    found = {"Base model" if subject.run else "Model": subject.base.model.rstrip("/").rpartition("/")[2]}
    if subject.run:
        recipe, run = subject.run.recipe, subject.run
        four = recipe.quantization
        bits = f"{four.kind}, double quantisation" if four.double else four.kind
        found["Weights"] = bits if four.bits else f"as they are, {four.compute}"
        found["Adapter"] = f"LoRA rank {recipe.lora.rank}, scale {run.scale:g}"
        found["Chat template"] = str(run.contract["template_sha256"])[:12]
        found["Trained with"] = ", ".join(f"{name} {one}" for name, one in run.manifest.details["versions"].items())
    found["Calibration pairs"] = f"{len(asked.calibration):,}"
    found["Decoding"] = "greedy"
    return found
