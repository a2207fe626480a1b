"""The report's sections but the pictures: scores and failures become what the page shows. Pure.

A number that is missing becomes a sentence that says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from eval import breakdowns
from eval.canvas import interval_strip, percent, signed
from eval.failures import KINDS, Failure, count_kinds, gravest_first
from eval.gate import PLACES, limit_percent
from eval.numbers import rate_cell
from eval.pictures import TITLES, WHY_MISSING, Scores, baseline_part, drawings, part_of

SHOWN, SHOWN_OF_KIND = 300, 20  # failures on the page at most, of each kind at least; all stand in failures.jsonl
LONGEST = 6_000  # characters of one text on the page

VERDICTS = {
    "GO": ("go", "Every line of the gate is passed, and not by luck of the sample."),
    "NO-GO": ("no-go", "At least one line of the gate is missed, and not by bad luck of the sample."),
    "INCONCLUSIVE": ("inconclusive", "No line is surely missed, but not every line is surely passed either."),
}


def verdict(scores: Scores) -> dict[str, Any]:
    """The word, its meaning, the three reasons that carry it, and the other reasons apart."""
    word = scores["verdict"]
    kind, means = VERDICTS[word]
    if not scores["gate"]:
        means = "Nothing was required, so nothing could be passed or missed."
    reasons = [str(one) for one in scores["reasons"]]
    return {"word": word, "kind": kind, "means": means, "reasons": reasons[:3], "more": reasons[3:]}


def paired(scores: Scores) -> str:
    """Right answers of base and tuned on their common pairs, in a sentence; "" without a base."""
    found = scores.get("against_baseline")
    if not found:
        return ""
    low, high = (f"{100 * found[key]:+.1f}".replace("-", "−") for key in ("low", "high"))
    p = found["mcnemar_p"]
    chance = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    return (
        f"Right, answered or rightly held back: {percent(found['first']['value'])} with the base, "
        f"{percent(found['second']['value'])} tuned, {signed(100 * found['difference'], 1, 'points')} on "
        f"{found['n']:,} common questions (95 % interval {low} to {high}; McNemar {chance}).{_unusable(scores)}"
    )


def _unusable(scores: Scores) -> str:
    """A warning where most of the base's outputs can be taken neither for answers nor for abstentions; else ""."""
    counts = baseline_part(scores, "abstention").get("counts") or {}
    broken, total = sum(count for name, count in counts.items() if name.startswith("malformed")), sum(counts.values())
    if 2 * broken <= total:
        return ""
    return (
        f" The base's output was not usable for {broken:,} of {total:,} questions, so how seldom it made something up "
        "or held back says little."
    )


def gate(scores: Scores) -> list[dict[str, Any]]:
    """The gate's lines, base and tuned beside each other, each with its strip."""
    return [_gate_line(scores, line) for line in scores["gate"]]


def _gate_line(scores: Scores, line: Mapping[str, Any]) -> dict[str, Any]:
    metric, (side, limit) = line["metric"], next(iter(line["bound"].items()))
    tuned = line if line["value"] is not None else None
    place = PLACES[metric]
    # a drop is measured against the base, which has none itself
    base = None if metric == "retention_drop" else baseline_part(scores, place.part).get(place.key)
    kind = VERDICTS[line["verdict"]][0]
    label = place.name.removeprefix("the ").capitalize()
    more = line.get("needed_more")
    return {
        "label": f"{label} ({line['set']})" if line.get("set") else label,
        "wanted": f"{'at least' if side == 'at_least' else 'at most'} {limit_percent(limit)}",
        "base": rate_cell(base),
        "tuned": rate_cell(tuned),
        "strip": interval_strip(tuned, base, line["bound"], share=metric != "retention_drop"),
        "kind": kind,
        "verdict": {"go": "passed", "no-go": "missed"}.get(kind, "not settled"),
        "note": _unmeasured(line) if tuned is None else f"about {more:,} more would settle it" if more else "",
        "reason": line["reason"],
    }


def _unmeasured(line: Mapping[str, Any]) -> str:
    """Why a line has no number beside it: a loss is no share, and its reason says it."""
    return "by its loss" if line.get("set") else "no number"


# cell -> (its words, how it is to be read)
CELLS = {
    "answered_correct": ("right", "right"),
    "answered_wrong": ("wrong", "wrong"),
    "abstained_answerable": ("held back needlessly", "held"),
    "malformed_answerable": ("not usable", "wrong"),
    "answered_unanswerable": ("made up", "wrong"),
    "abstained_unanswerable": ("rightly held back", "right"),
    "malformed_unanswerable": ("not usable", "wrong"),
}
ROWS = (
    (
        "The passages hold the answer",
        (("answered_correct", "answered_wrong"), ("abstained_answerable",), ("malformed_answerable",)),
    ),
    ("They do not hold it", (("answered_unanswerable",), ("abstained_unanswerable",), ("malformed_unanswerable",))),
)


MATRIX = {"name": "abstention", "title": "Answering and holding back"}


