"""Secrets that must not be shown: API keys, which go nowhere but into a request's header, and passwords in URLs."""

from __future__ import annotations

import os
import re

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


def without_password(text: str) -> str:
    """The text with the passwords of the URLs in it taken out."""
    return re.sub(r"(://[^:/@\s]*):[^@\s]*@", r"\1:…@", text)
