"""What each guard keeps and what it costs: the demo trained without guards, with each one alone, and with all.

    python benchmarks/guards.py [--base DIR] [--work build/guards] [--seeds 17,18,19] [--rows none,all]

Every row is a `train run` of its own on the demo's base and release, with the demo's recipe but for the guards and the
seed. Answers to the test pairs and to general items that no guard has seen are graded as `eval run`
grades them. A row that is finished in the work directory is not trained again. Writes
benchmarks/results/guards.json, and from it the tables in docs/guards.md.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import yaml

from curate.files import read_json, sha256_tree, write_json, write_text
from curate.pairs import Pair
from curate.release import Release, load_release
from curate.workspace import Workspace
from train.items import Item, read_items, sample_sets, write_items

HERE = Path(__file__).parent
RESULT, PAGE = HERE / "results" / "guards.json", HERE.parent / "docs" / "guards.md"
BEGIN, END = "<!-- made by benchmarks/guards.py -->", "<!-- end -->"
MARGIN = 0.02
SEEN, ASKED = 160, 400  # held-out items a set: for the guards to look at, and for this table alone
BATCH = 64

# Guards that are on in each row; their settings are the demo's.
ROWS: dict[str, tuple[str, ...]] = {
    "none": (),
    "rehearsal": ("rehearsal",),
    "kl": ("kl_to_base",),
    "kl_light": ("kl_to_base",),
    "budget": ("retention_budget",),
    "scale": ("adapter_scale",),
    "all": ("rehearsal", "kl_to_base", "retention_budget", "adapter_scale"),
}
NAMES = {
    "none": "no guard",
    "rehearsal": "rehearsal",
    "kl": "KL to the base, on all answers",
    "kl_light": "the same at a tenth of the weight",
    "budget": "retention budget",
    "scale": "adapter scale",
    "all": "all four",
}


def tutelage(root: Path, *arguments: str) -> None:
    """A command of ours, as a user types it."""
    from tutelage import main

    main.main(["-C", str(root), *arguments], prog_name="tutelage", standalone_mode=False)


def make_release(root: Path, base: Path) -> None:
    """The demo's workspace around a base, and its release; of the held-out items the guards see one part alone."""
    from tutelage_recipes.demo.general import general
    from tutelage_recipes.demo.workspace import IMPORT, SEED, make_workspace

    if (root / "releases" / "demo" / "manifest.json").is_file():
        return
    shutil.copytree(base, root / "base", dirs_exist_ok=True)
    make_workspace(root)
    tutelage(root, *IMPORT)
    tutelage(root, "curate", "unanswerable", "--share", "0.4")
    tutelage(root, "curate", "release", "--unreviewed", "--name", "demo", "--fractions", "0.5,0.1,0.1,0.3")
    sets = {one["set"] for one in general(SEED, 50, held_out=True)}
    items = [Item.model_validate(one) for one in general(SEED, len(sets) * (SEEN + ASKED), held_out=True)]
    seen = {one.id for one in sample_sets(items, SEEN)}
    write_items(root / "retention.jsonl", [one for one in items if one.id in seen])
    write_items(root / "asked.jsonl", [one for one in items if one.id not in seen])


def recipe_of(root: Path, row: str, seed: int) -> dict[str, Any]:
    """The demo's recipe with the guards of a row.

    Where the budget is off it is still there, so wide that it never acts: it is what names the held-out items. The KL
    stands on all rows where there is no rehearsal.
    """
    recipe: dict[str, Any] = yaml.safe_load((root / "recipe.yaml").read_text(encoding="utf-8"))
    recipe["training"]["seed"] = seed
    guards, on = recipe["guards"], ROWS[row]
    for name in ("rehearsal", "kl_to_base", "adapter_scale"):
        guards[name] = guards[name] if name in on else None
    if guards["kl_to_base"] and not guards["rehearsal"]:
        guards["kl_to_base"]["on"] = "all"
        guards["kl_to_base"]["weight"] *= 0.1 if row == "kl_light" else 1.0
    if "retention_budget" not in on:
        guards["retention_budget"] |= {"loss_rise": 1000.0, "every": 10_000}
    elif on == ("retention_budget",):
        guards["retention_budget"]["every"] = (
            10  # alone it stops early: at the demo's 100 there is nothing to go back to
        )
    return recipe


