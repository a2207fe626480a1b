"""Commands of a review in Argilla: serve it here, push pairs, pull responses, see how far the team is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
def serve(
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

    place = (home or workspace().root / ".argilla").absolute()
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


_api_url = click.option(
    "--api-url",
    metavar="URL",
    help="A hosted Argilla; else $ARGILLA_API_URL, else the one served here. Its key: $ARGILLA_API_KEY.",
)
_home = click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="The --home of curate serve, where that was given.",
)


@click.command()
@_api_url
@_home
@click.option("--dataset", metavar="NAME", help="The dataset in Argilla; named after the behaviour if not given.")
@click.option("--team", metavar="NAME", help="The Argilla workspace; named after the behaviour if not given.")
@click.option("--overlap", type=click.IntRange(1, 50), help="How many reviewers each pair gets; 2 if never given.")
@click.option(
    "--annotator", "annotators", multiple=True, metavar="NAME", help="A reviewer; made if missing. Repeatable."
)
@click.option(
    "--adjudicator", "adjudicators", multiple=True, metavar="NAME", help="Who decides between reviewers. Repeatable."
)
@json_option
def push(
    api_url: str | None,
    home: Path | None,
    dataset: str | None,
    team: str | None,
    overlap: int | None,
    annotators: tuple[str, ...],
    adjudicators: tuple[str, ...],
    as_json: bool,
) -> None:
    """Bring the pairs to Argilla for review.

    May be run again at any time: nothing is added twice, a changed pair changes its record (and is reviewed anew), and
    a push that was broken off goes on. New passwords are in .argilla/passwords.json, which only you can read.

    \b
    Example:
      tutelage curate push --overlap 2 --annotator anna --annotator ben --annotator chris
      ARGILLA_API_KEY=… tutelage curate push --api-url https://argilla.example.com
    """
    from curate.argilla.connection import connect
    from curate.review import PushOptions
    from curate.review import push as push_pairs

    place = workspace()
    options = PushOptions(dataset, team, overlap, annotators, adjudicators)
    with connect(home or place.root / ".argilla", api_url) as client, _reporting() as report:
        done = push_pairs(client, place, options, report)
    text = (
        f"{len(done.added)} pairs added, {len(done.changed)} changed, {len(done.described)} described anew,"
        f" {done.unchanged} unchanged; dataset {done.terms.dataset!r} at {client.url},"
        f" {done.terms.overlap} reviewers a pair"
    )
    for name in done.changed[:20]:
        say(f"changed: {name} (to be reviewed anew; what was said of the old one is kept in review/)")
    if len(done.changed) > 20:
        say(f"… and {len(done.changed) - 20} more")
    if done.foreign:
        say(f"{len(done.foreign)} records in Argilla belong to no pair any more; nothing is done to them.")
    if done.people:
        say(f"New: {', '.join(done.people)}. Passwords: {place.root.resolve() / '.argilla' / 'passwords.json'}")
    emit(done.document(), text, as_json)


@click.command()
@_api_url
@_home
@json_option
def pull(api_url: str | None, home: Path | None, as_json: bool) -> None:
    """Bring the reviewers' responses back and settle the pairs they agree on.

    Responses are added to review/responses.jsonl, which is never rewritten; review/settled.jsonl follows from it. Pairs
    that reviewers disagree on go to a second dataset for adjudication. An answer that cannot be used (a corrected
    output that breaks the schema, cites a passage that is not there, or contradicts itself) goes back with the reason.

    \b
    Example:
      tutelage curate pull && tutelage curate status
    """
    from curate.argilla.connection import connect
    from curate.pulling import pull as pull_responses

    place = workspace()
    with connect(home or place.root / ".argilla", api_url) as client, _reporting() as report:
        done = pull_responses(client, place, report)
    for pair, who, why in done.returned[:20]:
        say(f"returned to {who}: {pair}: {why}")
    if len(done.returned) > 20:
        say(f"… and {len(done.returned) - 20} more")
    if done.missing:
        say(f"{len(done.missing)} pairs have no record in Argilla: new, or deleted there. Push adds them.")
    if done.undecided:
        say("Nobody is named to decide between the reviewers: tutelage curate push --adjudicator NAME")
    text = (
        f"{len(done.new)} new responses, {len(done.returned)} returned to their reviewers;"
        f" {len(done.state.settled())} of {len(done.state.pairs)} pairs settled, {done.adjudicating} to adjudicate"
    )
    emit(done.document(), text, as_json)


@click.command()
@json_option
def status(as_json: bool) -> None:
    """How far the review is, how much the team agrees, and what the gate still needs; as of the last pull.

    \b
    Example:
      tutelage curate status
    """
    from curate.behaviour import load_behaviour
    from curate.errors import ReviewError
    from curate.progress_report import status_document, status_text
    from curate.review_log import review_state
    from curate.splits import FRACTIONS

    place = workspace()
    behaviour = load_behaviour(place.behaviour)
    state = review_state(place, behaviour=behaviour)
    if state.terms is None:
        raise ReviewError("nothing was pushed from here", where=str(place.root.resolve()), fix="tutelage curate push")
    document = status_document(state, state.terms, behaviour, FRACTIONS["test"])
    emit(document, status_text(document, state.reviewers), as_json)


@contextmanager
def _reporting() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on standard error that hears what is done, how many so far and of how many (0: not known)."""
    import sys

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("", total=None)

        def report(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total or None)

        yield report