def matrix(scores: Scores) -> dict[str, Any]:
    """The seven cells of answering and abstaining, tuned and base; {"why"} where they were not measured."""
    counts, earlier = part_of(scores, "abstention").get("counts"), baseline_part(scores, "abstention").get("counts")
    if not counts or not sum(counts.values()):
        return {"why": WHY_MISSING["abstention"], "rows": [], "sentence": ""}
    rows = []
    for label, columns in ROWS:
        cells = [[_cell(name, counts, earlier) for name in names] for names in columns]
        n = sum(counts[name] for names in columns for name in names)
        rows.append({"label": label, "n": f"{n:,}", "columns": cells})
    right = counts["answered_correct"] + counts["abstained_unanswerable"]
    sentence = f"The tuned model met {right:,} of {sum(counts.values()):,} questions as it should"
    if earlier:
        sentence += f", the base model {earlier['answered_correct'] + earlier['abstained_unanswerable']:,}"
    return {"rows": rows, "sentence": sentence + ".", "why": None}


def _cell(name: str, counts: Mapping[str, int], earlier: Mapping[str, int] | None) -> dict[str, Any]:
    words, kind = CELLS[name]
    base = f"{earlier[name]:,}" if earlier else None
    return {"name": words, "kind": kind, "tuned": f"{counts[name]:,}", "base": base}


def missing(scores: Scores) -> list[dict[str, str]]:
    """What the page does not show, {"titles", "why"}, one for each reason."""
    found = [(TITLES[name], one) for name, one in drawings(scores) if one in WHY_MISSING.values()]
    for name, title in (("abstention", MATRIX["title"]), ("grounding", "Grounding")):
        absent = matrix(scores)["why"] if name == "abstention" else not part_of(scores, name)
        found += [(title, WHY_MISSING[name])] if absent else []
    there = breakdowns.found_slices(scores)
    absent_keys = [one["key"] for one in scores.get("slices") or () if one not in there]
    found += [(f"By {key}", "No pair has this key in its meta.") for key in absent_keys]
    reasons: dict[str, list[str]] = {}
    for title, why in found:
        reasons.setdefault(str(why), []).append(title)
    return [{"titles": " · ".join(titles), "why": why} for why, titles in reasons.items()]


def asides(scores: Scores) -> list[str]:
    """What the page shows at length, in a sentence each: slices, honesty, vocabulary, bound outputs, cost."""
    said = [breakdowns.slice_sentence(one) for one in breakdowns.found_slices(scores)]
    honesty = part_of(scores, "honesty")
    if honesty.get("prudence"):
        over = breakdowns.interval(honesty["over_conservativeness"])
        said.append(f"Prudence {breakdowns.interval(honesty['prudence'])}, over-conservativeness {over}.")
    avoided = part_of(scores, "vocabulary").get("avoided")
    if avoided:
        said.append(f"{breakdowns.interval(avoided)} of the answers use a term to avoid.")
    bound = breakdowns.constrained(scores)
    return [one for one in (*said, bound["sentence"] if bound else "", breakdowns.latency_sentence(scores)) if one]


def failures(found: Sequence[Failure], n: int) -> dict[str, Any]:
    """The failures on the page, the gravest first, and how many there are of each kind."""
    counts = count_kinds(found)
    sentence = "There are none." if n else "Nothing was answered."
    if found:
        sentence = f"{len(found):,} of {n:,} answers of the tuned model are not what was wanted, the gravest first."
        if len(found) > SHOWN:
            sentence += f" {SHOWN} of them stand in report.html, some of every kind; all in failures.jsonl."
    chosen = choose_shown(found)
    on_page = count_kinds(chosen)
    kinds = [
        {"name": kind, "label": KINDS[kind][0], "count": f"{count:,}", "shown": f"{on_page.get(kind, 0):,}"}
        for kind, count in counts.items()
    ]
    shown = [_failure(one) for one in chosen]
    return {"total": f"{len(found):,}", "sentence": sentence, "kinds": kinds, "shown": shown}


def choose_shown(found: Sequence[Failure]) -> list[Failure]:
    """At most `SHOWN` failures, the gravest first, with some of every kind, so that each filter finds what it names."""
    ordered = gravest_first(found)
    taken: dict[int, None] = {}
    for kind in KINDS:
        of_kind = (place for place, one in enumerate(ordered) if kind in one.kinds)
        taken |= dict.fromkeys(islice(of_kind, SHOWN_OF_KIND))
    taken |= dict.fromkeys(islice((place for place in range(len(ordered)) if place not in taken), SHOWN - len(taken)))
    return [ordered[place] for place in sorted(taken)]


def _failure(one: Failure) -> dict[str, Any]:
    shown = one.model_dump()
    shown["given_parts"] = split_at(one.given, one.marks)
    shown["labels"] = [KINDS[kind][0] for kind in one.kinds]
    for key in ("question", "wanted", "given"):
        shown[key] = shorten(shown[key])
    shown["passages"] = [{**passage, "text": shorten(passage["text"])} for passage in shown["passages"]]
    shown["history"] = [{**turn, "content": shorten(turn["content"])} for turn in shown["history"]]
    return shown


def split_at(text: str, marks: Sequence[tuple[int, int]], longest: int = LONGEST) -> list[tuple[str, bool]]:
    """The text, shortened, in pieces: (piece, whether it is marked). Marks beyond the text count for nothing."""
    shown, pieces, at = text[:longest], [], 0
    for start, end in marks:
        pieces += [(shown[at:start], False), (shown[start:end], True)]
        at = max(at, end)
    return [
        piece for piece in [*pieces, (shown[at:], False), (shorten(text, longest)[len(shown) :], False)] if piece[0]
    ]


def shorten(text: str, longest: int = LONGEST) -> str:
    """The text, or its beginning and how much is left out."""
    return text if len(text) <= longest else f"{text[:longest]} … ({len(text) - longest:,} more characters)"
