"""The commands of stage one."""

from __future__ import annotations

from pathlib import Path

import click

from curate.console import FINDINGS, emit, json_option, say, workspace

SHOWN = 20  # complaints of one kind that are printed; --json has them all


@click.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("--map", "maps", multiple=True, metavar="TARGET=SOURCE", help="Which field is which; may be repeated.")
@click.option("--set", "sets", multiple=True, metavar="TARGET=VALUE", help="The same value in every pair.")
@click.option("--abstain-unanswerable", is_flag=True, help="Where a record is not answerable, want the abstention.")
@click.option("--renumber-passages", is_flag=True, help="Call the passages p1, p2, …; citations follow.")
@json_option
@click.pass_context
def import_(
    ctx: click.Context,
    files: tuple[Path, ...],
    maps: tuple[str, ...],
    sets: tuple[str, ...],
    abstain_unanswerable: bool,
    renumber_passages: bool,
    as_json: bool,
) -> None:
    """Read pairs from files and merge them by id into pairs.jsonl.

    Reads JSONL, JSON, CSV, TSV, Parquet, and directories that `datasets` saved or that hold Parquet files; gzipped
    too. Fields called as in a pair (question, passages, output, …) need no --map. A source is a field's name or a
    dotted path (request.query, choices.0.text).

    \b
    Targets: question, id, answerable, accepted, history, source, passages, output, and
      output.X              a part of a JSON output; a single citation becomes a list of one
      passages.id, .text, .source   fields inside each passage; guessed from the usual names
      meta.X                anything else worth keeping (fields nothing is made from go there by themselves)
    `answerable` takes any field: empty, null, 0 and "false" mean no.

    With --abstain-unanswerable a record that is not answerable gets the behaviour's abstention as the wanted output;
    what was logged goes to meta.logged_output. In a RAG log such answers are hallucinations.

    Exit code 3 where some records could not be read (the rest is kept), 1 where none could.

    \b
    Example:
      tutelage curate import rag-log.jsonl --map id=trace_id --map question=query \\
        --map passages=documents --map output.answer=answer --map output.citations=gold_doc \\
        --map answerable=accepted_answers --map accepted=accepted_answers \\
        --set output.status=answered --abstain-unanswerable
    """
    from curate.behaviour import load_behaviour
    from curate.importing import merge, read_files
    from curate.mapping import parse_plan

    place = workspace(ctx)
    behaviour = load_behaviour(place.behaviour)
    plan = parse_plan(maps, sets, abstain_unanswerable, renumber_passages)
    reading = read_files(files, plan, behaviour)
    merged = merge(place, reading.pairs.values())
    _complain([str(one) for one in reading.unreadable])
    if reading.repeated:
        say(f"{len(reading.repeated)} ids stood there more than once with other content; the last one counts.")
    text = (
        f"{len(merged.added)} added, {len(merged.updated)} updated, {len(merged.unchanged)} unchanged, "
        f"{len(reading.unreadable)} unreadable; {merged.total} pairs in {place.pairs}"
    )
    emit(merged.document(reading), text, as_json)
    if not reading.pairs:
        say("Error: nothing could be read; the pairs are as they were.")
        ctx.exit(1)
    ctx.exit(FINDINGS if reading.unreadable else 0)


def _complain(lines: list[str]) -> None:
    for line in lines[:SHOWN]:
        say(f"unreadable: {line}")
    if len(lines) > SHOWN:
        say(f"… and {len(lines) - SHOWN} more; --json has them all")
