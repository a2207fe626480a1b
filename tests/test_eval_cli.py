from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from output_form import UNKNOWN

from curate.files import beside, hold, write_json
from curate.pairs import Pair, Passage, write_pairs
from tutelage import main

SCHEMA = {
    "type": "object",
    "required": ["status", "answer", "citations"],
    "additionalProperties": False,
    "properties": {"status": {"enum": ["answered", "unknown"]}, "answer": {}, "citations": {"type": "array"}},
}
BEHAVIOUR: dict[str, Any] = {
    "name": "colours",
    "prompt": "{{ question }}",
    "output": {"format": "json", "schema": "schema.json"},
    "abstain": {"where": "/status", "equals": "unknown", "output": UNKNOWN},
    "answer": {"at": "/answer"},
    "citations": {"at": "/citations"},
    "gate": {"schema_adherence": {"at_least": 0.95}, "hallucination_rate": {"at_most": 0.05}},
}


def wanted(number: int) -> dict[str, Any]:
    return UNKNOWN if number % 3 == 0 else {"status": "answered", "answer": f"red {number}", "citations": ["p1"]}


def pair(number: int) -> Pair:
    passage = Passage(id="p1", text=f"Box {number} is red {number}.", source=f"d{number}.md")
    return Pair(
        id=f"q{number}", question=f"What is in box number {number}?", passages=(passage,), output=wanted(number)
    )


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    write_json(tmp_path / "schema.json", SCHEMA)
    (tmp_path / "behaviour.yaml").write_text(yaml.safe_dump(BEHAVIOUR), encoding="utf-8")
    write_pairs(tmp_path / "pairs.jsonl", [pair(i) for i in range(300)])
    answers(tmp_path / "good.jsonl", range(300))
    answers(tmp_path / "bad.jsonl", range(300), broken=0.5)
    return tmp_path


def answers(file: Path, numbers: Any, broken: float = 0.0) -> Path:
    """Predictions of which a share of those with an even number is prose."""
    draw = random.Random(3)
    lines = []
    for i in numbers:
        text = "It is red." if draw.random() < broken else json.dumps(wanted(i))
        lines.append(json.dumps({"id": f"q{i}", "output": text, "confidence": 0.9}))
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def results(file: Path, n: int, wrong: int) -> Path:
    file.write_text("\n".join(json.dumps({"id": str(i), "correct": i >= wrong}) for i in range(n)), encoding="utf-8")
    return file


def run(workspace: Path, *arguments: Any) -> Result:
    found = CliRunner().invoke(main, ["-C", str(workspace), "eval", *map(str, arguments)])
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    return found


def test_score_prints_the_verdict_and_exits_with_it(workspace: Path) -> None:
    against = ("--pairs", workspace / "pairs.jsonl")
    good = run(workspace, "score", workspace / "good.jsonl", *against)
    assert (good.exit_code, good.stdout.split()[0]) == (0, "GO")
    assert "schema_adherence" in good.stdout
    assert "n=300" in good.stdout
    bad = run(workspace, "score", workspace / "bad.jsonl", *against)
    assert (bad.exit_code, bad.stdout.split()[0]) == (3, "NO-GO")
    few = answers(workspace / "few.jsonl", range(20))
    write_pairs(workspace / "few-pairs.jsonl", [pair(i) for i in range(20)])
    some = run(workspace, "score", few, "--pairs", workspace / "few-pairs.jsonl")
    assert (some.exit_code, some.stdout.split()[0]) == (4, "INCONCLUSIVE")
    assert "more pairs would settle it" in some.stdout


def test_a_key_to_slice_by_that_no_pair_has_is_named(workspace: Path) -> None:
    against = ("--pairs", workspace / "pairs.jsonl", "--slice", "taem")
    found = run(workspace, "score", workspace / "good.jsonl", *against)
    assert "by taem: no pair has this key in its meta" in found.stdout


