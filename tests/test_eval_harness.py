"""Tasks of the lm-evaluation-harness as retention sets. Those that run it need the extra `harness`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from evaluated_run import ask, lines

from curate.errors import WorkspaceError
from curate.files import read_json
from eval.harness import graded_lines

TASK = """\
task: tiny_sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: {kind}
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
{more}
"""


def write_task(directory: Path, name: str, kind: str, more: str) -> None:
    directory.mkdir(exist_ok=True)
    data = directory / "sums.jsonl"
    items = [{"question": f"{a} + {a} =", "answer": str(2 * a), "choices": [str(2 * a), "x"]} for a in range(12)]
    data.write_text("".join(json.dumps(one) + "\n" for one in items))
    text = TASK.format(data=data, kind=kind, more=more).replace("tiny_sums", name)
    (directory / f"{name}.yaml").write_text(text)


def test_the_first_measure_of_right_and_wrong_decides() -> None:
    metrics = ["bleu", "acc_norm", "acc"]
    samples = [
        {"doc_id": i, "filter": kind, "metrics": metrics, "bleu": 0.3, "acc": i % 2, "acc_norm": 1.0}
        for kind in ("strict", "flexible")
        for i in range(3)
    ]
    found = graded_lines("t", samples)
    assert [(one["id"], one["correct"], one["measure"]) for one in found] == [
        ("0", False, "acc"),
        ("1", True, "acc"),
        ("2", False, "acc"),
    ]
    with pytest.raises(WorkspaceError, match="right or wrong"):
        graded_lines("t", [{"doc_id": 0, "metrics": ["bleu"], "bleu": 0.3}])
    with pytest.raises(WorkspaceError, match="measures nothing"):
        graded_lines("t", [])


@pytest.mark.slow
def test_tasks_are_paired_item_by_item(run_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lm_eval")
    shutil.rmtree(run_root / "tasks", ignore_errors=True)
    choice = "doc_to_choice: choices\ndoc_to_target: 0\nmetric_list: [{metric: acc, aggregation: mean}]"
    said = (
        "generation_kwargs: {until: ['\\n'], max_gen_toks: 4, do_sample: false}\nmetric_list: [{metric: exact_match}]"
    )
    write_task(run_root / "tasks", "tiny_choice", "multiple_choice", choice)
    write_task(run_root / "tasks", "tiny_said", "generate_until", said)
    wanted: dict[str, Any] = {"tasks": ("tiny_choice", "tiny_said"), "tasks_path": run_root / "tasks", "limit": 10}
    report, scores = ask(run_root, **wanted)
    sets = scores["retention"]["sets"]
    assert set(sets) == {"copy", "count", "tiny_choice", "tiny_said"}
    assert sets["tiny_choice"]["n"] == sets["tiny_said"]["n"] == 10
    base, tuned = (lines(report / f"tasks-{side}.jsonl") for side in ("base", "tuned"))
    assert [one["id"] for one in base] == [one["id"] for one in tuned]
    assert {one["measure"] for one in base if one["set"] == "tiny_choice"} == {"acc"}
    right = {side: [one["correct"] for one in found] for side, found in (("base", base), ("tuned", tuned))}
    assert sets["tiny_choice"]["base"]["value"] == sum(right["base"][:10]) / 10
    assert sets["tiny_choice"]["tuned"]["value"] == sum(right["tuned"][:10]) / 10

    def refuse(*_: object) -> None:
        raise AssertionError("the tasks are done")

    monkeypatch.setattr("eval.harness._evaluate", refuse)
    ask(run_root, **wanted)
    assert read_json(report / "scores.json") == scores
    with pytest.raises(WorkspaceError, match="has no task nonsense"):
        ask(run_root, tasks=("nonsense",), name="other")
    assert not (run_root / "reports/other/predictions.jsonl").exists(), "known before anything is answered"
    with pytest.raises(WorkspaceError, match="20 of the answers there"):
        ask(run_root, limit=10)
    assert len(lines(report / "tasks-base.jsonl")) == 20
    monkeypatch.undo()
    (run_root / "tasks/both.yaml").write_text("group: both\ntask: [tiny_choice, tiny_said]\n")
    group = {**wanted, "tasks": ("both",), "name": "group"}
    _, first = ask(run_root, **group)
    assert set(first["retention"]["sets"]) == {"copy", "count", "tiny_choice", "tiny_said"}
    monkeypatch.setattr("eval.harness._evaluate", refuse)
    assert ask(run_root, **group)[1] == first