@dataclass(frozen=True)
class Exam:
    """What every model is asked: the test pairs, then general items."""

    release: Release
    pairs: list[Pair]
    items: list[Item]

    def sit(self, model: Any, tokenizer: Any) -> dict[str, Any]:
        """Which pairs and which items a model gets right."""
        from train.generation import generate
        from train.rendering import encode, render_prompt
        from train.scaling import is_wanted

        behaviour = self.release.behaviour
        asked = [behaviour.render(pair) for pair in self.pairs] + [item.messages() for item in self.items]
        wanted = [behaviour.text(pair.output) for pair in self.pairs] + [str(item.answer) for item in self.items]
        room = 2 * max(map(len, encode(tokenizer, wanted))) + 32
        prompts = [render_prompt(tokenizer, messages) for messages in asked]
        texts = [one.text for one in generate(model, tokenizer, prompts, room, BATCH)]
        task = {pair.id: is_wanted(behaviour, pair, text) for pair, text in zip(self.pairs, texts, strict=False)}
        general = zip(self.items, texts[len(self.pairs) :], strict=True)
        return {"task": task, "general": {item.id: item.is_right(text) for item, text in general}}


def finish(root: Path, exam: Exam, row: str, seed: int) -> dict[str, Any]:
    """Train a row and let it sit the exam, or read what it did."""
    from train.model import load_tuned
    from train.training import Request, train

    path = root / "answers" / f"{row}-{seed}.json"
    if not path.is_file():
        recipe = root / f"{row}-{seed}.yaml"
        write_text(recipe, yaml.safe_dump(recipe_of(root, row, seed), sort_keys=False))
        begun = time.monotonic()
        run = train(Workspace(root), Request(recipe, "demo", f"{row}-{seed}", resume=True))
        seconds = time.monotonic() - begun
        details = run.manifest.details
        outcome = {"scale": run.scale, "training": details["training"], "seconds": round(seconds, 1)}
        write_json(path, outcome | exam.sit(*load_tuned(run)))
    found: dict[str, Any] = read_json(path)
    return found


def base_answers(root: Path, exam: Exam) -> dict[str, Any]:
    """The base in the same 4 bits, asked once."""
    from train.model import load_base
    from train.recipe import load_recipe

    path = root / "answers" / "base.json"
    if not path.is_file():
        recipe = load_recipe(root / "recipe.yaml")
        write_json(path, exam.sit(*load_base(recipe.base, recipe.quantization)))
    found: dict[str, Any] = read_json(path)
    return found


def results(answers: Iterable[Mapping[str, bool]], sets: Mapping[str, str]) -> list[Any]:
    """Answers of several seeds as eval's results; those of the seeds to one item are one group."""
    from eval.retention import Result

    return [
        Result(id=f"{number}/{one}", set=sets[one], group=one, correct=right)
        for number, found in enumerate(answers)
        for one, right in found.items()
    ]


def summary(row: str, rows: Mapping[str, list[dict[str, Any]]], base: dict[str, Any], exam: Exam) -> dict[str, Any]:
    """A row's numbers over its seeds: the task beside no guard at all, retention beside the base."""
    from eval.retention import retention_numbers

    found = rows[row]
    task = {pair.id: "task" for pair in exam.pairs}
    sets = {item.id: item.set for item in exam.items}
    unguarded, own = ([one["task"] for one in rows[name]] for name in ("none", row))
    beside = retention_numbers(results(unguarded, task), results(own, task), MARGIN)["sets"]["task"]
    kept = retention_numbers(
        results([base["general"]] * len(found), sets), results([one["general"] for one in found], sets), MARGIN
    )
    return {
        "guards": list(ROWS[row]),
        "task": interval(own),
        "task_by_seed": [sum(one.values()) / len(one) for one in own],
        "task_beside_no_guard": chosen(beside),
        "retention": {name: chosen(one) for name, one in kept["sets"].items()},
        "non_inferior": kept["non_inferior"],
        "retention_by_seed": [sum(one["general"].values()) / len(one["general"]) for one in found],
        "scales": [one["scale"] for one in found],
        "steps": [one["training"]["steps"] for one in found],
        "of": [one["training"]["of"] for one in found],
    }


def interval(answers: Sequence[Mapping[str, bool]]) -> dict[str, Any]:
    """The share of right answers with a Wilson interval over what answers of several seeds are worth."""
    from eval.statistics import clustered_mean, effective_n, wilson

    values = [float(right) for one in answers for right in one.values()]
    mean = clustered_mean(values, [key for one in answers for key in one])
    worth = effective_n(mean, values)
    low, high = wilson(mean.value * worth, worth)
    return {"value": mean.value, "low": low, "high": high, "n": len(values)}


