"""init: a workspace that works as it is, and never a file overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import tutelage
from curate.behaviour import load_behaviour
from curate.pairs import read_pairs


def run(*arguments: object) -> Result:
    return CliRunner().invoke(tutelage.main, [str(one) for one in arguments])


@pytest.mark.parametrize("options", [(), ("--text",)], ids=["json", "text"])
def test_a_new_workspace_works_as_it_is(tmp_path: Path, options: tuple[str, ...]) -> None:
    root = tmp_path / "a b" / "ws"
    result = run("init", root, *options)
    assert result.exit_code == 0, result.output
    behaviour = load_behaviour(root / "behaviour.yaml")
    assert behaviour.is_json == (not options)
    assert (root / "schema.json").exists() == (not options)
    commands = [line.strip() for line in result.stdout.splitlines()]
    assert commands[0] == f"tutelage -C '{root}' curate import examples.jsonl"

    assert run("-C", root, "curate", "import", root / "examples.jsonl").exit_code == 0
    pairs = read_pairs(root / "pairs.jsonl")
    assert 5 <= len(pairs) <= 8
    assert all(behaviour.conforms(pair.output) for pair in pairs)
    assert all(behaviour.is_answerable(pair) == pair.answerable for pair in pairs)
    assert {pair.answerable for pair in pairs} == {True, False}
    assert all(behaviour.is_right(pair.output, pair) for pair in pairs if pair.answerable)
    checked = run("-C", root, "curate", "check", "--json")
    found = json.loads(checked.stdout)["findings"]
    assert [one for one in found if one["level"] == "error"] == []
    assert {one["rule"] for one in found} <= {"balance", "size"}
    assert run("-C", root, "curate", "release", "--unreviewed").exit_code == 0
    assert run("-C", root, "verify", "releases/r1").exit_code == 0


def test_the_recipe_is_one(tmp_path: Path) -> None:
    from train.recipe import Recipe, load_recipe

    base = tmp_path / "models" / "small"
    base.mkdir(parents=True)
    (base / "config.json").write_text("{}")
    assert run("init", tmp_path / "plain").exit_code == 0
    assert run("init", tmp_path / "local", "--base", base).exit_code == 0
    assert run("init", tmp_path / "hub", "--base", "someone/a-model").exit_code == 0
    recipe = load_recipe(tmp_path / "plain" / "recipe.yaml")
    assert recipe == Recipe(base=recipe.base), "the template says the defaults, and no others"
    assert recipe.base.model == "Qwen/Qwen3-4B-Instruct-2507"
    assert load_recipe(tmp_path / "hub" / "recipe.yaml").base.model == "someone/a-model"
    local = tmp_path / "local" / "recipe.yaml"
    assert 'model: "../models/small"' in local.read_text()
    assert Path(load_recipe(local).base.model) == base


@pytest.mark.parametrize("name", ["behaviour.yaml", "recipe.yaml", "schema.json", "examples.jsonl", ".gitignore"])
def test_never_overwrites(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    result = run("init", tmp_path)
    assert result.exit_code == 1
    assert f"there is already {name}" in result.output
    assert {path.name for path in tmp_path.iterdir()} == {name}
    assert (tmp_path / name).read_text() == "mine"


def test_a_second_init_is_refused_and_a_killed_one_goes_on(tmp_path: Path) -> None:
    assert run("init", tmp_path).exit_code == 0
    assert "behaviour.yaml" in run("init", tmp_path).output
    assert run("init", tmp_path).exit_code == 1
    for name in ("behaviour.yaml", "schema.json"):  # written last: what a kill would lack
        (tmp_path / name).unlink()
    assert run("init", tmp_path).exit_code == 0
    assert load_behaviour(tmp_path / "behaviour.yaml").name == "support-answers"


def test_init_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("init")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0].strip() == "tutelage curate import examples.jsonl"


def test_a_file_where_the_directory_should_be(tmp_path: Path) -> None:
    (tmp_path / "ws").write_text("a file")
    result = run("init", tmp_path / "ws")
    assert result.exit_code == 2
    result = run("init", tmp_path / "ws" / "below")
    assert result.exit_code == 1
    assert "Traceback" not in result.output
