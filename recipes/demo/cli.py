"""`tutelage demo`: the real commands, one after another, on a workspace of its own."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

import click


@click.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path), default=Path("demo"))
@click.option("--pairs", default=1600, show_default=True, type=click.IntRange(600), help="Requests in the RAG log.")
@click.pass_context
def demo(ctx: click.Context, directory: Path, pairs: int) -> None:
    """Go the whole way, offline, on a CPU: curate, train under guard, evaluate, report.

    Makes a workspace in DIRECTORY with a small world, a RAG log and a base model of about a million parameters, then
    runs the commands a team would type, each one shown. Run again, it goes on where it stopped. Ends with the
    verdict's exit code: 0 GO, 3 NO-GO, 4 INCONCLUSIVE.

    \b
    Example:
      tutelage demo demo
    """
    from .workspace import IMPORT, make_workspace

    started = time.monotonic()
    make_workspace(directory, pairs)
    for command, allowed in (
        (IMPORT, (0,)),
        (("curate", "unanswerable", "--share", "0.4"), (0,)),
        (("curate", "check"), (0, 3)),
        (("curate", "release", "--unreviewed", "--name", "demo", "--fractions", "0.5,0.1,0.1,0.3"), (0,)),
        (("train", "check", "recipe.yaml"), (0,)),
        (("train", "run", "recipe.yaml", "--release", "demo", "--name", "demo", "--resume"), (0,)),
    ):
        code = _run(ctx, directory, command)
        if code not in allowed:
            raise click.ClickException(f"`tutelage {shlex.join(command)}` ended with exit code {code}")
    code = _run(ctx, directory, ("eval", "run", "demo", "--name", "demo"))
    report = (directory / "reports" / "demo" / "report.html").resolve()
    minutes = (time.monotonic() - started) / 60
    click.echo(f"\nDone in {minutes:.1f} minutes. Open the report in a browser:\n  {report.as_uri()}")
    ctx.exit(code)


def _run(ctx: click.Context, directory: Path, command: tuple[str, ...]) -> int:
    """Run one command as if it had been typed; its exit code."""
    root = ctx.find_root().command
    arguments = ["-C", str(directory), *command]
    click.secho(f"\n$ tutelage {shlex.join(arguments)}", bold=True)
    result = root.main(arguments, prog_name="tutelage", standalone_mode=False)
    return result if isinstance(result, int) else 0
