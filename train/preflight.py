"""Pre-flight: what must hold before training is paid for. Pure functions from rendered rows to findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from curate.checks import ANY_LENGTH, check_pairs, texts_of
from curate.consistency import near_duplicate_pairs
from curate.findings import Finding, Level
from curate.pairs import Pair
from curate.splits import spoken, tie
from train.preparation import Prepared
from train.rehearsal import rehearsal_count
from train.rendering import Rendered, follows_the_date, pad_of

FIXES = {
    "no-loss-tokens": "want an output that says something, or drop the pair",
    "loss-on-prompt": "use the base's own tokenizer and chat template unchanged, or another base",
    "stop-token-not-learned": "make the template end an assistant's message with a token that generation_config.json "
    "lists under eos_token_id (and that tokenizer_config.json has as eos_token)",
    "prompt-mismatch": "use a base whose template writes the same prompt with and without an answer after it; a "
    "thinking model's template often does not: tell it not to think (base.template_arguments), or take the plain "
    "instruct model",
    "template-refuses": "most templates want user and assistant in turn, the user first: change the pair's history, or "
    "the behaviour's prompt",
    "template-date": "fix the date in the template: base.template_arguments: {date_string: 26 Jul 2024} does for "
    "Llama; else write it into a copy of the base's chat_template.jinja",
    "control-token": "take the token out of the text, or write it otherwise",
}
REFUSED = ("template-refuses",)  # of a prompt without its answer only this can be told
CURATE_WARNINGS = ("contradiction",)  # of curate's warnings only these decide what is learned


def preflight(prepared: Prepared) -> list[Finding]:
    """Every finding about what would be trained on; errors mean that training is refused."""
    recipe, splits = prepared.recipe, prepared.splits
    rows = [("train", one) for one in prepared.train] + [("validation", one) for one in prepared.validation]
    guard = recipe.guards.unanswerable_share
    return [
        *check_sizes(prepared),
        *check_date(prepared),
        *[finding for split, row in rows for finding in check_row(row, split)],
        *check_collated(prepared.train, prepared.stop, pad_of(prepared.tokenizer)),
        *[finding for split, row in rows for finding in check_length(row, split, prepared)],
        *check_tokens([*splits["train"], *splits["validation"]], prepared.tokenizer),
        *check_curated([*splits["train"], *splits["validation"]], prepared),
        *check_leaks(prepared),
        *(check_share(prepared.kept_pairs("train"), prepared, guard.at_least) if guard else []),
        *check_general(prepared),
    ]


def check_sizes(prepared: Prepared) -> list[Finding]:
    """Rules `tokenizer-embedding-size` and `no-pairs`; pairs that are dropped for their length do not count."""
    found = []
    tokens, rows = len(prepared.tokenizer), prepared.vocabulary
    if tokens > rows:
        message = f"the tokenizer has {tokens:,} tokens, the base's embedding {rows:,} rows"
        fix = "use the tokenizer the base came with; tokens that were added to it have no embedding"
        found.append(_finding("tokenizer-embedding-size", "error", None, "base.model", message, fix))
    without: tuple[tuple[str, Level, str], ...] = (
        ("train", "error", "there is nothing to train on"),
        ("validation", "warning", "no loss on it is watched, and the adapter's scale sees no task"),
    )
    for split, level, so in without:
        if prepared.kept_pairs(split):
            continue
        dropped = len(prepared.splits[split])
        what = f"all {dropped:,} pairs of the {split} split are longer than training.max_length" if dropped else ""
        fix = "raise training.max_length, or shorten the passages" if dropped else "release with more pairs"
        message = f"{what or f'the {split} split is empty'}: {so}"
        found.append(_finding("no-pairs", level, None, split, message, fix))
    return found


def check_date(prepared: Prepared) -> list[Finding]:
    """Rule `template-date`: a template that writes today's date makes another prompt every day."""
    asked = [prepared.behaviour.render(pair) for pair in prepared.pairs[:1]]
    if not any(follows_the_date(prepared.tokenizer, messages) for messages in asked):
        return []
    message = "the base's chat template writes today's date into every prompt"
    return [_finding("template-date", "error", None, "base.model", message, FIXES["template-date"])]


def check_row(row: Rendered, split: str) -> list[Finding]:
    """Rules of rendering: `prompt-mismatch`, `stop-token-not-learned`, `no-loss-tokens`, `loss-on-prompt`."""
    return [_finding(fault.rule, "error", row.id, split, fault.message, FIXES[fault.rule]) for fault in row.faults]


def check_collated(rows: Sequence[Rendered], stop: Sequence[int], pad: int, collate: Any = None) -> list[Finding]:
    """The same rules once more on the very tensors that are trained on, padding and all; `collate` is ours by default.

    A collator that masks by token id unlearns the stop token where it is the pad token too.
    """
    from train.guards import Example
    from train.guards import collate as ours

    good = [row for row in rows if not row.faults]
    found = []
    for at in range(0, len(good), 64):
        chunk = good[at : at + 64]
        labels = (collate or ours)([Example(row.ids, row.prompt_tokens) for row in chunk], pad)["labels"].tolist()
        for row, given in zip(chunk, labels, strict=True):
            learned = [i for i, one in enumerate(given) if one != -100]
            found += _label_findings(row, learned, given, frozenset(stop))
    return found


