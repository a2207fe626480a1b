"""The commands that belong to no stage: init, advise, verify."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from curate.console import FINDINGS, Finite, emit, json_option, say
from curate.errors import WorkspaceError


@click.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path), default=Path())
@click.option("--text", "as_text", is_flag=True, help="Outputs are plain text; without it they are JSON.")
@click.option("--base", metavar="MODEL", help="The model to tune: a name on the hub or a directory.")
@click.pass_context
def init(ctx: click.Context, directory: Path, as_text: bool, base: str | None) -> None:
    """Make a workspace with a behaviour, a schema and a recipe to edit.

    Writes behaviour.yaml, schema.json (JSON outputs), recipe.yaml, examples.jsonl and .gitignore into DIRECTORY. Never
    overwrites: where one of them exists, nothing is written.

    \b
    Example:
      tutelage init support --base Qwen/Qwen3-4B-Instruct-2507
    """
    from curate.starting import start_workspace

    written = start_workspace(directory, as_text, base)
    root = Path(ctx.find_root().params.get("directory") or ".") / directory  # as the person would type it
    for name, what in written.items():
        say(f"{root / name}  {what}")
    place = "" if root == Path() else f" -C {shlex.quote(str(root))}"
    lines = [
        f"tutelage{place} curate import examples.jsonl",
        f"tutelage{place} curate check",
        f"tutelage{place} advise",
    ]
    say("\nEdit behaviour.yaml to say what good output is. The examples show the way:")
    click.echo("\n".join(f"  {line}" for line in lines))
    say(
        "Then delete pairs.jsonl, which holds the examples now, and import your own RAG log: docs/import.md,"
        " or tutelage curate import --help."
    )


@click.command()
@click.option("--changes", type=click.Choice(["weekly", "monthly", "rarely"]), help="How often the knowledge changes.")
@click.option("--cite/--no-cite", default=None, help="Whether an answer must name its source.")
@click.option("--lacking", type=click.Choice(["knowledge", "behaviour", "both"]), help="What the model lacks today.")
@click.option(
    "--at-hand", type=click.Choice(["documents", "pairs", "both", "neither"]), help="Documents, or curated pairs."
)
@click.option("--latency", type=Finite(min=0, min_open=True), help="Seconds an answer may take.")
@json_option
def advise(
    changes: str | None,
    cite: bool | None,
    lacking: str | None,
    at_hand: str | None,
    latency: float | None,
    as_json: bool,
) -> None:
    """Five questions: RAG, fine-tuning, or RAG first and then both, and why.

    Asks what no option answers, on a terminal. Reads the workspace where there is one: how many pairs, how many
    reviewed, how balanced, what was released and what the newest report says.

    \b
    Example:
      tutelage advise --changes monthly --cite --lacking behaviour --at-hand both --latency 3
    """
    from curate import advise as advice
    from curate.facts import read_facts
    from curate.workspace import Workspace

    given = {"changes": changes, "cite": cite, "lacking": lacking, "at_hand": at_hand, "latency_seconds": latency}
    answers = advice.Answers(**_ask({key: value for key, value in given.items() if value is not None}))
    facts = read_facts(Workspace(Path()))
    given_advice = advice.advise(answers, facts)
    emit(advice.document(given_advice, facts), advice.text(given_advice, facts), as_json)


# key -> the option, the question, what a valid answer is
QUESTIONS: dict[str, tuple[str, str, Any]] = {
    "changes": ("--changes", "How often does the knowledge change", click.Choice(["weekly", "monthly", "rarely"])),
    "cite": ("--cite or --no-cite", "Must an answer name its source", click.BOOL),
    "lacking": ("--lacking", "What does the model lack today", click.Choice(["knowledge", "behaviour", "both"])),
    "at_hand": ("--at-hand", "What is at hand", click.Choice(["documents", "pairs", "both", "neither"])),
    "latency_seconds": (
        "--latency",
        "How many seconds may an answer take",
        Finite(min=0, min_open=True),
    ),
}


def _ask(given: dict[str, Any]) -> dict[str, Any]:
    """The five answers; asks for those that are not given, where there is a terminal to ask on."""
    open_questions = [key for key in QUESTIONS if key not in given]
    if open_questions and not sys.stdin.isatty():
        options = ", ".join(QUESTIONS[key][0] for key in open_questions)
        raise click.UsageError(f"no terminal to ask on; answer by options: {options}")
    for key in open_questions:
        _, question, kind = QUESTIONS[key]
        if kind is click.BOOL:
            given[key] = click.confirm(question + "?", err=True)
        else:
            given[key] = click.prompt(question + "?", type=kind, err=True, prompt_suffix=" ")
    return given


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@json_option
@click.pass_context
def verify(ctx: click.Context, directory: Path, as_json: bool) -> None:
    """Walk the hash chain of a release, run, report or export back to its pairs.

    Hashes again every file that a manifest lists, on the way from DIRECTORY through all it was made from, and names
    each one that changed, went missing or was added. Pairs imported after a release are a note; a released pair that
    changed or went is named. DIRECTORY may be a bare name: of a report, else of a run, a release, an export.

    Exit code 3 where anything differs.

    \b
    Example:
      tutelage verify reports/first
    """
    from curate.verify import document, tree
    from curate.verify import verify as walk

    done = walk(_made(directory), Path() if Path("behaviour.yaml").is_file() else None)
    emit(document(done), tree(done), as_json)
    if done.findings:
        ctx.exit(FINDINGS)


def _made(wanted: Path) -> Path:
    """The report, run or release at a path or of a name; raises `WorkspaceError` with those there are."""
    from curate.manifest import NAME
    from curate.workspace import Workspace, finished

    place = Workspace(Path())
    parents = (place.reports, place.runs, place.releases, place.exports)
    candidates = [wanted, *(parent / wanted for parent in parents)]
    for candidate in candidates:
        if (candidate / NAME).is_file():
            return candidate
    lost = next((one for one in candidates if one.is_dir()), None)
    kinds = "report, run, release or export"
    what = f"this is no finished {kinds}: it has no {NAME}" if lost else "there is no such directory"
    there = ", ".join(f"{one.parent.name}/{one.name}" for parent in parents for one in finished(parent))
    fix = f"tutelage verify one of: {there}" if there else "make one first: tutelage curate release"
    raise WorkspaceError(what, where=str(lost or wanted), fix=fix)
