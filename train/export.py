"""`train export` as a page to read: a finished run becomes a directory that a server starts from as it is.

`adapter`: the adapter with its scale in its weights, for a server that has the base. `merged`: base and adapter in one
model of 16 bits, checked against the two apart before it is declared done.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from curate.errors import TutelageError, WorkspaceError
from curate.files import atomic_directory, beside, hold, need_space, read_json, write_json, write_text
from curate.manifest import NAME, SCORES, Input, Manifest, check_listed, check_seal, read_manifest, write_manifest
from curate.release import load_release
from curate.workspace import Workspace, finished
from train.adapter import base_name, write_scaled
from train.items import read_items, sample_evenly
from train.model import check_base, load_tokenizer
from train.recipe import Base
from train.rendering import Rendered, render_pairs
from train.run import Run, check_contract, load_run

Form = Literal["adapter", "merged"]
CONTRACT, THRESHOLD, MODELFILE, TEMPLATE = "contract.json", "threshold.json", "Modelfile", "chat_template.jinja"
COMPARED = 16  # validation pairs, and as many general items, on whose answers logits are compared
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM takes as --max-lora-rank


@dataclass(frozen=True)
class Exported:
    """A finished export."""

    directory: Path
    manifest: Manifest
    commands: dict[str, str]  # what serves it, by server


def export(workspace: Workspace, name: str | None, form: Form, out: Path | None = None) -> Exported:
    """Write the export of a run and return it. Raises `WorkspaceError` and `TrainingError`; nothing half is left."""
    run = load_run(workspace.find("run", name))
    directory = out or workspace.exports / f"{run.manifest.name}-{form}"
    if directory.exists():
        fix = "--out DIR names another place; or move this one away"
        raise WorkspaceError("there is something here already", where=str(directory), fix=fix)
    check_base(run)
    tokenizer = _tokenizer(run)
    inputs = {"run": _input(run.directory, run.manifest.sha256, directory)}
    report = find_threshold(workspace, run)
    full = need_space(directory, "free some space there, or name another place with --out")
    with hold(beside(directory), directory), full, atomic_directory(directory) as temporary:
        if form == "adapter":
            write_scaled(run, temporary)
            write_text(temporary / TEMPLATE, str(tokenizer.chat_template))
            details: dict[str, Any] = {}
        else:
            details = {"check": _write_merged(run, tokenizer, temporary)}
        write_json(temporary / CONTRACT, run.contract)
        if report:
            write_json(temporary / THRESHOLD, report[1])
            inputs["report"] = _input(report[0], report[1]["report_sha256"], directory)
        facts = {
            "form": form,
            "base": base_name(run.recipe.base),
            "scale": run.scale,
            "threshold": bool(report),
            **details,
        }
        write_manifest(temporary, "export", directory.name, inputs, facts)
    return Exported(directory, read_manifest(directory, "export"), serve_commands(run, form, directory))


def _input(made_from: Path, sha256: str, directory: Path) -> Input:
    path = os.path.relpath(os.path.abspath(made_from), os.path.abspath(directory))
    return Input(path=Path(path).as_posix(), sha256=sha256)


def _tokenizer(run: Run) -> Any:
    """The base's tokenizer with the recipe's template; raises `WorkspaceError` where it is not the one of training."""
    tokenizer = load_tokenizer(run.recipe.base)
    check_contract(run, tokenizer)
    return tokenizer


def _write_merged(run: Run, tokenizer: Any, directory: Path) -> dict[str, Any]:
    """The merged model with its tokenizer and what Ollama needs; returns what the comparison of logits found."""
    from train.merging import write_merged
    from train.ollama import modelfile

    tokenizer.save_pretrained(directory)
    check_contract(run, load_tokenizer(Base(model=str(directory.resolve()))))
    write_text(directory / MODELFILE, modelfile(tokenizer, run.contract, run.recipe.training.max_length))
    return write_merged(run, compared_rows(run, tokenizer), directory)


def compared_rows(run: Run, tokenizer: Any) -> list[Rendered]:
    """Prompts with their wanted answers: held-out general items, and validation pairs where the release is there."""
    stop = [one["id"] for one in run.contract["stop_tokens"]]
    items = sample_evenly(read_items(run.retention, answers=True), COMPARED)
    rows = [(one.id, one.messages(), str(one.answer)) for one in items]
    try:
        release = load_release(run.release_directory())
    except TutelageError:
        release = None  # it may be gone by now; the run's own items are enough
    if release:
        pairs = sorted(release.pairs("validation"), key=lambda pair: pair.content_hash())[:COMPARED]
        behaviour = release.behaviour
        rows += [(one.id, behaviour.render(one), behaviour.text(one.output)) for one in pairs]
    return [one for one in render_pairs(tokenizer, rows, stop) if not one.faults]


def find_threshold(workspace: Workspace, run: Run) -> tuple[Path, dict[str, Any]] | None:
    """The abstention threshold of the newest whole report on this run that has one, and that report's directory.

    `confidence` says which number it is to be held against. Raises `WorkspaceError` where a report was edited.
    """
    made = finished(workspace.reports)
    for directory in sorted(made, key=lambda path: (path / NAME).stat().st_mtime_ns, reverse=True):
        manifest = read_manifest(directory, "report")
        judged = manifest.inputs.get("run")
        if not judged or judged.sha256 != run.manifest.sha256:
            continue
        check_seal(manifest, directory / NAME)  # what is exported bears this report's hash
        check_listed(manifest, directory, SCORES)
        scores = read_json(directory / SCORES)
        found = (scores.get("calibration") or {}).get("threshold") or {}
        sources = scores.get("sources") or {}
        if found.get("value") is not None and not sources.get("partial"):
            meaning = "answer where the confidence is at least `value`, abstain otherwise"
            facts = dict(sources.get("facts") or ())
            named = {"report": directory.name, "report_sha256": manifest.sha256}
            return directory, {"meaning": meaning, "confidence": facts.get("Confidence"), **found, **named}
    return None


def serve_commands(run: Run, form: Form, directory: Path) -> dict[str, str]:
    """The command that starts each server on it, greedy as it was judged, and the one that judges what is served."""
    import shlex

    place, name = shlex.quote(str(directory)), run.manifest.name
    judged = f"tutelage eval run {name} --endpoint http://localhost:8000/v1 --model "
    greedy = "--override-generation-config '{\"temperature\": 0}'"
    if form == "merged":
        return {
            "vLLM": f"vllm serve {place} --served-model-name {name} {greedy}",
            "transformers": f"transformers serve {place} --port 8000",
            "Ollama": f"ollama create {name} --file {shlex.quote(str(directory / MODELFILE))}",
            "to judge what is served": f"{judged}{name}",
        }
    base = run.recipe.base
    served = shlex.quote(os.path.relpath(base.model) if base.is_directory else base.model)
    revision = f" --revision {base.revision}" if base.revision else ""
    rank = next((one for one in RANKS if one >= run.recipe.lora.rank), run.recipe.lora.rank)
    lora = f"--enable-lora --max-lora-rank {rank} --lora-modules {name}={place}"
    template = f"--chat-template {shlex.quote(str(directory / TEMPLATE))}"
    return {
        "vLLM": f"vllm serve {served}{revision} {lora} {template} {greedy}",
        "to judge what is served": f"{judged}{name}",
    }


def text_of(done: Exported) -> str:
    """What the command prints."""
    details = done.manifest.details
    lines = [f"{done.directory}: {details['form']}, the adapter at scale {details['scale']:g}"]
    check = details.get("check")
    if check:
        lines.append(
            f"  against base and adapter apart: logits off by {check['share_off']:.1%} of what the adapter changes, "
            f"{check['agreement']:.1%} of {check['tokens']:,} tokens the same likeliest"
        )
    said = "the confidence to answer from" if details["threshold"] else "none: no report on this run has chosen one yet"
    lines.append(f"  {THRESHOLD}: {said}")
    return "\n".join([*lines, *(f"  {server}: {command}" for server, command in done.commands.items())])
