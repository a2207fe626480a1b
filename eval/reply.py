"""A chat completion, as a server words it, read for what is wanted of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_HALVES = re.compile("[\ud800-\udfff]")  # of surrogate pairs: what no file can hold


@dataclass(frozen=True)
class Reply:
    """One answer. `tokens` are the bytes of its tokens, `logprobs` theirs in nats; None where the server gave none."""

    text: str
    finished: bool
    seconds: float
    count: int | None
    tokens: tuple[bytes, ...] | None = None
    logprobs: tuple[float, ...] | None = None


def read_reply(document: Any, seconds: float) -> Reply | None:
    """A chat completion as a `Reply`; None where it is none. No content (a refusal, only thoughts) is an empty text."""
    try:
        choice = document["choices"][0]
        text = choice["message"].get("content") or ""
        count = (document.get("usage") or {}).get("completion_tokens")
        finished = choice.get("finish_reason") != "length"
    except (KeyError, IndexError, TypeError, AttributeError):
        return None
    if not isinstance(text, str):
        return None
    text = _HALVES.sub("\ufffd", text)  # JSON's escapes can spell half an emoji, as where an answer was cut
    found = _read_logprobs(choice)
    tokens = tuple(one for one, _ in found) if found else None
    logprobs = tuple(one for _, one in found) if found else None
    return Reply(text, finished, seconds, count if isinstance(count, int) and count >= 0 else None, tokens, logprobs)


def _read_logprobs(choice: dict[str, Any]) -> list[tuple[bytes, float]] | None:
    """The tokens with their log-probabilities; None where there are none, or not of every token."""
    try:
        listed = (choice.get("logprobs") or {}).get("content")
        return [(_bytes(one), float(one["logprob"])) for one in listed] if listed else None
    except (KeyError, TypeError, AttributeError, ValueError):
        return None


def _bytes(entry: dict[str, Any]) -> bytes:
    given = entry.get("bytes")
    return bytes(given) if given is not None else _HALVES.sub("\ufffd", str(entry["token"])).encode()
