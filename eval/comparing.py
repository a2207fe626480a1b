"""Reports side by side: the same numbers in columns, and which differences in right answers are more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from curate.errors import WorkspaceError
from curate.files import read_json
from curate.manifest import NAME, SCORES, check_listed, check_seal, read_manifest
from eval.abstention import RIGHT
from eval.gate import PLACES
from eval.scoring import compare_outcomes
from eval.statistics import Rate, holm, rate

EXTRA = ("truthfulness", "f1")


def read_scores(directory: Path) -> dict[str, Any]:
    """`scores.json` of a finished report; raises `WorkspaceError` where it is unfinished or not what was written."""
    path = directory / SCORES
    if not path.is_file():
        fix = "name a directory that tutelage eval run or tutelage eval score --out wrote"
        raise WorkspaceError(f"this is no report: it has no {SCORES}", where=str(directory), fix=fix)
    manifest = read_manifest(directory, "report")
    check_seal(manifest, directory / NAME)
    check_listed(manifest, directory, SCORES)
    scores = read_json(path)
    if not isinstance(scores, dict) or scores.get("verdict") not in ("GO", "NO-GO", "INCONCLUSIVE"):
        raise WorkspaceError("it holds no verdict", where=str(path))
    return scores


def name_reports(directories: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """The scores of each report under a name that tells it apart: its directory's, its path where two have one name."""
    if len({directory.resolve() for directory in directories}) < len(directories):
        raise WorkspaceError("a report stands twice in the list", fix="name each report once")
    names = [directory.resolve().name for directory in directories]
    shown = [name if names.count(name) == 1 else str(path) for name, path in zip(names, directories, strict=True)]
    return {name: read_scores(path) for name, path in zip(shown, directories, strict=True)}


def compare_reports(named: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """{"reports", "releases", "numbers", "differences"} of two or more reports, each against the first.

    `releases` is how many different ones they were made on. `numbers` has a row for what is right, one per gate line,
    and more; `differences` are paired, on the pairs both reports answered, with p-values adjusted for their number
    (Holm). A difference is `real` where that is below 0.05.
    """
    names = list(named)
    rows = {"right": [_right(scores.get("outcomes") or {}) for scores in named.values()]}
    rows |= {str(metric): _row(named.values(), place.part, place.key) for metric, place in PLACES.items()}
    rows |= {key: _row(named.values(), "abstention", key) for key in EXTRA}
    first = named[names[0]].get("outcomes") or {}
    found = {name: compare_outcomes(first, named[name].get("outcomes") or {}) for name in names[1:]}
    paired = {name: one for name, one in found.items() if one is not None}
    adjusted = dict(zip(paired, holm([one["mcnemar_p"] for one in paired.values()]), strict=True))
    return {
        "reports": [
            {"name": name, "verdict": scores["verdict"], "n": scores.get("n")} for name, scores in named.items()
        ],
        "releases": len(set(map(_release, named.values()))),
        "numbers": rows,
        "differences": [
            {"first": names[0], "second": name, "paired": one}
            if one is None
            else {
                "first": names[0],
                "second": name,
                "paired": {**one, "adjusted_p": adjusted[name], "real": adjusted[name] < 0.05},
            }
            for name, one in found.items()
        ],
    }


def _release(scores: Mapping[str, Any]) -> str:
    """The hash of what the report was scored on."""
    chain = (scores.get("sources") or {}).get("chain") or []
    return next((str(link["sha256"]) for link in chain if link["role"] in ("release", "pairs")), "")


def _right(outcomes: Mapping[str, str]) -> Rate | None:
    """Answered rightly or rightly held back."""
    return rate(sum(one in RIGHT for one in outcomes.values()), len(outcomes))


def _row(reports: Sequence[Mapping[str, Any]] | Any, part: str, key: str) -> list[Any]:
    return [(scores.get(part) or {}).get(key) for scores in reports]
