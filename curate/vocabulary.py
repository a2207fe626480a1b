"""Terms a behaviour wants avoided, found in a text."""

from __future__ import annotations

import re

from curate.behaviour import Behaviour
from curate.compare import UNSPACED

_LETTER = re.compile(f"[{UNSPACED}]")


def terms_to_avoid(behaviour: Behaviour) -> dict[str, str]:
    """Term to avoid -> the term to write instead."""
    prefer = behaviour.vocabulary.prefer if behaviour.vocabulary else {}
    return {term: preferred for preferred, terms in prefer.items() for term in terms if term.strip()}


def term_pattern(term: str) -> re.Pattern[str]:
    """The term as whole words in any case, any white space between them; as it is where scripts put none."""
    words = [re.escape(word) for word in term.split()]
    begin = "" if _LETTER.match(words[0]) else r"(?<!\w)"
    end = "" if _LETTER.match(words[-1][-1]) else r"(?!\w)"
    return re.compile(begin + r"\s+".join(words) + end, re.IGNORECASE)
