"""Build the demo's base model: `python -m tutelage_recipes.demo.make_base --out DIR`."""

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from .general import SETS, general
from .reading import TASKS, context
from .world import SUPPORT_SYSTEM, support_prompt, traces

EVALUATION = "evaluation.json"


@click.command(epilog="Example: python -m tutelage_recipes.demo.make_base --out base")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the model.")
@click.option("--steps", type=int, default=None, help="Training steps (default: those of the shipped base).")
@click.option("--seed", type=int, default=None, help="Seed of weights and data.")
@click.option("--threads", type=int, default=1, show_default=True, help="CPU threads; the result depends on it.")
@click.option("--items", type=int, default=400, show_default=True, help="Held-out items in each evaluated set.")
def main(out: Path, steps: int | None, seed: int | None, threads: int, items: int) -> None:
    """Train the demo's base model from scratch on a CPU, save it in bf16, and measure what was saved."""
    import torch

    from . import training
    from .tokenizer import build_tokenizer

    torch.set_num_threads(threads)
    chosen = {name: value for name, value in (("steps", steps), ("seed", seed)) if value is not None}
    settings = training.Settings(**chosen)
    tokenizer = build_tokenizer()
    model = training.new_model(settings, tokenizer)
    click.echo(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens, {settings.steps} steps", err=True)
    started = time.monotonic()
    training.train(
        model,
        tokenizer,
        settings,
        lambda step, seconds, loss: click.echo(f"step {step}  {seconds:.0f} s  loss {loss:.4f}", err=True),
    )
    training.save(model, tokenizer, out)
    results = {
        "command": "python -m tutelage_recipes.demo.make_base " + " ".join(sys.argv[1:]),
        "settings": vars(settings),
        "training_seconds": round(time.monotonic() - started),
        "parameters": model.num_parameters(),
        **evaluate(out, items),
    }
    (out / EVALUATION).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    click.echo(json.dumps(results, indent=2))


def evaluate(folder: Path, items: int) -> dict[str, Any]:
    """Exact-match accuracy of the saved weights: each general set (held-out), each reading task, the support prompt."""
    import random

    general_items = general(0, len(SETS) * items, True)
    general_said = generate(folder, [(None, item["prompt"]) for item in general_items])
    right: Counter[str] = Counter()
    for item, said in zip(general_items, general_said, strict=True):
        right[item["set"]] += said == item["answer"]
    rng = random.Random("evaluation")
    reading: dict[str, float] = {}
    for task in TASKS:
        contexts = [context(rng, rng.randint(1, 4), 1) for _ in range(items)]
        turns = [(ctx.text, *task(rng, ctx)) for ctx in contexts]
        said_all = generate(folder, [(None, f"{text}\n{asked}") for text, asked, _ in turns])
        reading[task.__name__] = _share([said == want for said, (_, _, want) in zip(said_all, turns, strict=True)])
    return {
        "items_per_set": items,
        "general": {name: round(right[name] / items, 4) for name in dict.fromkeys(i["set"] for i in general_items)},
        "reading": reading,
        "support_prompt": _on_support_prompt(folder, items),
    }


def _on_support_prompt(folder: Path, items: int) -> dict[str, float]:
    """What the base does when asked in the behaviour's own way: it answers in prose, right where it can."""
    log = traces(0, items)
    said = generate(folder, [(SUPPORT_SYSTEM, support_prompt(trace)) for trace in log])
    answerable = [(reply, trace) for reply, trace in zip(said, log, strict=True) if trace["answerable"]]
    return {
        "right_in_prose": _share([reply.endswith(f" is {trace['answer']}.") for reply, trace in answerable]),
        "writes_json": _share([reply.lstrip().startswith("{") for reply in said]),
        "abstains": _share([any(word in reply.lower() for word in ("unknown", "not", "no ")) for reply in said]),
    }


def _share(right: Sequence[bool]) -> float:
    return round(sum(right) / len(right), 4)


def generate(folder: Path, prompts: Sequence[tuple[str | None, str]], max_new_tokens: int = 40) -> list[str]:
    """Greedy replies of the model in `folder` to `(system or None, user)` prompts."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    replies: list[str] = []
    for start in range(0, len(prompts), 128):
        chats = [
            ([{"role": "system", "content": system}] if system else []) + [{"role": "user", "content": user}]
            for system, user in prompts[start : start + 128]
        ]
        inputs = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        with torch.inference_mode():
            made = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        replies += tokenizer.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return replies


if __name__ == "__main__":
    main()
