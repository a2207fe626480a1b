"""The demo's world: a fictional product catalogue, and a RAG log over it.

Products come in families of four. A retrieval only ever mixes passages of one family, so a split by family
(the part of `doc_id` before `#`) leaves no product of the test split in training. Everything follows from a seed.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


def words(text: str) -> tuple[str, ...]:
    """The words of `text`: a long list is easier to read and edit as prose."""
    return tuple(text.split())


_HEADS = words("Al Bar Cor Den El Fen Gar Hol Il Jas Kel Lor Mar Nor Or Pel Quin Ros Sil Tar Ul Ver Wen Zan")
_TAILS = words("der mik vane ton lis bury dock field gan hart")
NAMES: tuple[str, ...] = tuple(head + tail for tail in _TAILS for head in _HEADS)
"""Product names: the base has met each as a word, but never with a lasting fact (values are drawn per context)."""

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "colour": words("red blue green yellow purple orange white black brown pink golden grey violet crimson"),
    "material": words("wood steel glass paper cotton leather rubber marble copper plastic wool silk clay linen"),
    "maker": words("Tarn Brisk Moldau Calder Dunmore Frost Grimsby Harrow Jasper Kelso Merton Oakham"),
    "warehouse": words("Perth Quorn Ripley Selby Thorne Upton Vernal Welby Yarrow Bergen Cadiz Dover"),
    "size": words("tiny small medium large huge narrow wide tall short thick"),
    "season": words("spring summer autumn winter Easter Christmas"),
}
FAMILY_SIZE = 4
FACTS_PER_PASSAGE = 1
MOST_PASSAGES = 4  # of a request
UNANSWERABLE_SHARE = 0.35  # of the requests, whose passage the retriever missed
QUESTIONS = (
    "What is the {attribute} of {name}?",
    "Name the {attribute} of {name}.",
    "Tell me the {attribute} of {name}.",
)


@dataclass(frozen=True)
class Product:
    """A product: its name, its family, and one value per attribute."""

    name: str
    family: str
    values: dict[str, str]


@dataclass(frozen=True)
class Chunk:
    """A passage of the catalogue: what it says of one product, under a stable document id."""

    doc_id: str
    name: str
    attributes: tuple[str, ...]
    text: str


def fact(attribute: str, name: str, value: str) -> str:
    """The one sentence in which the catalogue states a fact."""
    return f"The {attribute} of {name} is {value}."


def catalogue(seed: int, families: int = 60) -> list[list[Product]]:
    """`families` families of four products each (at most 60: names are never shared), fixed by `seed`."""
    if not 1 <= families <= len(NAMES) // FAMILY_SIZE:
        raise ValueError(f"families must be between 1 and {len(NAMES) // FAMILY_SIZE}, not {families}")
    rng = random.Random(f"catalogue-{seed}")
    names = rng.sample(NAMES, families * FAMILY_SIZE)
    groups = [names[start : start + FAMILY_SIZE] for start in range(0, len(names), FAMILY_SIZE)]
    return [
        [
            Product(name, group[0].lower(), {key: rng.choice(values) for key, values in ATTRIBUTES.items()})
            for name in group
        ]
        for group in groups
    ]


def chunks(product: Product, rng: random.Random) -> list[Chunk]:
    """The product's page cut into passages; `rng` decides their order."""
    keys = rng.sample(list(ATTRIBUTES), len(ATTRIBUTES))
    parts = [tuple(keys[start : start + FACTS_PER_PASSAGE]) for start in range(0, len(keys), FACTS_PER_PASSAGE)]
    return [
        Chunk(
            doc_id=f"catalogue/{product.family}.md#{product.name.lower()}-{number}",
            name=product.name,
            attributes=part,
            text=" ".join(fact(key, product.name, product.values[key]) for key in part),
        )
        for number, part in enumerate(parts, 1)
    ]


def traces(seed: int, n: int) -> list[dict[str, Any]]:
    """A RAG log of `n` requests over the catalogue of `seed`.

    Each trace is `{"trace_id", "query", "documents": [{"doc_id", "text"}], "answer", "gold_doc", "answerable"}`.
    Where the retriever missed the passage (`answerable` false, `gold_doc` None), the logged answer is a
    hallucination, as in a real log: some other value of the attribute. No query and retrieval occur twice.
    """
    pages = [[chunk_list(product, seed) for product in family] for family in catalogue(seed)]
    values = {product.name: product.values for family in catalogue(seed) for product in family}
    rng = random.Random(f"traces-{seed}")
    out: list[dict[str, Any]] = []
    seen: set[tuple[str, ...]] = set()
    while len(out) < n:
        trace = _trace(rng, rng.choice(pages), values, rng.random() >= UNANSWERABLE_SHARE)
        key = (trace["query"], *sorted(document["doc_id"] for document in trace["documents"]))
        if key not in seen:
            seen.add(key)
            out.append({"trace_id": f"t{len(out):05d}", **trace})
    return out


def chunk_list(product: Product, seed: int) -> list[Chunk]:
    """The product's passages, cut the same way each time for one `seed`."""
    return chunks(product, random.Random(f"chunks-{seed}-{product.name}"))


def _trace(
    rng: random.Random, family: Sequence[Sequence[Chunk]], values: dict[str, dict[str, str]], answerable: bool
) -> dict[str, Any]:
    gold = rng.choice(rng.choice(family))
    attribute = rng.choice(gold.attributes)
    others = [chunk for page in family for chunk in page if chunk is not gold]
    # The tempting distractors: another passage of the product asked for, or the same attribute of its sibling.
    tempting = [chunk for chunk in others if chunk.name == gold.name or attribute in chunk.attributes]
    wanted = rng.randint(1, MOST_PASSAGES) - int(answerable)
    picked = rng.sample(tempting, min(wanted, len(tempting))) if rng.random() < 0.7 else rng.sample(others, wanted)
    documents = [*picked, gold] if answerable else picked
    rng.shuffle(documents)
    truth = values[gold.name][attribute]
    answer = truth if answerable else rng.choice([value for value in ATTRIBUTES[attribute] if value != truth])
    return {
        "query": rng.choice(QUESTIONS).format(attribute=attribute, name=gold.name),
        "documents": [{"doc_id": chunk.doc_id, "text": chunk.text} for chunk in documents],
        "answer": answer,
        "gold_doc": gold.doc_id if answerable else None,
        "answerable": answerable,
    }


def support_prompt(trace: dict[str, Any]) -> str:
    """The support behaviour's user prompt: a line `[p1] text` per passage, then the question."""
    lines = [f"[p{number}] {document['text']}" for number, document in enumerate(trace["documents"], 1)]
    return "\n".join([*lines, f"Question: {trace['query']}"])


SUPPORT_SYSTEM = "Answer from the passages only. Reply with one JSON object."
