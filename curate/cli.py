"""The commands of stage one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from curate.console import FINDINGS, Finite, emit, json_option, progress, say, workspace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from curate.records import Unreadable
    from curate.splits import GroupBy
    from curate.unanswerable import How

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
    `answerable` takes any field: empty, null, zero, "no", "false" and "n/a" mean no.

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

    place = workspace()
    behaviour = load_behaviour(place.behaviour)
    plan = parse_plan(maps, sets, abstain_unanswerable, renumber_passages)
    reading = read_files(files, plan, behaviour)
    merged = merge(place, reading.pairs.values())
    _complain(reading.unreadable)
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


def _complain(unreadable: Sequence[Unreadable]) -> None:
    """Each reason once with its lines: a wrong --map fails on every line in the same way."""
    groups: dict[tuple[str, str], list[int]] = {}
    for one in unreadable:
        groups.setdefault((one.file, one.reason), []).extend([one.line] if one.line else [])
    for (file, reason), lines in list(groups.items())[:SHOWN]:
        named = ", ".join(map(str, lines[:5])) + (f" and {len(lines) - 5:,} more" if len(lines) > 5 else "")
        say(f"unreadable: {file}{f', line {named}' if lines else ''}: {reason}")
    if len(groups) > SHOWN:
        say(f"… and {len(groups) - SHOWN:,} more; --json has them all")


@click.command()
@click.option("--rule", metavar="RULE", help="Only this rule, every finding of it.")
@click.option("--level", type=click.Choice(["warning", "error"]), default="warning", help="From this level on.")
@click.option(
    "--max-characters",
    type=click.IntRange(min=1),
    help="Limit of a pair's length; four times the recipe's max_length if not given.",
)
@json_option
@click.pass_context
def check(ctx: click.Context, rule: str | None, level: str, max_characters: int | None, as_json: bool) -> None:
    """Find what is wrong with the pairs: what would be trained badly, leak, or contradict itself.

    Changes nothing. docs/rules.md has a section for each rule. Exit code 3 where there are findings of the level asked
    for; a release leaves pairs with errors out and takes those with warnings.

    \b
    Example:
      tutelage curate check
      tutelage curate check --rule personal-data
    """
    from curate.behaviour import load_behaviour
    from curate.checks import CHARACTERS_PER_TOKEN, MAX_CHARACTERS, RULES, check_pairs
    from curate.facts import recipe_tokens
    from curate.findings import document
    from curate.listing import listing
    from curate.pairs import read_pairs

    if rule is not None and rule not in RULES:
        raise click.BadParameter(f"{rule!r} is none of {', '.join(RULES)}", param_hint="--rule")
    place = workspace()
    behaviour = load_behaviour(place.behaviour)
    pairs = read_pairs(place.pairs)
    tokens = recipe_tokens(place.recipe)
    limit = max_characters or (tokens * CHARACTERS_PER_TOKEN if tokens else MAX_CHARACTERS)
    findings = [
        one
        for one in check_pairs(progress(pairs, "checking", len(pairs)), behaviour, limit)
        if (rule is None or one.rule == rule) and (level == "warning" or one.level == "error")
    ]
    emit(document(findings), listing(findings, len(pairs), everything=rule is not None), as_json)
    ctx.exit(FINDINGS if findings else 0)


@click.command()
@click.option(
    "--share",
    type=Finite(0, 1, max_open=True),
    default=0.3,
    show_default=True,
    help="Share of unanswerable pairs to reach.",
)
@click.option(
    "--how",
    type=click.Choice(["remove", "swap", "both"]),
    default="swap",
    show_default=True,
    help="Remove the supporting passage, or swap it for one of another pair that does not hold the answer.",
)
@click.option("--seed", type=int, default=17, show_default=True, help="Which pairs get a twin, and which distractors.")
@json_option
def unanswerable(share: float, how: How, seed: int, as_json: bool) -> None:
    """Make abstaining twins of answerable pairs: the same question without the passage that holds the answer.

    Adds twins until unanswerable pairs make up the share. No passage of a twin holds an accepted answer; pairs for
    which that cannot be had or verified are skipped and counted. A twin's meta.twin_of names its original, and a
    release keeps both on one side. Running it again adds nothing.

    Swapping leaves as many passages as there were. Removing leaves fewer, which a model may take for the sign to
    abstain: use it where the number of passages varies anyway.

    \b
    Example:
      tutelage curate unanswerable --share 0.3
    """
    from curate.behaviour import load_behaviour
    from curate.importing import merge_locked
    from curate.pairs import read_pairs
    from curate.unanswerable import make_twins

    place = workspace()
    behaviour = load_behaviour(place.behaviour)
    with place.lock():
        pairs = read_pairs(place.pairs)
        twins = make_twins(pairs, behaviour, share, how, seed, lambda some, most: progress(some, "making twins", most))
        if twins.made:
            merge_locked(place, twins.made)
    silent = sum(not behaviour.is_answerable(pair) for pair in pairs) + len(twins.made)
    total = len(pairs) + len(twins.made)
    reached = silent / total if total else None
    for reason, count in sorted(twins.skipped.items()):
        say(f"skipped {count:,}: {reason}")
    if len(twins.made) < twins.wanted:
        say(f"{twins.wanted:,} twins were wanted for a share of {share:.0%}; no more can be made.")
    text = f"{len(twins.made):,} twins added; {silent:,} of {total:,} pairs are unanswerable"
    emit(
        {
            "made": len(twins.made),
            "wanted": twins.wanted,
            "skipped": dict(sorted(twins.skipped.items())),
            "unanswerable": silent,
            "total": total,
            "share": reached,
        },
        text + (f" ({reached:.0%})" if reached is not None else ""),
        as_json,
    )


@click.command()
@click.option("--name", metavar="NAME", help="The release's name; r1, r2, … if not given.")
@click.option(
    "--fractions",
    metavar="A,B,C,D",
    help="Shares of train, validation, calibration and test; 0.6,0.1,0.1,0.2 if not given. 0 does without a split.",
)
@click.option(
    "--group-by",
    type=click.Choice(["document", "passage"]),
    default="document",
    show_default=True,
    help="What must not stand in two splits: a source document, or only a single passage of it.",
)
@click.option("--fresh", is_flag=True, help="Split anew; a model trained on an earlier release has seen the new tests.")
@click.option("--unreviewed", is_flag=True, help="Take pairs that nobody has reviewed too; the card says so.")
@click.option(
    "--erase",
    "erase",
    multiple=True,
    metavar="PERSON_OR_SOURCE",
    help="Take nothing of this reviewer, source or document; says which runs and reports hold some. Repeatable.",
)
@json_option
def release(
    name: str | None,
    fractions: str | None,
    group_by: GroupBy,
    fresh: bool,
    unreviewed: bool,
    erase: tuple[str, ...],
    as_json: bool,
) -> None:
    """Split, freeze and hash the pairs.

    Pairs that rest on one source document or text, have the same input, are near-duplicates, or are a question and its
    unanswerable twin go to one split. Pairs and documents of earlier releases keep theirs. Pairs with errors (`tutelage
    curate check`) and second copies are left out, each one named in the manifest. Releasing the same pairs again
    changes nothing.

    Only pairs that the team has settled go in, as it settled them (`tutelage curate push`). --unreviewed takes those
    that nobody has reviewed too; what reviewers rejected or dispute stays out.

    \b
    Example:
      tutelage curate release --name r1 --fractions 0.6,0.1,0.1,0.2
      tutelage curate release --erase forum-2019.jsonl
    """
    from curate.erasing import containing
    from curate.release import Options, describe, make_release, release_document
    from curate.reviewed import require_review
    from curate.splits import parse_fractions

    place = workspace()
    require_review(place, unreviewed)
    wanted = parse_fractions(fractions) if fractions is not None else None
    held = containing(place, erase) if erase else {}
    for kind, names in held.items():  # said first: it counts even where too little is left for a release
        say(f"{kind} that hold something of {', '.join(erase)}: {', '.join(names) or 'none'}")
    made = make_release(place, Options(name, wanted, group_by, fresh, unreviewed, erase))
    document = release_document(made)
    if erase:
        document["erased_from"] = held
        say("The pairs themselves are still in pairs.jsonl and review/: delete them there for good.")
    for line in made.release.manifest.details["warnings"]:
        say(f"Note: {line}")
    emit(document, describe(made), as_json)
