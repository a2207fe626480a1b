"""Where the tokens that a server names stand in the text it gave."""

from __future__ import annotations

from collections.abc import Sequence


def place_tokens(text: str, tokens: Sequence[bytes]) -> list[tuple[int, int]] | None:
    """Characters [start, end) of each token in `text`; what comes after the text (a stop token) has no place.

    Some servers leave out the blank that a token begins with; then white space before a token is passed over.

    A token that ends inside a character reaches to that character's end. Where servers spell such pieces as U+FFFD, the
    pieces share the characters up to the next token that can be found. None where tokens and text do not go together.
    """
    whole, at = text.encode(), 0
    places: list[tuple[int, int]] = []
    for token in tokens:
        if at >= len(whole):
            return places
        if not whole.startswith(token, at):
            return _place_loosely(text, tokens)
        start, end = at, at + len(token)
        places.append((_characters(whole, start, False), _characters(whole, end, True)))
        at = end
    return places if at >= len(whole) else None


def _characters(whole: bytes, at: int, up: bool) -> int:
    """Characters before a byte; that of a byte inside a character counts where `up`."""
    count = len(whole[:at].decode("utf-8", errors="ignore"))
    inside = at < len(whole) and 0x80 <= whole[at] < 0xC0
    return count + 1 if inside and up else count


def _place_loosely(text: str, tokens: Sequence[bytes]) -> list[tuple[int, int]] | None:
    places: list[tuple[int, int]] = []
    waiting, at = 0, 0  # tokens whose end is not known yet begin at `at`
    for token in tokens:
        if at >= len(text) and not waiting:
            break
        spelled = token.decode("utf-8", errors="replace")
        if "\ufffd" in spelled or not spelled:
            waiting += 1
            continue
        found = text.find(spelled, at)
        if found < 0:
            rest = [(at, len(text))] * waiting if waiting else []
            return [*places, *rest] if waiting else None
        if not waiting and text[at:found].strip():
            return None
        places += [(at, found)] * waiting + [(found, found + len(spelled))]
        waiting, at = 0, found + len(spelled)
    places += [(at, len(text))] * waiting
    return places if at >= len(text) or waiting else None
