"""The house's own rules: imports run one way, help loads nothing heavy, every command is documented."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import click
import pytest

import tutelage

ROOT = Path(__file__).parent.parent
STAGES = ["curate", "train", "eval"]
HEAVY = [
    *("torch", "transformers", "datasets", "argilla", "trl", "peft", "bitsandbytes", "accelerate", "evaluate"),
    *("matplotlib", "scipy", "sklearn", "pyarrow", "pandas", "numpy", "pydantic", "jinja2", "rich"),
]


def imported(path: Path) -> set[str]:
    """The top-level names a Python file imports anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("stage", STAGES)
def test_imports_run_one_way(stage: str) -> None:
    later = {*STAGES[STAGES.index(stage) + 1 :], "tutelage", "tutelage_recipes", "recipes"}
    files = sorted((ROOT / stage).rglob("*.py"))
    assert files
    wrong = {str(path.relative_to(ROOT)): found for path in files if (found := imported(path) & later)}
    assert not wrong


def test_what_is_imported_is_what_is_declared() -> None:
    """Less the extras, and less what runs in argilla-server's own environment."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    names = {plain(re.split(r"[<>=~!;\[ ]", one)[0]) for one in declared}
    sdk = {"argilla", "requests"}  # for a team's own scripts
    assert sdk <= names
    names -= sdk
    own = {*STAGES, "tutelage", "tutelage_recipes", "llguidance", "lm_eval"}  # the last two are extras
    files = [path for top in (*STAGES, "recipes") for path in (ROOT / top).rglob("*.py")]
    found = [imported(path) for path in files if "embedded" not in path.parts]
    modules = {"detect_secrets"}.union(*found) - own - sys.stdlib_module_names  # that one by import_module
    owners = packages_distributions()
    used = {module: names & set(map(plain, owners[module])) for module in modules}
    assert not {module for module, owner in used.items() if not owner}, "imported and not declared"
    assert names == set().union(*used.values()), "declared and not imported"


def plain(name: str) -> str:
    return name.lower().replace("_", "-")


def test_nothing_binds_the_name_eval() -> None:
    for path in [ROOT / "tutelage.py", *(p for stage in STAGES for p in (ROOT / stage).rglob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(node, "name", None) if not isinstance(node, ast.alias) else node.asname or node.name
            assert name != "eval", f"{path}: binds eval"


def walk(group: tutelage.LazyGroup, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, entry in group.table.items():
        found.append((*prefix, name))
        if not isinstance(entry, tutelage.Entry):
            command = group.get_command(click.Context(group), name)
            assert isinstance(command, tutelage.LazyGroup)
            found += walk(command, (*prefix, name))
    return found


COMMANDS = walk(tutelage.main)


@pytest.mark.parametrize("command", [(), *COMMANDS], ids=lambda command: " ".join(command) or "tutelage")
def test_help_loads_nothing_heavy(command: tuple[str, ...]) -> None:
    code = (
        "import sys\nimport tutelage\n"
        f"try: tutelage.main({[*command, '--help']!r}, prog_name='tutelage')\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        f"print('HEAVY', sorted(set(sys.modules) & set({HEAVY!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("HEAVY []"), done.stdout
    assert "Usage: tutelage" in done.stdout


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_is_documented(command: tuple[str, ...]) -> None:
    group: click.Command = tutelage.main
    for name in command:
        assert isinstance(group, tutelage.LazyGroup)
        found = group.get_command(click.Context(group), name)
        assert found is not None
        group = found
    if isinstance(group, click.Group):
        return
    assert group.help
    assert "Example" in group.help, "the help ends with an example"
    assert all(option.help for option in group.params if isinstance(option, click.Option)), "every option is explained"
    assert f"tutelage {' '.join(command)}" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_error_of_ours_is_one_message(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tutelage", "-C", str(tmp_path), "curate", "check"],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "tutelage init" in done.stderr
