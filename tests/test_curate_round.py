"""A whole round of review against the real argilla-server: push, three reviewers, adjudication, pull, release."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import krippendorff as reference
import numpy as np
import pytest
from click.testing import CliRunner, Result

import tutelage
from curate import layout
from curate.argilla.client import Client
from curate.consensus import Entry
from curate.pairs import Pair, make_pair, write_pairs
from curate.review_log import review_state
from curate.workspace import Workspace

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PAIRS = 300
REVIEWERS = ("anna", "ben", "chris")
BEHAVIOUR = """
name: support answers
system: Answer from the passages only.
prompt: "{% for p in passages %}[{{ p.id }}] {{ p.text }} {% endfor %}Question: {{ question }}"
output: {format: json, schema: schema.json}
abstain: {where: /status, equals: unknown, output: {status: unknown, answer: null, citations: []}}
answer: {at: /answer, compare: exact}
citations: {at: /citations}
gate: {hallucination_rate: {at_most: 0.05}}
"""
SCHEMA = {
    "type": "object",
    "required": ["status", "answer", "citations"],
    "additionalProperties": False,
    "properties": {
        "status": {"enum": ["answered", "unknown"]},
        "answer": {"type": ["string", "null"]},
        "citations": {"type": "array", "items": {"type": "string"}},
    },
}
PLACES = ["Lisbon", "Oslo", "Quito", "Perth", "Turin", "Accra", "Hanoi", "Sofia", "Lima", "Cairo"]
SUBJECTS = ["harbour", "library", "observatory", "tram depot", "botanical garden", "court", "mint", "lighthouse"]
ABSTENTION = {"status": "unknown", "answer": None, "citations": []}


def synthetic_pair(number: int) -> Pair:
    """A question on a document of its own; every fourth has no answer in its passages."""
    draw = random.Random(number)
    subject, place = draw.choice(SUBJECTS), draw.choice(PLACES)
    year, noise = (
        1700 + draw.randrange(300),
        " ".join(draw.choice(SUBJECTS) + str(draw.randrange(10**6)) for _ in range(12)),
    )
    holds = number % 4 != 0
    told = f"The {subject} of {place} was opened in {year}." if holds else f"The {subject} of {place} is well known."
    output = {"status": "answered", "answer": str(year), "citations": ["p1"]} if holds else ABSTENTION
    return make_pair(
        {
            "id": f"pair-{number:03}",
            "question": f"When was the {subject} of {place} opened ({noise.split()[0]})?",
            "passages": [
                {"id": "p1", "text": f"{told} {noise}", "source": f"guide-{number}.md#1"},
                {"id": "p2", "text": f"Opening hours & prices: <see> {noise[::-1]}", "source": f"guide-{number}.md#2"},
            ],
            "output": output,
            "answerable": holds,
            "source": "log-a" if number % 2 else "log-b",
        },
        "synthetic",
    )


def make_workspace(root: Path, pairs: int = PAIRS) -> Path:
    root.mkdir(parents=True)
    (root / "behaviour.yaml").write_text(BEHAVIOUR, encoding="utf-8")
    (root / "schema.json").write_text(json.dumps(SCHEMA), encoding="utf-8")
    write_pairs(root / "pairs.jsonl", map(synthetic_pair, range(pairs)))
    return root


class Server:
    """`tutelage curate serve` in a process of its own, which can be killed and started again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[str] | None = None
        self.ready_seconds: list[float] = []

    def start(self) -> dict[str, Any]:
        before = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tutelage", "-C", str(self.root), "curate", "serve", "--json",
             "--port", str(self.port)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        assert self.process.stdout is not None
        text = ""
        while not text.rstrip().endswith("}"):
            line = self.process.stdout.readline()
            assert line, self.process.stderr.read() if self.process.stderr else ""
            text += line
        self.ready_seconds.append(time.monotonic() - before)
        found: dict[str, Any] = json.loads(text)
        return found

    def server_pid(self) -> int:
        return int(json.loads((self.root / ".argilla" / "server.json").read_text())["pid"])

    def kill_and_restart(self) -> None:
        """kill -9 the server itself; the command ends with one message; start it again."""
        assert self.process is not None
        os.kill(self.server_pid(), signal.SIGKILL)
        _, errors = self.process.communicate(timeout=60)
        assert self.process.returncode == 1
        assert "has ended by itself" in errors
        assert "Traceback" not in errors
        self.start()

    def stop(self) -> float:
        assert self.process is not None
        before = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=60)
        return time.monotonic() - before


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(make_workspace(tmp_path / "workspace"))
    made.start()
    yield made
    if made.process is not None and made.process.poll() is None:
        made.stop()


