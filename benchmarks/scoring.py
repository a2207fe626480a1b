"""Scoring against jsonschema and plain loops: the same numbers from the same outputs; and how time grows with n.

    python benchmarks/scoring.py [--n 10000] [--many 100000] [--out benchmarks/results/scoring.json]

Needs `jsonschema` (in the extra `dev`). The peer is the script a team would write: json.loads, jsonschema's
`iter_errors` for every output, a loop for every number, the standard library for the rest. Timed are the verdicts of
the demo's small schema and of a larger one with the keyword at fault, and all the numbers (in process: CPU seconds,
the least of several rounds), and the whole command `tutelage eval score` (wall and CPU seconds), where starting
Python and importing count.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import string
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

DEMO = Path(__file__).parent.parent / "recipes/demo"
ROUNDS = 3
UNKNOWN: dict[str, Any] = {"status": "unknown", "answer": None, "citations": []}
LARGE = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$defs": {
        "citation": {
            "type": "object",
            "required": ["id", "quote"],
            "additionalProperties": False,
            "properties": {
                "id": {"type": "string", "pattern": "^p[1-9]$"},
                "quote": {"type": "string", "minLength": 1},
            },
        }
    },
    "type": "object",
    "required": ["status", "answer", "citations", "category", "urgency", "steps"],
    "additionalProperties": False,
    "properties": {
        "status": {"enum": ["answered", "unknown"]},
        "answer": {"type": ["string", "null"], "minLength": 1},
        "citations": {"type": "array", "maxItems": 5, "items": {"$ref": "#/$defs/citation"}},
        "category": {"enum": ["orders", "returns", "warranty", "delivery"]},
        "urgency": {"type": "integer", "minimum": 1, "maximum": 5},
        "steps": {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": 8},
    },
    "if": {"properties": {"status": {"const": "answered"}}},
    "then": {"properties": {"answer": {"type": "string"}, "citations": {"minItems": 1}}},
    "else": {"properties": {"answer": {"type": "null"}, "citations": {"maxItems": 0}}},
}
TOWNS = ("Oslo", "Lima", "Accra", "Quito", "Hanoi", "Dakar", "Turin")


def made_pairs(n: int) -> list[dict[str, Any]]:
    """Questions over two passages; every third has no answer there."""
    dice = random.Random(7)
    pairs = []
    for i in range(n):
        town = f"{dice.choice(TOWNS)} {i}"
        hold = i % 3 > 0
        said = f"The depot number {i} stands in {town}, near the old harbour." if hold else f"The depot {i} is closed."
        passages = [{"id": "p1", "text": said}, {"id": "p2", "text": f"The van {i + 1} is the heavier of the two."}]
        output = {"status": "answered", "answer": town, "citations": ["p1"]} if hold else UNKNOWN
        question = f"Where does depot {i} stand?"
        pairs.append({"id": f"q{i}", "question": question, "passages": passages, "output": output, "answerable": hold})
    return pairs


def made_predictions(pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Nine in ten as wanted; one in twenty of the rest breaks off, is fenced, or breaks the schema."""
    dice = random.Random(8)
    made = []
    for pair in pairs:
        output: Any = pair["output"]
        if dice.random() < 0.1:
            output = dice.choice([{"status": "answered", "answer": "Rome", "citations": ["p2"]}, UNKNOWN])
        text = json.dumps(output)
        if dice.random() < 0.05:
            text = dice.choice([text[:-5], f"```json\n{text}\n```", json.dumps({**output, "status": "perhaps"}), "No."])
        made.append({"id": pair["id"], "output": text, "confidence": round(dice.betavariate(8, 2), 4)})
    return made


def made_large(n: int) -> list[dict[str, Any]]:
    """Outputs for the larger schema; one in ten breaks it."""
    dice, made = random.Random(9), []
    for i in range(n):
        output = {
            "status": "answered",
            "answer": f"The depot stands in {dice.choice(TOWNS)}, house {i}.",
            "citations": [{"id": f"p{1 + k}", "quote": f"depot {i} stands there"} for k in range(2)],
            "category": "orders" if dice.random() > 0.05 else "parcels",
            "urgency": 3 if dice.random() > 0.05 else 9,
            "steps": ["Look the depot up.", "Call it.", "Close the case."],
        }
        made.append({"id": f"q{i}", "output": json.dumps(output)})
    return made


def plain_schema(predictions: list[dict[str, Any]], schema: Any = None) -> dict[str, Any]:
    """Adherence and the keyword at fault, by jsonschema."""
    from jsonschema import Draft202012Validator

    schema = schema or json.loads((DEMO / "schema.json").read_text())
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    values, faults = {}, Counter[str]()
    for one in predictions:
        try:
            value = json.loads(one["output"])
        except ValueError:
            faults["unreadable"] += 1
            continue
        errors = list(validator.iter_errors(value))
        if errors:
            faults[str(errors[0].validator)] += 1
        else:
            values[one["id"]] = value
    return {"values": values, "faults": faults}


