"""What only several pairs together show: duplicates, contradictions, balance, answers that stand in no passage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from curate.behaviour import Behaviour
from curate.compare import normalise
from curate.duplicates import exact_duplicates, near_duplicates
from curate.findings import Finding
from curate.pairs import Pair
from curate.pointer import MISSING
from curate.power import LEAST_UNANSWERABLE, MOST_UNANSWERABLE
from curate.support import answer_texts, cited_passages, holding_passages, holds, supporting_passages

MARKS = " ?!.…？！。؟۔।॥;።፧។"  # of questions and sentences, in Arabic, Urdu, Hindi, Greek, Amharic and Khmer too
EXTRACTIVE = 0.7  # from this share of answers found in their passages, one that is not found stands out


def check_together(pairs: Sequence[Pair], behaviour: Behaviour) -> list[Finding]:
    """Findings over all pairs: contradictions, duplicates, near-duplicates, unsupported answers, twins, balance."""
    same_input = exact_duplicates(input_key(pair) for pair in pairs)
    settled: set[int] = set()  # one of each set of copies goes on to the near-duplicates
    found: list[Finding] = []
    for group in same_input:
        camps = _camps([pairs[index] for index in group], behaviour)
        found += _contradictions(camps, behaviour)
        for camp in camps:
            if len(camp) > 1:
                found.append(_duplicate(camp))
        settled.update(group[1:])
    kept = [pair for index, pair in enumerate(pairs) if index not in settled]
    found += _near_duplicates(kept, behaviour)
    found += _unsupported(pairs, behaviour)
    found += _answered_twins(pairs, behaviour)
    return [*found, *_balance(pairs, behaviour)]


def input_key(pair: Pair) -> tuple[Any, ...]:
    """What makes two inputs the same: question, history and passages' texts, but not the passages' order and ids.

    Of the question case, spacing and the mark at its end do not count; all else does: € is not $, and C++ not C#.
    """
    history = tuple((turn.role, turn.content.strip()) for turn in pair.history)
    passages = tuple(sorted(" ".join(passage.text.split()) for passage in pair.passages))
    return normalise(pair.question).rstrip(MARKS) or pair.question.strip(), history, passages


def near_duplicate_pairs(pairs: Sequence[Pair], behaviour: Behaviour) -> list[list[int]]:
    """Clusters of pairs (their indices) that ask nearly the same of nearly the same passages.

    Both must agree. The question alone would put "What is the return period?" over two handbooks together; the
    passages alone, or both as one text, would put every question about one passage together, since a passage has ten
    times the words of a question. The passages compared are those the output rests on, or all where none is known.
    """
    asked = ["\n".join([*(turn.content for turn in pair.history), pair.question]) for pair in pairs]
    found = []
    for cluster in near_duplicates(asked):
        supports = [_support_text(pairs[index], behaviour) for index in cluster]
        found += [[cluster[one] for one in part] for part in near_duplicates(supports)]
    return sorted(found)


def _support_text(pair: Pair, behaviour: Behaviour) -> str:
    """What the output rests on, as one text; the order of the passages does not matter."""
    return "\n".join(sorted(passage.text for passage in supporting_passages(pair, behaviour) or pair.passages))


def _camps(pairs: Sequence[Pair], behaviour: Behaviour) -> list[list[Pair]]:
    """Pairs of one input, by what they say: the same answer by the behaviour's comparator, or all abstaining."""
    camps: list[list[Pair]] = []
    silent: list[Pair] = []
    for pair in sorted(pairs, key=lambda pair: pair.id):  # so that the order of the file changes nothing
        if behaviour.abstains(pair.output):
            silent.append(pair)
            continue
        for camp in camps:
            if _agree(camp[0], pair, behaviour):
                camp.append(pair)
                break
        else:
            camps.append([pair])
    return sorted([*camps, silent] if silent else camps, key=lambda camp: camp[0].id)


def _agree(left: Pair, right: Pair, behaviour: Behaviour) -> bool:
    return (
        left.output == right.output or behaviour.is_right(left.output, right) or behaviour.is_right(right.output, left)
    )


def _contradictions(camps: Sequence[list[Pair]], behaviour: Behaviour) -> Iterator[Finding]:
    """Every pair but those of the one largest camp; where there is no such camp, nobody knows which is right."""
    if len(camps) < 2:
        return
    ranked = sorted(camps, key=len, reverse=True)
    for place, camp in enumerate(ranked):
        if place == 0 and len(camp) > len(ranked[1]):
            continue
        other = ranked[1 if place == 0 else 0][0]
        wants = f"wants {_say(camp[0], behaviour)}; {other.id} wants {_say(other, behaviour)} for the same input"
        for pair in camp:
            yield Finding(
                rule="contradiction",
                level="error",
                pair=pair.id,
                where="/output",
                message=wants,
                fix="keep the right one; a model trained on both learns neither",
            )


