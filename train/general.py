"""Built-in general items, for recipes that name none: short questions with one right answer, made by rule.

A question's content (the country, the numbers), not its wording, decides by hash whether it is held out for measuring
retention or may be rehearsed: what is measured was never rehearsed in other words. Rehearsal also gets open requests
without a right answer; the base answers those itself.
"""

from __future__ import annotations

import datetime
import json
import random
import unicodedata
from collections.abc import Callable
from functools import cache

from curate.files import sha256_text
from train.items import Item
from train.words import CAPITALS, FORMS, OPPOSITES, TOPICS, UNITS, WORDS

PER_SET = 200  # of each set, held out and for rehearsal alike
Made = tuple[str, str, str]  # what it is about, the question, the answer
BRIEFLY = ("Answer with {} only.", "Give {} and nothing else.", "Reply with just {}.")


def held_out_items() -> list[Item]:
    """What retention is measured on: `PER_SET` items of each set."""
    return [item for name in MAKERS for item in _items(name, held=True)]


def rehearsal_items() -> list[Item]:
    """Prompts for rehearsal: `PER_SET` items a set, none on what a held-out one is on, and open requests."""
    closed = [item for name in MAKERS for item in _items(name, held=False)]
    asked = [form.format(topic) for topic in TOPICS for form in FORMS]
    return [*closed, *(Item(id=f"open-{number}", set="open", prompt=text) for number, text in enumerate(asked))]


@cache
def _items(name: str, held: bool) -> tuple[Item, ...]:
    """The first `PER_SET` different questions of a set on one side of the divide."""
    rng = random.Random(f"tutelage-{name}")
    found: dict[str, Item] = {}
    for _ in range(100 * PER_SET):
        if len(found) == PER_SET:
            break
        about, question, answer = MAKERS[name](rng)
        if is_held_out(f"{name}:{about}") is held and question not in found:
            number = len(found)
            side = "kept" if held else "rehearsed"
            plain = "".join(one for one in unicodedata.normalize("NFD", answer) if not unicodedata.combining(one))
            found[question] = Item(
                id=f"{name}-{side}-{number}",
                set=name,
                prompt=question,
                answer=answer,
                accepted=(plain,) if plain != answer else (),  # a city's name without its accents
                compare="contains",
            )
    return tuple(found.values())


def is_held_out(about: str) -> bool:
    """Which side of the divide a question's content falls on."""
    return int(sha256_text(about)[:8], 16) % 2 == 0


def _briefly(rng: random.Random, what: str) -> str:
    return rng.choice(BRIEFLY).format(what)


def _arithmetic(rng: random.Random) -> Made:
    a, b = rng.randint(2, 99), rng.randint(2, 99)
    kind = rng.choice("+-*")
    if kind == "*":
        a, b = a % 18 + 2, b % 11 + 2
    if kind == "-":
        a, b = max(a, b), min(a, b)
    value = {"+": a + b, "-": a - b, "*": a * b}[kind]
    return f"{a}{kind}{b}", f"What is {a} {kind} {b}? {_briefly(rng, 'the number')}", str(value)


def _comparison(rng: random.Random) -> Made:
    numbers = rng.sample(range(10, 1000), rng.randint(3, 6))
    most = rng.choice(("largest", "smallest"))
    listed = ", ".join(map(str, numbers))
    question = f"Which is the {most} of these numbers: {listed}? {_briefly(rng, 'the number')}"
    return listed, question, str(max(numbers) if most == "largest" else min(numbers))


def _sorting(rng: random.Random) -> Made:
    words = rng.sample(WORDS, rng.randint(3, 5))
    listed = ", ".join(words)
    question = f"Put these words in alphabetical order: {listed}. {_briefly(rng, 'the words, separated by commas')}"
    return listed, question, ", ".join(sorted(words))


def _letters(rng: random.Random) -> Made:
    """Three or four letters: fewer may be a word that stands in any sentence ("do not know")."""
    word = rng.choice([one for one in WORDS if len(one) > 4])
    end, count = rng.choice(("first", "last")), rng.choice((3, 4))
    letters = word[:count] if end == "first" else word[-count:]
    question = f"What are the {end} {count} letters of the word {word!r}?"
    return word, f"{question} {_briefly(rng, 'the letters, written together')}", letters


def _conversion(rng: random.Random) -> Made:
    large, small, factor = rng.choice(UNITS)
    count = rng.randint(2, 60)
    question = f"How many {small} are {count} {large}? {_briefly(rng, 'the number')}"
    return f"{count} {large} {small}", question, str(count * factor)


def _weekday(rng: random.Random) -> Made:
    days = [datetime.date(2024, 1, number).strftime("%A") for number in range(1, 8)]
    start, later = rng.randrange(7), rng.randint(2, 90)
    question = f"Today is {days[start]}. Which day of the week is it in {later} days? {_briefly(rng, 'the day')}"
    return f"{start}+{later}", question, days[(start + later) % 7]


def _date(rng: random.Random) -> Made:
    start = datetime.date(2021, 1, 1) + datetime.timedelta(days=rng.randrange(2000))
    later = rng.randint(1, 20)
    question = f"Which date is {later} days after {start.isoformat()}? {_briefly(rng, 'the date as YYYY-MM-DD')}"
    return f"{start}+{later}", question, (start + datetime.timedelta(days=later)).isoformat()


def _capital(rng: random.Random) -> Made:
    country, city = rng.choice(list(CAPITALS.items()))
    asked = rng.choice(("What is the capital of {}?", "Name the capital of {}.", "Which city is the capital of {}?"))
    return country, f"{asked.format(country)} {_briefly(rng, 'the name of the city')}", city


def _opposite(rng: random.Random) -> Made:
    word, other = rng.choice(list(OPPOSITES.items()))
    asked = rng.choice(("What is the opposite of {!r}?", "Give the antonym of {!r}.", "Name the opposite of {!r}."))
    return "-".join(sorted((word, other))), f"{asked.format(word)} {_briefly(rng, 'one word')}", other


def _record(rng: random.Random) -> Made:
    keys = rng.sample(("name", "city", "colour", "item", "owner", "shelf"), rng.randint(2, 3))
    record = {key: rng.choice(WORDS) for key in keys}
    if rng.random() < 0.5:
        record["count"] = str(rng.randint(2, 99))
    listed = "; ".join(f"{key} is {value}" for key, value in record.items())
    question = f"Write this as one JSON object, keys in the given order, all values as strings: {listed}."
    return listed, question, json.dumps(record)


def _sequence(rng: random.Random) -> Made:
    start, step = rng.randint(1, 60), rng.choice((2, 3, 4, 5, 6, 7, 10, 11))
    listed = ", ".join(str(start + step * i) for i in range(4))
    question = f"Which number continues the sequence {listed}? {_briefly(rng, 'the number')}"
    return listed, question, str(start + step * 4)


MAKERS: dict[str, Callable[[random.Random], Made]] = {
    "arithmetic": _arithmetic,
    "comparison": _comparison,
    "sorting": _sorting,
    "letters": _letters,
    "conversion": _conversion,
    "weekdays": _weekday,
    "dates": _date,
    "capitals": _capital,
    "opposites": _opposite,
    "records": _record,
    "sequences": _sequence,
}
