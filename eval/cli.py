"""The commands of stage three."""

from __future__ import annotations

from pathlib import Path

import click

from curate.console import DONE, FINDINGS, INCONCLUSIVE, Finite, emit, json_option, say

EXITS = {"GO": DONE, "NO-GO": FINDINGS, "INCONCLUSIVE": INCONCLUSIVE}
File = click.Path(dir_okay=False, path_type=Path)
Directory = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("predictions", type=File)
@click.option("--release", metavar="NAME", help="Score against this release's test split; the newest if not given.")
@click.option("--pairs", type=File, help="Score against the pairs of this file instead.")
@click.option("--behaviour", type=File, help="With --pairs: the behaviour; the workspace's if not given.")
@click.option("--baseline", type=File, help="Predictions of the model to compare with, on the same pairs.")
@click.option("--retention", type=(File, File), metavar="BASE TUNED", help="Results on general items, for the gate.")
@click.option("--closed-book", type=File, help="Predictions made without passages: what the model knows by heart.")
@click.option("--partial", is_flag=True, help="Score what is there although some pairs have no prediction.")
@click.option("--slice", "slices", metavar="KEY", multiple=True, help="Also by each value of this key of `meta`.")
@click.option("--out", type=Directory, help="Write the report into this directory; one of eval score is replaced.")
@json_option
@click.pass_context
def score(
    ctx: click.Context,
    predictions: Path,
    release: str | None,
    pairs: Path | None,
    behaviour: Path | None,
    baseline: Path | None,
    retention: tuple[Path, Path] | None,
    closed_book: Path | None,
    partial: bool,
    slices: tuple[str, ...],
    out: Path | None,
    as_json: bool,
) -> None:
    """Score outputs made anywhere and judge them by the behaviour's gate.

    PREDICTIONS is a file of JSON lines: {"id": "…", "output": "the raw text"}, with "confidence", "finish", "correct"
    and "abstained" where there are any. With a release, predictions for its calibration split choose the threshold.

    Exit code: 0 GO, 3 NO-GO, 4 INCONCLUSIVE.

    \b
    Example:
      tutelage eval score answers.jsonl --release v1 --baseline before.jsonl --out reports/first
    """
    from curate.workspace import Workspace
    from eval.scored import Request, score_files, write_scored
    from eval.tables import scores_text

    request = Request(predictions, release, pairs, behaviour, baseline, retention, closed_book, partial, slices)
    scored = score_files(request, Workspace(Path()))
    if scored.scores["sources"]["partial"]:
        n, total = scored.scores["n"], len(scored.against.test)
        say(f"Only {n:,} of {total:,} pairs have a prediction; the rest count nowhere.")
    if out is not None:
        write_scored(scored, out)
        say(f"Report: {out / 'report.html'}")
    emit(scored.scores, scores_text(scored.scores), as_json)
    ctx.exit(EXITS[scored.scores["verdict"]])


@click.command()
@click.argument("base", type=File)
@click.argument("tuned", type=File)
@click.option("--margin", type=Finite(0, 1, max_open=True), default=0.02, show_default=True, help="Of accuracy.")
@click.option("--loss-margin", type=Finite(0), default=0.05, show_default=True, help="In nats per token.")
@json_option
@click.pass_context
def retention(ctx: click.Context, base: Path, tuned: Path, margin: float, loss_margin: float, as_json: bool) -> None:
    """Say whether a tuned model still does what its base could: paired non-inferiority, set by set.

    BASE and TUNED are files of JSON lines {"id": "…", "correct": true}, with "set" and "group" where there are any; or
    {"id": "…", "nats_per_token": 2.1, "tokens": 40} for losses. Both models must have done the same items.

    Exit code: 0 non-inferior on every set, 3 inferior on one, 4 too few items to say.

    \b
    Example:
      tutelage eval retention base.jsonl tuned.jsonl --margin 0.02
    """
    from eval.retention import read_results, retention_numbers
    from eval.tables import retention_text

    numbers = retention_numbers(read_results(base), read_results(tuned), margin, loss_margin)
    emit(numbers, retention_text(numbers), as_json)
    ctx.exit({True: DONE, False: FINDINGS, None: INCONCLUSIVE}[numbers["non_inferior"]])


@click.command()
@click.argument("directory", metavar="DIR", type=Directory)
@json_option
@click.pass_context
def gate(ctx: click.Context, directory: Path, as_json: bool) -> None:
    """Print a report's verdict and exit with it, as a step of CI.

    Exit code: 0 GO, 3 NO-GO, 4 INCONCLUSIVE; 1 where the scores were changed after they were written.

    \b
    Example:
      tutelage eval gate reports/v1 || echo "not shipped"
    """
    from eval.comparing import read_scores
    from eval.tables import gate_table

    scores = read_scores(find_report(directory))
    shown = {key: scores.get(key) for key in ("verdict", "reasons", "gate", "n")}
    reasons = "\n".join(f"- {reason}" for reason in scores.get("reasons") or [])
    text = "\n\n".join(part for part in (scores["verdict"], reasons, gate_table(scores)) if part)
    emit(shown, text, as_json)
    ctx.exit(EXITS[scores["verdict"]])