def test_json_is_one_document_and_messages_go_elsewhere(workspace: Path) -> None:
    few = answers(workspace / "few.jsonl", range(200))
    found = run(workspace, "score", few, "--pairs", workspace / "pairs.jsonl", "--partial", "--json")
    scores = json.loads(found.stdout)
    assert scores["n"] == 200
    assert scores["sources"]["partial"] is True
    assert "200 of 300 pairs" in found.stderr
    assert "200 of 300 pairs" in scores["reasons"][0]
    assert str(workspace) not in found.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["few.jsonl", "--pairs", "pairs.jsonl"], "280 (q20, q21, q22, q23, q24, …) of 300 pairs have no prediction"),
        (["good.jsonl", "--pairs", "nothing.jsonl"], "no such file"),
        (["nothing.jsonl", "--pairs", "pairs.jsonl"], "no such file"),
        (["good.jsonl", "--pairs", "few-pairs.jsonl"], "have an id that no pair has"),
        (["good.jsonl"], "there is no release yet"),
        (["good.jsonl", "--release", "v1", "--pairs", "pairs.jsonl"], "give one of them"),
        (["good.jsonl", "--behaviour", "behaviour.yaml"], "drop --behaviour"),
        (["good.jsonl", "--pairs", "pairs.jsonl", "--baseline", "few.jsonl"], "few.jsonl: 280"),
        (["good.jsonl", "--pairs", "pairs.jsonl", "--retention", "r1.jsonl", "r2.jsonl"], "done by one model only"),
        (["good.jsonl", "--pairs", "pairs.jsonl", "--out", "taken"], "something that is no report stands there"),
    ],
)
def test_what_cannot_be_scored_is_one_clear_error(workspace: Path, arguments: list[str], message: str) -> None:
    answers(workspace / "few.jsonl", range(20))
    write_pairs(workspace / "few-pairs.jsonl", [pair(i) for i in range(20)])
    results(workspace / "r1.jsonl", 5, 0)
    results(workspace / "r2.jsonl", 6, 0)
    (workspace / "taken").mkdir()
    (workspace / "taken" / "notes.txt").write_text("mine")
    given = [str(workspace / one) if "." in one or one == "taken" else one for one in arguments]
    found = run(workspace, "score", *given)
    assert found.exit_code == 1
    assert message in found.stderr
    assert found.stdout == ""
    assert (workspace / "taken" / "notes.txt").read_text() == "mine"


def test_a_report_is_written_whole_replaced_and_verified(workspace: Path) -> None:
    out = workspace / "reports" / "one"
    results(workspace / "base.jsonl", 400, 0)
    results(workspace / "tuned.jsonl", 400, 1)
    more = ("--baseline", workspace / "bad.jsonl", "--retention", workspace / "base.jsonl", workspace / "tuned.jsonl")
    arguments = ("score", workspace / "good.jsonl", "--pairs", workspace / "pairs.jsonl", *more, "--out", out)
    first = run(workspace, *arguments)
    assert first.exit_code == 0, first.output
    names = {path.name for path in out.iterdir()}
    assert {"predictions.jsonl", "scores.json", "report.html", "report.md", "manifest.json", "baseline.jsonl"} <= names
    scores = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    assert scores["retention"]["sets"]["all"]["n"] == 400
    assert scores["against_baseline"]["only_second"] > 50
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert run(workspace, *arguments).exit_code == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert {path.name for path in out.parent.iterdir()} == {"one", ".one.lock"}
    verified = CliRunner().invoke(main, ["-C", str(workspace), "verify", str(out)])
    assert verified.exit_code == 0, verified.output


def test_two_commands_do_not_write_one_report_at_once(workspace: Path) -> None:
    out = workspace / "reports" / "one"
    arguments = ("score", workspace / "good.jsonl", "--pairs", workspace / "pairs.jsonl", "--out", out)
    run(workspace, *arguments)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with hold(beside(out), out):
        second = run(workspace, *arguments)
    assert second.exit_code == 1
    assert "another tutelage command is writing here" in second.stderr
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_release_gives_the_test_split_and_the_threshold(workspace: Path) -> None:
    from curate.release import Options, make_release
    from curate.workspace import Workspace

    fractions = {"train": 0.2, "validation": 0.1, "calibration": 0.4, "test": 0.3}
    release = make_release(Workspace(workspace), Options(name="v1", fractions=fractions)).release  # type: ignore[arg-type]
    test = [int(one.id[1:]) for one in release.pairs("test")]
    held = [int(one.id[1:]) for one in release.pairs("calibration")]
    alone = run(workspace, "score", answers(workspace / "test.jsonl", test), "--json")
    assert json.loads(alone.stdout)["n"] == len(test)
    assert json.loads(alone.stdout)["calibration"]["threshold"]["value"] is None
    both = run(workspace, "score", answers(workspace / "both.jsonl", test + held), "--release", "v1", "--json")
    assert json.loads(both.stdout)["n"] == len(test)
    assert json.loads(both.stdout)["calibration"]["threshold"]["value"] == 0.9
    assert run(workspace, "score", workspace / "good.jsonl", "--release", "v1").exit_code == 1  # answers of train too


