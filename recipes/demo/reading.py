"""Reading passages, as the base learns it: look-ups in prose, in one word, by passage id, and as a JSON record.

The base must hold the abilities the support behaviour is made of, in another form. It is never shown that behaviour's
own output, and never declines a question: whether a fact is given is asked for by name and answered yes or no.
"""

import json
import random
from dataclasses import dataclass
from typing import Any

from .world import ATTRIBUTES, NAMES, QUESTIONS, fact

SYSTEMS = (
    "You are a helpful assistant.",
    "Answer from the passages only.",
    "Reply with one sentence.",
    "Be brief.",
    "Answer from the passages only. Reply with one sentence.",
    "Use the passages only. Reply with one short answer.",
    "Reply to the question from the JSON object or the passages.",
)
Turn = tuple[str, str]


@dataclass(frozen=True)
class Context:
    """The passages of one dialogue: their text, the facts in them, and near misses that are not."""

    text: str
    facts: tuple[tuple[int, str, str, str], ...]  # passage number, attribute, name, value
    absent: tuple[tuple[str, str], ...]  # attribute, name


def context(rng: random.Random, passages: int, facts_each: int, one_attribute: bool = False) -> Context:
    """Passages about names and values drawn afresh, so that only reading can answer.

    With `one_attribute` every passage gives the same attribute of another name. Without such contexts a model finds
    the value by its kind alone (the one colour among the passages) and learns to match names late or never.
    """
    names = rng.sample(NAMES, passages if one_attribute else rng.randint(1, passages))
    keys = [rng.choice(list(ATTRIBUTES))] if one_attribute else list(ATTRIBUTES)
    given: dict[tuple[str, str], str] = {}
    facts: list[tuple[int, str, str, str]] = []
    lines: list[str] = []
    for number in range(1, passages + 1):
        name = names[number - 1] if one_attribute else rng.choice(names)
        free = [key for key in keys if (key, name) not in given]
        sentences: list[str] = []
        for key in rng.sample(free, min(facts_each, len(free))):
            given[key, name] = rng.choice(ATTRIBUTES[key])
            facts.append((number, key, name, given[key, name]))
            sentences.append(fact(key, name, given[key, name]))
        if not sentences:
            continue
        lines.append(f"[p{number}] " + " ".join(sentences))
    shown = dict.fromkeys(name for _, _, name, _ in facts)  # a set's order would change from run to run
    near = [(key, name) for name in shown for key in ATTRIBUTES if (key, name) not in given]
    # Half of them the tempting kind: this name is here, and so is that attribute, of another name.
    tempting = [(key, name) for key, name in near if any(key == other for other, _ in given)]
    near = rng.sample(tempting, min(2, len(tempting))) + rng.sample(near, min(2, len(near)))
    # A name that is nowhere, asked for an attribute that is given of another.
    near += [(key, stranger) for _, key, _, _ in facts for stranger in [rng.choice(NAMES)] if stranger not in shown]
    return Context("\n".join(lines), tuple(facts), tuple(rng.sample(near, min(6, len(near)))))


def _ask(rng: random.Random, attribute: str, name: str) -> str:
    return "Question: " + rng.choice(QUESTIONS).format(attribute=attribute, name=name)


def prose(rng: random.Random, ctx: Context) -> Turn:
    """A question, answered by a sentence: the base's own way."""
    _, attribute, name, value = rng.choice(ctx.facts)
    return _ask(rng, attribute, name), fact(attribute, name, value)


def one_word(rng: random.Random, ctx: Context) -> Turn:
    """The value alone: the look-up without the sentence to lean on."""
    _, attribute, name, value = rng.choice(ctx.facts)
    return f"One word: {attribute} of {name}?", value


def which_passage(rng: random.Random, ctx: Context) -> Turn:
    """The passage that gives a fact."""
    number, attribute, name, _ = rng.choice(ctx.facts)
    return f"Which passage gives the {attribute} of {name}?", f"p{number}"


def is_given(rng: random.Random, ctx: Context) -> Turn:
    """Whether a fact is in the passages at all: what abstention will need."""
    given = rng.random() < 0.5 or not ctx.absent
    attribute, name = rng.choice(ctx.facts)[1:3] if given else rng.choice(ctx.absent)
    if rng.random() < 0.3:
        return f"Check as JSON: {attribute} of {name}.", json.dumps({"given": "yes" if given else "no"})
    return f"Check: {attribute} of {name}?", "yes" if given else "no"


def record(rng: random.Random, ctx: Context) -> Turn:
    """A JSON record with the fields asked for, in that order: any thing the model can read, at any place."""
    if rng.random() < 0.7 or not ctx.absent:
        number, attribute, name, value = rng.choice(ctx.facts)
        fields: dict[str, Any] = {"given": "yes", "value": value, "passages": [f"p{number}"]}
        keys = list(fields)
    else:
        attribute, name = rng.choice(ctx.absent)
        fields = {"given": "no"}
        keys = ["given"]
    fields |= {"name": name, "attribute": attribute}
    asked = rng.sample(keys, rng.randint(1, len(keys))) + rng.sample(["name", "attribute"], rng.randint(0, 1))
    rng.shuffle(asked)
    return f"Write {', '.join(asked)} as JSON: {attribute} of {name}.", json.dumps({key: fields[key] for key in asked})


def quote(rng: random.Random, ctx: Context) -> Turn:
    """What a passage says: the way back from its id, which ties each fact to its passage."""
    number = rng.choice(ctx.facts)[0]
    sentences = [fact(attribute, name, value) for place, attribute, name, value in ctx.facts if place == number]
    return f"Repeat: p{number}", " ".join(sentences)


TASKS = (prose, one_word, which_passage, is_given, record, quote)


def dialogue(rng: random.Random, ctx: Context, turns: int, weights: tuple[float, ...]) -> list[Turn]:
    """`turns` requests over one context; the first carries the passages."""
    out = [task(rng, ctx) for task in rng.choices(TASKS, weights, k=turns)]
    first, answer = out[0]
    return [(f"{ctx.text}\n{first}", answer), *out[1:]]
