"""Recipes: defaults, paths, and every fault at once with its dotted path."""

from __future__ import annotations

from pathlib import Path

import pytest

from curate.errors import RecipeError
from train.recipe import Recipe, load_recipe, parse_recipe, relative_document

DESIGN = """
base: {model: Qwen/Qwen3-4B-Instruct-2507, revision: null}
quantization: {bits: 4, kind: nf4, double: true, compute: bfloat16}
lora: {rank: 16, alpha: 32, dropout: 0.05, targets: all-linear}
training:
  {epochs: 2, learning_rate: 1.0e-4, schedule: cosine, warmup: 0.05, batch: 16, micro_batch: 2, max_length: 4096,
   packing: false, seed: 17}
guards:
  rehearsal: {source: self, share: 0.10}
  kl_to_base: {weight: 0.1, on: rehearsal}
  retention_budget: {loss_rise: 0.05, every: 50}
  adapter_scale: {from: [0.25, 0.5, 0.75, 1.0]}
  unanswerable_share: {at_least: 0.15}
length: {over: error}
"""


def load(tmp_path: Path, text: str) -> Recipe:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return load_recipe(path)


def fault(tmp_path: Path, text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, text)
    return str(caught.value)


def test_the_designs_recipe_is_the_default(tmp_path: Path) -> None:
    written = load(tmp_path, DESIGN)
    short = load(tmp_path, "base: {model: Qwen/Qwen3-4B-Instruct-2507}")
    assert written == short
    assert written.guards.kl_to_base is not None
    assert written.guards.kl_to_base.on == "rehearsal"


def test_no_default_is_hidden(tmp_path: Path) -> None:
    document = load(tmp_path, "base: {model: a/b}").document()
    for section, model in Recipe.model_fields.items():
        if section != "guards":
            fields = model.annotation.model_fields  # type: ignore[union-attr]
            assert set(document[section]) == {field.alias or name for name, field in fields.items()}
    assert document["guards"]["adapter_scale"]["from"] == [0.25, 0.5, 0.75, 1.0]
    assert parse_recipe(document, tmp_path, "x").document() == document


def test_every_key_is_described() -> None:
    seen = [Recipe]
    for model in seen:
        for name, field in model.model_fields.items():
            inner = getattr(field.annotation, "model_fields", None)
            if inner is not None:
                seen.append(field.annotation)  # type: ignore[arg-type]
            else:
                assert field.description, f"{model.__name__}.{name} has no description"


def test_numbers_that_yaml_takes_for_text(tmp_path: Path) -> None:
    assert load(tmp_path, "base: {model: a/b}\ntraining: {learning_rate: 2e-4}").training.learning_rate == 2e-4


def test_all_faults_at_once_by_their_dotted_path(tmp_path: Path) -> None:
    said = fault(
        tmp_path,
        "base: {modle: x}\ntraining: {epochs: 0, batch: 3, micro_batch: x}\n"
        "guards: {rehearsal: {share: 2}}\nlora: {rnk: 8}",
    )
    for place in ("base.model", "base.modle", "training.epochs", "training.micro_batch", "rehearsal.share", "lora.rnk"):
        assert place in said
    assert "unknown key" in said


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("- a list", "mapping"),
        ("base: {model: a/b", "YAML"),
        ("base: {model: a/b}\ntraining: {batch: 6, micro_batch: 4}", "multiple of micro_batch"),
        ("base: {model: a/b}\ntraining: {packing: true}", "packing is not offered"),
        ("base: {model: a/b}\ntraining: {learning_rate: .nan}", "training.learning_rate"),
        ("base: {model: a/b}\nguards: {adapter_scale: {from: []}}", "adapter_scale.from"),
        ("base: {model: a/b}\nguards: {adapter_scale: {from: [1.5]}}", "adapter_scale.from"),
        ("base: {model: a/b}\nguards: {rehearsal: null}", "rehearsal is off"),
        ("base: {model: a/b}\nguards: {mask_unlikely: {below: 1.5}}", "guards.mask_unlikely.below"),
        ("base: {model: a/b}\nguards: {self_distillation: {words: 3}}", "guards.self_distillation.words: unknown key"),
        ("base: {model: a/b, template_arguments: {'a b': 1}}", "base.template_arguments.a b"),
        (
            "base: {model: a/b}\nguards: {rehearsal: {prompts: none.jsonl}}",
            "guards.rehearsal.prompts: there is no file",
        ),
        ("base: {model: a/b}\nguards: {rehearsal: {source: x.jsonl}}", "guards.rehearsal.source: there is no file"),
        ("base: {model: a/b}\nguards: {retention_budget: {sets: x.jsonl}}", "guards.retention_budget.sets"),
        ("base: {model: a/b}\nguards: {rehearsal: {source: x.jsonl, prompts: y}}", "rehearsal.prompts: these the base"),
        ("base: {model: ./nowhere}", "no config.json"),
        ("base: {model: 'a b/c d'}", "neither a directory nor a name"),
        ("base: {model: a/b}\nquantization: {bits: 8}", "quantization.bits"),
        ("base: {model: a/b}\ntraining: {learning_rate: .inf}", "training.learning_rate"),
        ("base: {model: a/b}\ntraining: {epochs: .inf}", "training.epochs"),
        ("base: {model: a/b}\nguards: {kl_to_base: {weight: .inf}}", "guards.kl_to_base.weight"),
        ("base: {model: a/b}\ntraining: {seed: 4294967296}", "training.seed"),
        ("base: {model: a/b}\nlora: {targets: '*_proj'}", "is no regular expression"),
        ("base: {model: a/b}\nlora: {targets: []}", "lora.targets: no module is named"),
        (
            "base: {model: a/b}\ntraining: {report_to: tensorboard}",
            "training.report_to: this must be a list: [tensorboard]",
        ),
        ("base: {model: a/b}\nguards: {adapter_scale: {from: 0.5}}", "adapter_scale.from: this must be a list: [0.5]"),
        ("base: {model: a/b}\nlora: {targets: {a: 1}}", "lora.targets: this must be a list"),
        ("base: {model: a/b}\ntraining: {epochs: 1}\ntraining: {batch: 4}", "the key 'training' stands twice"),
    ],
)
def test_faults(tmp_path: Path, text: str, place: str) -> None:
    assert place in fault(tmp_path, text)


