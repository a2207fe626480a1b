import json

import pytest
import yaml
from output_form import SCHEMA, UNKNOWN

from curate.behaviour import Behaviour, load_behaviour
from curate.errors import BehaviourError
from curate.loops import endless_reference
from curate.pairs import Pair
from curate.pointer import MISSING, resolve, same_json

JSON = {
    "name": "b",
    "prompt": "{% for p in passages %}[{{ p.id }}] {{ p.text }}\n{% endfor %}{{ question }}",
    "output": {"format": "json", "schema": "schema.json"},
    "abstain": {"where": "/status", "equals": "unknown", "output": UNKNOWN},
    "answer": {"at": "/answer", "compare": "exact"},
    "citations": {"at": "/citations"},
}
TEXT = {
    "name": "t",
    "prompt": "{{ question }}",
    "output": {"format": "text"},
    "abstain": {"where": ["I don't know", "no answer"], "output": "I don't know."},
}


def load(tmp_path, behaviour, schema=SCHEMA, **changes):
    (tmp_path / "schema.json").write_text(schema if isinstance(schema, str) else json.dumps(schema))
    (tmp_path / "behaviour.yaml").write_text(yaml.safe_dump({**behaviour, **changes}))
    return load_behaviour(tmp_path / "behaviour.yaml")


def test_json_behaviour(tmp_path):
    behaviour = load(tmp_path, JSON)
    answer = {"status": "answered", "answer": "red", "citations": ["p1"]}
    pair = Pair(id="1", question="Q?", output=answer, accepted=("Crimson", {"answer": "scarlet"}))
    assert behaviour.conforms(answer)
    assert not behaviour.abstains(answer)
    assert behaviour.is_canonical_abstention(UNKNOWN)
    assert not behaviour.abstains({**UNKNOWN, "answer": "red"})  # an abstention that also answers is an answer
    assert behaviour.citations_of(answer) == ["p1"]
    assert [behaviour.is_right({"answer": one}, pair) for one in ("RED", "crimson", "scarlet", "blue", None)] == [
        *(True, True, True),
        *(False, False),
    ]
    found = behaviour.violations({"status": "no", "answer": True, "x/y": 1})
    assert {(one.keyword, one.where) for one in found} == {
        ("enum", "/status"),
        ("type", "/answer"),
        ("required", ""),
        ("additionalProperties", ""),
    }


@pytest.mark.parametrize(
    ("text", "abstains"),
    [
        ("I don’t know!", True),
        ("I don't know. No answer.", True),
        ("I don't know, but it is red", False),
        ("", False),
        ("...", False),
    ],
)
def test_text_behaviour(tmp_path, text, abstains):
    behaviour = load(tmp_path, TEXT)
    assert behaviour.abstains(text) is abstains
    assert behaviour.conforms(text) is bool(text.strip())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"abstain": {**JSON["abstain"], "output": {"status": "unknown"}}}, "required"),
        ({"abstain": {**JSON["abstain"], "output": {**UNKNOWN, "status": "answered"}}}, "own rule"),
        ({"abstain": {**JSON["abstain"], "output": {**UNKNOWN, "answer": "x"}}}, "own rule"),
        ({"abstain": {**JSON["abstain"], "output": {**UNKNOWN, "answer": float("nan")}}}, "JSON values"),
        ({"answer": {"at": "answer"}}, "JSON Pointer"),
        ({"colour": "red"}, "colour"),
        ({"gate": {"hallucination_rate": {"at_most": float("nan")}}}, "finite"),
        ({"gate": {"hallucination_rate": {"at_most": 0.1, "at_least": 0.1}}}, "exactly one"),
        ({"gate": {"nonsense": {"at_most": 0.1}}}, "nonsense"),
        ({"prompt": "no question"}, "question does not appear"),
        ({"prompt": "{{ question"}, "prompt"),
        ({"prompt": "{{ questoin }} {{ question }}"}, "questoin"),
        ({"prompt": "{{ question.__class__.__mro__ }}{{ question }}"}, "unsafe"),
        ({"prompt": "{% for i in range(10**9) %}{% endfor %}{{ question }}"}, "Range too big"),
        ({"prompt": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}{{ question }}"}, "recursion"),
        ({"prompt": "{{ passages[0].text }}{{ question }}"}, "no element"),
        ({"output": {"format": "json", "schema": "none.json"}}, "no such file"),
    ],
)
def test_faults_of_a_behaviour_are_named(tmp_path, changes, says):
    with pytest.raises(BehaviourError, match=says):
        load(tmp_path, JSON, **changes)


