"""Which Argilla a command talks to: the one it is told of, else the one served from this workspace."""

from __future__ import annotations

import os
from pathlib import Path

from curate.apikey import read_key
from curate.argilla.client import Client
from curate.argilla.credentials import read_credentials
from curate.errors import ReviewError, ServerError
from curate.files import parse_json


def connect(home: Path, api_url: str | None = None) -> Client:
    """A client for `api_url`, else `$ARGILLA_API_URL`, else the Argilla served from `home`.

    A URL needs `$ARGILLA_API_KEY`. Raises `ReviewError` where there is none to talk to.
    """
    url = api_url or os.environ.get("ARGILLA_API_URL")
    if url:
        key = read_key("ARGILLA_API_KEY")
        if not key:
            raise ReviewError(
                f"there is no API key for {url}",
                fix="set ARGILLA_API_KEY to the key of an owner or admin: Argilla shows it under My settings",
            )
        return Client(url, key)
    try:
        served = parse_json((home / "server.json").read_text(encoding="utf-8"))
        return Client(str(served["url"]), read_credentials(home).api_key)
    except (FileNotFoundError, ServerError):
        raise ReviewError(
            "no Argilla is served from this workspace",
            where=str(home),
            fix="start one in another terminal (tutelage curate serve), or name a hosted one (--api-url URL)",
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReviewError(f"cannot be read: {error}", where=str(home / "server.json")) from error
