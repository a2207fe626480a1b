"""The commands of stage two."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from curate.console import FINDINGS, Finite, emit, json_option, say, workspace

if TYPE_CHECKING:
    from train.preparation import Prepared

_recipe = click.argument("recipe", type=click.Path(dir_okay=False, path_type=Path))
_release = click.option("--release", metavar="NAME", help="The release to train on; the newest if not given.")


@click.command()
@_recipe
@_release
@click.option("--show", metavar="PAIR", help="Print one pair as it is trained on; what carries loss is green.")
@click.option("--gpu-memory", metavar="GIB", type=Finite(0.5), help="Judge for a GPU of so much, not here.")
@json_option
@click.pass_context
def check(
    ctx: click.Context, recipe: Path, release: str | None, show: str | None, gpu_memory: float | None, as_json: bool
) -> None:
    """Pre-flight: refuse what would train badly, and show why. Loads no weights.

    Prints the recipe with every default filled in, lengths in tokens, an example prompt of the template contract, the
    memory that training will need, the time it will take on this machine, and the findings. Exit code 3 where one is an
    error. The recipe may be for another machine: --gpu-memory says how much its GPU has.

    \b
    Example:
      tutelage train check recipe.yaml
      tutelage train check recipe.yaml --gpu-memory 24
      tutelage train check recipe.yaml --show p-4f0c2b6e9a1d3c57
    """
    from curate.findings import document
    from curate.release import load_release
    from train.fitting import GIB, check_memory, check_targets, fit_of
    from train.preflight import length_statistics, preflight
    from train.preparation import prepare
    from train.recipe import load_recipe
    from train.timing import measure_duration

    place = workspace()
    found = load_release(place.find("release", release))
    prepared = prepare(load_recipe(recipe), found)
    if show:
        _show(prepared, show, as_json)
        return
    fit = fit_of(prepared, int(gpu_memory * GIB) if gpu_memory else None)
    findings = [*preflight(prepared), *check_targets(prepared.recipe), *check_memory(fit)]
    lengths = {"train": length_statistics(prepared.train), "validation": length_statistics(prepared.validation)}
    result = {
        "release": found.manifest.name,
        "recipe": prepared.recipe.document(),
        "lengths": lengths,
        "contract": prepared.contract(),
        "memory": fit.document(),
        "time": measure_duration(fit, prepared).document() if prepared.train and fit.is_here else None,
        **document(findings),
    }
    emit(result, _check_text(result, findings), as_json)
    ctx.exit(FINDINGS if any(one.level == "error" for one in findings) else 0)


@click.command()
@_recipe
@_release
@click.option("--name", metavar="NAME", help="The run's name; run1, run2, … if not given.")
@click.option("--resume", is_flag=True, help="Go on with an unfinished run from its last checkpoint.")
@json_option
@click.pass_context
def run(ctx: click.Context, recipe: Path, release: str | None, name: str | None, resume: bool, as_json: bool) -> None:
    """Train under guard, pick the adapter's scale, and leave a run in runs/.

    Pre-flight comes first; where it finds errors nothing is trained (exit code 3). A run that was killed goes on with
    --resume and ends at the adapter it would have had; a finished run is never changed.

    \b
    Example:
      tutelage train run recipe.yaml
      tutelage train run recipe.yaml --resume
    """
    from curate.findings import document
    from train.preflight import summary
    from train.processes import is_main
    from train.training import Refused, Request, train

    place = workspace()
    try:
        done = train(place, Request(recipe, release, name, resume))
    except Refused as refused:
        if not is_main():
            ctx.exit(FINDINGS)
        say("Nothing was trained: pre-flight found errors.")
        emit(document(refused.findings), summary(refused.findings), as_json)
        ctx.exit(FINDINGS)
    if not is_main():  # of several processes one speaks
        return
    details = done.manifest.details
    shown = ("scale", "training", "scaling", "findings", "dropped")
    result = {
        "run": done.manifest.name,
        "directory": str(done.directory),
        "sha256": done.manifest.sha256,
        **{key: details[key] for key in shown},
    }
    emit(result, _run_text(result), as_json)


@click.command()
@click.argument("run", required=False)
@click.option("--to", "form", type=click.Choice(["adapter", "merged"]), default="merged", help="What to write.")
@click.option("--out", type=click.Path(path_type=Path), help="Where; exports/RUN-FORM if not given.")
@json_option
def export(run: str | None, form: Any, out: Path | None, as_json: bool) -> None:
    """Write what a server needs of a finished run (the newest one where none is named), and print how it is started.

    adapter: the LoRA adapter with its scale in its weights, for a server that has the base. merged: base and adapter in
    one model of 16 bits, merged into the base as it was published, never into the 4-bit one, and checked by comparing
    logits with the two apart; vLLM and transformers serve start from the directory as it is, and a Modelfile is there
    for Ollama. Beside either: the template contract, and the confidence threshold of the newest report that chose one.

    \b
    Example:
      tutelage train export first
      tutelage train export first --to adapter --out /srv/adapters/first
    """
    from train.export import export as write
    from train.export import text_of

    done = write(workspace(), run, form, out)
    result = {
        "export": done.manifest.name,
        "directory": str(done.directory),
        "sha256": done.manifest.sha256,
        **done.manifest.details,
        "commands": done.commands,
    }
    emit(result, text_of(done), as_json)


def _check_text(result: dict[str, Any], findings: Any) -> str:
    import yaml

    from train.preflight import summary

    lines = [yaml.safe_dump(result["recipe"], sort_keys=False, allow_unicode=True).rstrip(), ""]
    for split, one in result["lengths"].items():
        for name in ("tokens", "answer_tokens"):
            spread = one[name] or {}
            told = ", ".join(f"{key} {value:,}" for key, value in spread.items())
            lines.append(f"{split}: {one['examples']:,} examples, {name.replace('_', ' ')}: {told or 'none'}")
    contract = result["contract"]
    stops = ", ".join(one["text"] for one in contract["stop_tokens"])
    lines += [
        "",
        f"template {contract['template_sha256'][:12]}, stops at {stops}; the first prompt as a server must send it:",
    ]
    lines += ["", contract["example"]["prompt"], "", _memory_text(result["memory"]), _time_text(result["time"]), ""]
    lines.append(summary(findings) or "No findings.")
    return "\n".join(lines)


def _memory_text(memory: dict[str, Any]) -> str:
    from train.fitting import in_gib

    parts = ", ".join(f"{name} {in_gib(size)}" for name, size in memory["parts"].items())
    have = in_gib(memory["available"]) if memory["available"] else "a GPU that is not here"
    return f"memory: about {in_gib(memory['needed'])} of {have} ({memory['device']}): {parts}"


def _time_text(duration: dict[str, Any] | None) -> str:
    if not duration:
        return "time: not measured, the device is not here"
    minutes = (
        f"{duration['seconds'] / 60:,.1f} minutes" if duration["seconds"] >= 60 else f"{duration['seconds']:.0f} s"
    )
    return f"time: about {minutes} for {duration['steps']:,} steps, without {duration['without']} ({duration['how']})"


def _show(prepared: Prepared, pair: str, as_json: bool) -> None:
    from curate.errors import PairError

    row = next((one for one in (*prepared.train, *prepared.validation) if one.id == pair), None)
    if row is None:
        raise PairError(f"there is no pair {pair!r} in the train or validation split of this release")
    tokens = [prepared.tokenizer.decode([one], skip_special_tokens=False) for one in row.ids]
    result = {
        "pair": row.id,
        "tokens": [{"id": i, "text": text} for i, text in zip(row.ids, tokens, strict=True)],
        "prompt_tokens": row.prompt_tokens,
        "faults": [{"rule": one.rule, "message": one.message} for one in row.faults],
    }
    decode = prepared.tokenizer.decode
    prompt = decode(list(row.ids[: row.prompt_tokens]), skip_special_tokens=False)
    learned = click.style(decode(list(row.ids[row.prompt_tokens :]), skip_special_tokens=False), fg="green", bold=True)
    counted = f"{row.prompt_tokens} tokens without loss, {len(row.ids) - row.prompt_tokens} with loss (green)"
    faults = "".join(f"\n{one.rule}: {one.message}" for one in row.faults)
    emit(result, f"{prompt}{learned}\n\n{counted}{faults}", as_json)


def _run_text(result: dict[str, Any]) -> str:
    from train.training import rise_in_words

    training = result["training"]
    lines = [f"Run {result['run']}: {training['steps']} of {training['of']} steps, adapter scale {result['scale']:g}"]
    if training["stopped"]:
        stopped = training["stopped"]
        lines.append(
            f"  stopped at step {stopped['step']}: retention's loss {rise_in_words(stopped)}; "
            f"went back to step {training['steps']}"
        )
    if result["scaling"]:
        lines.append(f"  {result['scaling']['note']}")
        for point in result["scaling"]["curve"]:
            task = "–" if point["task"] is None else f"{point['task']:.3f}"
            retention = f"{point['retention']['all']:.3f}" if "retention" in point else "–"
            lines.append(f"  scale {point['scale']:<5g} task {task}  retention {retention}")
    return "\n".join([*lines, f"  {result['directory']}"])
