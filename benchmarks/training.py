"""Tokens per second and peak memory of training under guard against a bare TRL + PEFT script, in turn in one run.

    python benchmarks/training.py [--case demo] [--rounds 5]

Both sides get the same rows in the same order, the same seed and settings, evaluations of the same rows and checkpoints
at the same steps, one thread, and a process of their own for every run, where its peak memory is read. Timed is
`trainer.train()`; loading and tokenising are not. In a round every side runs once, the first of one round last in the
next; ratios are taken within a round, and their medians are told: of seconds on the wall, and of the processor's, which
are the ones to read where the machine does other work. The loss of every step must agree where both sides compute the
same, or nothing is reported. Writes benchmarks/results/training.json.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import yaml
from bare_trl import Row, Spent, timed, train_bare
from guards import make_release

HERE = Path(__file__).parent
RESULT = HERE / "results" / "training.json"
DEMO = HERE.parent / "recipes" / "demo"
TOLERANCE = 1e-3  # nats per token, on the loss of any step

# Who runs: the bare script and ours, on the pairs alone; then with a tenth of rehearsal and held-out items.
PLAIN = ("trl", "ours")
MIXED = ("trl_mixed", "ours_mixed", "ours_kl")
PEER = {"ours": "trl", "ours_mixed": "trl_mixed", "ours_kl": "trl_mixed"}
AIMS = {"ours": 0.03, "ours_mixed": 0.03, "ours_kl": 0.10}  # how much slower at most


@dataclass(frozen=True)
class Case:
    """What is trained, and how long. Both sides evaluate and take a checkpoint every `every` steps."""

    steps: int
    batch: int
    every: int
    items: int  # held-out general items and validation pairs that an evaluation looks at, of each
    shape: tuple[int, int, int] | None  # hidden size, layers, heads of random weights; None: the demo's base


CASES = {
    "demo": Case(steps=100, batch=16, every=50, items=100, shape=None),
    "larger": Case(steps=8, batch=8, every=8, items=10, shape=(512, 8, 8)),
}


def guarded(recipe_path: Path, rows: dict[str, list[Row]], output: Path) -> tuple[Spent, list[float]]:
    """The trainer of `train run`: what it took, and the loss of every step, less the KL's part."""
    from train.guards import Example
    from train.model import attach_lora, load_base
    from train.recipe import load_recipe
    from train.trainer import Data, GuardedTrainer

    recipe = load_recipe(recipe_path)
    found = {name: [Example(tuple(one["ids"]), one["prompt_tokens"], one["rehearsal"]) for one in some]
             for name, some in rows.items()}  # fmt: skip
    data = Data(found["train"], found["validation"], found.get("retention", []))
    model, tokenizer = load_base(recipe.base, recipe.quantization, "cpu")
    model = attach_lora(model, recipe.lora, recipe.training.seed)
    events: list[dict[str, Any]] = []
    trainer = GuardedTrainer(model, tokenizer, recipe, data, output, events.append)
    trainer.measure_base()
    spent = timed(trainer.train)
    return spent, [one.get("task_loss", one["loss"]) for one in events if one["event"] == "step"]


def make_rows(root: Path, recipe_path: Path, case: Case) -> dict[str, list[Row]]:
    """Pairs and rehearsal, in order of the demo's release; validation pairs; held-out items."""
    from curate.release import load_release
    from train.items import read_items, sample_evenly
    from train.preparation import prepare
    from train.recipe import load_recipe
    from train.rehearsal import choose_prompts, rehearsal_count, written_examples

    recipe = load_recipe(recipe_path)
    prepared = prepare(recipe, load_release(root / "releases" / "demo"))
    share = recipe.guards.rehearsal.share if recipe.guards.rehearsal else 0.0
    items = read_items(root / "rehearsal.jsonl", answers=True)
    count = rehearsal_count(len(prepared.train), share)
    chosen = choose_prompts(items, count, prepared.retention, recipe.training.seed)
    held = {one.id for one in sample_evenly(prepared.retention, case.items)}
    rows = {
        "train": [row_of(one, False) for one in prepared.train],
        "validation": [row_of(one, False) for one in prepared.validation[: case.items]],
    }
    if count:
        rows["train"] += [row_of(one, True) for one in written_examples(prepared.tokenizer, chosen, prepared.stop)]
        rows["retention"] = [row_of(one, False) for one in prepared.retention_rows if one.id in held]
    return rows


