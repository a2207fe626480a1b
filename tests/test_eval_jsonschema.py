"""The official JSON Schema test suite through our functions, and schemas made to keep a validator busy."""

from __future__ import annotations

import gzip
import json
import time
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from curate.behaviour import Behaviour, Output, load_behaviour
from curate.errors import BehaviourError
from curate.loops import endless_reference
from eval.schema import read_output

DRAFTS = {
    "draft4": "http://json-schema.org/draft-04/schema#",
    "draft6": "http://json-schema.org/draft-06/schema#",
    "draft7": "http://json-schema.org/draft-07/schema#",
    "draft2019-09": "https://json-schema.org/draft/2019-09/schema",
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
}
# the suite's verdicts where formats are mere annotations; we assert formats, as DESIGN 6 has it
ANNOTATIONS = "draft2020-12/format.json"


@cache
def suite() -> dict[str, list[dict[str, Any]]]:
    found = json.loads(
        gzip.decompress((Path(__file__).parent / "cases" / "json-schema-test-suite.json.gz").read_bytes())
    )
    assert isinstance(found, dict)
    return found


def behaviour(schema: Any) -> Behaviour:
    output = Output(format="json")
    return Behaviour(name="suite", prompt="{{ question }}", output=output, schema_document=schema)


def groups(draft: str) -> list[tuple[str, Any, list[dict[str, Any]]]]:
    """(file, schema, tests); a schema that names no draft names the one it is a test of."""
    found = []
    for name, listed in suite().items():
        for group in listed if name.startswith(f"{draft}/") else ():
            schema = group["schema"]
            if isinstance(schema, dict) and "$schema" not in schema:
                schema = {"$schema": DRAFTS[draft], **schema}
            found.append((name, schema, group["tests"]))
    return found


def refuses(schema: Any) -> bool:
    """Whether the library needs another file for it and our function says so."""
    try:
        behaviour(schema).conforms(None)
    except ValueError as error:
        if "localhost:1234" not in str(error):
            raise
        return True
    return False


@pytest.mark.parametrize(("draft", "least"), [(draft, 700 + 200 * place) for place, draft in enumerate(DRAFTS)])
def test_verdicts_of_the_official_suite(draft: str, least: int) -> None:
    """Ours equal the library's and the suite's own, but where the suite takes a format for a remark."""
    seen = 0
    for name, schema, tests in groups(draft):
        assert endless_reference(schema) is None, "no schema of the suite is one that never ends"
        if refuses(schema):
            continue
        rules, library = behaviour(schema), jsonschema_rs.validator_for(schema, validate_formats=True)
        for test in tests:
            ours = rules.conforms(test["data"])
            where = (name, schema, test["description"])
            assert ours == library.is_valid(test["data"]), where
            assert ours == (not rules.violations(test["data"])), where
            assert ours == read_output(rules, json.dumps(test["data"])).well_formed, where
            assert ours == test["valid"] or name == ANNOTATIONS, where
            seen += 1
    assert seen > least


def test_schemas_that_need_the_network_are_refused() -> None:
    """The suite's own server is asked for by many of its schemas; none of them is fetched."""
    refused = [name for draft in DRAFTS for name, schema, _ in groups(draft) if refuses(schema)]
    assert len(refused) > 50
    assert {name.rpartition("/")[2] for name in refused} == {
        *("refRemote.json", "cross-draft.json", "vocabulary.json", "dynamicRef.json", "format-assertion.json")
    }


def chain(links: int, how: str) -> dict[str, Any]:
    """Every definition refers to the next one twice: 2 ** links ways to the last."""
    made: dict[str, Any] = {
        f"d{i}": {how: [{"$ref": f"#/$defs/d{i + 1}"}, {"$ref": f"#/$defs/d{i + 1}"}]} for i in range(links)
    }
    return {"$ref": "#/$defs/d0", "$defs": {**made, f"d{links}": {"type": "string"}}}


def load(directory: Path, schema: Any) -> Behaviour:
    (directory / "schema.json").write_text(json.dumps(schema))
    written = {"name": "b", "prompt": "{{ question }}", "output": {"format": "json", "schema": "schema.json"}}
    (directory / "behaviour.yaml").write_text(json.dumps(written))
    return load_behaviour(directory / "behaviour.yaml")


@pytest.mark.parametrize("how", ["allOf", "anyOf", "oneOf"])
def test_a_schema_that_doubles_the_work_with_every_line_is_refused(tmp_path: Path, how: str) -> None:
    begin = time.perf_counter()
    with pytest.raises(BehaviourError, match="never ends"):
        load(tmp_path, chain(40, how))
    assert time.perf_counter() - begin < 2
    assert load(tmp_path, chain(8, how)).violations(1)


@pytest.mark.parametrize(
    ("schema", "output"),
    [
        ({"pattern": "^(a+)+$"}, "a" * 50_000 + "b"),
        ({"pattern": r"^(?=(a+)+$)(a|aa)+$"}, "a" * 5_000 + "b"),
        ({"pattern": r"^(a|b)(a+)+\1$"}, "a" * 5_000 + "c"),
        ({"uniqueItems": True}, [{"a": i} for i in range(20_000)] + [{"a": 1}]),
        ({"items": {"$ref": "#"}, "type": "array"}, [[[1]]] * 2_000),
        ({"contains": {"const": -1}}, list(range(50_000))),
    ],
)
def test_hostile_schemas_and_outputs_end_soon(tmp_path: Path, schema: Any, output: Any) -> None:
    rules = load(tmp_path, schema)
    text = json.dumps(output)
    begin = time.perf_counter()
    assert not read_output(rules, text).well_formed
    assert time.perf_counter() - begin < 5
