"""API keys, which come from the environment and go nowhere but into a request's header."""

from __future__ import annotations

import os

from curate.errors import TutelageError


def read_key(variable: str) -> str | None:
    """The key in an environment variable, less white space around it; None where there is none.

    Raises `TutelageError` for one that no header can hold. It is never shown, as an error of the HTTP library would.
    """
    key = os.environ.get(variable, "").strip()
    if not all("!" <= letter <= "~" for letter in key):
        raise TutelageError(
            f"{variable} is no API key: it holds a blank, a line break or a letter that is not ASCII",
            fix="copy the key again",
        )
    return key or None
