"""The dataset card of a release: what it holds, where that came from, what was left out, how to load it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from curate.splits import SPLITS

SHOWN = 20


def dataset_card(name: str, details: dict[str, Any]) -> str:
    """README.md from a manifest's `details`; `name` is the behaviour's. The front matter is what `datasets` reads."""
    parts = [
        _front_matter(name),
        f"# Pairs for the behaviour {_code(name)}",
        "Inputs (a question with retrieved passages) and the output wanted for each, frozen and split by tutelage. "
        "What may change, the knowledge, stands in the passages; the outputs show the behaviour.",
        _numbers(details),
        _how_split(details),
        _sources(details),
        _excluded(details),
        _review(details),
        _notes(details),
        _loading(),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(name: str) -> str:
    files = "\n".join(f"  - split: {split}\n    path: {split}.parquet" for split in SPLITS)
    title = " ".join(name.split()).replace("'", "''")
    return f"---\npretty_name: '{title}'\nconfigs:\n- config_name: default\n  data_files:\n{files}\n---"


def _numbers(details: dict[str, Any]) -> str:
    lines = ["| split | pairs | answerable | unanswerable |", "|---|---:|---:|---:|"]
    for split in SPLITS:
        one = details["splits"][split]
        share = f" ({one['answerable'] / one['pairs']:.0%})" if one["pairs"] else ""
        lines.append(f"| {split} | {one['pairs']:,} | {one['answerable']:,}{share} | {one['unanswerable']:,} |")
    return "## Numbers\n\n" + "\n".join(lines)


def _how_split(details: dict[str, Any]) -> str:
    unit = {"document": "source document", "passage": "source passage"}[details["group_by"]]
    fractions = ", ".join(f"{split} {details['fractions'][split]:.0%}" for split in SPLITS)
    text = (
        f"Wanted: {fractions}. The pairs make {details['groups']:,} groups: pairs that rest on the same {unit} or the "
        "same text, have the same input, are near-duplicates, or are a question and its unanswerable twin stand in one "
        "split, and no group is on two sides. A pair rests on the passages its output cites; where it cites none, on "
        "the one its answer stands in that is nearest to the question, else on its first."
    )
    if details["previous"]:
        text += " Pairs and documents of earlier releases kept their split."
    return f"## How it was split\n\n{text}\n\nContent: `{details['data_sha256']}` (pairs, splits and behaviour)"


def _sources(details: dict[str, Any]) -> str:
    lines = [f"- {_code(source)}: {count:,}" for source, count in list(details["sources"].items())[:SHOWN]]
    if len(details["sources"]) > SHOWN:
        lines.append(f"- and {len(details['sources']) - SHOWN:,} more")
    return "## Where the pairs came from\n\n" + "\n".join(lines)


def _excluded(details: dict[str, Any]) -> str:
    if not details["excluded"]:
        return "## Left out\n\nNothing: every pair of the working set is in."
    counts = Counter(one["rule"] for one in details["excluded"])
    lines = [f"- {rule}: {count:,}" for rule, count in sorted(counts.items())]
    return (
        f"## Left out\n\n{len(details['excluded']):,} pairs of the working set are not in, each one named in "
        "`manifest.json` under `details.excluded`:\n\n" + "\n".join(lines)
    )


def _notes(details: dict[str, Any]) -> str:
    total = sum(one["pairs"] for one in details["splits"].values())
    reviewed = details["reviewed"]
    said = f"{reviewed:,} of {total:,} pairs were reviewed by people." if reviewed else "**Not reviewed by people.**"
    return "## Notes\n\n" + "\n".join(f"- {line}" for line in [said, *details["warnings"]])


def _review(details: dict[str, Any]) -> str:
    review = details.get("review")
    if not review:
        return ""
    lines = [f"- {_code(name)} judged {count:,}" for name, count in review["reviewers"].items()]
    lines += [f"- {_code(name)} decided {count:,} disputes" for name, count in review["adjudicators"].items()]
    text = (
        f"Each pair was judged by {review['overlap']} people on their own; where they differed another person decided. "
        "Who said what of each pair stands in `review.jsonl`.\n\n" + "\n".join(lines)
    )
    if review["unreviewed_pairs_taken"]:
        text += "\n\n**Pairs that nobody reviewed are in this release too** (`--unreviewed`)."
    rows = ["| question | Krippendorff's alpha (nominal) | 95 % | pairs |", "|---|---:|---:|---:|"]
    for question, one in review["agreement"].items():
        alpha = "—" if one["alpha"] is None else f"{one['alpha']:.3f}"
        interval = "—" if one["low"] is None else f"{one['low']:.3f} to {one['high']:.3f}"
        rows.append(f"| {question} | {alpha} | {interval} | {one['n']:,} |")
    return f"## Who reviewed it\n\n{text}\n\n" + "\n".join(rows)


def _loading() -> str:
    return """## How to load it

```python
import json
from datasets import load_dataset

release = load_dataset("path/to/this/directory")
wanted = json.loads(release["test"][0]["output"])  # output, meta and accepted hold JSON text
```

`behaviour.yaml` and `schema.json` are the behaviour at the time of the freeze.
`tutelage verify DIR` checks every file."""


def _code(text: str) -> str:
    return f"`{' '.join(text.split()).replace('`', chr(39))}`"
