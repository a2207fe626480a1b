"""Terms a behaviour wants avoided, found in a text."""

from __future__ import annotations

import re

from curate.behaviour import Behaviour
from curate.compare import UNSPACED

_UNSPACED = re.compile(f"[{UNSPACED}]")
_SPACED = f"[^\\W{UNSPACED}]"  # only such a letter goes on a word: の and を beside PC do not


def terms_to_avoid(behaviour: Behaviour) -> dict[str, str]:
    """Term to avoid -> the term to write instead."""
    prefer = behaviour.vocabulary.prefer if behaviour.vocabulary else {}
    return {term: preferred for preferred, terms in prefer.items() for term in terms if term.strip()}


def term_pattern(term: str, instead: str) -> re.Pattern[str]:
    """The term as whole words in any case, any white space between them; as it is where scripts put none.

    Where it stands as a part of the term to write instead (ユーザ in ユーザー, mail in e-mail), it is not meant.
    """
    words = term.split()
    whole = r"\s+".join(map(re.escape, words))
    begin = "" if _UNSPACED.match(words[0]) else f"(?<!{_SPACED})"
    end = "" if _UNSPACED.match(words[-1][-1]) else f"(?!{_SPACED})"
    unless = "".join(
        f"(?!(?<={re.escape(instead[: part.start()])}){whole}{re.escape(instead[part.end() :])})"
        for part in re.finditer(whole, instead, re.IGNORECASE)
    )
    return re.compile(begin + unless + whole + end, re.IGNORECASE)
