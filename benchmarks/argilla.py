"""Push, pull and the reviewers' queue against the Argilla SDK's plain `records.log`, on one server, in one run.

    python benchmarks/argilla.py --sizes 1000 10000

The SDK logs the same fields, metadata and suggestion; our push also runs every check, plans the splits, and looks at
what is there. Both go to fresh datasets of the same layout, in turn, so that neither has the quieter machine.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from curate import layout
from curate.argilla.boards import ensure_board, ensure_team, find_team, open_board
from curate.argilla.client import PAGE, Client
from curate.argilla.environment import cache_directory, prepare
from curate.argilla.server import Options, serving
from curate.behaviour import load_behaviour
from curate.consensus import version_of
from curate.pairs import make_pair, read_pairs, write_pairs
from curate.pulling import pull
from curate.review import PushOptions, hints, push
from curate.workspace import Workspace

BEHAVIOUR = """
name: bench
prompt: "{{ question }} {{ passages }}"
output: {format: json}
abstain: {where: /status, equals: unknown, output: {status: unknown, answer: null, citations: []}}
answer: {at: /answer}
citations: {at: /citations}
"""
WORDS = ["returns", "window", "parcel", "refund", "label", "courier", "depot", "invoice", "voucher", "receipt"]
RESPONSES = 50  # made before the pull, so that it has something to bring


def make_workspace(root: Path, size: int) -> Workspace:
    draw = random.Random(size)

    def text(words: int) -> str:
        return " ".join(f"{draw.choice(WORDS)}{draw.randrange(1000)}" for _ in range(words))

    root.mkdir()
    (root / "behaviour.yaml").write_text(BEHAVIOUR, encoding="utf-8")
    pairs = (
        make_pair(
            {
                "id": f"b{number:06}",
                "question": f"What of {text(8)}?",
                "passages": [{"id": f"p{n}", "text": text(80), "source": f"d{number}.md#{n}"} for n in (1, 2, 3)],
                "output": {"status": "answered", "answer": text(3), "citations": ["p1"]},
            },
            "bench",
        )
        for number in range(size)
    )
    write_pairs(root / "pairs.jsonl", pairs)
    return Workspace(root)


def timed(work: Any) -> tuple[float, Any]:
    before = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - before
    print(f"{seconds:.2f} s", file=sys.stderr, flush=True)
    return seconds, result


def sdk_log(client: Client, api_key: str, workspace: Workspace) -> float:
    """The plain SDK: a dataset of our layout, its records made beforehand, `records.log` timed."""
    here = str(Path(__file__).parent)
    sys.path = [path for path in sys.path if path != here]  # or `import argilla` would find this very file
    import argilla as rg

    behaviour, pairs = load_behaviour(workspace.behaviour), read_pairs(workspace.pairs)
    team = ensure_team(client, "sdk")
    name = f"sdk-{len(pairs)}"
    ensure_board(client, team, name, 2, "Guidelines.", is_json=behaviour.is_json)
    sdk = rg.Argilla(api_url=client.url, api_key=api_key, timeout=600)
    dataset = sdk.datasets(name, workspace="sdk")
    records = []
    for pair in pairs:
        one = layout.record(pair, behaviour, layout.metadata(pair, behaviour, version_of(pair)))
        records.append(
            rg.Record(
                id=one["external_id"],
                fields={key: value for key, value in one["fields"].items() if value is not None},
                metadata=one["metadata"],
                suggestions=[rg.Suggestion(layout.CORRECTED, one[layout.SUGGESTED], agent="proposed")],
            )
        )
    seconds, _ = timed(lambda: dataset.records.log(records, batch_size=PAGE))
    return seconds


def respond(client: Client, board: str, count: int) -> None:
    """Submit `count` answers as the owner, so that a pull has something to bring."""
    done = 0
    for page in client.records(board):
        items = [
            {
                "record_id": one["id"],
                "status": "submitted",
                "values": {"decision": {"value": "accept"}, "answerable": {"value": "yes"}},
            }
            for one in page[: count - done]
        ]
        for start in range(0, len(items), 100):
            client.request("POST", "/me/responses/bulk", body={"items": items[start : start + 100]})
        done += len(items)
        if done >= count:
            return


def queue_latency(client: Client, board: str) -> dict[str, float]:
    """Milliseconds of the page of ten that a reviewer's browser asks for: as it comes, by a word (in some 2 of 100
    records), and by two prefixes that stand in every field of nearly every record: the most there is to rank.
    """
    scope = {"entity": "response", "property": "status"}
    body = {"filters": {"and": [{"type": "terms", "scope": scope, "values": ["pending"]}]}}
    found = {}
    texts = {"queue": None, "word_search": "refund12", "prefix_search": "refund* parcel*"}
    for name, text in texts.items():
        query = {**body, "query": {"text": {"q": text}}} if text else body
        taken = []
        for _ in range(15):
            seconds, _ = timed(
                lambda query=query: client.request(
                    "POST", f"/me/datasets/{board}/records/search", body=query, params={"limit": 10}
                )
            )
            taken.append(seconds * 1000)
        found[f"{name}_median_ms"], found[f"{name}_max_ms"] = statistics.median(taken), max(taken)
    return found


def measure(client: Client, api_key: str, root: Path, size: int) -> dict[str, Any]:
    workspace = make_workspace(root / f"w{size}", size)
    report = {"pairs": size}
    seconds, _ = timed(lambda: push(client, workspace, PushOptions(team=f"t{size}"), lambda *_: None))
    checks, _ = timed(lambda: hints(workspace, read_pairs(workspace.pairs), load_behaviour(workspace.behaviour)))
    sdk = sdk_log(client, api_key, workspace)
    again, _ = timed(lambda: push(client, workspace, PushOptions(), lambda *_: None))
    board = open_board(client, find_team(client, f"t{size}") or "", "bench", adjudication=False)
    assert board is not None
    respond(client, board.id, RESPONSES)
    pulled, done = timed(lambda: pull(client, workspace, lambda *_: None))
    assert len(done.new) == RESPONSES
    report |= {
        "push_seconds": seconds,
        "of_it_checks_and_splits_seconds": checks,
        "sdk_log_seconds": sdk,
        "push_records_per_second": size / seconds,
        "sdk_records_per_second": size / sdk,
        "push_against_sdk": sdk / seconds,
        "push_again_seconds": again,
        "pull_seconds": pulled,
        "pull_records_per_second": size / pulled,
    }
    return {name: round(value, 3) for name, value in (report | queue_latency(client, board.id)).items()}


def main() -> None:
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--port", type=int, default=6955)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    python = prepare(cache_directory(), lambda reached: None)
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        home = Options(root / "home", port=options.port)
        before = time.perf_counter()
        with serving(python, home) as (_, credentials), Client(home.url, credentials.api_key, patience=300) as client:
            ready = time.perf_counter() - before
            measure(client, credentials.api_key, root, 60)  # warms the server up: nobody's first request counts
            sizes = [measure(client, credentials.api_key, root, size) for size in options.sizes]
    document = {
        "command": "python benchmarks/argilla.py --sizes " + " ".join(map(str, options.sizes)),
        "python": sys.version.split()[0],
        "machine": f"{platform.machine()}, {platform.system()}",
        "ready_seconds_first_start": round(ready, 1),
        "sizes": sizes,
    }
    text = json.dumps(document, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