def row_of(one: Any, rehearsal: bool) -> Row:
    return {"ids": list(one.ids), "prompt_tokens": one.prompt_tokens, "rehearsal": rehearsal}


def ordered(rows: list[Row], case: Case, seed: int) -> list[Row]:
    """The rows of every step, in the order in which ours trains on them."""
    from train.order import training_order

    lengths, rehearsal = [len(one["ids"]) for one in rows], [one["rehearsal"] for one in rows]
    order = training_order(lengths, rehearsal, case.steps, case.batch, seed)
    return [rows[i] for i in order]


def for_trl(rows: list[Row]) -> list[Row]:
    """Rows as TRL takes tokenised ones."""
    return [
        {"input_ids": one["ids"], "completion_mask": [int(i >= one["prompt_tokens"]) for i in range(len(one["ids"]))]}
        for one in rows
    ]


def make_base(directory: Path, shape: tuple[int, int, int]) -> None:
    """A Llama of random weights with the demo's tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(DEMO / "base")
    hidden, layers, heads = shape
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32_000,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def prepare_case(root: Path, name: str, side: str) -> Path:
    """The recipe and the rows of a side, written beside each other; returns the recipe's path."""
    case = CASES[name]
    recipe: dict[str, Any] = yaml.safe_load((root / "recipe.yaml").read_text(encoding="utf-8"))
    if case.shape:
        recipe["base"]["model"] = f"./{name}"
        if not (root / name).exists():
            make_base(root / name, case.shape)
    mixed = side in MIXED
    recipe["training"] |= {"batch": case.batch, "micro_batch": case.batch}
    guards = recipe["guards"]
    guards["rehearsal"] = guards["rehearsal"] | {"share": 0.10} if mixed else None
    guards["kl_to_base"] = guards["kl_to_base"] if side == "ours_kl" else None
    guards["adapter_scale"] = None  # comes after training
    guards["retention_budget"] |= {"every": case.every, "loss_rise": 1000.0}  # watched, but lets every step be taken
    path = root / f"{name}-{side}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    rows = make_rows(root, path, case)
    recipe["training"]["epochs"] = (case.steps * case.batch - 0.5) / len(rows["train"])
    path.write_text(yaml.safe_dump(recipe))
    path.with_suffix(".json").write_text(json.dumps(rows))
    return path


def run_side(name: str, path: Path, side: str) -> None:
    """One run, in this process; prints what came of it."""
    case = CASES[name]
    recipe = yaml.safe_load(path.read_text())
    rows: dict[str, list[Row]] = json.loads(path.with_suffix(".json").read_text())
    batches = ordered(rows["train"], case, recipe["training"]["seed"])
    with tempfile.TemporaryDirectory() as output:
        if side.startswith("trl"):
            given = {part: for_trl(found) for part, found in (rows | {"train": batches}).items()}
            spent, losses = train_bare(str(path.parent / recipe["base"]["model"]), recipe, given, Path(output))
        else:
            spent, losses = guarded(path, rows, Path(output))
    tokens = sum(len(one["ids"]) for one in batches)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**spent, "tokens": tokens, "peak_mebibytes": round(peak, 1), "losses": losses}))


