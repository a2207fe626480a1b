"""The front door: the root command, the table of commands, the version.

The table is static so that `--help` loads no command: a command's module is imported when it runs.
"""

from __future__ import annotations

from contextlib import chdir
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import click

from curate.errors import TutelageError


class Entry(NamedTuple):
    """Where a command lives (`module:function`) and its line in the help."""

    target: str
    help: str


COMMANDS: dict[str, Entry | tuple[str, dict[str, Entry]]] = {
    "init": Entry("curate.front:init", "Make a workspace with a behaviour, a schema and a recipe to edit."),
    "advise": Entry("curate.front:advise", "Five questions: RAG, fine-tuning or both, and why."),
    "demo": Entry("tutelage_recipes.demo.cli:demo", "The whole way, offline, on a CPU, ending at a report."),
    "verify": Entry("curate.front:verify", "Walk the hash chain of a release, run, report or export."),
    "curate": (
        "Stage one: pairs worth training on.",
        {
            "import": Entry("curate.cli:import_", "Read pairs from files; merge by id."),
            "check": Entry("curate.cli:check", "Find what is wrong with the pairs."),
            "unanswerable": Entry("curate.cli:unanswerable", "Make abstaining twins of answerable pairs."),
            "serve": Entry("curate.cli_review:serve", "Start a real Argilla on this machine."),
            "push": Entry("curate.cli_review:push", "Bring the pairs to Argilla for review."),
            "pull": Entry("curate.cli_review:pull", "Bring the responses back; settle what is agreed on."),
            "status": Entry("curate.cli_review:status", "How far the review is, and how much the team agrees."),
            "release": Entry("curate.cli:release", "Split, freeze and hash the pairs."),
        },
    ),
    "train": (
        "Stage two: a QLoRA adapter, under guard.",
        {
            "check": Entry("train.cli:check", "Pre-flight: refuse what would train badly, and show why."),
            "run": Entry("train.cli:run", "Train under guard; pick the adapter scale."),
            "export": Entry("train.cli:export", "Adapter or merged model, as a server takes it."),
        },
    ),
    "eval": (
        "Stage three: numbers, a verdict, a report.",
        {
            "run": Entry("eval.cli:run", "Answer the test split, score it, report."),
            "score": Entry("eval.cli:score", "Score outputs made anywhere."),
            "retention": Entry("eval.cli:retention", "Paired non-inferiority of two files of results."),
            "report": Entry("eval.cli:report", "Write a report's pages again from its scores."),
            "compare": Entry("eval.cli:compare", "Put reports side by side."),
            "gate": Entry("eval.cli:gate", "A report's verdict as an exit code."),
        },
    ),
}


class LazyGroup(click.Group):
    """A click group that reads names and help from a table and imports a command only to run it."""

    def __init__(self, *args: Any, table: dict[str, Any], **options: Any) -> None:
        super().__init__(*args, **options)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self.table.get(cmd_name)
        if entry is None:
            return None
        if isinstance(entry, Entry):
            module, _, name = entry.target.partition(":")
            command = getattr(import_module(module), name)
            assert isinstance(command, click.Command)
            return command
        text, table = entry
        return LazyGroup(cmd_name, table=table, help=text, no_args_is_help=True)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, entry.help if isinstance(entry, Entry) else entry[0]) for name, entry in self.table.items()]
            )


class Root(LazyGroup):
    """The root group: turns our errors into one message without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TutelageError as error:
            raise click.ClickException(str(error)) from error
        except KeyboardInterrupt:
            said = "Interrupted. What was finished is kept; the same command goes on from there (train run: --resume)."
            click.echo(said, err=True)
            raise SystemExit(130) from None
        except OSError as error:
            if error.filename is None or isinstance(error, BrokenPipeError):
                raise
            raise click.ClickException(f"{error.filename}: {error.strerror}") from error


@click.group(cls=Root, table=COMMANDS, no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tutelage", prog_name="tutelage")
@click.option(
    "-C",
    "directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    help="Run as if started in this directory, the workspace.",
)
@click.pass_context
def main(ctx: click.Context, directory: Path) -> None:
    """Fine-tune a model's behaviour on top of a working RAG system.

    \b
    RAG log --curate--> release --train--> run --eval--> report (GO / NO-GO / INCONCLUSIVE)

    \b
    Exit codes: 0 done or GO, 1 an error, 2 wrong usage, 3 findings or NO-GO, 4 INCONCLUSIVE,
    130 interrupted.

    \b
    Example:
      tutelage demo
    """
    ctx.with_resource(chdir(directory))  # as in git: paths that follow are relative to it too


if __name__ == "__main__":
    main()
