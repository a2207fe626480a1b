"""Answers per second of `eval run` against lm-evaluation-harness: same model, same prompts, same outputs, in turn.

    python benchmarks/evaluation.py [--prompts 256] [--rounds 3] [--out benchmarks/results/evaluation.json]

Needs the extra `harness`. Greedy, at most 60 tokens, to the model's stop token. The harness is asked three times: with
its default, one prompt at a time; with the batch size that it finds itself (`auto`, at most our 64), a search that is
part of its time; and with our batches of 64. Every round asks all four once, the last one first in the next; the
outputs must be equal or nothing is reported.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

BATCH, TOKENS = 64, 60


def prompts_of(subject: Any, n: int) -> list[str]:
    """The demo's support questions, as the model is asked them."""
    from tutelage_recipes.demo import world

    return [
        subject.render(
            [
                {"role": "system", "content": world.SUPPORT_SYSTEM},
                {"role": "user", "content": world.support_prompt(trace)},
            ]
        )
        for trace in world.traces(17, n)
    ]


def ours(subject: Any, prompts: list[str]) -> list[str]:
    """Through the batches of `eval run`."""
    from eval.answering import Question, batches_of

    found: dict[str, str] = {}
    for batch in batches_of([Question(str(i), one) for i, one in enumerate(prompts)], BATCH):
        answers = subject.answer("tuned", [one.prompt for one in batch], TOKENS)
        found |= {one.id: answer.text for one, answer in zip(batch, answers, strict=True)}
    return [found[str(i)] for i in range(len(prompts))]


def theirs(asker: Any, stop: str, prompts: list[str]) -> list[str]:
    """Through the harness's own `generate_until`."""
    from lm_eval.api.instance import Instance

    settings = {"until": [stop], "max_gen_toks": TOKENS, "do_sample": False}
    asked = [
        Instance("generate_until", {}, (prompt, dict(settings)), i, ("bench", i, 1)) for i, prompt in enumerate(prompts)
    ]
    return [str(one) for one in asker.generate_until(asked, disable_tqdm=True)]


def measure(prompts: int, rounds: int) -> dict[str, Any]:
    """Seconds of every round, and the ratio of the medians."""
    from lm_eval.models.huggingface import HFLM

    from eval.subject import Subject
    from train.recipe import Base

    base = Path(__file__).parent.parent / "recipes/demo/base"
    subject = Subject("demo", Base(model=str(base)), None, "cpu")
    asked = prompts_of(subject, prompts)
    with subject.weights("tuned") as model:
        default, searched, batched = (
            HFLM(pretrained=model, tokenizer=subject.tokenizer, backend="causal", device="cpu", **batch)
            for batch in ({}, {"batch_size": "auto", "max_batch_size": BATCH}, {"batch_size": BATCH})
        )
    stop = str(subject.tokenizer.eos_token)
    runs: dict[str, Callable[[], list[str]]] = {
        "tutelage": lambda: ours(subject, asked),
        "lm_eval": lambda: theirs(default, stop, asked),
        "lm_eval_auto": lambda: theirs(searched, stop, asked),
        "lm_eval_batch_64": lambda: theirs(batched, stop, asked),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    outputs = {name: run() for name, run in runs.items()}  # the warm-up is the check
    stripped = [{one.strip() for one in row} for row in zip(*outputs.values(), strict=True)]
    differ = [i for i, row in enumerate(stripped) if len(row) > 1]
    if differ:
        raise SystemExit(f"{len(differ)} of {len(asked)} outputs differ: {differ[:10]}")
    for number in range(rounds):
        for name in list(runs)[:: 1 if number % 2 else -1]:
            begun = time.perf_counter()
            runs[name]()
            seconds[name].append(round(time.perf_counter() - begun, 3))
    middle = {name: statistics.median(found) for name, found in seconds.items()}
    faster = {name: round(one / middle["tutelage"], 2) for name, one in middle.items() if name != "tutelage"}
    return {
        "prompts": len(asked),
        "seconds": seconds,
        "answers_per_second": {name: round(len(asked) / one, 2) for name, one in middle.items()},
        "times_as_fast": faster,
        "same_outputs": True,
        "versions": {name: version(name) for name in ("lm_eval", "transformers", "torch")},
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    text = json.dumps(measure(arguments.prompts, arguments.rounds), indent=2) + "\n"
    if arguments.out:
        arguments.out.write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