def plain_scores(pairs: list[dict[str, Any]], predictions: list[dict[str, Any]]) -> dict[str, Any]:
    """The seven cells, fields, citations and calibration in plain loops."""
    values = plain_schema(predictions)["values"]
    by_id = {one["id"]: one for one in predictions}
    cells, fields, answers, cited = Counter[str](), Counter[str](), [], Counter[str]()
    for pair in pairs:
        value, kind = values.get(pair["id"]), "answerable" if pair["answerable"] else "unanswerable"
        if value is None:
            cells[f"malformed_{kind}"] += 1
            continue
        for key in ("status", "answer", "citations"):
            fields[key] += value[key] == pair["output"][key]
        if value["citations"]:
            cited["cite"] += 1
            cited["exist"] += {passage["id"] for passage in pair["passages"]} >= set(value["citations"])
        if value["status"] == "unknown" and value["answer"] is None:
            cells[f"abstained_{kind}"] += 1
            continue
        right = pair["answerable"] and _folded(value["answer"]) == _folded(pair["output"]["answer"])
        cells["answered_unanswerable" if not pair["answerable"] else f"answered_{'correct' if right else 'wrong'}"] += 1
        texts = [passage["text"] for passage in pair["passages"] if passage["id"] in value["citations"]]
        words = _words(value["answer"])
        cited["covered"] += len(words & set().union(*map(_words, texts))) >= 0.8 * len(words)
        answers.append((by_id[pair["id"]]["confidence"], right))
    return {
        "adherence": len(values) / len(pairs),
        "cells": cells,
        "fields": fields,
        "cited": cited,
        **_calibrated(answers),
    }


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _words(text: str) -> set[str]:
    return set(text.lower().translate(str.maketrans("", "", string.punctuation)).split()) - {"a", "an", "the"}