def _say(pair: Pair, behaviour: Behaviour) -> str:
    if behaviour.abstains(pair.output):
        return "the abstention"
    answer = behaviour.answer_of(pair.output)
    text = " ".join(str("no answer" if answer is MISSING else answer).split())
    return repr(text if len(text) <= 60 else text[:59] + "…")


def _duplicate(camp: Sequence[Pair]) -> Finding:
    return Finding(
        rule="duplicate",
        level="warning",
        pair=camp[0].id,
        where="",
        message=f"{len(camp)} pairs ask and answer the same: {_ids(camp)}",
        fix="keep one of them; copies count several times in training",
    )


def _near_duplicates(pairs: Sequence[Pair], behaviour: Behaviour) -> Iterator[Finding]:
    for cluster in near_duplicate_pairs(pairs, behaviour):
        members = [pairs[index] for index in cluster]
        if len({member.meta.get("twin_of") or member.id for member in members}) == 1:
            continue  # a pair and its own twins
        camps = _camps(members, behaviour)
        differ = (
            "" if len(camps) == 1 else f"; their answers differ: {' / '.join(_say(c[0], behaviour) for c in camps)}"
        )
        yield Finding(
            rule="near-duplicate",
            level="warning",
            pair=members[0].id,
            where="/question",
            message=f"{len(members)} pairs ask nearly the same of nearly the same passages: {_ids(members)}{differ}",
            fix="look whether they add anything; a release keeps them on one side of the split",
        )


def _ids(pairs: Sequence[Pair]) -> str:
    return ", ".join(pair.id for pair in pairs[:5]) + (f" and {len(pairs) - 5} more" if len(pairs) > 5 else "")


def _unsupported(pairs: Sequence[Pair], behaviour: Behaviour) -> list[Finding]:
    """Answers that stand in none of the cited passages, where nearly all others do.

    Says nothing of a behaviour whose answers are not taken from the passages word for word.
    """
    rule = behaviour.answer
    if rule is None or (behaviour.is_json and rule.at is None) or rule.compare not in ("exact", "f1", "contains"):
        return []
    missing, looked_at = [], 0
    for pair in pairs:
        answers = answer_texts(pair, behaviour)
        if not pair.passages or not answers or behaviour.abstains(pair.output) or not behaviour.conforms(pair.output):
            continue
        looked_at += 1
        texts = [p.text for p in cited_passages(pair, behaviour) or pair.passages]
        if not any(holds(text, answers) for text in texts):
            missing.append(pair)
    if len(missing) > (1 - EXTRACTIVE) * looked_at:
        return []
    share = 1 - len(missing) / looked_at if looked_at else 1.0
    return [
        Finding(
            rule="unsupported",
            level="warning",
            pair=pair.id,
            where="/output" + (rule.at or ""),
            message=f"{_say(pair, behaviour)} stands in no passage it cites, as {share:.0%} of the answers do",
            fix="cite the passage that holds it, or want the abstention",
        )
        for pair in missing
    ]


def _answered_twins(pairs: Sequence[Pair], behaviour: Behaviour) -> Iterator[Finding]:
    """Twins made before the answer of their original was changed to one that their passages hold.

    Not those that people have settled: a short answer may stand in a passage by chance, and they have read it.
    """
    by_id = {pair.id: pair for pair in pairs}
    for pair in pairs:
        twin_of = pair.meta.get("twin_of")
        original = by_id.get(twin_of) if isinstance(twin_of, str) else None
        settled = isinstance(pair.meta.get("review"), dict)
        if original is None or settled or behaviour.is_answerable(pair) or not behaviour.is_answerable(original):
            continue
        for passage in holding_passages(pair, answer_texts(original, behaviour))[:1]:
            yield Finding(
                rule="abstention",
                level="error",
                pair=pair.id,
                where=f"/passages/{pair.passages.index(passage)}/text",
                message=f"this twin of {original.id} abstains, and {passage.id} holds a right answer of its original",
                fix="delete the twin's line in pairs.jsonl; tutelage curate unanswerable makes another",
            )


def _balance(pairs: Sequence[Pair], behaviour: Behaviour) -> Iterator[Finding]:
    if behaviour.abstain is None or not pairs:
        return
    unanswerable = sum(not behaviour.is_answerable(pair) for pair in pairs)
    share = unanswerable / len(pairs)
    if LEAST_UNANSWERABLE <= share <= MOST_UNANSWERABLE:
        return
    few = share < LEAST_UNANSWERABLE
    yield Finding(
        rule="balance",
        level="warning",
        where="",
        message=f"{unanswerable:,} of {len(pairs):,} pairs ({share:.0%}) are unanswerable; between "
        f"{LEAST_UNANSWERABLE:.0%} and {MOST_UNANSWERABLE:.0%} a model learns both to answer and to abstain",
        fix="tutelage curate unanswerable" if few else "add answerable pairs, or drop some that abstain",
    )
