"""The numbers as Hugging Face `evaluate` modules: thin, offline, the same functions and so the same results.

`evaluate.load("eval/metrics/schema_adherence")` works from a checkout; `eval.metrics.load("schema_adherence")` anywhere
the package is installed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from curate.behaviour import Behaviour, Output, load_behaviour
from curate.errors import BehaviourError
from curate.files import parse_json
from curate.pairs import Pair, make_pair, parse_pair
from curate.schema import compile_schema

NAMES = ("schema_adherence", "abstention", "selective_calibration", "retention")
CITATION = "tutelage, https://pypi.org/project/tutelage; the sources of the formulas stand in the docstrings of eval."


def load(name: str) -> Any:
    """The `evaluate` module of that name; `ValueError` for a name that is none. Nothing is fetched or reported."""
    if name not in NAMES:
        raise ValueError(f"{name!r} is none of {', '.join(NAMES)}")
    # read once, when evaluate is first imported: it tells the hub which metrics are loaded, unless told not to
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
    import evaluate

    return evaluate.load(str(Path(__file__).parent / name))


def behaviour_of(
    behaviour: Behaviour | str | os.PathLike[str] | None, schema: Mapping[str, Any] | bool | str | None = None
) -> Behaviour:
    """The behaviour given, or read from its file; or one that only asks for JSON under `schema` (a value or a file)."""
    if isinstance(behaviour, Behaviour):
        return behaviour
    if behaviour is not None:
        return load_behaviour(Path(behaviour))
    if schema is None:
        raise BehaviourError("nothing says what a good output is", fix="give behaviour= or schema=")
    document = parse_json(Path(schema).read_text(encoding="utf-8")) if isinstance(schema, str) else schema
    try:
        compile_schema(document)
    except ValueError as error:
        raise BehaviourError(f"this is no JSON Schema that can be used: {error}") from error
    output = Output(format="json")
    return Behaviour(name="schema", prompt="{{ question }}", output=output, schema_document=document)


def pairs_of(given: Sequence[Pair | Mapping[str, Any] | str], n: int) -> list[Pair]:
    """`n` pairs from pairs, their records, or lines of `pairs.jsonl`; raises `PairError` or `ValueError`."""
    if len(given) != n:
        raise ValueError(f"there are {n} predictions and {len(given)} pairs")
    return [_pair(one, f"pair {place}") for place, one in enumerate(given)]


def _pair(one: Pair | Mapping[str, Any] | str, where: str) -> Pair:
    if isinstance(one, Pair):
        return one
    return parse_pair(one, where) if isinstance(one, str) else make_pair(dict(one), where)
