"""Terms a behaviour wants avoided, found in a text."""

from __future__ import annotations

import re

from curate.behaviour import Behaviour


def terms_to_avoid(behaviour: Behaviour) -> dict[str, str]:
    """Term to avoid -> the term to write instead."""
    prefer = behaviour.vocabulary.prefer if behaviour.vocabulary else {}
    return {term: preferred for preferred, terms in prefer.items() for term in terms if term.strip()}


def term_pattern(term: str) -> re.Pattern[str]:
    """The term as whole words in any case, any white space between them."""
    words = r"\s+".join(map(re.escape, term.split()))
    return re.compile(rf"(?<!\w){words}(?!\w)", re.IGNORECASE)
