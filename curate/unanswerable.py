"""Abstaining twins of answerable pairs: the same question without the passage that holds the answer.

A model learns when to say "I don't know" from pairs that differ in nothing else. What else differs is a shortcut it
would take instead: so by default the passage is swapped rather than removed (as many passages as before), and numbered
passages are numbered anew (no gap where one is missing).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from curate.behaviour import Behaviour
from curate.consistency import input_key
from curate.distractors import Distractors
from curate.errors import BehaviourError
from curate.files import sha256_text
from curate.pairs import Pair, Passage
from curate.support import answer_texts, cited_passages, holding_passages, holds

How = Literal["remove", "swap", "both"]


@dataclass
class Twins:
    """What was made. `wanted` is how many the share asks for; `skipped` says why others made none."""

    wanted: int
    made: list[Pair] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)


class _NoTwin(ValueError):
    """Why a pair makes no twin."""


def twins_wanted(total: int, unanswerable: int, share: float) -> int:
    """How many abstaining pairs must be added for them to make up `share` of all: (u + k) / (n + k) ≥ share."""
    return max(0, math.ceil((share * total - unanswerable) / (1 - share) - 1e-9))


def make_twins(
    pairs: Sequence[Pair],
    behaviour: Behaviour,
    share: float = 0.3,
    how: How = "swap",
    seed: int = 17,
    watch: Callable[[Iterable[Pair], int], Iterable[Pair]] | None = None,
) -> Twins:
    """Twins of answerable pairs until the unanswerable make up `share` (below 1); the same for the same arguments.

    `watch` is given the pairs to go through and how many twins are wanted, and passes the pairs on: a progress bar.

    A pair that has a twin of the same kind already makes none again, so a second run adds nothing. Raises
    `BehaviourError` where the behaviour has no abstention.
    """
    if behaviour.abstain is None:
        raise BehaviourError("there is no abstention to want", fix="give the behaviour an `abstain` section")
    answerable = [pair for pair in pairs if behaviour.is_answerable(pair)]
    twins = Twins(twins_wanted(len(pairs), len(pairs) - len(answerable), share))
    if not twins.wanted:
        return twins
    have = {pair.meta.get("twin_of") for pair in pairs}
    free = [pair for pair in answerable if pair.id not in have]
    order = sorted(free, key=lambda pair: (sha256_text(f"{seed}:{pair.id}"), pair.id))
    maker = _Maker(pairs, behaviour, Distractors(pairs, (pair.question for pair in order), seed))
    for turn, pair in enumerate(watch(order, min(twins.wanted, len(order))) if watch else order):
        if len(twins.made) >= twins.wanted:
            break
        try:
            twins.made.append(maker.twin(pair, _ways(pair, how, turn)))
        except _NoTwin as reason:
            twins.skipped[str(reason)] += 1
    return twins


def _ways(pair: Pair, how: How, turn: int) -> tuple[str, ...]:
    """The ways to try, in order. A pair with one passage is swapped where that is allowed: removing leaves none."""
    if how != "both":
        return (how,)
    return ("swap", "remove") if turn % 2 == 0 or len(pair.passages) < 2 else ("remove", "swap")


class _Maker:
    """Makes twins that differ from every input there is."""

    def __init__(self, pairs: Sequence[Pair], behaviour: Behaviour, distractors: Distractors) -> None:
        self.behaviour = behaviour
        self.distractors = distractors
        self.ids = {pair.id for pair in pairs}
        self.inputs = {input_key(pair) for pair in pairs}

    def twin(self, pair: Pair, ways: Iterable[str]) -> Pair:
        """The first twin that can be made in one of the ways; raises `_NoTwin` with the reason of the last."""
        if not self.behaviour.conforms(pair.output):
            raise _NoTwin("its output breaks the schema")
        answers = answer_texts(pair, self.behaviour)
        if not answers:
            raise _NoTwin("its answer is no text, so that its absence cannot be verified")
        supporting = self._supporting(pair, answers)
        reason = _NoTwin("no way")
        for way in ways:
            try:
                return self._make(pair, answers, supporting, way)
            except _NoTwin as error:
                reason = error
        raise reason

    def _supporting(self, pair: Pair, answers: Sequence[str]) -> set[str]:
        """Ids of the passages that must go: the cited ones and whichever else hold an answer."""
        found = {p.id for p in (*cited_passages(pair, self.behaviour), *holding_passages(pair, answers))}
        if not found:
            raise _NoTwin("no passage is known to hold the answer")
        return found

    def _make(self, pair: Pair, answers: Sequence[str], supporting: set[str], way: str) -> Pair:
        assert self.behaviour.abstain is not None
        if way == "remove":
            passages = [passage for passage in pair.passages if passage.id not in supporting]
            if not passages:
                raise _NoTwin("without the supporting passage none is left")
        else:
            passages = self._swapped(pair, answers, supporting)
        if any(holds(passage.text, answers) for passage in passages):
            raise _NoTwin("another passage holds the answer too")
        twin = Pair(
            id=f"{pair.id}-{way}",
            question=pair.question,
            history=pair.history,
            passages=tuple(_relabel(passages, pair.passages)),
            output=self.behaviour.abstain.output,
            answerable=False,
            source=pair.source,
            meta={"twin_of": pair.id, "made_by": f"tutelage curate unanswerable --how {way}"},
        )
        if twin.id in self.ids or input_key(twin) in self.inputs:
            raise _NoTwin("a pair with this very input is there already")
        self.ids.add(twin.id)
        self.inputs.add(input_key(twin))
        return twin

    def _swapped(self, pair: Pair, answers: Sequence[str], supporting: set[str]) -> list[Passage]:
        """The passages with each supporting one replaced by a distractor.

        A twin cites nothing, so a split takes it to rest on its first passage: a distractor stands first only where
        it is the only passage, or two documents would be tied together for no reason.
        """
        kept = [passage for passage in pair.passages if passage.id not in supporting]
        found = self.distractors.find(pair, len(supporting), lambda text: not holds(text, answers), alone=not kept)
        if len(found) < len(supporting) and not (kept and found):
            raise _NoTwin("no distractor without the answer was found")
        passages: list[Passage] = []
        rest = list(found)
        for passage in pair.passages:
            if passage.id not in supporting:
                passages.append(passage)
            elif rest:
                passages.append(rest.pop(0))
        if kept and passages[0] in found:
            first = passages.index(kept[0])
            passages[0], passages[first] = passages[first], passages[0]
        return passages


def _relabel(passages: Sequence[Passage], original: Sequence[Passage]) -> list[Passage]:
    """Numbered passages (p1, p2, …) get the numbers of their places; other ids stay, made distinct where they clash."""
    numbered = [re.fullmatch(r"(\D*)(\d+)", passage.id) for passage in original]
    heads = {match.group(1) if match else None for match in numbered}
    if len(heads) == 1 and None not in heads:
        return [p.model_copy(update={"id": o.id}) for p, o in zip(passages, original, strict=False)]
    taken: set[str] = set()
    named = []
    for passage in passages:
        name, step = passage.id, 2
        while name in taken:
            name, step = f"{passage.id}-{step}", step + 1
        taken.add(name)
        named.append(passage.model_copy(update={"id": name}))
    return named