def _label_findings(row: Rendered, learned: list[int], labels: list[int], stop: frozenset[int]) -> list[Finding]:
    if not learned:
        message = "no token of this pair carries loss"
        return [_finding("no-loss-tokens", "error", row.id, "train", message, FIXES["no-loss-tokens"])]
    found = []
    if learned[0] < row.prompt_tokens:
        message = f"{row.prompt_tokens - learned[0]} tokens of the prompt carry loss"
        found.append(_finding("loss-on-prompt", "error", row.id, "train", message, FIXES["loss-on-prompt"]))
    if labels[learned[-1]] not in stop or learned[-1] != len(row.ids) - 1:
        message = "the stop token carries no loss (is it the pad token, masked with the padding?)"
        found.append(
            _finding("stop-token-not-learned", "error", row.id, "train", message, FIXES["stop-token-not-learned"])
        )
    return found


def check_length(row: Rendered, split: str, prepared: Prepared) -> list[Finding]:
    """Rules `over-length` and `context-length`: each row that is too long is named, an error or dropped."""
    recipe, context, tokens = prepared.recipe, prepared.context, len(row.ids)
    most, beyond = recipe.training.max_length, context is not None and len(row.ids) > context
    if tokens > most:
        drop = recipe.length.over == "drop"
        message = f"{tokens:,} tokens, {tokens - most:,} more than training.max_length" + ("; dropped" if drop else "")
        raised = "" if beyond else "raise training.max_length, "
        fix = f"{raised}shorten the passages, or set length.over: drop; nothing is ever cut"
        return [_finding("over-length", "warning" if drop else "error", row.id, split, message, fix)]
    if beyond:
        message = f"{tokens:,} tokens; the base was made for {context:,} at most"
        fix = f"set training.max_length: {context} with length.over: drop, shorten the passages, or take another base"
        return [_finding("context-length", "error", row.id, split, message, fix)]
    return []


def check_tokens(pairs: Sequence[Pair], tokenizer: Any) -> list[Finding]:
    """Rule `control-token`: a special token of this tokenizer inside a text becomes that token, not its letters."""
    special = special_tokens(tokenizer)
    found = []
    for pair in pairs:
        for where, text in texts_of(pair):
            for token in sorted(one for one in special if one in text):
                message = f"{token} is a control token of the base's tokenizer"
                found.append(_finding("control-token", "error", pair.id, where, message, FIXES["control-token"]))
    return found


def check_curated(pairs: Sequence[Pair], prepared: Prepared) -> list[Finding]:
    """Curate's own rules (`schema`, `abstention`, `citations`, `contradiction`, …) on what would be trained on."""
    known = {(one.pair, one.where) for one in check_tokens(pairs, prepared.tokenizer)}
    return [
        one
        for one in check_pairs(pairs, prepared.behaviour, ANY_LENGTH)
        if (one.level == "error" or one.rule in CURATE_WARNINGS)
        and not (one.rule == "control-token" and (one.pair, one.where) in known)
    ]


def check_leaks(prepared: Prepared) -> list[Finding]:
    """Rules `test-split-in-training` (the very pair) and `leak` (its document, twin or near-duplicate)."""
    held = {split: pairs for split, pairs in prepared.splits.items() if split != "train"}
    pairs = [*prepared.pairs, *(pair for split in held.values() for pair in split)]
    names = ["train"] * len(prepared.pairs) + [split for split, found in held.items() for _ in found]
    keys = tie(pairs, prepared.behaviour, near_duplicate_pairs(pairs, prepared.behaviour), prepared.group_by)
    trained = {key for name, own in zip(names, keys, strict=True) if name == "train" for key in own}
    asked = {_asked(pair) for pair in prepared.pairs}
    found = []
    for pair, name, own in zip(pairs, names, keys, strict=True):
        shared = sorted(own & trained) if name != "train" else []
        if not shared:
            continue
        if _asked(pair) in asked:
            message, rule = f"this pair of the {name} split stands in the train split too", "test-split-in-training"
        else:
            message, rule = f"shared with the train split: {', '.join(map(spoken, shared[:3]))}", "leak"
        fix = "release anew with tutelage curate release --fresh; its splits share no document and no near-duplicate"
        found.append(_finding(rule, "error", pair.id, name, message, fix))
    return found


def _asked(pair: Pair) -> tuple[Any, ...]:
    return (pair.question, pair.history, tuple((one.id, one.text) for one in pair.passages))