def test_a_missing_recipe_says_so(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no such file"):
        load_recipe(tmp_path / "none.yaml")


@pytest.mark.parametrize("off", ["null", "false"])
def test_guards_can_be_off(tmp_path: Path, off: str) -> None:
    names = ("rehearsal", "kl_to_base", "retention_budget", "adapter_scale", "unanswerable_share")
    lines = "".join(f"  {name}: {off}\n" for name in names)
    guards = load(tmp_path, f"base: {{model: a/b}}\nguards:\n{lines}").guards
    assert [getattr(guards, name) for name in names] == [None] * 5
    assert guards.self_distillation is None  # these two are off unless asked for
    assert guards.mask_unlikely is None


def test_paths_start_at_the_recipe_and_move_with_it(tmp_path: Path, tiny_base: Path) -> None:
    place = tmp_path / "deep" / "er"
    place.mkdir(parents=True)
    (tmp_path / "held.jsonl").write_text('{"id": "a", "prompt": "q", "answer": "a"}\n')
    (tmp_path / "base").symlink_to(tiny_base)
    recipe = load(place, "base: {model: ../../base}\nguards: {retention_budget: {sets: ../../held.jsonl}}")
    assert Path(recipe.base.model).is_absolute()
    assert recipe.guards.retention_budget is not None
    assert recipe.guards.retention_budget.sets == str(tmp_path / "held.jsonl")
    document = relative_document(recipe, tmp_path / "runs" / "run1")
    assert document["guards"]["retention_budget"]["sets"] == "../../held.jsonl"
    assert parse_recipe(document, tmp_path / "runs" / "run1", "x") == recipe


def test_a_directory_is_found_without_a_leading_dot(tmp_path: Path, tiny_base: Path) -> None:
    (tmp_path / "base").symlink_to(tiny_base)
    recipe = load(tmp_path, "base: {model: base}")
    assert recipe.base.is_directory
    again = parse_recipe(relative_document(recipe, tmp_path), tmp_path, "x")
    assert again == recipe


def test_every_shipped_recipe_validates() -> None:
    import tutelage_recipes

    shipped = sorted(Path(str(tutelage_recipes.__file__)).parent.rglob("*.yaml"))
    recipes = [path for path in shipped if "learning_rate" in path.read_text(encoding="utf-8")]
    assert [path.name for path in recipes if path.name == "qwen3-4b.yaml"]
    for path in recipes:
        said = ""
        try:
            load_recipe(path)
        except RecipeError as error:
            said = str(error)
        # the demo writes the files it names into its workspace
        missing = [line for line in said.split("\n") if "there is no file" in line or "holds no model" in line]
        assert not said or (path.parent.name == "demo" and said.split("\n") == missing), said
