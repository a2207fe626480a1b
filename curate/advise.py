"""Advice: RAG, fine-tuning, or RAG first and then both. Five answers and what the workspace shows, as a pure function.

The stance: knowledge belongs in retrieval, where it can be changed, cited and deleted; behaviour belongs in weights. A
model that is fine-tuned on facts learns to state facts it was not shown. So RAG comes first, and fine-tuning has to be
earned with reviewed pairs, a share of unanswerable ones, a schema and a plan for what the base must not forget.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from curate.power import LEAST_UNANSWERABLE, MOST_UNANSWERABLE

Recommendation = Literal["rag", "fine-tune", "rag-then-both"]
Changes = Literal["weekly", "monthly", "rarely"]
Lacking = Literal["knowledge", "behaviour", "both"]
AtHand = Literal["documents", "pairs", "both", "neither"]

ENOUGH_REVIEWED = 300  # where no gate asks for more
TIGHT_SECONDS = 1.0


@dataclass(frozen=True)
class Answers:
    """What the team says."""

    changes: Changes
    cite: bool
    lacking: Lacking
    at_hand: AtHand
    latency_seconds: float


@dataclass(frozen=True)
class Facts:
    """What a workspace shows. Without one, everything is missing."""

    workspace: bool = False
    pairs: int = 0
    unanswerable: int = 0
    reviewed: int = 0
    enough: int = ENOUGH_REVIEWED  # reviewed pairs without which the gate cannot say GO, however good the model
    schema: bool = False  # true for text outputs, which have none to lack
    abstention: bool = False
    gate: tuple[str, ...] = ()
    guards: tuple[str, ...] = ()  # the recipe's guards that are on
    releases: int = 0
    runs: int = 0
    reports: int = 0
    verdict: str | None = None  # of the newest report
    problems: tuple[str, ...] = ()  # what could not be read


@dataclass(frozen=True)
class Reason:
    """One question, its answer, and where that points."""

    question: str
    answer: str
    points_to: str
    why: str


@dataclass(frozen=True)
class Missing:
    """What fine-tuning still needs."""

    what: str
    now: str
    do: str


@dataclass(frozen=True)
class Advice:
    """The recommendation, why, and what is missing before fine-tuning is justified."""

    recommendation: Recommendation
    headline: str
    reasons: list[Reason] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)

    @property
    def justified(self) -> bool:
        """Whether fine-tuning is called for and nothing it needs is missing."""
        return self.recommendation != "rag" and not self.missing


def advise(answers: Answers, facts: Facts) -> Advice:
    """What to do, from five answers and what the workspace shows."""
    reasons = [_changes(answers), _cite(answers), _lacking(answers), _at_hand(answers), _latency(answers)]
    recommendation = _recommend(answers)
    missing = [] if recommendation == "rag" else _missing(answers, facts)
    return Advice(recommendation, _headline(recommendation, missing, facts), reasons, missing)


def _recommend(answers: Answers) -> Recommendation:
    """Behaviour decides whether to fine-tune at all; knowledge that moves, or is cited, whether RAG comes first."""
    if answers.lacking == "knowledge":
        return "rag"
    needs_retrieval = answers.changes != "rarely" or answers.cite or answers.lacking == "both"
    return "rag-then-both" if needs_retrieval else "fine-tune"


def _headline(recommendation: Recommendation, missing: list[Missing], facts: Facts) -> str:
    if recommendation == "rag":
        return "RAG. What is missing is knowledge, and fine-tuning is the wrong tool for that: do not fine-tune."
    head = {
        "fine-tune": "Fine-tune: the behaviour is what is missing, and the knowledge stands still.",
        "rag-then-both": "RAG first, then both: keep the knowledge in retrieval, and fine-tune how the model uses it.",
    }[recommendation]
    if facts.verdict == "GO" and not missing:
        return f"{head} The newest report says GO: ship it, and keep the gate in CI."
    if not missing:
        return f"{head} Nothing is missing: train and let the gate decide."
    things = "thing is" if len(missing) == 1 else "things are"
    return f"{head} Not today: {len(missing)} {things} missing below. Until then prompt well and log every question."


def _changes(answers: Answers) -> Reason:
    why = {
        "weekly": "Knowledge that changes every week is stale in any set of weights before it ships. Re-index instead.",
        "monthly": "A fine-tune per month, reviewed and evaluated, costs more than an index that is always current.",
        "rarely": "Stable knowledge does not argue against fine-tuning. It does not argue for it either: retrieval "
        "still tells you where an answer came from.",
    }[answers.changes]
    points = "either" if answers.changes == "rarely" else "RAG"
    return Reason("How often does the knowledge change?", answers.changes, points, why)


def _cite(answers: Answers) -> Reason:
    question = "Must an answer name its source?"
    if not answers.cite:
        why = "No citation is needed today. Auditors tend to ask later; keep the passages."
        return Reason(question, "no", "either", why)
    why = (
        "Only retrieval can cite: weights have no sources, and a model asked for them makes them up. Fine-tuning "
        "can teach it to cite the passages it was shown."
    )
    return Reason(question, "yes", "RAG", why)


def _lacking(answers: Answers) -> Reason:
    why = {
        "knowledge": "The model does not know your facts. Put them in front of it; training on them teaches it to "
        "state facts it was not shown, which is how hallucination is learned.",
        "behaviour": "Format, tone, and when to say it does not know: prompts wear out there, and a few hundred good "
        "examples do not. This is what fine-tuning is for.",
        "both": "Two problems with two tools. Solve knowledge by retrieval first, or the pairs you collect will "
        "teach the model to answer without its passages.",
    }[answers.lacking]
    points = {"knowledge": "RAG", "behaviour": "fine-tuning", "both": "RAG first, then both"}[answers.lacking]
    return Reason("What is missing: knowledge or behaviour?", answers.lacking, points, why)


def _at_hand(answers: Answers) -> Reason:
    why = {
        "documents": "Documents feed an index as they are. They are no training pairs: nobody has said yet what a good "
        "answer looks like.",
        "pairs": "Curated pairs are the one thing fine-tuning cannot do without, and the dearest. They are also the "
        "test set that tells whether a RAG system works: use them for both.",
        "both": "Documents for the index, pairs for the behaviour: what both stages need is there.",
        "neither": "Nothing to index and nothing to learn from. Start by logging real questions.",
    }[answers.at_hand]
    points = {"documents": "RAG", "pairs": "fine-tuning", "both": "RAG first, then both", "neither": "RAG"}
    return Reason("What is at hand: documents or curated pairs?", answers.at_hand, points[answers.at_hand], why)


def _latency(answers: Answers) -> Reason:
    question, said = "How long may an answer take?", f"{answers.latency_seconds:g} s"
    if answers.latency_seconds < TIGHT_SECONDS:
        why = (
            "Under a second there is little room for long prompts and large models. A small tuned model needs no "
            "instructions and no examples in its prompt. Retrieval itself takes tens of milliseconds and is seldom "
            "what is slow: measure before you blame it."
        )
        return Reason(question, said, "fine-tuning", why)
    why = "There is time for retrieval and a prompt that spells things out: latency is no reason to fine-tune."
    return Reason(question, said, "either", why)


def _missing(answers: Answers, facts: Facts) -> list[Missing]:
    """What fine-tuning is justified by, as far as it is not there."""
    wants_retrieval = _recommend(answers) == "rag-then-both"
    found = []
    if not facts.workspace:
        start = "a RAG log with its passages" if wants_retrieval else "a log of real questions"
        found.append(Missing("a workspace", f"none here; begin with {start}", "tutelage init"))
    if facts.reviewed < facts.enough:
        now = f"{facts.pairs:,} pairs, {facts.reviewed:,} of them reviewed" if facts.pairs else "no pairs"
        what = f"at least {facts.enough:,} pairs that people have reviewed"
        found.append(Missing(what, now, "tutelage curate import FILE, then have the pairs reviewed"))
    share = facts.unanswerable / facts.pairs if facts.pairs else 0.0
    low, high = LEAST_UNANSWERABLE, MOST_UNANSWERABLE
    if not low <= share <= high:
        what = f"between {low:.0%} and {high:.0%} unanswerable pairs, so that it learns both to answer and not to"
        now = f"{facts.unanswerable:,} of {facts.pairs:,} ({share:.0%})" if facts.pairs else "no pairs"
        do = "tutelage curate unanswerable" if share < low else "import more answerable pairs"
        found.append(Missing(what, now, do))
    if not facts.schema:
        now = "none" if facts.abstention else 'none, and no way to say "I don\'t know"'
        found.append(
            Missing("an output form that a machine can check (a schema)", now, "output.schema in behaviour.yaml")
        )
    elif not facts.abstention:
        found.append(Missing('a way to say "I don\'t know"', "none", "abstain in behaviour.yaml"))
    kept = {"rehearsal", "retention_budget"} & set(facts.guards)
    if not kept or "retention_drop" not in facts.gate:
        lacks = [*(["no guard in recipe.yaml"] if not kept else [])]
        lacks += ["no retention_drop in the gate"] if "retention_drop" not in facts.gate else []
        do = "guards in recipe.yaml, gate.retention_drop in behaviour.yaml"
        found.append(Missing("a plan for what the base must not forget", " and ".join(lacks), do))
    if facts.verdict in ("NO-GO", "INCONCLUSIVE"):
        do = "read the report's reasons; more pairs before more epochs"
        found.append(Missing("a report that says GO", f"the newest says {facts.verdict}", do))
    return found


def document(advice: Advice, facts: Facts) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "recommendation": advice.recommendation,
        "headline": advice.headline,
        "justified": advice.justified,
        "reasons": [asdict(reason) for reason in advice.reasons],
        "missing": [asdict(one) for one in advice.missing],
        "workspace": asdict(facts) if facts.workspace else None,
    }


def text(advice: Advice, facts: Facts) -> str:
    """The advice as people read it."""
    import textwrap

    def wrap(line: str, indent: str) -> str:
        return textwrap.fill(line, 100, initial_indent=indent, subsequent_indent=indent)

    lines = [wrap(advice.headline, ""), ""]
    for reason in advice.reasons:
        lines += [f"{reason.question} {reason.answer}  ->  {reason.points_to}", wrap(reason.why, "    ")]
    if advice.recommendation != "rag":
        lines += ["", "Missing before fine-tuning is justified:" if advice.missing else "Nothing is missing."]
        for one in advice.missing:
            lines += [f"  - {one.what}", f"      now: {one.now}", f"      do:  {one.do}"]
    if facts.workspace:
        state = f"{_many(facts.releases, 'release')}, {_many(facts.runs, 'run')}, {_many(facts.reports, 'report')}"
        verdict = f"; the newest report says {facts.verdict}" if facts.verdict else ""
        lines += ["", f"This workspace: {_many(facts.pairs, 'pair')} ({facts.reviewed:,} reviewed), {state}{verdict}."]
    lines += [f"Could not be read: {problem}" for problem in facts.problems]
    return "\n".join(lines)


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
