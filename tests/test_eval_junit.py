"""The gate as JUnit XML."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import eval_cases
import pytest

from curate.behaviour import Bound
from eval.junit import render_junit


def suite(scores: dict[str, Any]) -> ElementTree.Element:
    whole = ElementTree.fromstring(render_junit(scores))
    assert whole.tag == "testsuites"
    (only,) = whole
    assert {key: only.get(key) for key in ("tests", "failures", "errors")} == {
        key: whole.get(key) for key in ("tests", "failures", "errors")
    }
    return only


def kinds(scores: dict[str, Any]) -> list[str]:
    return [next((child.tag for child in case if child.tag != "system-out"), "passed") for case in suite(scores)]


def test_a_case_for_each_line_of_the_gate() -> None:
    gate = {
        "schema_adherence": Bound(at_least=0.95),
        "hallucination_rate": Bound(at_least=0.9),
        "over_abstention_rate": Bound(at_most=0.016),
    }
    scores, _ = eval_cases.scored(eval_cases.behaviour(gate=gate))
    assert [line["verdict"] for line in scores["gate"]] == ["GO", "NO-GO", "INCONCLUSIVE"]
    assert kinds(scores) == ["passed", "failure", "error"]
    found = suite(scores)
    assert [case.get("name") for case in found] == list(gate)
    assert (found.get("tests"), found.get("failures"), found.get("errors")) == ("3", "1", "1")
    assert found[1][0].get("message") == scores["gate"][1]["reason"]


def test_a_report_without_a_gate_is_no_pass() -> None:
    scores, _ = eval_cases.scored(eval_cases.behaviour(gate={}))
    assert kinds(scores) == ["error"]


@pytest.mark.parametrize("name", ["a\x00\x1b[31m\ud800\uffff", "<failure/>&amp;]]>", "x\" y='1"])
def test_any_name_gives_xml_that_parses(name: str) -> None:
    scores, _ = eval_cases.scored()
    scores = {**scores, "gate": [{**scores["gate"][0], "set": name, "verdict": "NO-GO", "reason": name}]}
    (case,) = suite(scores)
    assert [child.tag for child in case] == ["failure"]
    assert "\x00" not in str(case.get("name"))
