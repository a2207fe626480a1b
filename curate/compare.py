"""How a given answer is compared with the wanted one. Every comparison gives a score between 0 and 1."""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

Comparator = Literal["exact", "f1", "number", "set", "contains"]

SHORT = 256  # characters: an answer, not a passage
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
# Thai, Lao, Burmese, Khmer, Japanese and Chinese put no space between words, and Korean none before a particle.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(f"[{UNSPACED}]|[^\\s{UNSPACED}]+")
_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?%?")


def normalise(value: Any) -> str:
    """Lower case, Unicode NFKC, white space folded. A Boolean or number is spelled as JSON spells it."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def plain_words(text: str) -> str:
    """Lower case letters and digits, one space between words; apostrophes of either kind are dropped."""
    return " ".join(re.findall(r"\w+", re.sub("['’‘`]", "", text.casefold())))


def squad_tokens(value: Any) -> list[str]:
    """The tokens of SQuAD's official script: lower case, no ASCII punctuation, no articles.

    A letter of a script without spaces between words is a token, as in the scripts of MLQA and KorQuAD.
    Source: `normalize_answer` of the SQuAD 2.0 evaluation script (Rajpurkar et al., 2018).
    """
    text = str(value)
    return list(_short_tokens(text)) if len(text) <= SHORT else _tokens(text)


def _tokens(text: str) -> list[str]:
    plain = _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION))
    return plain.split() if plain.isascii() else _WORD.findall(plain)


@lru_cache(maxsize=10_000)
def _short_tokens(text: str) -> tuple[str, ...]:
    """Kept, since one wanted answer is compared with many given ones."""
    return tuple(_tokens(text))


def token_f1(given: Any, wanted: Any) -> float:
    """SQuAD's token F1: 2·|common| / (|given| + |wanted|), tokens counted with multiplicity; 1 where both are empty."""
    left, right = squad_tokens(given), squad_tokens(wanted)
    if not left or not right:
        return float(left == right)
    common = sum((Counter(left) & Counter(right)).values())
    return 2 * common / (len(left) + len(right)) if common else 0.0


def as_number(value: Any) -> float | None:
    """The number that `value` is or the only one its text holds; None otherwise. `12 %` is 0.12, `1,200` is 1200.

    One too large for a float is None: all of them would be the same.
    """
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        return _finite(value)
    found = _NUMBER.findall(str(value).replace(" %", "%"))
    if len(found) != 1:
        return None
    text = found[0].replace(",", "")
    number = _finite(text.removesuffix("%"))
    return number / 100 if number is not None and text.endswith("%") else number


def _finite(value: float | str) -> float | None:
    try:
        number = float(value)
    except OverflowError:  # an integer of more than 308 digits
        return None
    return number if math.isfinite(number) else None


def _set_score(given: Any, wanted: Any) -> float:
    """Jaccard similarity of the two sets of normalised items; 1 where both are empty."""
    left, right = ({normalise(item) for item in (v if isinstance(v, list) else [v])} for v in (given, wanted))
    return len(left & right) / len(left | right) if left | right else 1.0


def _contains(given: Any, wanted: Any) -> float:
    """1 where the wanted tokens stand in the given ones, in order and together."""
    left, right = squad_tokens(given), squad_tokens(wanted)
    if not right:
        return float(not left)
    return float(any(left[i : i + len(right)] == right for i in range(len(left) - len(right) + 1)))


def _number_score(given: Any, wanted: Any) -> float:
    """1 where both are numbers that differ by at most one part in a million."""
    left, right = as_number(given), as_number(wanted)
    if left is None or right is None:
        return 0.0
    return float(abs(left - right) <= 1e-6 * max(abs(left), abs(right)))


def _exact(given: Any, wanted: Any) -> float:
    return float(normalise(given) == normalise(wanted))


_SCORES = {"exact": _exact, "f1": token_f1, "number": _number_score, "set": _set_score, "contains": _contains}


def score(comparator: Comparator, given: Any, wanted: Sequence[Any]) -> float:
    """The best score of `given` against any of the `wanted` values; 0 where there is nothing to compare with."""
    if comparator != "number" and any(given is one or (isinstance(given, str) and given == one) for one in wanted):
        return 1.0  # whatever is the same scores 1, so the common case needs no tokens
    return max((_SCORES[comparator](given, one) for one in wanted), default=0.0)