def run(root: Path, *arguments: str) -> Result:
    done = CliRunner().invoke(tutelage.main, ["-C", str(root), *arguments])
    assert done.exit_code == 0, done.output + done.stderr
    return done


def run_json(root: Path, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(root, *arguments, "--json").stdout)
    return found


class Person:
    """A reviewer at work, through the same requests as Argilla's pages send."""

    def __init__(self, server: Server, name: str) -> None:
        passwords = json.loads((server.root / ".argilla" / "passwords.json").read_text())
        self.http = httpx.Client(base_url=f"{server.url}/api/v1", timeout=120, trust_env=False)
        login = {"username": name, "password": passwords[server.url][name]}
        token = self.http.post("/token", data=login).raise_for_status().json()["access_token"]
        self.http.headers["Authorization"] = f"Bearer {token}"

    def board(self) -> str:
        items = self.http.get("/me/datasets").raise_for_status().json()["items"]
        assert len(items) == 1
        return str(items[0]["id"])

    def queue(self, status: str = "pending", limit: int = 1000) -> list[dict[str, Any]]:
        """What the page offers: records with no answer of this person's that still want one."""
        scope = {"entity": "response", "property": "status"}
        filters = [{"type": "terms", "scope": scope, "values": [status]}]
        if status == "pending":
            filters.append(
                {"type": "terms", "scope": {"entity": "record", "property": "status"}, "values": ["pending"]}
            )
        found: list[dict[str, Any]] = []
        while True:
            answer = self.http.post(
                f"/me/datasets/{self.board()}/records/search",
                json={"filters": {"and": filters}},
                params={"limit": min(limit, 500), "offset": len(found), "include": ["suggestions"]},
            )
            page = answer.raise_for_status().json()["items"]
            found += [item["record"] for item in page]
            if len(page) < 500:
                return found

    def submit(self, answers: list[tuple[str, dict[str, str]]]) -> None:
        """Submit answers to records, by the record's id in Argilla."""
        for start in range(0, len(answers), 50):
            items = [
                {
                    "record_id": record,
                    "status": "submitted",
                    "values": {name: {"value": value} for name, value in said.items()},
                }
                for record, said in answers[start : start + 50]
            ]
            done = self.http.post("/me/responses/bulk", json={"items": items}).raise_for_status().json()["items"]
            assert all(one["item"] is not None for one in done), done


def suggested(pair: Pair) -> str:
    return json.dumps(pair.output, indent=2, ensure_ascii=False)


def corrected(pair: Pair) -> str:
    return json.dumps({"status": "answered", "answer": f"in {pair.id}", "citations": ["p1"]})


def planted(number: int, reviewer: str) -> dict[str, str]:
    """What a reviewer says of a pair: mostly that it is right; some agree on a fix, some differ, some do it wrong."""
    pair = synthetic_pair(number)
    holds = "yes" if pair.answerable else "no"
    accept = {"decision": "accept", "answerable": holds, "corrected": suggested(pair)}
    fix = {"decision": "fix", "answerable": "yes", "corrected": corrected(pair), "why": "it reads better"}
    match number % 10:
        case 1:
            return fix
        case 2:
            return {"decision": "reject", "answerable": holds, "why": "off topic"}
        case 3:  # chris sees it otherwise than the two others
            return fix if reviewer == "chris" else accept
        case 7 if reviewer == "chris":  # and here he misses the answer
            return {"decision": "fix", "answerable": "no", "corrected": json.dumps(ABSTENTION)}
        case 4 if number % 20 == 4 and reviewer == "ben":  # cites what is not there
            return {**fix, "corrected": json.dumps({"status": "answered", "answer": "x", "citations": ["p9"]})}
        case 5 if number % 20 == 5 and reviewer == "anna":  # no JSON
            return {**fix, "corrected": '{"status": "answered", "answer": x}'}
    return accept


def asked(number: int) -> tuple[str, str]:
    """The two reviewers of a pair."""
    return tuple(name for index, name in enumerate(REVIEWERS) if index != number % 3)  # type: ignore[return-value]


def review_all(server: Server) -> None:
    for name in REVIEWERS:
        person = Person(server, name)
        todo = []
        for record in person.queue():
            number = int(record["external_id"].split("-")[1])
            if name in asked(number):
                todo.append((record["id"], planted(number, name)))
        person.submit(todo)


