"""The guides of stage three say what is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import yaml

from eval.numbers import GROUPS
from eval.scoring import PARTS
from tutelage import main

ROOT = Path(__file__).parent.parent
REPORT, CI = ((ROOT / "docs" / name).read_text() for name in ("report.md", "ci.md"))


def test_every_number_of_a_report_is_defined() -> None:
    for part, _, keys in GROUPS:
        section = REPORT.split(f"## `{part}`")[1].split("\n## ")[0]
        for key, _ in keys:
            assert f"| `{key.split('.')[0]}` |" in section, f"{part}.{key}"
    for part in PARTS:
        assert f"`{part}" in REPORT


def steps() -> list[dict[str, str]]:
    workflow = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", CI, re.DOTALL)[0])
    found: list[dict[str, str]] = workflow["jobs"]["gate"]["steps"]
    return found


@pytest.mark.parametrize("line", [step["run"] for step in steps() if "tutelage" in step.get("run", "")][1:])
def test_the_workflow_runs_commands_that_exist(line: str) -> None:
    words = shlex.split(line.split("||")[0])
    assert words.pop(0) == "tutelage"
    command: click.Command = main
    context = click.Context(command)
    while isinstance(command, click.Group):
        name = words.pop(0)
        found = command.get_command(context, name)
        assert found is not None, name
        command = found
    assert command.make_context(command.name, words)


def test_both_guides_are_linked_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "docs/report.md" in readme
    assert "docs/ci.md" in readme
