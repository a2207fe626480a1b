"""Advice: knowledge goes to retrieval, behaviour to weights, and fine-tuning has to be earned."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import tutelage
from curate.advise import Answers, Facts, advise, document, text
from curate.facts import read_facts
from curate.files import write_json
from curate.manifest import write_manifest
from curate.pairs import make_pair, write_pairs
from curate.release import make_release
from curate.starting import start_workspace
from curate.workspace import Workspace

BEHAVIOUR_ONLY = Answers(changes="rarely", cite=False, lacking="behaviour", at_hand="pairs", latency_seconds=3)
READY = Facts(
    workspace=True,
    pairs=800,
    unanswerable=200,
    reviewed=700,
    schema=True,
    abstention=True,
    gate=("schema_adherence", "retention_drop"),
    guards=("rehearsal", "retention_budget"),
    releases=1,
)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({}, "fine-tune"),
        ({"changes": "monthly"}, "rag-then-both"),
        ({"changes": "weekly"}, "rag-then-both"),
        ({"cite": True}, "rag-then-both"),
        ({"lacking": "both"}, "rag-then-both"),
        ({"lacking": "knowledge"}, "rag"),
        ({"lacking": "knowledge", "latency_seconds": 0.2}, "rag"),
        ({"lacking": "knowledge", "at_hand": "pairs"}, "rag"),
    ],
)
def test_recommendation(change: dict[str, Any], wanted: str) -> None:
    assert advise(replace(BEHAVIOUR_ONLY, **change), READY).recommendation == wanted


def every_answer() -> list[Answers]:
    return [
        Answers(*one)  # type: ignore[arg-type]
        for one in itertools.product(
            ("weekly", "monthly", "rarely"),
            (True, False),
            ("knowledge", "behaviour", "both"),
            ("documents", "pairs", "both", "neither"),
            (0.5, 5.0),
        )
    ]


def test_every_answer_has_five_reasons_and_a_headline_that_fits() -> None:
    for answers in every_answer():
        for facts in (Facts(), READY):
            advice = advise(answers, facts)
            assert len(advice.reasons) == 5
            assert all(reason.why and reason.points_to for reason in advice.reasons)
            assert advice.headline.startswith(
                {"rag": "RAG.", "fine-tune": "Fine-tune", "rag-then-both": "RAG first, then both"}[
                    advice.recommendation
                ]
            )
            assert advice.justified == (advice.recommendation != "rag" and facts is READY)
            assert "Not today" in advice.headline or advice.justified or advice.recommendation == "rag"
            json.dumps(document(advice, facts))
            assert advice.headline[:30] in text(advice, facts)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"reviewed": 299}, "at least 300 pairs that people have reviewed"),
        ({"unanswerable": 50}, "between 15% and 60% unanswerable"),
        ({"unanswerable": 500}, "between 15% and 60% unanswerable"),
        ({"schema": False}, "an output form that a machine can check"),
        ({"abstention": False}, "a way to say"),
        ({"guards": ("adapter_scale",)}, "a plan for what the base must not forget"),
        ({"gate": ("schema_adherence",)}, "a plan for what the base must not forget"),
        ({"verdict": "NO-GO"}, "a report that says GO"),
        ({"verdict": "INCONCLUSIVE"}, "a report that says GO"),
    ],
)
def test_each_thing_that_is_missing_is_named_alone(change: dict[str, Any], what: str) -> None:
    (missing,) = advise(BEHAVIOUR_ONLY, replace(READY, **change)).missing
    assert missing.what.startswith(what)
    assert missing.now
    assert missing.do


def test_go_says_ship() -> None:
    assert "ship it" in advise(BEHAVIOUR_ONLY, replace(READY, verdict="GO")).headline
    assert "train and let the gate decide" in advise(BEHAVIOUR_ONLY, READY).headline


def run(*arguments: str, **options: Any) -> Result:
    return CliRunner().invoke(tutelage.main, list(arguments), **options)


OPTIONS = ["--changes", "rarely", "--no-cite", "--lacking", "behaviour", "--at-hand", "pairs", "--latency", "3"]


def test_reads_the_workspace(tmp_path: Path) -> None:
    start_workspace(tmp_path, as_text=False, base=None)
    place = Workspace(tmp_path)
    unknown = {"status": "unknown", "answer": None, "citations": []}
    known = {"status": "answered", "answer": "a", "citations": ["p1"]}
    write_pairs(
        place.pairs,
        [
            make_pair(
                {
                    "id": f"q{i}",
                    "question": f"q{i}?",
                    "output": known if i % 4 else unknown,
                    "passages": [{"id": "p1", "text": f"word{i}", "source": f"d{i}"}],
                },
                "t",
            )
            for i in range(40)
        ],
    )
    place.review.mkdir()
    (place.review / "settled.jsonl").write_text(
        '{"pair": "q1"}\n{"pair": "q1"}\nbroken\n{"pair": "q2"}\n{"pair": "zz"}\n'
    )
    make_release(place)
    report = place.reports / "first"
    report.mkdir(parents=True)
    write_json(report / "scores.json", {"verdict": "NO-GO"})
    write_manifest(report, "report", "first", {}, {})
    facts = read_facts(place)
    assert (facts.pairs, facts.unanswerable, facts.reviewed) == (40, 10, 2)
    assert (facts.releases, facts.runs, facts.reports, facts.verdict) == (1, 0, 1, "NO-GO")
    assert facts.schema
    assert facts.abstention
    assert {"rehearsal", "retention_budget"} <= set(facts.guards)
    assert facts.problems == ()
    result = run("-C", str(tmp_path), "advise", *OPTIONS, "--json")
    assert result.exit_code == 0
    said = json.loads(result.stdout)
    assert (said["recommendation"], said["justified"]) == ("fine-tune", False)
    assert [one["what"][:12] for one in said["missing"]] == ["at least 745", "a report tha"]
    assert said["workspace"]["reviewed"] == 2


def test_a_broken_workspace_stops_no_advice(tmp_path: Path) -> None:
    start_workspace(tmp_path, as_text=False, base=None)
    (tmp_path / "pairs.jsonl").write_text("{broken\n")
    (tmp_path / "recipe.yaml").write_text("guards: [")
    (tmp_path / "behaviour.yaml").write_text("name: x")
    result = run("-C", str(tmp_path), "advise", *OPTIONS)
    assert result.exit_code == 0
    assert result.stdout.count("Could not be read: ") == 3


def test_without_a_workspace_or_a_terminal(tmp_path: Path) -> None:
    result = run("-C", str(tmp_path), "advise", *OPTIONS, "--json")
    assert json.loads(result.stdout)["workspace"] is None
    result = run("-C", str(tmp_path), "advise", "--cite")
    assert result.exit_code == 2
    assert "--changes, --lacking, --at-hand, --latency" in result.output


def test_asks_what_no_option_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import curate.front

    class Terminal:
        @staticmethod
        def isatty() -> bool:
            return True

    real = curate.front._ask

    def ask(given: dict[str, Any]) -> dict[str, Any]:
        import sys

        monkeypatch.setattr(sys.stdin, "isatty", Terminal.isatty, raising=False)
        return real(given)

    monkeypatch.setattr(curate.front, "_ask", ask)
    lines = "monthly\ny\nnonsense\nbehaviour\nboth\n0.5\n"
    result = run("-C", str(tmp_path), "advise", "--json", input=lines)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["recommendation"] == "rag-then-both"
    assert "How often does the knowledge change" in result.stderr