def mend_returned(server: Server) -> int:
    """Reviewers read the notice on what came back, and do it right."""
    mended = 0
    for name in REVIEWERS:
        person = Person(server, name)
        todo = []
        for record in person.queue("draft"):
            notice = record["fields"]["notice"]
            assert name in notice
            assert "cites p9" in notice or "cannot be read" in notice
            pair = synthetic_pair(int(record["external_id"].split("-")[1]))
            holds = "yes" if pair.answerable else "no"
            todo.append((record["id"], {"decision": "accept", "answerable": holds, "corrected": suggested(pair)}))
        person.submit(todo)
        mended += len(todo)
    return mended


def adjudicate(server: Server) -> int:
    """Dora decides for the correction in every dispute, having seen what both said."""
    person = Person(server, "dora")
    todo = []
    for record in person.queue():
        assert "Reviewer A" in record["fields"]["answers"]
        assert "Reviewer B" in record["fields"]["answers"]
        pair = synthetic_pair(int(record["external_id"].split("-")[1]))
        todo.append((record["id"], {"decision": "fix", "answerable": "yes", "corrected": corrected(pair)}))
    person.submit(todo)
    return len(todo)


PEOPLE = [part for name in REVIEWERS for part in ("--annotator", name)]


def whole_round(server: Server) -> dict[str, Any]:
    """From the first push to the release; returns what the release says of itself."""
    root = server.root
    pushed = run_json(root, "curate", "push", "--overlap", "2", *PEOPLE, "--adjudicator", "dora")
    assert sorted([*pushed["added"], *pushed["foreign"]]) or pushed["unchanged"]
    assert run_json(root, "curate", "push")["unchanged"] == PAIRS
    review_all(server)
    first = run_json(root, "curate", "pull")
    assert {one["reviewer"] for one in first["returned"]} == {"anna", "ben"}
    disputes = sum(number % 10 in (3, 7) and "chris" in asked(number) for number in range(PAIRS))
    assert first["to_adjudicate"] == disputes
    assert mend_returned(server) == len(first["returned"]) > 5
    assert adjudicate(server) == disputes
    last = run_json(root, "curate", "pull")
    assert last["to_adjudicate"] == 0
    assert sum(last["outcomes"][name] for name in ("accepted", "corrected", "rejected")) == PAIRS
    assert run_json(root, "curate", "pull")["new_responses"] == 0
    return run_json(root, "curate", "release", "--name", "v1")


def check_outcomes(root: Path) -> None:
    """Every pair ended as planted, and can be traced to who said so."""
    state = review_state(Workspace(root))
    for number in range(PAIRS):
        one = state.pairs[f"pair-{number:03}"]
        assert one.by == asked(number)
        if number % 10 == 1:
            assert one.outcome == "corrected"
        elif number % 10 == 2:
            assert one.outcome == "rejected"
        elif number % 10 in (3, 7) and "chris" in one.by:
            assert (one.outcome, one.adjudicator) == ("corrected", "dora")
        else:
            assert one.outcome == "accepted"
    rejected = {f"pair-{number:03}" for number in range(PAIRS) if number % 10 == 2}
    manifest = json.loads((root / "releases" / "v1" / "manifest.json").read_text())
    assert sum(split["pairs"] for split in manifest["details"]["splits"].values()) == PAIRS - len(rejected)


def check_alpha(root: Path) -> None:
    """`curate status` gives the krippendorff package's alpha, to 1e-9."""
    lines = (root / "review" / "responses.jsonl").read_text(encoding="utf-8").splitlines()
    last: dict[tuple[str, str], Entry] = {}
    for entry in map(Entry.model_validate_json, lines):
        if entry.round == "review":
            last[entry.pair, entry.reviewer] = entry
    names = sorted({pair for pair, _ in last})
    agreement = run_json(root, "curate", "status")["agreement"]
    for question, values in (("decision", ["accept", "fix", "reject"]), ("answerable", ["yes", "no"])):
        matrix = np.full((len(REVIEWERS), len(names)), np.nan)
        for (pair, reviewer), entry in last.items():
            matrix[REVIEWERS.index(reviewer), names.index(pair)] = values.index(entry.answers[question])
        expected = reference.alpha(reliability_data=matrix, level_of_measurement="nominal")
        found = agreement[question]
        assert found["alpha"] == pytest.approx(expected, abs=1e-9)
        assert found["low"] < found["alpha"] < found["high"]
        assert found["n"] == PAIRS


def test_round_gives_the_planted_outcomes_and_the_same_release_with_the_server_killed_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes = []
    for kills in (0, 2):
        server = Server(make_workspace(tmp_path / f"kills-{kills}"))
        server.start()
        with monkeypatch.context() as patch:
            if kills:
                plan_kills(server, patch)
            released = whole_round(server)
        assert len(server.ready_seconds) == 1 + kills
        check_outcomes(server.root)
        check_alpha(server.root)
        took = server.stop()
        assert took < 10, "Ctrl-C ends it (within 2 s on a machine that is not busy)"
        hashes.append(released)
    plain, killed = hashes
    assert plain["data_sha256"] == killed["data_sha256"]
    assert plain["sha256"] == killed["sha256"]


