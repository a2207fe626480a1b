"""The `evaluate` modules: loaded from the checkout, offline, with the results of the functions they wrap."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import eval_cases
import pytest
import yaml

from curate.errors import BehaviourError
from eval import metrics
from eval.abstention import abstention_numbers
from eval.calibration import calibration_numbers
from eval.grading import grade
from eval.reliability import Answer
from eval.retention import Result, retention_numbers
from eval.schema import read_output, schema_numbers

ROOT = Path(__file__).parent.parent
RULES = eval_cases.behaviour()
ASKED = eval_cases.pairs(60)
GIVEN = eval_cases.predictions(ASKED, 0.8, 0.8)
TEXTS = [GIVEN[pair.id].output for pair in ASKED]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    import evaluate.config
    import evaluate.loading

    where = tmp_path_factory.mktemp("modules")
    evaluate.config.HF_EVALUATE_CACHE = where
    evaluate.loading.config.HF_MODULES_CACHE = where / "modules"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("workspace")
    (where / "schema.json").write_text(json.dumps(eval_cases.SCHEMA))
    written = {
        "name": "colours",
        "prompt": "{{ question }}",
        "output": {"format": "json", "schema": "schema.json"},
        "abstain": {"where": "/status", "equals": "unknown", "output": eval_cases.UNKNOWN},
        "answer": {"at": "/answer"},
        "citations": {"at": "/citations"},
    }
    (where / "behaviour.yaml").write_text(yaml.safe_dump(written))
    return where


def load(name: str, where: Path) -> Any:
    import evaluate

    return evaluate.load(str(ROOT / "eval" / "metrics" / name), cache_dir=str(where))


def test_schema_adherence(files: Path, tmp_path: Path) -> None:
    metric = load("schema_adherence", tmp_path)
    readings = [read_output(RULES, text) for text in TEXTS]
    wanted = schema_numbers(RULES, ASKED, readings)
    records = [pair.record() for pair in ASKED]
    assert metric.compute(predictions=TEXTS, behaviour=str(files / "behaviour.yaml"), pairs=records) == wanted
    alone = metric.compute(predictions=TEXTS, schema=eval_cases.SCHEMA)
    assert {key: alone[key] for key in ("adherence", "recoverable", "violations")} == {
        key: wanted[key] for key in ("adherence", "recoverable", "violations")
    }
    assert alone["fields"]["/answer"]["valid"] == wanted["fields"]["/answer"]["valid"]
    assert alone["fields"]["/answer"]["correct"] is None
    assert metric.compute(predictions=TEXTS, schema=str(files / "schema.json")) == alone
    cut = metric.compute(predictions=['{"a":'], schema=True, finish=["length"])
    assert list(cut["violations"]) == ["truncated"]


def test_abstention(files: Path, tmp_path: Path) -> None:
    wanted = abstention_numbers([one.cell for one in grade(RULES, ASKED, GIVEN)])
    lines = [json.dumps(pair.record()) for pair in ASKED]
    metric = load("abstention", tmp_path)
    assert metric.compute(predictions=TEXTS, references=lines, behaviour=str(files / "behaviour.yaml")) == wanted
    assert metric.compute(predictions=TEXTS, references=lines, behaviour=RULES) == wanted


def test_selective_calibration(tmp_path: Path) -> None:
    metric = load("selective_calibration", tmp_path)
    confidences = [round(0.01 * i, 2) for i in range(100)]
    rights = [i % 7 > 0 and i > 30 for i in range(100)]
    answers = [Answer(*one) for one in zip(confidences, rights, strict=True)]
    held = ([0.9] * 200, [True] * 199 + [False])
    found = metric.compute(predictions=confidences, references=rights, held_out=held)
    assert found == calibration_numbers(answers, [Answer(*one) for one in zip(*held, strict=True)])
    assert found["threshold"]["value"] == 0.9
    with pytest.raises(ValueError, match="between 0 and 1"):
        metric.compute(predictions=[1.5], references=[True])


def test_retention(tmp_path: Path) -> None:
    metric = load("retention", tmp_path)
    base, tuned = [1] * 300, [1] * 280 + [0] * 20
    groups = [i // 3 for i in range(300)]
    sides = [
        [Result(id=str(i), set="s", group=groups[i], correct=bool(one)) for i, one in enumerate(side)]
        for side in (base, tuned)
    ]
    found = metric.compute(predictions=tuned, references=base, sets=["s"] * 300, groups=groups)
    assert found == retention_numbers(*sides)
    assert found["non_inferior"] is False
    losses = metric.compute(predictions=[2.0, 2.1, 2.2], references=[2.0, 2.1, 2.1], kind="loss", tokens=[9, 9, 2])
    assert losses["sets"]["all"]["tokens"] == 20
    with pytest.raises(ValueError, match="correct"):
        metric.compute(predictions=[0.5], references=[1])


def test_what_is_missing_is_said() -> None:
    with pytest.raises(BehaviourError, match="give behaviour= or schema="):
        metrics.behaviour_of(None)
    with pytest.raises(BehaviourError, match="no JSON Schema"):
        metrics.behaviour_of(None, {"type": "nothing"})
    with pytest.raises(ValueError, match="3 predictions and 1 pairs"):
        metrics.pairs_of([{"question": "?", "output": ""}], 3)
    with pytest.raises(ValueError, match="none of schema_adherence"):
        metrics.load("bleu")


OFFLINE = """
import socket, sys
def refuse(*_, **__):
    print("a connection was tried", file=sys.stderr)
    raise OSError("no network")
socket.socket.connect = refuse
socket.create_connection = socket.getaddrinfo = refuse
import evaluate
for name in sys.argv[1:]:
    print(evaluate.load(f"eval/metrics/{name}").name)
metric = evaluate.load("eval/metrics/schema_adherence")
print(metric.compute(predictions=["{}", "no"], schema={"type": "object"})["adherence"]["value"])
from eval.metrics import load
print(load("retention").compute(predictions=[1] * 300, references=[1] * 300)["non_inferior"])
"""


def test_modules_load_from_the_checkout_without_a_network(tmp_path: Path) -> None:
    """As a stranger does it: in the checkout, by the relative path, in a process whose sockets cannot connect."""
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, *metrics.NAMES],
        cwd=ROOT, env={**os.environ, "HF_HOME": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "a connection was tried" not in done.stderr
    assert done.stdout.split() == [*metrics.NAMES, "0.5", "True"]
