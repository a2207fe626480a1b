"""How long `--help` takes, against the help of named peers, in turn in one run.

    python benchmarks/startup.py [--peer trl] [--peer lm-eval] [--runs 9]

Each command is run once to warm the file cache, then all of them in turn, run after run; the medians are compared.
A peer that is not installed is refused rather than left out. Writes benchmarks/results/startup.json.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

OURS = [[], ["curate"], ["curate", "check"], ["train", "run"], ["eval", "run"]]


def seconds(command: list[str]) -> float:
    """Wall seconds of one run, as a whole process; raises where it fails."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    return time.perf_counter() - start


def find(name: str) -> str:
    """The peer's program: beside this Python, on the PATH, or the path itself."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if not found:
        raise click.ClickException(f"{name} is not installed: pip install it, or leave it out with --peer")
    return found


@click.command()
@click.option(
    "--peer", "peers", multiple=True, default=["trl", "lm-eval"], show_default=True, help="A command to compare."
)
@click.option("--runs", default=9, show_default=True, help="Counted runs of each command.")
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).parent / "results" / "startup.json")
def main(peers: tuple[str, ...], runs: int, out: Path) -> None:
    """Measure and print; the ratio is peer median over ours."""
    commands = {" ".join(["tutelage", *args, "--help"]): [find("tutelage"), *args, "--help"] for args in OURS}
    commands |= {f"{Path(peer).name} --help": [find(peer), "--help"] for peer in peers}
    times: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(runs + 1):
        for name, command in commands.items():
            took = seconds(command)
            if number:
                times[name].append(took)
    medians = {name: statistics.median(values) for name, values in times.items()}
    slowest = max(medians[name] for name in commands if name.startswith("tutelage"))
    result: dict[str, Any] = {
        "command": "python benchmarks/startup.py",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("tutelage", "click", "trl", "torch")},
        "runs": runs,
        "seconds": {name: {"median": medians[name], "min": min(v), "max": max(v)} for name, v in times.items()},
        "times_faster_than": {
            name: value / slowest for name, value in medians.items() if not name.startswith("tutelage")
        },
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
    for name, value in medians.items():
        click.echo(f"{name:32s} {value:7.3f} s")
    for name, ratio in result["times_faster_than"].items():
        click.echo(f"the slowest of ours is {ratio:.0f} times faster than {name}")


if __name__ == "__main__":
    main()
