"""The behaviour a team wants: prompt, output schema, how "I don't know" is said, how answers compare, the gate."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml
from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from curate.coherence import check_behaviour
from curate.compare import Comparator, plain_words, score
from curate.errors import BehaviourError, all_faults
from curate.files import sha256_value
from curate.pairs import Pair
from curate.pointer import MISSING, resolve, same_json
from curate.schema import Violation, compile_schema, read_schema, violations_of
from curate.strict_yaml import Loader


class _Written(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Output(_Written):
    """What an output looks like."""

    format: Literal["json", "text"]
    schema_file: str | None = Field(default=None, alias="schema", description="JSON Schema, relative to this file.")


class Abstain(_Written):
    """How "I don't know" is said."""

    where: str | tuple[str, ...] = Field(description="A JSON Pointer; for text the phrases that say it.")
    equals: Any = Field(default=None, description="JSON only: the value at `where` that means abstention.")
    output: Any = Field(description="The abstention as the model shall write it.")


class Answer(_Written):
    """Where the answer stands and how it is compared."""

    at: str | None = Field(default=None, description="A JSON Pointer; for text leave it out.")
    compare: Comparator = Field(default="exact", description="exact, f1, number, set or contains.")
    at_least: float = Field(default=1.0, gt=0, le=1, description="The score from which an answer counts as right.")


class Citations(_Written):
    """Where the ids of the cited passages stand."""

    at: str = Field(description="A JSON Pointer to a list of passage ids.")


class Vocabulary(_Written):
    """The domain's words."""

    prefer: dict[str, tuple[str, ...]] = Field(default_factory=dict, description="Wanted term -> terms to avoid.")


class Bound(_Written):
    """One line of the gate: exactly one side is given."""

    at_least: float | None = Field(default=None, allow_inf_nan=False)
    at_most: float | None = Field(default=None, allow_inf_nan=False)

    @model_validator(mode="after")
    def _one_side(self) -> Bound:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("give exactly one of at_least and at_most")
        return self


GateLine = Literal[
    "schema_adherence",
    "hallucination_rate",
    "over_abstention_rate",
    "abstention_recall",
    "abstention_precision",
    "accuracy_when_answered",
    "coverage",
    "citation_validity",
    "retention_drop",
]


