"""Curation at growing sizes, and near-duplicates against datasketch's MinHashLSH, all in one run.

    python benchmarks/curation.py [--sizes 1000,10000,100000] [--texts 10000]

Import, check and release run as a user runs them, each a process of its own, on a made-up RAG log of which one trace
in twenty is a near-copy of another. The duplicates are timed in this process, each side over the same texts with the
same shingles and the same threshold; a pair is right where the Jaccard similarity of its shingles is 0.8 or more.
Writes benchmarks/results/curation.json.
"""

from __future__ import annotations

import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import click

from curate.duplicates import SHINGLE_WORDS, near_duplicates
from curate.starting import start_workspace

WORDS = [a + b + c for a in "bdfgklmnprst" for b in "aeiou" for c in ("l", "n", "r", "s", "tar", "mon", "lek", "vin")]
THRESHOLD = 0.8
MAP = [
    *("--map", "id=trace_id", "--map", "question=query", "--map", "passages=documents"),
    *("--map", "passages.id=doc_id", "--map", "output.answer=answer", "--map", "output.citations=gold"),
    *("--map", "answerable=answerable", "--set", "output.status=answered", "--abstain-unanswerable"),
]


def sentence(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words))


def edited(rng: random.Random, text: str, edits: int) -> str:
    """The text with some of its words replaced."""
    words = text.split()
    for place in rng.sample(range(len(words)), edits):
        words[place] = rng.choice(WORDS)
    return " ".join(words)


def write_log(path: Path, size: int) -> None:
    """A RAG log: ten questions a document, three passages each, one in four unanswerable, one in twenty a near-copy."""
    rng = random.Random(size)
    traces: list[dict[str, Any]] = []
    for number in range(size):
        if number % 20 == 19:
            old = rng.choice(traces)
            traces.append({**old, "trace_id": f"t{number}", "query": old["query"].capitalize() + "?"})
            continue
        name = f"doc{rng.randrange(max(8, size // 10))}.md"
        documents = [{"doc_id": f"{name}#{i}", "text": sentence(rng, 60)} for i in range(3)]
        answerable = rng.random() < 0.75
        answer = documents[0]["text"].split()[rng.randrange(60)]
        query = f"what is said of {sentence(rng, 6)}"
        traces.append(
            {"trace_id": f"t{number}", "query": query, "documents": documents, "answer": answer}
            | {"gold": documents[0]["doc_id"] if answerable else None, "answerable": answerable}
        )
    path.write_text("".join(json.dumps(trace) + "\n" for trace in traces), encoding="utf-8")


def run(workspace: Path, *arguments: str) -> float:
    """Wall seconds of one command as a process; findings (3) are a result, not a failure."""
    command = [sys.executable, "-m", "tutelage", "-C", str(workspace), "curate", *arguments]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    if done.returncode not in (0, 3):
        raise click.ClickException(done.stderr)
    return time.perf_counter() - start


def stages(size: int, folder: Path) -> dict[str, float]:
    """Seconds of import, check and release at one size."""
    workspace = folder / f"ws-{size}"
    start_workspace(workspace, as_text=False, base=None)
    write_log(folder / "log.jsonl", size)
    seconds = {
        "import": run(workspace, "import", str(folder / "log.jsonl"), *MAP),
        "check": run(workspace, "check", "--json"),
        "release": run(workspace, "release", "--unreviewed"),
    }
    return {**seconds, "all": sum(seconds.values())}


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    words = text.split()
    return frozenset(zip(*(words[start:] for start in range(SHINGLE_WORDS)), strict=False))


def jaccard(left: frozenset[Any], right: frozenset[Any]) -> float:
    return len(left & right) / len(left | right)


def datasketch_pairs(texts: Sequence[str]) -> set[tuple[int, int]]:
    """Candidate pairs of MinHashLSH with 128 permutations, as its documentation shows."""
    from datasketch import MinHash, MinHashLSH

    lsh = MinHashLSH(threshold=THRESHOLD, num_perm=128)
    found = set()
    for number, text in enumerate(texts):
        sketch = MinHash(num_perm=128)
        sketch.update_batch([" ".join(shingle).encode() for shingle in shingles(text)])
        found |= {(int(other), number) for other in lsh.query(sketch)}
        lsh.insert(str(number), sketch)
    return found


def cluster_pairs(texts: Sequence[str]) -> set[tuple[int, int]]:
    return {pair for cluster in near_duplicates(texts, THRESHOLD) for pair in combinations(cluster, 2)}


def duplicates(count: int, runs: int = 3) -> dict[str, Any]:
    """Both sides over the same texts of 120 words, in turn; a tenth are planted copies with 1 to 6 words replaced."""
    rng = random.Random(7)
    originals = [sentence(rng, 120) for _ in range(count - count // 10)]
    copied = rng.sample(range(len(originals)), count // 10)
    texts = [*originals, *(edited(rng, originals[place], rng.randint(1, 6)) for place in copied)]
    sets = [shingles(text) for text in texts]
    planted = {(place, len(originals) + number) for number, place in enumerate(copied)}
    wanted = {pair for pair in planted if jaccard(sets[pair[0]], sets[pair[1]]) >= THRESHOLD}
    sides: dict[str, Callable[[Sequence[str]], set[tuple[int, int]]]] = {
        "tutelage": cluster_pairs,
        "datasketch": datasketch_pairs,
    }
    result: dict[str, Any] = {"texts": count, "planted": len(planted), "planted_at_threshold": len(wanted)}
    for name, side in sides.items():
        times = []
        for _ in range(runs):
            start = time.perf_counter()
            found = side(texts)
            times.append(time.perf_counter() - start)
        right = sum(jaccard(sets[left], sets[other]) >= THRESHOLD for left, other in found)
        result[name] = {
            "seconds": min(times),
            "recall": len(wanted & found) / len(wanted),
            "precision": right / len(found) if found else None,
        }
    result["times_faster_than_datasketch"] = result["datasketch"]["seconds"] / result["tutelage"]["seconds"]
    return result


@click.command()
@click.option("--sizes", default="1000,10000,100000", show_default=True, help="Numbers of pairs, ascending.")
@click.option("--texts", default=10_000, show_default=True, help="Texts for the duplicates.")
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).parent / "results" / "curation.json")
def main(sizes: str, texts: int, out: Path) -> None:
    """Measure, print, and write the results."""
    counts = [int(size) for size in sizes.split(",")]
    seconds = {}
    for size in counts:
        with tempfile.TemporaryDirectory() as folder:
            seconds[size] = stages(size, Path(folder))
        click.echo(f"{size:>8,} pairs  " + "  ".join(f"{name} {took:.2f} s" for name, took in seconds[size].items()))
    growth = {
        f"{small} -> {large}": {
            name: (seconds[large][name] / seconds[small][name]) / (large / small) for name in seconds[small]
        }
        for small, large in pairwise(counts)
    }
    for step, ratios in growth.items():
        click.echo(f"{step}: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()) + " (1 is linear)")
    found = duplicates(texts)
    for name in ("tutelage", "datasketch"):
        one = found[name]
        click.echo(f"{name:<12}{one['seconds']:.2f} s  recall {one['recall']:.4f}  precision {one['precision']:.4f}")
    result = {
        "command": f"python benchmarks/curation.py --sizes {sizes} --texts {texts}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("tutelage", "datasketch", "pyarrow", "numpy", "pydantic")},
        "seconds": seconds,
        "growth_over_linear": growth,
        "duplicates": found,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
