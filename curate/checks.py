"""Pairs → findings. Pure: what is wrong with pairs, where it stands, and how it is mended."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from curate.behaviour import Behaviour
from curate.consistency import check_together
from curate.errors import BehaviourError
from curate.findings import Finding, Level
from curate.pairs import Pair
from curate.pointer import MISSING, escape, resolve, same_json
from curate.privacy import Hit, personal_data, secrets
from curate.vocabulary import term_pattern, terms_to_avoid

MAX_CHARACTERS = 16_384  # a recipe's default 4,096 tokens at four characters each
CHARACTERS_PER_TOKEN = 4
ANY_LENGTH = 10**9  # for who judges length otherwise, in tokens

RULES = (
    *("schema", "abstention", "citations", "unsupported", "contradiction", "duplicate", "near-duplicate"),
    *("personal-data", "secret", "control-token", "vocabulary", "length", "prompt", "empty", "balance"),
)


def check_pairs(pairs: Iterable[Pair], behaviour: Behaviour, max_characters: int = MAX_CHARACTERS) -> list[Finding]:
    """Every finding, pair by pair in their order, then what concerns several pairs or all of them."""
    checker = Checker(behaviour, max_characters)
    seen: list[Pair] = []
    found: list[Finding] = []
    for pair in pairs:
        seen.append(pair)
        found += checker.check(pair)
    return [*found, *check_together(seen, behaviour)]


class Checker:
    """Checks single pairs. Keeps what it found in each text, since a log holds the same passages many times."""

    def __init__(self, behaviour: Behaviour, max_characters: int = MAX_CHARACTERS) -> None:
        self.behaviour = behaviour
        self.max_characters = max_characters
        self._avoided = [(term, term_pattern(term, one), one) for term, one in terms_to_avoid(behaviour).items()]
        self._scanned: dict[str, tuple[tuple[Hit, ...], tuple[Hit, ...], tuple[str, ...]]] = {}

    def check(self, pair: Pair) -> list[Finding]:
        """What is wrong with one pair."""
        return [
            *self._empty(pair),
            *self._schema(pair),
            *self._abstention(pair),
            *self._citations(pair),
            *self._texts(pair),
            *self._vocabulary(pair),
            *self._length(pair),
        ]

    def _empty(self, pair: Pair) -> Iterator[Finding]:
        if not pair.question.strip():
            yield _found("empty", "error", pair, "/question", "the question is empty", "write it, or drop the pair")
        for index, passage in enumerate(pair.passages):
            if not passage.text.strip():
                message, fix = f"the passage {passage.id} is empty", "drop the passage; a retriever gave nothing there"
                yield _found("empty", "warning", pair, f"/passages/{index}/text", message, fix)
        if not pair.passages and self.behaviour.is_answerable(pair):
            message = "an answer is wanted, and there is no passage to take it from"
            fix = "add what was retrieved (--map passages=…), or want the abstention; knowledge belongs in retrieval"
            yield _found("empty", "warning", pair, "/passages", message, fix)
        answer = self.behaviour.answer
        bare = answer and answer.at and self.behaviour.answer_of(pair.output) in (None, MISSING)
        if answer and bare and self.behaviour.is_answerable(pair) and not self.behaviour.abstains(pair.output):
            message = f"an answer is wanted, and the output has none at {answer.at}: no output could count as right"
            yield _found("empty", "warning", pair, "/output", message, "write it, or mend answer.at in the behaviour")

    def _schema(self, pair: Pair) -> Iterator[Finding]:
        if self.behaviour.conforms(pair.output):
            return
        for one in self.behaviour.violations(pair.output):
            message = f"the wanted output breaks the schema ({one.keyword}): {_short(one.message)}"
            yield _found("schema", "error", pair, "/output" + one.where, message, "mend the output, or the schema")

    def _abstention(self, pair: Pair) -> Iterator[Finding]:
        behaviour = self.behaviour
        if behaviour.abstain is None:
            return
        where = "/output" + (str(behaviour.abstain.where) if behaviour.is_json else "")
        abstains = behaviour.abstains(pair.output)
        if not abstains and self._both(pair.output):
            message = "the output says that it does not know, and answers beside it"
            yield _found("abstention", "error", pair, where, message, "keep the answer or the abstention, not both")
        elif pair.answerable is True and abstains:
            message = "the pair is answerable, and its wanted output abstains"
            fix = "write the answer, or set answerable to false"
            yield _found("abstention", "error", pair, where, message, fix)
        elif pair.answerable is False and not abstains:
            message = "the passages do not hold the answer, and the wanted output answers all the same"
            fix = "want the abstention (import with --abstain-unanswerable), or set answerable to true"
            yield _found("abstention", "error", pair, where, message, fix)
        elif abstains and not behaviour.is_canonical_abstention(pair.output):
            message = "this abstention is written otherwise than abstain.output in the behaviour"
            fix = f"write {_short(behaviour.text(behaviour.abstain.output))}; one way to say it is learned best"
            yield _found("abstention", "warning", pair, "/output", message, fix)

    def _both(self, output: Any) -> bool:
        abstain = self.behaviour.abstain
        if abstain is None or not self.behaviour.is_json:
            return False
        found = resolve(output, str(abstain.where))
        return found is not MISSING and same_json(found, abstain.equals)

    def _citations(self, pair: Pair) -> Iterator[Finding]:
        behaviour = self.behaviour
        if behaviour.citations is None:
            return
        cited = behaviour.citations_of(pair.output) or []  # an output without the list cites nothing either
        there = {passage.id for passage in pair.passages}
        where = "/output" + behaviour.citations.at
        for index, one in enumerate(cited):
            if one not in there:
                message = f"{_short(one)} is cited and is no passage of this pair ({_some(sorted(there))})"
                fix = "cite a passage that is there; training on this teaches made-up sources"
                yield _found("citations", "error", pair, f"{where}/{index}", message, fix)
        if not cited and not behaviour.abstains(pair.output) and pair.passages:
            message, fix = "the output answers and cites nothing", "cite the passages that hold the answer"
            yield _found("citations", "warning", pair, where, message, fix)

    def _texts(self, pair: Pair) -> Iterator[Finding]:
        """Personal data and secrets in all that a release holds; control tokens in what the model would see or say."""
        seen = list(texts_of(pair))
        for where, text in (*seen, *_kept_texts(pair)):
            if text not in self._scanned:
                self._scanned[text] = tuple(personal_data(text)), tuple(secrets(text)), tuple(control_tokens(text))
            personal, secret, control = self._scanned[text]
            for hit in secret:
                fix = "take it out, and revoke it: it has been in a log"
                yield _found("secret", "error", pair, where, f"{hit.kind}: {hit.masked}", fix)
            for hit in personal:
                fix = "take it out or replace it by a made-up one (example.com, +1 202 555 0100)"
                yield _found("personal-data", "warning", pair, where, f"{hit.kind}: {hit.masked}", fix)
            for token in control if (where, text) in seen else ():
                message = f"{token} is a control token of a chat template; inside a text it ends or forges a message"
                yield _found("control-token", "error", pair, where, message, "take it out, or write it otherwise")

    def _vocabulary(self, pair: Pair) -> Iterator[Finding]:
        for where, text in _strings(pair.output, "/output") if self._avoided else ():
            for term, form, wanted in self._avoided:
                if form.search(text):
                    message = f"{term!r} is a term to avoid"
                    yield _found("vocabulary", "warning", pair, where, message, f"write {wanted!r}")

    def _length(self, pair: Pair) -> Iterator[Finding]:
        try:
            messages = self.behaviour.render(pair)
        except BehaviourError as error:
            fix = "mend the prompt in behaviour.yaml, or this pair"
            yield _found("prompt", "error", pair, "", _short(error.what), fix)
            return
        try:
            output = self.behaviour.text(pair.output)
        except ValueError:
            output = ""
        characters = sum(weight(message["content"]) for message in messages) + weight(output)
        if characters > self.max_characters:
            message = (
                f"about {characters // CHARACTERS_PER_TOKEN:,} tokens (estimated, at {CHARACTERS_PER_TOKEN} characters "
                f"each), and the limit is {self.max_characters // CHARACTERS_PER_TOKEN:,}"
            )
            fix = "retrieve fewer or shorter passages, or raise training.max_length; nothing is ever cut silently"
            yield _found("length", "warning", pair, "", message, fix)


def _found(rule: str, level: Level, pair: Pair, where: str, message: str, fix: str) -> Finding:
    return Finding(rule=rule, level=level, pair=pair.id, where=where, message=message, fix=fix)


def texts_of(pair: Pair) -> Iterator[tuple[str, str]]:
    """JSON Pointer and text of everything of a pair that the model would see or say."""
    yield "/question", pair.question
    for index, turn in enumerate(pair.history):
        yield f"/history/{index}/content", turn.content
    for index, passage in enumerate(pair.passages):
        yield f"/passages/{index}/id", passage.id
        yield f"/passages/{index}/text", passage.text
        if passage.source:
            yield f"/passages/{index}/source", passage.source
    yield from _strings(pair.output, "/output")


def _kept_texts(pair: Pair) -> Iterator[tuple[str, str]]:
    """JSON Pointer and text of what the model never meets and a release holds all the same."""
    if pair.source:
        yield "/source", pair.source
    yield from _strings(pair.accepted, "/accepted")
    yield from _strings(pair.meta, "/meta")


def _strings(value: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _strings(inner, f"{where}/{escape(key)}")
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from _strings(inner, f"{where}/{index}")


_CONTROL = re.compile(
    r"<\|[\w-]{1,40}\|>"  # ChatML, Llama 3, Phi, Zephyr, Command R, Granite, Harmony, <|endoftext|>
    r"|<｜[\w▁-]{1,40}｜>"  # DeepSeek
    r"|<\|(?:turn|tool|channel|tool_call|tool_response)>|<(?:turn|tool|channel|tool_call|tool_response)\|>"
    r"|\[/?INST\]|<</?SYS>>|\[/?(?:AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|SYSTEM_PROMPT|THINK)\]"
    r"|<(?:start|end)_of_(?:turn|image)>|<(?:BOS|EOS)_TOKEN>|<(?:bos|eos|pad|unk|mask)>|</?s>"
    r"|</?(?:think|tool_call|tool_response|tools|function_call|tool_calls)>"
)


def control_tokens(text: str) -> list[str]:
    """Control tokens of known chat templates that stand in a text, each once."""
    if "<" not in text and "[" not in text:
        return []
    return list(dict.fromkeys(_CONTROL.findall(text)))


_WIDE = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]")


def weight(text: str) -> int:
    """Length in characters; a Chinese, Japanese or Korean one weighs four, as it is about one token by itself."""
    return len(text) if text.isascii() else len(text) + 3 * len(_WIDE.findall(text))


def _short(text: str, most: int = 160) -> str:
    text = " ".join(str(text).split())
    return text if len(text) <= most else text[: most - 1] + "…"


def _some(names: Sequence[str]) -> str:
    return json.dumps(list(names[:6]), ensure_ascii=False)[1:-1] + (", …" if len(names) > 6 else "") or "it has none"