def in_process(name: str, path: Path, side: str) -> dict[str, Any]:
    """One run in a process of its own, on one thread."""
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, "--case", name, "--side", side, "--recipe", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **threads}, check=False)
    if done.returncode:
        raise click.ClickException(f"{name}, {side}: {done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def measure(root: Path, name: str, rounds: int) -> dict[str, Any]:
    """All sides of a case, round after round."""
    sides = [*PLAIN, *MIXED]
    paths = {side: prepare_case(root, name, side) for side in sides}
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for number in range(rounds):
        for side in sides[:: -1 if number % 2 else 1]:
            runs[side].append(in_process(name, paths[side], side))
            one = runs[side][-1]
            click.echo(f"{name}, round {number + 1}, {side}: {one['tokens'] / one['seconds']:.0f} tokens/s", err=True)
    return {"case": asdict(CASES[name]), "parameters": count_parameters(root, name)} | compared(name, runs)


def compared(name: str, runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians, ratios within rounds, and how far the losses are apart."""

    def middle(side: str, key: str) -> float:
        return float(statistics.median(one[key] for one in runs[side]))

    beside = {}
    for side, peer in PEER.items():
        gaps = [abs(a - b) for a, b in zip(runs[side][0]["losses"], runs[peer][0]["losses"], strict=True)]
        if side != "ours_kl" and max(gaps) > TOLERANCE:
            raise click.ClickException(f"{name}: the losses of {side} and {peer} are {max(gaps):.2g} apart")
        ratios = {
            key: [mine[key] / theirs[key] for mine, theirs in zip(runs[side], runs[peer], strict=True)]
            for key in ("seconds", "processor_seconds")
        }
        slower = statistics.median(ratios["seconds"]) - 1
        beside[side] = {
            "peer": peer,
            "slower": round(slower, 4),
            "slower_by_processor_time": round(statistics.median(ratios["processor_seconds"]) - 1, 4),
            "slower_in_each_round": [round(one - 1, 4) for one in ratios["seconds"]],
            "aim": AIMS[side],
            "peak_memory_ratio": round(middle(side, "peak_mebibytes") / middle(peer, "peak_mebibytes"), 4),
            "largest_loss_difference": max(gaps),
        }
    sides = {
        side: {
            "tokens_per_second": round(middle(side, "tokens") / middle(side, "seconds"), 1),
            "tokens_per_processor_second": round(middle(side, "tokens") / middle(side, "processor_seconds"), 1),
            "seconds": [round(one["seconds"], 2) for one in found],
            "processor_seconds": [round(one["processor_seconds"], 2) for one in found],
            "peak_mebibytes": middle(side, "peak_mebibytes"),
            "last_loss": found[0]["losses"][-1],
        }
        for side, found in runs.items()
    }
    return {"rounds": len(runs["trl"]), "sides": sides, "beside_trl": beside}


def count_parameters(root: Path, name: str) -> int:
    from safetensors import safe_open

    with safe_open(root / (name if CASES[name].shape else "base") / "model.safetensors", "pt") as weights:
        return sum(weights.get_tensor(one).numel() for one in weights.keys())  # noqa: SIM118


@click.command()
@click.option("--case", "cases", multiple=True, type=click.Choice(list(CASES)), default=list(CASES), show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--side", hidden=True)
@click.option("--recipe", hidden=True, type=click.Path(path_type=Path))
def main(cases: tuple[str, ...], rounds: int, side: str | None, recipe: Path | None) -> None:
    """Measure, or be one of the processes that are measured."""
    if side and recipe:
        run_side(cases[0], recipe, side)
        return
    result: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.is_file() else {"cases": {}}
    with tempfile.TemporaryDirectory() as temporary:
        make_release(Path(temporary), DEMO / "base")
        for name in cases:
            result["cases"][name] = measure(Path(temporary), name, rounds)
    result |= {
        "command": " ".join(
            ["python benchmarks/training.py", *(f"--case {one}" for one in cases), f"--rounds {rounds}"]
        ),
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "peft", "bitsandbytes")},
        "machine": {"threads": 1, "cores": os.cpu_count(), "python": platform.python_version()},
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    for name in cases:
        for mine, one in result["cases"][name]["beside_trl"].items():
            wall, own = 1 + one["slower"], 1 + one["slower_by_processor_time"]
            click.echo(f"{name}: {mine} takes {wall:.3f} of bare TRL's seconds, {own:.3f} of the processor's")


if __name__ == "__main__":
    main()
