"""The benchmarks still find what they import: what they measure moves, and nothing else runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
RUN = "import runpy, sys; sys.path.insert(0, 'benchmarks'); [runpy.run_path(path) for path in sys.argv[1:]]"


def test_benchmarks_find_what_they_import() -> None:
    paths = sorted(map(str, (ROOT / "benchmarks").glob("*.py")))
    done = subprocess.run([sys.executable, "-c", RUN, *paths], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