class Behaviour(_Written):
    """What `behaviour.yaml` says. `schema_document` is the JSON Schema it names, already read."""

    name: str = Field(min_length=1)
    system: str | None = None
    prompt: str = Field(min_length=1, description="Jinja2, sandboxed; sees question, passages, history.")
    output: Output
    abstain: Abstain | None = None
    answer: Answer | None = None
    citations: Citations | None = None
    vocabulary: Vocabulary | None = None
    gate: dict[GateLine, Bound] = Field(default_factory=dict)
    schema_document: Any = None

    @cached_property
    def _template(self) -> Any:
        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        return environment.from_string(self.prompt)

    @cached_property
    def _validator(self) -> Any:
        return compile_schema(self.schema_document)

    @property
    def is_json(self) -> bool:
        return self.output.format == "json"

    def digest(self) -> str:
        """SHA-256 of what the behaviour says, the schema's content included."""
        return sha256_value(self.model_dump(mode="json", by_alias=True))

    def render(self, pair: Pair) -> list[dict[str, str]]:
        """The chat messages for a pair: system, history, and the prompt as the last user message.

        Raises `BehaviourError` where the template fails on this pair.
        """
        try:
            prompt = self._template.render(
                question=pair.question,
                passages=[passage.model_dump() for passage in pair.passages],
                history=[turn.model_dump() for turn in pair.history],
            )
        except Exception as error:  # a template is a person's program: it can fail in any way a program can
            reason = str(error) or type(error).__name__
            raise BehaviourError(f"prompt: the template fails on pair {pair.id}: {reason}") from error
        system = [{"role": "system", "content": self.system.strip()}] if self.system else []
        history = [turn.model_dump() for turn in pair.history]
        return [*system, *history, {"role": "user", "content": prompt.strip()}]

    def text(self, output: Any) -> str:
        """An output as the model shall write it: JSON on one line, or the text itself."""
        if self.is_json:
            return json.dumps(output, ensure_ascii=False, allow_nan=False)
        return str(output)

    def violations(self, output: Any) -> list[Violation]:
        """Every way in which an output (a JSON value, or a string for text) breaks the schema; [] where none does."""
        if not self.is_json:
            if isinstance(output, str) and output.strip():
                return []
            return [Violation(keyword="type", where="", message="a text output is a string that is not empty")]
        if self._validator is None:
            return []
        return list(violations_of(self._validator, output))

    def conforms(self, output: Any) -> bool:
        """Whether the output has no violation; quicker than counting them."""
        if self.is_json and self._validator is not None:
            return bool(self._validator.is_valid(output))
        return not self.violations(output)

    def abstains(self, output: Any) -> bool:
        """Whether a well-formed output says "I don't know" and gives no answer beside it.

        JSON: the value at `abstain.where` equals `abstain.equals` and the answer is absent or null. Text: nothing is
        left but the phrases once case, punctuation and white space are put aside.
        """
        if self.abstain is None:
            return False
        if not self.is_json:
            return isinstance(output, str) and self._only_phrases(output)
        found = resolve(output, str(self.abstain.where))
        if found is MISSING or not same_json(found, self.abstain.equals):
            return False
        return self.answer_of(output) in (None, MISSING) or self.answer is None or self.answer.at is None

    def _only_phrases(self, text: str) -> bool:
        assert self.abstain is not None
        where = self.abstain.where
        phrases = [plain_words(one).split() for one in ([where] if isinstance(where, str) else where)]
        words = plain_words(text).split()
        reached = {0}  # how many words may be made of whole phrases; no expression, which could try for ever
        for at in range(len(words)):
            if at in reached:
                reached |= {at + len(one) for one in phrases if one and words[at : at + len(one)] == one}
        return bool(words) and len(words) in reached

    def is_canonical_abstention(self, output: Any) -> bool:
        """Whether an output is the very abstention the behaviour spells out."""
        return self.abstain is not None and same_json(output, self.abstain.output)

    def answer_of(self, output: Any) -> Any:
        """The answer inside an output; the whole output where no place is named; `MISSING` where it has none."""
        if self.is_json and self.answer is not None and self.answer.at is not None:
            return resolve(output, self.answer.at)
        return output

    def citations_of(self, output: Any) -> list[str] | None:
        """The passage ids an output cites; None where the behaviour has no citations or the list is malformed."""
        if self.citations is None or not self.is_json:
            return None
        found = resolve(output, self.citations.at)
        if not isinstance(found, list):
            return None
        return [str(one) for one in found]

    def wanted_answers(self, pair: Pair) -> list[Any]:
        """All right answers of a pair: its output's, and the accepted ones (bare answers or whole outputs)."""
        wanted = [self.answer_of(pair.output)]
        for one in pair.accepted:
            inner = self.answer_of(one) if isinstance(one, dict) else one
            wanted.append(one if inner is MISSING else inner)
        return [one for one in wanted if one is not MISSING and one is not None]

    def is_right(self, output: Any, pair: Pair) -> bool:
        """Whether an output's answer is one of the pair's, by the behaviour's comparator."""
        return self.is_right_answer(self.answer_of(output), pair)

    def is_right_answer(self, given: Any, pair: Pair) -> bool:
        """Whether a bare answer (`MISSING` or None for none) is one of the pair's."""
        if given is MISSING or given is None:
            return False
        rule = self.answer or Answer()
        return score(rule.compare, given, self.wanted_answers(pair)) >= rule.at_least

    def is_answerable(self, pair: Pair) -> bool:
        """What the pair says; where it says nothing, whether its output answers."""
        return pair.answerable if pair.answerable is not None else not self.abstains(pair.output)


def load_behaviour(path: Path) -> Behaviour:
    """Read and check `behaviour.yaml` and its schema; raises `BehaviourError` with every fault there is."""
    data = _read_yaml(path)
    if not isinstance(data, dict):
        raise BehaviourError("a behaviour is a mapping of keys to values", where=str(path))
    if "schema_document" in data:
        raise BehaviourError("schema_document: unknown key; name a file at output.schema", where=str(path))
    output = data.get("output")
    named = output.get("schema") if isinstance(output, dict) else None
    schema = read_schema(path.parent / str(named)) if named else None
    try:
        behaviour = Behaviour.model_validate({**data, "schema_document": schema})
    except ValidationError as error:
        raise BehaviourError("\n  ".join(all_faults(error, "behaviour")), where=str(path)) from None
    faults = check_behaviour(behaviour)
    if faults:
        raise BehaviourError("\n  ".join(faults), where=str(path))
    return behaviour


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)  # a SafeLoader
    except FileNotFoundError:
        raise BehaviourError("there is no such file", where=str(path), fix="tutelage init DIR makes one") from None
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:  # 2024-02-30 is a ValueError
        raise BehaviourError(f"cannot be read as YAML: {error}", where=str(path)) from error
