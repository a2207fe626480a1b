"""A small scored world for the tests of eval's pages: pairs, outputs of a base and a tuned model, their scores."""

from __future__ import annotations

import json
import random
from typing import Any

from output_form import SCHEMA, UNKNOWN

from curate.behaviour import Abstain, Answer, Behaviour, Bound, Citations, Output, Vocabulary
from curate.pairs import Pair, Passage
from eval.failures import Failure, find_failures
from eval.grading import grade
from eval.predictions import Prediction
from eval.retention import Result, retention_numbers
from eval.scoring import assemble_scores, score_graded
from eval.statistics import rate

TOPICS = ("orders", "returns", "warranty", "delivery")
EVIL = "<script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)>\"'&{{ 7*7 }}"
COLOURS = ("red", "green", "blue", "black", "white")


def behaviour(**changes: Any) -> Behaviour:
    """The behaviour of the demo: an object with status, answer and citations."""
    parts: dict[str, Any] = {
        "name": "colours",
        "prompt": "{% for p in passages %}[{{ p.id }}] {{ p.text }}\n{% endfor %}{{ question }}",
        "output": Output(format="json", schema="schema.json"),
        "schema_document": SCHEMA,
        "abstain": Abstain(where="/status", equals="unknown", output=UNKNOWN),
        "answer": Answer(at="/answer"),
        "citations": Citations(at="/citations"),
        "gate": {
            "schema_adherence": Bound(at_least=0.95),
            "hallucination_rate": Bound(at_most=0.05),
            "over_abstention_rate": Bound(at_most=0.10),
            "retention_drop": Bound(at_most=0.02),
        },
    }
    return Behaviour(**{**parts, **changes})


def pairs(n: int = 200) -> list[Pair]:
    """Every third pair is unanswerable."""
    return [
        Pair(
            id=f"q{i:03}",
            question=f"What colour is box {i}?",
            passages=(
                Passage(id="p1", text=f"Box {i} is {COLOURS[i % 5]}." if i % 3 else "It rains.", source=f"log{i}.md#a"),
                Passage(id="p2", text=f"Box {i + 1} is heavy.", source=f"log{i}.md#b"),
            ),
            output=answer(COLOURS[i % 5]) if i % 3 else UNKNOWN,
            answerable=bool(i % 3),
            meta={"topic": TOPICS[i % 7 % 4]},
        )
        for i in range(n)
    ]


def answer(colour: str) -> dict[str, Any]:
    return {"status": "answered", "answer": colour, "citations": ["p1"]}


def predictions(wanted: list[Pair], skill: float, tidy: float, seed: int = 1) -> dict[str, Prediction]:
    """Outputs of a model that is right in `skill` of the cases and keeps to the schema in `tidy` of them."""
    dice = random.Random(seed)
    made = {}
    for pair in wanted:
        right = dice.random() < skill
        wrong = answer(dice.choice(COLOURS)) if dice.random() < 0.6 else UNKNOWN
        output = json.dumps(pair.output if right else wrong)
        if dice.random() > tidy:
            output = dice.choice(
                ["```json\n" + output + "\n```", output[:-9], "The box is red.", '{"status": "answered"}', ""]
            )
        confidence = min(0.999, max(0.01, dice.gauss(0.9 if right else 0.6, 0.12)))
        made[pair.id] = Prediction(id=pair.id, output=output, confidence=round(confidence, 4), finish="stop")
    return made