def _calibrated(answers: list[tuple[float, bool]]) -> dict[str, float]:
    """ECE, Brier score and AUROC, the last by ranks with ties."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for one in answers:
        bins.setdefault(min(int(one[0] * 15), 14), []).append(one)
    ece = sum(abs(sum(right - sure for sure, right in one)) for one in bins.values()) / len(answers)
    brier = sum((sure - right) ** 2 for sure, right in answers) / len(answers)
    ordered = sorted(answers)
    ranks, at = 0.0, 0
    while at < len(ordered):
        end = at
        while end < len(ordered) and ordered[end][0] == ordered[at][0]:
            end += 1
        ranks += (at + 1 + end) / 2 * sum(right for _, right in ordered[at:end])
        at = end
    good = sum(right for _, right in answers)
    return {"ece": ece, "brier": brier, "auroc": (ranks - good * (good + 1) / 2) / (good * (len(answers) - good))}


def our_scores(rules: Any, pairs: Any, predictions: Any) -> dict[str, Any]:
    """All the numbers of scores.json and the verdict."""
    from eval.scoring import assemble_scores, score_predictions

    return assemble_scores(rules, score_predictions(rules, pairs, predictions))


def our_schema(rules: Any, predictions: Any) -> Counter[str]:
    """Adherence and the keyword at fault."""
    from eval.schema import read_output

    return Counter(read_output(rules, one.output, one.finish).fault or "" for one in predictions.values())


def least(run: Callable[[], Any], clock: Callable[[], float] = time.process_time, rounds: int = ROUNDS) -> float:
    """The least CPU seconds of a few rounds: what the machine's other work adds is not the code's."""
    times = []
    for _ in range(rounds):
        begun = clock()
        run()
        times.append(clock() - begun)
    return round(min(times), 4)


def check_same(ours: dict[str, Any], plain: dict[str, Any]) -> None:
    """Stop where the two do not say the same."""
    pairs = {
        "adherence": (ours["schema"]["adherence"]["value"], plain["adherence"]),
        "cells": (
            {k: v for k, v in ours["abstention"]["counts"].items() if v},
            {k: v for k, v in plain["cells"].items() if v},
        ),
        **{key: (ours["calibration"][key], plain[key]) for key in ("ece", "brier", "auroc")},
        "cited": (round(ours["grounding"]["validity"]["value"] * plain["cited"]["cite"]), plain["cited"]["exist"]),
        "covered": (
            round(ours["grounding"]["coverage"]["value"] * ours["grounding"]["coverage"]["n"]),
            plain["cited"]["covered"],
        ),
    }
    for name, (left, right) in pairs.items():
        if left != right and not (isinstance(left, float) and abs(left - right) < 1e-9):
            raise SystemExit(f"{name} differs: {left} and {right}")


def in_process(n: int, with_peer: bool) -> dict[str, Any]:
    """CPU seconds of ours (and the peer's) on `n` outputs, and of the pages."""
    from curate.behaviour import load_behaviour
    from curate.pairs import Pair
    from eval.failures import find_failures
    from eval.grading import grade
    from eval.predictions import Prediction
    from eval.report import write_report

    raw = made_pairs(n)
    given = made_predictions(raw)
    rules = load_behaviour(DEMO / "behaviour.yaml")
    pairs = [Pair.model_validate(one) for one in raw]
    predictions = {one["id"]: Prediction.model_validate(one) for one in given}
    scores = our_scores(rules, pairs, predictions)
    check_same(scores, plain_scores(raw, given))
    seconds = {"scoring": least(lambda: our_scores(rules, pairs, predictions))}
    if with_peer:
        seconds["scoring_plain"] = least(lambda: plain_scores(raw, given))
        seconds["schema"] = least(lambda: our_schema(rules, predictions))
        seconds["schema_plain"] = least(lambda: plain_schema(given))
        seconds |= _large(rules, n)
    graded = grade(rules, pairs, predictions)
    with tempfile.TemporaryDirectory() as made:
        seconds["report"] = least(lambda: write_report(Path(made), scores, find_failures(rules, graded)))
    return seconds


def _large(rules: Any, n: int) -> dict[str, float]:
    """CPU seconds of both on the larger schema."""
    from curate.behaviour import Behaviour
    from eval.predictions import Prediction

    large = Behaviour.model_validate({**rules.model_dump(by_alias=True), "schema_document": LARGE})
    rich = made_large(n)
    told = {one["id"]: Prediction.model_validate(one) for one in rich}
    agreed = our_schema(large, told)[""], len(plain_schema(rich, LARGE)["values"])
    if len(set(agreed)) > 1:
        raise SystemExit(f"adherence to the larger schema differs: {agreed}")
    return {
        "large_schema": least(lambda: our_schema(large, told)),
        "large_schema_plain": least(lambda: plain_schema(rich, LARGE)),
    }


def whole_command(n: int, rounds: int) -> dict[str, dict[str, float]]:
    """Wall and CPU seconds of `tutelage eval score` with and without a report, and of its imports alone."""
    raw = made_pairs(n)
    with tempfile.TemporaryDirectory() as made:
        files = {"pairs.jsonl": raw, "predictions.jsonl": made_predictions(raw)}
        for name, lines in files.items():
            (Path(made) / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
        against = ("--pairs", "pairs.jsonl", "--behaviour", str((DEMO / "behaviour.yaml").resolve()))
        score = [sys.executable, "-m", "tutelage", "eval", "score", "predictions.jsonl", *against]
        imports = "import eval.cli, eval.scored, eval.report, eval.tables, scipy.special"
        commands = {
            "imports": [sys.executable, "-c", imports],
            "eval_score": score,
            "eval_score_with_report": [*score, "--out", "report"],
        }
        clocks = {"wall": time.perf_counter, "cpu": _children}
        return {
            name: {clock: least(partial(_run, command, made), read, rounds) for clock, read in clocks.items()}
            for name, command in commands.items()
        }


def _children() -> float:
    """CPU seconds of the processes that were started and have ended."""
    spent = os.times()
    return spent.children_user + spent.children_system


def _run(command: list[str], where: str) -> None:
    done = subprocess.run(command, cwd=where, capture_output=True, text=True)
    if done.returncode not in (0, 3, 4):
        raise SystemExit(done.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--many", type=int, default=100_000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    few, many = in_process(arguments.n, True), in_process(arguments.many, False)
    result = {
        "in_process_cpu_seconds": {f"{arguments.n}": few, f"{arguments.many}": many},
        "command_seconds": {
            f"{arguments.n}": whole_command(arguments.n, ROUNDS),
            f"{arguments.many}": whole_command(arguments.many, 1),
        },
        "times_as_fast": {
            name: round(few[f"{name}_plain"] / few[name], 1) for name in ("schema", "large_schema", "scoring")
        },
        "growth": {
            "outputs": round(arguments.many / arguments.n, 2),
            "seconds": round(many["scoring"] / few["scoring"], 2),
        },
        "same_numbers": True,
        "versions": {name: version(name) for name in ("jsonschema", "jsonschema-rs", "numpy", "pydantic")},
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]},
    }
    text = json.dumps(result, indent=2) + "\n"
    if arguments.out:
        arguments.out.write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