def check_share(pairs: Sequence[Pair], prepared: Prepared, at_least: float) -> list[Finding]:
    """Rule `unanswerable-share`: abstention is learned from examples of it, and answering from examples of that."""
    behaviour = prepared.behaviour
    if behaviour.abstain is None or not pairs:
        return []
    share = sum(not behaviour.is_answerable(pair) for pair in pairs) / len(pairs)
    if share >= at_least:
        return []
    message = f"{share:.1%} of the training pairs are unanswerable; guards.unanswerable_share asks for {at_least:.0%}"
    fix = "tutelage curate unanswerable makes twins of answerable pairs; then release again"
    return [_finding("unanswerable-share", "error", None, "train", message, fix)]


def check_general(prepared: Prepared) -> list[Finding]:
    """Rules `retention-items` and `rehearsal-prompts`: what the guards measure on and replay."""
    found = []
    for row in prepared.retention_rows:
        for fault in row.faults:
            message = f"{fault.message}; it is left out of the retention loss"
            found.append(_finding("retention-items", "warning", row.id, "retention", message, FIXES[fault.rule]))
    rehearsal = prepared.recipe.guards.rehearsal
    if not rehearsal:
        return found
    found += check_rehearsal(prepared)
    held = {item.key() for item in prepared.retention}
    keys = {item.key() for item in prepared.prompts}
    if keys & held:
        message = f"{len(keys & held)} rehearsal prompts are held-out retention items; they are left out of rehearsal"
        fix = "keep the two files apart"
        found.append(_finding("rehearsal-prompts", "warning", None, "rehearsal", message, fix))
    wanted = rehearsal_count(len(prepared.kept(prepared.train)), rehearsal.share)
    if len(keys - held) < wanted:
        level: Level = "warning" if keys - held else "error"
        message = f"{wanted} rehearsal examples are wanted, there are {len(keys - held)} different prompts"
        fix = "name more prompts at guards.rehearsal.prompts, or lower guards.rehearsal.share"
        found.append(_finding("rehearsal-prompts", level, None, "rehearsal", message, fix))
    return found


def check_rehearsal(prepared: Prepared) -> list[Finding]:
    """Rule `rehearsal-prompts` on each item: a control token in it, too many tokens, an answer that cannot be learned.

    What the base will answer by itself is not there yet; then the prompts alone are looked at.
    """
    written = prepared.recipe.guards.rehearsal and prepared.recipe.guards.rehearsal.source != "self"
    most, special = prepared.recipe.training.max_length, special_tokens(prepared.tokenizer)
    found = []
    for item, row in zip(prepared.prompts, prepared.prompt_rows, strict=True):
        faults = [f"{fault.rule}: {fault.message}" for fault in row.faults if written or fault.rule in REFUSED]
        texts = [*(message["content"] for message in item.messages()), row.answer]
        faults += [f"{token} stands in it" for token in sorted(special) if any(token in text for text in texts)]
        tokens = len(row.ids) if written else row.prompt_tokens
        faults += [f"{tokens:,} tokens, more than training.max_length"] if tokens > most else []
        fix = "mend the item, or take it out of the file"
        found += [_finding("rehearsal-prompts", "error", item.id, "rehearsal", fault, fix) for fault in faults[:1]]
    return found


def special_tokens(tokenizer: Any) -> set[str]:
    """The tokens that a text must not hold: they would be read as themselves, not as their letters."""
    special = {str(token) for token in tokenizer.all_special_tokens}
    special |= {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return {token for token in special if token}


def length_statistics(rows: Sequence[Rendered]) -> dict[str, Any]:
    """Tokens per example and per answer: smallest, median, 95th percentile, largest, sum; None without rows."""
    return {
        "examples": len(rows),
        "tokens": _spread([len(one.ids) for one in rows]),
        "answer_tokens": _spread([len(one.ids) - one.prompt_tokens for one in rows]),
    }


def _spread(values: Sequence[int]) -> dict[str, int] | None:
    if not values:
        return None
    ordered = sorted(values)
    at = {"median": 0.5, "p95": 0.95}
    quantiles = {name: ordered[min(len(ordered) - 1, int(share * len(ordered)))] for name, share in at.items()}
    return {"smallest": ordered[0], **quantiles, "largest": ordered[-1], "sum": sum(ordered)}


def summary(findings: Sequence[Finding]) -> str:
    """Findings for people: errors first, each rule's first few."""
    shown: Counter[str] = Counter()
    lines = []
    for one in sorted(findings, key=lambda finding: finding.level != "error"):
        shown[one.rule] += 1
        if shown[one.rule] <= 3:
            place = f"{one.pair} ({one.where})" if one.pair else one.where
            lines.append(f"{one.level}: {one.rule}: {place}: {one.message}\n  To mend it: {one.fix}")
    more = [f"{rule}: {count - 3} more (--json shows all)" for rule, count in sorted(shown.items()) if count > 3]
    return "\n".join([*lines, *more])


def _finding(rule: str, level: Level, pair: str | None, where: str, message: str, fix: str) -> Finding:
    return Finding(rule=rule, level=level, pair=pair, where=where, message=message, fix=fix)
