"""Commands of a review in Argilla: serve it here, push pairs, pull responses, see how far the team is."""

from __future__ import annotations

from pathlib import Path

import click

from curate.console import emit, json_option, say, workspace


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=6900, show_default=True, help="Where to listen.")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 lets the network in."
)
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where data and credentials are kept; .argilla in the workspace if not given.",
)
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the server's own environment is kept (600 MB); the user's cache directory if not given.",
)
@click.option("--redis", metavar="URL", help="A Redis, redis://…; in memory if not given.")
@click.option("--database", metavar="URL", help="postgresql+asyncpg://…; SQLite in the home directory if not given.")
@json_option
@click.pass_context
def serve(
    ctx: click.Context,
    port: int,
    host: str,
    home: Path | None,
    cache: Path | None,
    redis: str | None,
    database: str | None,
    as_json: bool,
) -> None:
    """Start a real Argilla on this machine; it runs until Ctrl-C.

    The first start makes argilla-server's own environment (about 600 MB, from a lock file with hashes). Records, users
    and responses are kept and survive a crash. With --database they lie in PostgreSQL, and so does
    the index of the text search.

    \b
    Example:
      tutelage curate serve
      tutelage curate serve --port 7000 --database postgresql+asyncpg://argilla@db/argilla
    """
    from curate.argilla.environment import cache_directory
    from curate.argilla.server import Options, serving, watch

    place = (home or workspace(ctx).root / ".argilla").absolute()
    python = _environment(cache or cache_directory())
    options = Options(place, host, port, database, redis)
    if host not in ("127.0.0.1", "::1", "localhost"):
        say("Anyone on the network can reach this Argilla, over plain HTTP: put a proxy with TLS before it.")
    say("Starting argilla-server 2.8 …")
    with serving(python, options) as (process, credentials):
        document = {
            "url": options.url,
            "username": credentials.username,
            "credentials": str(place / "credentials.json"),
            "log": str(place / "server.log"),
        }
        text = (
            f"Argilla is ready at {options.url} . Sign in as {credentials.username!r};"
            f" the password is in {place / 'credentials.json'} .\n"
            "Next, in another terminal: tutelage curate push --annotator NAME   (Ctrl-C here ends Argilla)"
        )
        emit(document, text, as_json)
        watch(process, say, place)


def _environment(cache: Path) -> Path:
    """The server's Python, with a bar while its environment is made."""
    import sys

    from rich.console import Console
    from rich.progress import Progress

    from curate.argilla.environment import is_ready, pinned, prepare

    if is_ready(cache):
        return prepare(cache, lambda reached: None)
    total = len(pinned())
    say(f"Making argilla-server's own environment, once ({total} packages, about 600 MB, in {cache}) …")
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("fetching", total=total + 1)
        return prepare(cache, lambda reached: bar.update(task, completed=min(reached, total)))