@click.command()
@click.argument("directories", metavar="DIR DIR…", nargs=-1, required=True, type=Directory)
@json_option
def compare(directories: tuple[Path, ...], as_json: bool) -> None:
    """Put reports side by side and say which differences are real.

    Every report is held against the first one, on the pairs that both answered: an exact McNemar test on what is right
    and wrong, adjusted for the number of reports.

    \b
    Example:
      tutelage eval compare reports/before reports/after
    """
    from eval.comparing import compare_reports, name_reports
    from eval.tables import comparison_text

    if len(directories) < 2:
        raise click.UsageError("Name at least two reports.")
    compared = compare_reports(name_reports([find_report(directory) for directory in directories]))
    emit(compared, comparison_text(compared), as_json)


def find_report(directory: Path) -> Path:
    """The report at that path, or of that name in the workspace's `reports`."""
    from curate.manifest import SCORES
    from curate.workspace import Workspace

    if (directory / SCORES).is_file():
        return directory
    return Workspace(Path()).find("report", directory)


@click.command()
@click.argument("model", metavar="RUN_OR_MODEL")
@click.option("--release", metavar="NAME", help="Ask this release's test split; the run's own if not given.")
@click.option("--name", metavar="NAME", help="The report's name; the run's if not given.")
@click.option("--limit", type=click.IntRange(1), help="A first look: at most so many pairs and items of a set.")
@click.option("--max-new-tokens", type=click.IntRange(1), help="Longest answer; twice the longest wanted and some.")
@click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True, help="Prompts answered at once.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where.")
@click.option("--endpoint", metavar="URL", help="Ask an OpenAI-compatible server, as in http://localhost:8000/v1.")
@click.option("--model", "served_as", metavar="NAME", help="With --endpoint: the model's name there, if it has many.")
@click.option("--base-model", metavar="NAME", help="With --endpoint: the base's name there, to compare with.")
@click.option(
    "--concurrency",
    type=click.IntRange(1, 256),
    default=8,
    show_default=True,
    help="Requests at a time, within a batch.",
)
@click.option("--no-logprobs", is_flag=True, help="With --endpoint: do without confidence and calibration.")
@click.option("--samples", type=click.IntRange(2, 100), metavar="K", help="Confidence from agreement of K draws.")
@click.option("--constrained", is_flag=True, help="Also answer with outputs bound to the schema, side by side.")
@click.option("--tasks", metavar="A,B", help="Tasks of the lm-evaluation-harness that must not be forgotten.")
@click.option("--tasks-path", type=Directory, help="A directory with tasks of your own for --tasks.")
@click.option("--no-closed-book", is_flag=True, help="Do not ask again without passages.")
@click.option("--slice", "slices", metavar="KEY", multiple=True, help="Also by each value of this key of `meta`.")
@json_option
@click.pass_context
def run(
    ctx: click.Context,
    model: str,
    release: str | None,
    name: str | None,
    limit: int | None,
    max_new_tokens: int | None,
    batch_size: int,
    device: str,
    endpoint: str | None,
    served_as: str | None,
    base_model: str | None,
    concurrency: int,
    no_logprobs: bool,
    samples: int | None,
    constrained: bool,
    tasks: str | None,
    tasks_path: Path | None,
    no_closed_book: bool,
    slices: tuple[str, ...],
    as_json: bool,
) -> None:
    """Answer the test split with a run and with its base, score both, and write a report into reports/.

    RUN_OR_MODEL is a run's name, or a model: a directory or a name on the hub, which is then scored alone. The
    calibration split chooses the confidence threshold; the run's held-out general items show what was forgotten. What
    was interrupted goes on where it stopped when the command is given again. Options that would throw answers away are
    refused: --name begins another report.

    With --endpoint a server answers and no weights are loaded; RUN_OR_MODEL says which run it serves, or is just a
    name. A key is read from TUTELAGE_API_KEY. The base is compared with where --base-model names it.

    What costs more: answerable questions are asked once more without passages (--no-closed-book leaves that out),
    --samples K asks all K times more, --constrained twice.

    Exit code: 0 GO, 3 NO-GO, 4 INCONCLUSIVE.

    \b
    Example:
      tutelage eval run first
      tutelage eval run first --endpoint http://localhost:8000/v1 --model first --base-model base
    """
    from curate.console import workspace
    from eval.endpoint import Served
    from eval.planning import Request
    from eval.running import evaluate
    from eval.tables import scores_text

    if endpoint is None and (served_as or base_model or no_logprobs):
        raise click.UsageError("--model, --base-model and --no-logprobs go with --endpoint.")
    told = not no_logprobs and samples is None  # drawn answers stand in for log-probabilities
    request = Request(
        model=model,
        release=release,
        name=name,
        limit=limit,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        device=device,
        samples=samples or 0,
        constrained=constrained,
        closed_book=not no_closed_book,
        slices=slices,
        tasks=tuple(one.strip() for one in (tasks or "").split(",") if one.strip()),
        tasks_path=tasks_path,
        served=Served(endpoint, served_as, base_model, concurrency, told) if endpoint else None,
    )
    directory, scores = evaluate(workspace(), request)
    say(f"Report: {directory / 'report.html'}")
    emit(scores, scores_text(scores), as_json)
    ctx.exit(EXITS[scores["verdict"]])


@click.command()
@click.argument("directory", metavar="DIR", type=Directory)
@json_option
def report(directory: Path, as_json: bool) -> None:
    """Write a report's pages again from its scores, as after an update of tutelage.

    Nothing is answered or scored again; the manifest is brought up to date for the pages alone.

    \b
    Example:
      tutelage eval report reports/first
    """
    from eval.running import rewrite_pages

    page = rewrite_pages(find_report(directory))
    emit({"report": str(page)}, str(page), as_json)