@pytest.mark.parametrize(("cited", "fits"), [("string", True), ("integer", True), ("object", False)])
def test_citations_are_ids_by_the_schema_too(tmp_path, cited, fits):
    named = {"$defs": {"c": {"type": cited}}, "properties": {"citations": {"items": {"$ref": "#/$defs/c"}}}}
    if fits:
        assert load(tmp_path, JSON, named).citations.at == "/citations"
        return
    with pytest.raises(BehaviourError, match=r"citations.at: /citations must be a list of bare passage ids"):
        load(tmp_path, JSON, named)


def test_text_faults(tmp_path):
    for where, output in ((["I don't know"], "No idea."), (["..."], "..."), ("/status", "unknown")):
        with pytest.raises(BehaviourError, match="abstain"):
            load(tmp_path, TEXT, abstain={"where": where, "output": output})


def doubling(named, to):
    """Thirty definitions, each of which refers twice to the next: a billion steps for one value."""
    links = {f"d{n}": {**named(n), "allOf": [to(n + 1), to(n + 1)]} for n in range(30)}
    return {"$defs": {**links, "d30": named(30)}, "$ref": "#/$defs/d0"}


@pytest.mark.parametrize(
    "schema",
    [
        "{",
        '{"type": "object", "type": "array"}',
        {"type": "nonsense"},
        {"pattern": "("},
        {"$ref": "https://example.invalid/a.json"},
        {"$ref": "other.json#/a"},
        {"$ref": "#/$defs/none"},
        {"$ref": "#"},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"anyOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"},
        {"properties": {"a": {"not": {"$ref": "#/properties/a"}}}},
        doubling(lambda n: {"$anchor": f"a{n}"}, lambda n: {"$ref": f"#a{n}"}),
        doubling(lambda n: {}, lambda n: {"dependentSchemas": {"a": {"$ref": f"#/$defs/d{n}"}}}),
        {"$defs": {"a": {"$anchor": "a", "allOf": [{"$ref": "#a"}]}}, "$ref": "#a"},
    ],
)
def test_schemas_that_cannot_be_used(tmp_path, schema):
    with pytest.raises(BehaviourError, match=r"schema\.json") as caught:
        load(tmp_path, JSON, schema)
    assert len(str(caught.value).split("\n")) <= 2


def test_a_schema_may_recur_as_long_as_it_goes_deeper(tmp_path):
    tree = {"$defs": {"n": {"properties": {"kids": {"items": {"$ref": "#/$defs/n"}}}}}, "$ref": "#/$defs/n"}
    assert endless_reference(tree) is None
    assert load(tmp_path, {**JSON, "abstain": None}, tree).conforms({"kids": [{"kids": []}]})


def test_a_template_that_fails_on_a_pair_names_it(tmp_path):
    behaviour = load(tmp_path, JSON, prompt="{{ question }}{{ 1 // (passages | length - 3) }}")
    three = [{"id": str(n), "text": ""} for n in range(3)]
    with pytest.raises(BehaviourError, match="pair seven"):
        behaviour.render(Pair(id="seven", question="Q", passages=three, output=""))


def test_pointers_and_equality():
    value = {"a/b": [{"~": 1}], "": 2}
    assert resolve(value, "/a~1b/0/~0") == 1
    assert resolve(value, "/") == 2
    assert resolve(value, "") is value
    assert resolve(value, "/a~1b/00") is MISSING
    assert resolve(value, "/a~1b/-") is MISSING
    assert not same_json(1, True)
    assert not same_json({"a": [1]}, {"a": [True]})
    assert same_json({"a": 1, "b": 2}, {"b": 2.0, "a": 1})


def test_the_digest_follows_the_schema(tmp_path):
    before = load(tmp_path, JSON).digest()
    assert before == load(tmp_path, JSON).digest()
    assert before != load(tmp_path, JSON, {**SCHEMA, "title": "x"}).digest()


def test_phrases_made_of_phrases_are_matched_at_once():
    where = ["Sorry", "I don't know", "Sorry, I don't know"]
    behaviour = Behaviour.model_validate(
        {
            "name": "b",
            "prompt": "{{ question }}",
            "output": {"format": "text"},
            "abstain": {"where": where, "output": "Sorry"},
        }
    )
    looped = "Sorry, I don't know. " * 2000
    assert behaviour.abstains(looped)
    assert not behaviour.abstains(looped + "Sorry, I do")  # an expression would try 2 ** 2000 ways
    assert not behaviour.abstains("...")


def test_a_list_given_as_one_value_is_told_to_be_a_list(tmp_path):
    text = "name: t\nprompt: q\noutput: {format: text}\nvocabulary: {prefer: {client: customer}}\n"
    (tmp_path / "behaviour.yaml").write_text(text)
    with pytest.raises(BehaviourError, match=r"vocabulary.prefer.client: this must be a list: \[customer\]"):
        load_behaviour(tmp_path / "behaviour.yaml")