def timed(made: dict[str, Prediction], seconds: float) -> dict[str, Prediction]:
    """The predictions with what they cost: the longer ones more."""
    return {
        key: one.model_copy(update={"latency_seconds": seconds + len(one.output) / 500, "tokens": len(one.output) // 4})
        for key, one in made.items()
    }


def results(sets: dict[str, tuple[int, float, float]]) -> tuple[list[Result], list[Result]]:
    """Set -> (items, accuracy of the base, share that the tuned model lost) as paired results."""
    base, tuned = [], []
    for name, (n, accuracy, lost) in sets.items():
        for i in range(n):
            right = i < accuracy * n
            base.append(Result(id=f"{i}", set=name, correct=right))
            tuned.append(Result(id=f"{i}", set=name, correct=right and i >= lost * n))
    return base, tuned


def scored(
    rules: Behaviour | None = None, tuned: tuple[float, float] = (0.96, 0.99), with_base: bool = True
) -> tuple[dict[str, Any], list[Failure]]:
    """Scores and failures as `eval run` makes them."""
    rules = rules or behaviour(vocabulary=Vocabulary(prefer={"navy": ("blue", "azure")}))
    asked = pairs()
    held_out = pairs(150)
    given = timed(predictions(asked, *tuned), 0.2)
    graded = grade(rules, asked, given)
    calibration = (held_out, predictions(held_out, *tuned, seed=3))
    after = score_graded(rules, graded, calibration, slices=("topic",))
    sides = results({"copy": (400, 0.97, 0.0), "reverse": (400, 0.9, 0.005), "capitals": (400, 0.8, 0.0)})
    before = (
        score_graded(rules, grade(rules, asked, timed(predictions(asked, 0.3, 0.4, seed=2), 0.1)))
        if with_base
        else None
    )
    scores = assemble_scores(rules, after, before, retention_numbers(*sides) if with_base else None)
    bound = {
        seed: score_graded(rules, grade(rules, asked, predictions(asked, skill, 1.0, seed)))
        for seed, skill in ((1, 0.96), (2, 0.4))
    }
    scores["constrained"] = {
        "engine": "llguidance 1",
        "ignored": ["uniqueItems"],
        "tuned": bound[1],
        "base": bound[2] if with_base else None,
    }
    scores["sources"] = {
        "title": "colours: run a on release r",
        "chain": [
            {"role": "run", "name": "a", "sha256": "1f" * 32, "made_from": "release, recipe, base"},
            {"role": "release", "name": "r", "sha256": "2e" * 32, "made_from": "pairs, behaviour"},
        ],
        "facts": [["Base model", "demo"], ["Adapter scale", "0.75"]],
        "scales": {
            "chosen": 0.75,
            "kept": True,
            "curve": [
                {"scale": 0.0, "task": 0.05, "retention": {"all": 0.91}},
                {"scale": 0.25, "task": 0.4, "retention": {"all": 0.91}, "kept": True},
                {"scale": 0.5, "task": 0.8, "retention": {"all": 0.9}, "kept": True},
                {"scale": 0.75, "task": 0.95, "retention": {"all": 0.9}, "kept": True},
                {"scale": 1.0, "task": 0.97, "retention": {"all": 0.8}, "kept": False},
            ],
        },
    }
    return scores, find_failures(rules, graded)


def hostile() -> tuple[dict[str, Any], list[Failure]]:
    """Scores and failures in which every text that comes from data is markup."""
    rules = behaviour(name=EVIL, vocabulary=Vocabulary(prefer={EVIL: (EVIL,)}))
    pair = Pair(
        id=EVIL,
        question=EVIL,
        history=({"role": "user", "content": EVIL},),  # type: ignore[arg-type]
        passages=(Passage(id=EVIL, text=EVIL, source=EVIL),),
        output=answer(EVIL),
        answerable=True,
        meta={EVIL: EVIL},
    )
    said = Prediction(
        id=EVIL, output=json.dumps({**answer("no"), EVIL: 1}), latency_seconds=1.0, tokens=3, finish="stop"
    )
    graded = grade(rules, [pair], {EVIL: said})
    sides = results({EVIL: (30, 0.9, 0.1)})
    link = {"role": EVIL, "name": EVIL, "sha256": EVIL, "made_from": EVIL}
    made_from = {"title": EVIL, "subtitle": EVIL, "chain": [link], "facts": [[EVIL, EVIL]]}
    one = score_graded(rules, graded, slices=(EVIL,))
    scores = assemble_scores(rules, one, one, retention_numbers(*sides), made_from)
    scores["constrained"] = {"engine": EVIL, "ignored": [EVIL], "tuned": one, "base": one}
    scores["vocabulary"] = {"avoided": rate(1, 2), "terms": {EVIL: {"prefer": EVIL, "used": rate(1, 2)}}}
    scores["reasons"] = [EVIL]
    scores["schema"]["violations"] = {EVIL: scores["schema"]["recoverable"] | {"value": 1.0}}
    scores["schema"]["fields"] = {EVIL: {"present": None, "valid": None, "correct": None}}
    scores["gate"] = [{**line, "set": EVIL} for line in scores["gate"]]
    return scores, find_failures(rules, graded)