def chosen(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Of eval's entry what the table is made from."""
    keys = ("n", "groups", "difference", "low", "high", "bound", "non_inferior", "only_base", "only_tuned")
    return {"base": entry["base"]["value"], "tuned": entry["tuned"]["value"], **{key: entry[key] for key in keys}}


def points(value: float) -> str:
    return f"{100 * value:+.1f}"


def worst(row: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The retention set whose bound is worst."""
    sets: dict[str, Mapping[str, Any]] = row["retention"]
    return min(sets.items(), key=lambda one: (one[1]["bound"], one[0]))


def tables(result: Mapping[str, Any]) -> str:
    """The Markdown."""
    rows, sets = result["rows"], list(result["rows"]["none"]["retention"])
    verdicts = {True: "yes", False: "no", None: "not shown"}
    lines = [
        "| guards | task score [95 %] | beside no guard | worst set | its change (bound) | kept within 2 points "
        "| scale | steps |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|")
    for name, row in rows.items():
        task, beside, (which, low) = row["task"], row["task_beside_no_guard"], worst(row)
        told = "–" if name == "none" else f"{points(beside['difference'])} ({points(beside['bound'])})"
        scales = ", ".join(f"{one:g}" for one in sorted(set(row["scales"])))
        cells = [
            NAMES[name],
            f"{100 * task['value']:.1f} % [{100 * task['low']:.1f}, {100 * task['high']:.1f}]",
            told,
            which,
            f"{points(low['difference'])} ({points(low['bound'])})",
            verdicts[row["non_inferior"]],
            scales,
            ", ".join(map(str, row["steps"])),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"| guards | {' | '.join(sets)} |", f"|---|{'---|' * len(sets)}"]
    base = [f"{100 * rows['none']['retention'][one]['base']:.1f}" for one in sets]
    lines.append(f"| the base | {' | '.join(base)} |")
    for name, row in rows.items():
        cells = [
            f"{100 * row['retention'][one]['tuned']:.1f} ({points(row['retention'][one]['bound'])})" for one in sets
        ]
        lines.append(f"| {NAMES[name]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_page(result: Mapping[str, Any]) -> None:
    """Put the tables into the guide."""
    text = PAGE.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    if not tail:
        raise click.ClickException(f"{PAGE}: there is no place for the tables between {BEGIN} and {END}")
    write_text(PAGE, f"{head}{BEGIN}\n\n{tables(result)}\n\n{END}{tail}")


@click.command()
@click.option(
    "--work", type=click.Path(path_type=Path), default=HERE.parent / "build" / "guards", help="Kept between runs."
)
@click.option("--seeds", default="17,18,19", show_default=True)
@click.option("--rows", default=",".join(ROWS), show_default=True, help="Only these; then nothing is written.")
@click.option(
    "--base", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Instead of the demo's own."
)
def main(work: Path, seeds: str, rows: str, base: Path | None) -> None:
    """Train what is not trained yet, then write the numbers and the tables."""
    from tutelage_recipes.demo.workspace import HERE as DEMO

    numbers, names = [int(one) for one in seeds.split(",")], rows.split(",")
    tuned_from = base or DEMO / "base"
    base_sha256 = sha256_tree(tuned_from)
    root = work.resolve() / base_sha256[:12]
    root.mkdir(parents=True, exist_ok=True)
    make_release(root, tuned_from)
    release = load_release(root / "releases" / "demo")
    exam = Exam(release, release.pairs("test"), read_items(root / "asked.jsonl", answers=True))
    before = base_answers(root, exam)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for seed in numbers:
        for name in names:
            one = finish(root, exam, name, seed)
            found[name].append(one)
            task, general = ([*one[key].values()] for key in ("task", "general"))
            shares = f"task {sum(task) / len(task):.3f}, general {sum(general) / len(general):.3f}"
            click.echo(
                f"seed {seed}, {NAMES[name]}: {shares}, scale {one['scale']:g}, {one['seconds']:.0f} s", err=True
            )
    if names != list(ROWS):
        return
    result = {
        "command": "python benchmarks/guards.py" + (f" --base {base.name}" if base else ""),
        "base_sha256": base_sha256,
        "release_sha256": release.manifest.sha256,
        "recipe": yaml.safe_load((root / "recipe.yaml").read_text(encoding="utf-8")),
        "seeds": numbers,
        "pairs": {split: len(release.pairs(split)) for split in ("train", "test")},
        "rows": {name: summary(name, found, before, exam) for name in names},
        "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
    }
    write_json(RESULT, result)
    write_page(result)
    click.echo(json.dumps({name: row["non_inferior"] for name, row in result["rows"].items()}))


if __name__ == "__main__":
    main()