def plan_kills(server: Server, patch: pytest.MonkeyPatch) -> None:
    """Kill the server after the first page of the first push, and after the first page of the first pull."""
    upsert, records, left = Client.upsert_records, Client.records, {"push", "pull"}

    def upsert_and_kill(self: Client, dataset_id: str, sent: list[dict[str, Any]]) -> None:
        upsert(self, dataset_id, sent)
        if "push" in left:
            left.remove("push")
            server.kill_and_restart()

    def records_and_kill(self: Client, dataset_id: str, include: str | None = None) -> Iterator[list[dict[str, Any]]]:
        for page in records(self, dataset_id, include):
            yield page
            if include and "pull" in left:
                left.remove("pull")
                server.kill_and_restart()

    patch.setattr(Client, "upsert_records", upsert_and_kill)
    patch.setattr(Client, "records", records_and_kill)


def test_layout_is_what_argilla_shows(server: Server) -> None:
    """The record as reviewers get it: passages with ids, nothing of their text read as markup, the output to edit."""
    run(server.root, "curate", "push", *PEOPLE)
    record = Person(server, "anna").queue(limit=1)[0]
    pair = synthetic_pair(int(record["external_id"].split("-")[1]))
    assert record["fields"]["question"] == pair.question
    assert "<strong>[p1]</strong>" in record["fields"]["passages"]
    assert "&lt;see&gt;" in record["fields"]["passages"]
    assert record["suggestions"][0]["value"] == suggested(pair)
    assert record["metadata"]["source"] == pair.source
    assert record["metadata"]["split"] in ("train", "validation", "calibration", "test")
    assert layout.NOTICE not in {name for name, value in record["fields"].items() if value}


@pytest.fixture
def browser() -> Iterator[Any]:
    """Headless Chromium; skipped where the machine has none."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("no Chromium with its driver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1500,1050",
    ):
        options.add_argument(argument)
    made = webdriver.Chrome(options=options, service=Service(driver))
    yield made
    made.quit()


def test_reviewer_fixes_an_output_in_the_browser_and_pull_sees_it(server: Server, browser: Any) -> None:
    """Sign in, open the dataset, choose, correct, submit; `TUTELAGE_PICTURES` is a directory for pictures."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    run(server.root, "curate", "push", "--overlap", "1", *PEOPLE)
    wait = WebDriverWait(browser, 120)

    def one(xpath: str) -> Any:
        return wait.until(
            lambda driver: next(iter(e for e in driver.find_elements(By.XPATH, xpath) if e.is_displayed()), None)
        )

    def picture(name: str) -> None:
        if "TUTELAGE_PICTURES" in os.environ:
            time.sleep(2)
            browser.save_screenshot(str(Path(os.environ["TUTELAGE_PICTURES"]) / f"{name}.png"))

    browser.get(server.url)
    one("//input[@type='password']").send_keys(
        json.loads((server.root / ".argilla" / "passwords.json").read_text())[server.url]["anna"]
    )
    one("//input[not(@type='password')]").send_keys("anna")
    one("//button[@type='submit']").click()
    one("//*[normalize-space()='support-answers']").click()
    question = one("//*[normalize-space()='The question']/following::*[contains(text(), 'When was the')]").text
    pair = next(pair for pair in map(synthetic_pair, range(PAIRS)) if pair.question == question)
    for words in ("The proposed output", "The passages", "[p1]"):
        assert one(f"//*[contains(text(), '{words}')]")
    one("//label[contains(., 'Yes')]").click()
    one("//label[contains(., 'Fix it')]").click()
    picture("reviewing")
    box = one("//p[@contenteditable='true' and contains(., 'status')]")
    box.click()
    box.send_keys(Keys.CONTROL, "a")
    box.send_keys('{"status": "answered", "answer": "1999", "citations": ["p1"]}')
    one("//button[@type='submit' and contains(., 'Submit')]").click()
    wait.until(lambda driver: Person(server, "anna").queue("submitted"))
    done = run_json(server.root, "curate", "pull")
    assert done["new_responses"] == 1
    one_pair = review_state(Workspace(server.root)).pairs[pair.id]
    assert (one_pair.outcome, one_pair.by) == ("corrected", ("anna",))
    assert one_pair.output == {"status": "answered", "answer": "1999", "citations": ["p1"]}
    one("//*[normalize-space()='GUIDELINES' or normalize-space()='Guidelines']").click()
    picture("guidelines")