def test_gate_prints_a_reports_verdict_and_refuses_a_changed_one(workspace: Path) -> None:
    for name, code in (("good", 0), ("bad", 3)):
        out = workspace / "reports" / name
        run(workspace, "score", workspace / f"{name}.jsonl", "--pairs", workspace / "pairs.jsonl", "--out", out)
        by_path, by_name = run(workspace, "gate", out), run(workspace, "gate", name, "--json")
        assert by_path.exit_code == by_name.exit_code == code
        assert by_path.stdout.split()[0] == json.loads(by_name.stdout)["verdict"]
    scores = workspace / "reports" / "bad" / "scores.json"
    scores.write_text(scores.read_text(encoding="utf-8").replace("NO-GO", "GO"), encoding="utf-8")
    changed = run(workspace, "gate", workspace / "reports" / "bad")
    assert changed.exit_code == 1
    assert "changed after it was written" in changed.stderr
    assert run(workspace, "gate", workspace).exit_code == 1


def test_compare_says_which_differences_are_real(workspace: Path) -> None:
    for name in ("good", "bad"):
        out = workspace / "reports" / name
        run(workspace, "score", workspace / f"{name}.jsonl", "--pairs", workspace / "pairs.jsonl", "--out", out)
    found = run(workspace, "compare", "bad", "good")
    assert found.exit_code == 0
    assert "a real difference" in found.stdout
    document = json.loads(run(workspace, "compare", "bad", "good", "--json").stdout)
    assert [one["verdict"] for one in document["reports"]] == ["NO-GO", "GO"]
    paired = document["differences"][0]["paired"]
    assert paired["n"] == 300
    assert paired["only_first"] == 0
    assert paired["real"] is True
    assert document["numbers"]["schema_adherence"][1]["value"] == 1.0
    assert document["numbers"]["right"][1]["value"] == 1.0
    assert run(workspace, "compare", "good").exit_code == 2
    assert "stands twice" in run(workspace, "compare", "good", "good").stderr


def test_three_reports_are_held_against_the_first_with_adjusted_p_values(workspace: Path) -> None:
    lines = (workspace / "good.jsonl").read_text().splitlines()
    worse = [json.dumps({**json.loads(line), "output": "no"}) if i < 6 else line for i, line in enumerate(lines)]
    (workspace / "worse.jsonl").write_text("\n".join(worse) + "\n")
    for name in ("good", "worse", "bad"):
        out = workspace / "reports" / name
        run(workspace, "score", workspace / f"{name}.jsonl", "--pairs", workspace / "pairs.jsonl", "--out", out)
    document = json.loads(run(workspace, "compare", "good", "worse", "bad", "--json").stdout)
    near, far = (one["paired"] for one in document["differences"])
    assert near["mcnemar_p"] == near["adjusted_p"] == pytest.approx(2 / 2**6), "Holm leaves the largest as it is"
    assert far["adjusted_p"] == pytest.approx(2 * far["mcnemar_p"])
    assert (near["real"], far["real"]) == (True, True)
    text = run(workspace, "compare", "good", "worse", "bad").stdout
    assert text.splitlines()[0].split() == ["good", "worse", "bad"]
    assert "adjusted for 2 comparisons" in text


@pytest.mark.parametrize(("wrong", "n", "code"), [(0, 200, 0), (20, 200, 3), (0, 50, 4), (1, 120, 4)])
def test_retention_exits_with_what_it_found(workspace: Path, wrong: int, n: int, code: int) -> None:
    base, tuned = results(workspace / "base.jsonl", n, 0), results(workspace / "tuned.jsonl", n, wrong)
    found = run(workspace, "retention", base, tuned)
    assert found.exit_code == code
    assert found.stdout.split()[0] == {0: "NON-INFERIOR", 3: "INFERIOR", 4: "INCONCLUSIVE"}[code]
    assert ("would settle it" in found.stdout) == (code == 4)
    numbers = json.loads(run(workspace, "retention", base, tuned, "--json").stdout)
    assert numbers["non_inferior"] is {0: True, 3: False, 4: None}[code]


def test_retention_margin_and_wrong_usage(workspace: Path) -> None:
    base, tuned = results(workspace / "base.jsonl", 200, 0), results(workspace / "tuned.jsonl", 200, 10)
    assert run(workspace, "retention", base, tuned, "--margin", "0.2").exit_code == 0
    assert run(workspace, "retention", base, tuned, "--margin", "1.5").exit_code == 2
    assert run(workspace, "retention", base).exit_code == 2


@pytest.mark.parametrize("command", ["score", "retention", "gate", "compare"])
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    found = CliRunner().invoke(main, ["eval", command, "--help"])
    assert found.exit_code == 0
    assert "Example:" in found.output
