"""The faults that `train check` refuses, given to plain TRL: caught, warned of, or trained on in silence.

    python benchmarks/faults.py

The faults are those of tests/test_train_preflight.py, planted with its own helpers. TRL gets the same pairs, template
and tokenizer as prompt and completion, with its default settings, and takes one step. Writes
benchmarks/results/faults.json, and from it the table in docs/rules-train.md.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULT, PAGE = HERE / "results" / "faults.json", HERE.parent / "docs" / "rules-train.md"
BEGIN, END = "<!-- made by benchmarks/faults.py -->", "<!-- end -->"
STOP = 3  # the id of <|im_end|> in the tests' tokenizer
MOST = 1024  # TRL's own max_length, and ours for this

sys.path.append(str(HERE.parent / "tests"))  # its modules import each other by name
planted: Any = importlib.import_module("test_train_preflight")
shared_base: Any = importlib.import_module("shared_base")
pair = planted.pair

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Fault:
    """A planted fault. `reached` tells by the rows that TRL trains on whether it got there; data faults always do."""

    what: str
    planted: Callable[[], Any]
    as_messages: bool = False
    pad: str = "<|pad|>"
    vocabulary: int = 320
    reached: Callable[[Rows, Any], bool] = field(default=lambda rows, prepared: True)


def good(**changes: Any) -> list[Any]:
    """Eight good pairs, the first of them changed."""
    return [pair(0, **changes), *(pair(i) for i in range(1, 8))]


def ours(train: list[Any] | None = None, **more: Any) -> Callable[[], Any]:
    return lambda: planted.prepared(train, recipe={"training": {"max_length": MOST}}, **more)


def pad_is_eos() -> Any:
    import dataclasses

    tokenizer = shared_base.make_tokenizer(pad="<|im_end|>")
    return dataclasses.replace(ours()(), tokenizer=tokenizer)


def few_unanswerable() -> list[Any]:
    return [*[pair(i) for i in range(100, 140) if i % 4 != 3][:9], pair(3)]


def other_page() -> list[Any]:
    """A test pair from another part of a page that is trained on."""
    passage = planted.Passage(id="p1", text="Other words of the same page.", source="d2.md#later")
    return [pair(50, passages=(passage,))]


def stop_is_masked(rows: Rows, prepared: Any) -> bool:
    return any(STOP not in row["labels"] for row in rows)


def prompt_is_learned(rows: Rows, prepared: Any) -> bool:
    return any(row["labels"][0] != -100 for row in rows)


def is_cut(rows: Rows, prepared: Any) -> bool:
    return sum(len(row["input_ids"]) for row in rows) < sum(len(one.ids) for one in prepared.train)


LONG = "A long passage. " * 80
PURPLE = {"status": "answered", "answer": "purple", "citations": ["p1"]}
HELD = [planted.Item(id=f"r{i}", prompt=f"What is {i} + 1?") for i in range(5)]
FAULTS: dict[str, Fault] = {
    "none": Fault("no fault at all", ours()),
    "prompt-mismatch": Fault(
        "the template opens the answer in another way than in use",
        ours(template=planted.TEMPLATES["prompt-mismatch"]),
    ),
    "stop-token-not-learned": Fault(
        "the template writes no stop token", ours(template=planted.TEMPLATES["stop-token-not-learned"])
    ),
    "pad-is-stop": Fault(
        "the pad token is the stop token, which a mask by token id takes out of the loss",
        pad_is_eos,
        pad="<|im_end|>",
        reached=stop_is_masked,
    ),
    "loss-on-prompt": Fault(
        "whole conversations are given: questions are learned", ours(), as_messages=True, reached=prompt_is_learned
    ),
    "no-loss-tokens": Fault(
        "the prompt alone is longer than the limit: nothing of the answer is left",
        ours(good(question=f"{LONG} What of gadget0?")),
        reached=is_cut,
    ),
    "over-length": Fault(
        "the answer's end lies beyond the limit", ours(good(output={**PURPLE, "answer": LONG})), reached=is_cut
    ),
    "schema": Fault("an output breaks the schema", ours(good(output={"status": "answered"}))),
    "abstention": Fault("a pair marked unanswerable is answered", ours(good(answerable=False))),
    "citations": Fault(
        "an output cites a passage that is not there", ours(good(output={**PURPLE, "citations": ["p9"]}))
    ),
    "contradiction": Fault("one input, two answers", ours([*good(), pair(0, id="again", output=PURPLE)])),
    "control-token": Fault("a special token stands in a question", ours(good(question="Which colour <|im_end|>?"))),
    "test-split-in-training": Fault("a test pair is trained on", ours(test=[pair(2, id="copy")])),
    "leak": Fault("a test pair comes from a page that is trained on", ours(test=other_page())),
    "unanswerable-share": Fault("one pair in ten is unanswerable", ours(few_unanswerable())),
    "rehearsal-prompts": Fault("every rehearsal prompt is a held-out item", ours(prompts=HELD)),
    "tokenizer-embedding-size": Fault(
        "the tokenizer has more tokens than the model", ours(vocabulary=100), vocabulary=100
    ),
    "no-pairs": Fault("there is nothing to train on", ours([])),
}


def by_us(fault: Fault) -> dict[str, Any]:
    """What pre-flight says."""
    from train.preflight import preflight

    found = preflight(fault.planted())
    errors = sorted({one.rule for one in found if one.level == "error"})
    told = sorted({one.rule for one in found})
    return {"outcome": "caught" if errors else "warned" if told else "right", "said": errors or told}


def by_trl(fault: Fault, directory: Path) -> dict[str, Any]:
    """What TRL does: `caught` where it raises before the first step, `crashed` where it does in it.

    Where it says nothing: `silent` when the fault is in what it trains on, `right` when it is not.
    """
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    prepared = fault.planted()
    base = shared_base.make_base(directory / "base", vocab=fault.vocabulary)
    tokenizer = shared_base.make_tokenizer(prepared.tokenizer.chat_template, fault.pad)
    arguments = SFTConfig(output_dir=str(directory / "out"), max_steps=1, use_cpu=True, bf16=False, report_to="none",
                          disable_tqdm=True, save_strategy="no", per_device_train_batch_size=16)  # fmt: skip
    with heard() as said:
        try:
            trainer = SFTTrainer(
                model=AutoModelForCausalLM.from_pretrained(base),
                args=arguments,
                train_dataset=Dataset.from_list(conversations(prepared, "train", fault.as_messages)),
                eval_dataset=Dataset.from_list(conversations(prepared, "test", fault.as_messages)),
                processing_class=tokenizer,
            )
            rows = as_trained(trainer)
        except Exception as error:  # whatever it raises is what is asked for here
            return {"outcome": "caught", "said": [f"{type(error).__name__}: {error}"[:300]]}
        try:
            trainer.train()
        except Exception as error:
            return {"outcome": "crashed", "said": [f"{type(error).__name__}: {error}"[:300]]}
    return {"outcome": "silent" if fault.reached(rows, prepared) else "right", "said": sorted(set(said))}


def as_trained(trainer: Any) -> Rows:
    """The rows as its collator gives them to the model, all in one batch."""
    rows = list(trainer.train_dataset)
    labels = trainer.data_collator(rows)["labels"].tolist()
    return [{**row, "labels": label} for row, label in zip(rows, labels, strict=True)]


def conversations(prepared: Any, split: str, as_messages: bool) -> Rows:
    """A split as TRL takes conversations; its rehearsal with it."""
    from train.items import Item

    behaviour = planted.BEHAVIOUR
    asked = [(behaviour.render(one), behaviour.text(one.output)) for one in prepared.splits[split]]
    if split == "train":
        items: list[Item] = prepared.prompts[:2]
        asked += [(item.messages(), str(item.answer or "Done.")) for item in items] if asked else []
    replies = [(messages, [{"role": "assistant", "content": answer}]) for messages, answer in asked]
    if as_messages:
        return [{"messages": [*messages, *reply]} for messages, reply in replies]
    return [{"prompt": messages, "completion": reply} for messages, reply in replies]


@contextmanager
def heard() -> Iterator[list[str]]:
    """Warnings, and what the libraries log as such."""
    said: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    ear = Ear(logging.WARNING)
    loggers = [logging.getLogger(name) for name in ("trl", "transformers", "accelerate", "py.warnings")]
    for one in loggers:
        one.addHandler(ear)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield said
            said += [str(one.message) for one in caught]
    finally:
        for one in loggers:
            one.removeHandler(ear)


def measure() -> dict[str, Any]:
    """Every fault, given to both. What TRL says of no fault at all is no warning of a fault."""
    found: dict[str, Any] = {}
    for name, fault in FAULTS.items():
        with tempfile.TemporaryDirectory() as directory:
            theirs = by_trl(fault, Path(directory))
        usual = found["none"]["trl"]["said"] if found else []
        if theirs["outcome"] == "silent":
            theirs["said"] = [one for one in theirs["said"] if name == "none" or one not in usual]
            theirs["outcome"] = "warned" if theirs["said"] and name != "none" else "silent"
        found[name] = {"fault": fault.what, "tutelage": by_us(fault), "trl": theirs}
    found["none"]["trl"]["outcome"] = "right"
    if found["none"]["tutelage"]["outcome"] != "right":
        raise SystemExit(f"there are findings where there is no fault: {found['none']}")
    return found


def table(result: dict[str, Any]) -> str:
    """The Markdown."""
    words = {"caught": "refused", "warned": "warned of", "right": "trained right", "silent": "**silent**",
             "crashed": "fails in the first step"}  # fmt: skip
    lines = [f"| planted | `train check` | TRL {result['versions']['trl']} |", "|---|---|---|"]
    for name, one in result["faults"].items():
        if name != "none":
            mine, theirs = one["tutelage"], one["trl"]
            rules = f" ({', '.join(mine['said'])})" if mine["said"] else ""
            lines.append(f"| {one['fault']} | {words[mine['outcome']]}{rules} | {words[theirs['outcome']]} |")
    return "\n".join(lines)


def main() -> None:
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    result = {
        "command": "python benchmarks/faults.py",
        "versions": {name: version(name) for name in ("trl", "transformers")},
        "faults": measure(),
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    text = PAGE.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    if not tail:
        raise SystemExit(f"{PAGE}: there is no place for the table between {BEGIN} and {END}")
    PAGE.write_text(f"{head}{BEGIN}\n\n{table(result)}\n\n{END}{tail}", encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
