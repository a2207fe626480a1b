"""Answering over an OpenAI-compatible endpoint: sent again when it must be, clear when it cannot, the same numbers."""

from __future__ import annotations

import itertools
import json
import math
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import eval_cases
import httpx
import pytest

from curate.behaviour import Output
from curate.errors import EndpointError, TutelageError
from eval.endpoint import ATTEMPTS, KEY, Endpoint, Served, base_url
from eval.reply import Reply, read_reply
from eval.subject import Manner

URL = "http://server.test/v1"


TEXT = '{"status": "answered", "answer": "ink", "citations": ["p1"]}'


ASKED = json.dumps([{"role": "user", "content": "colour?"}])


def completion(text: str = TEXT, finish: str = "stop", logprobs: dict[int, float] | None = None) -> dict[str, Any]:
    """A chat completion whose tokens are single characters, with a stop token at the end."""
    given_ = logprobs or {}
    content = [
        {"token": one, "bytes": list(one.encode()), "logprob": given_.get(i, 0.0)}
        for i, one in enumerate([*text, "<|im_end|>"])
    ]
    choice = {
        "message": {"role": "assistant", "content": text},
        "finish_reason": finish,
        "logprobs": {"content": content},
    }
    return {"choices": [choice], "usage": {"completion_tokens": len(content)}}


Handler = Callable[[httpx.Request], httpx.Response]


def endpoint(handler: Handler, waits: list[float] | None = None, **served: Any) -> Endpoint:
    settings = {"url": URL, "model": "tuned", **served}
    waited = [] if waits is None else waits
    return Endpoint("e", Served(**settings), None, httpx.MockTransport(handler), waited.append)


def test_the_request_is_greedy_seeded_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "secret-key")
    seen: list[tuple[Any, Any]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append((json.loads(request.content), request.headers.get("authorization")))
        return httpx.Response(200, json=completion())

    asked = endpoint(handler, base_model="plain")
    asked.answer("tuned", [ASKED], 77)
    asked.answer("base", [ASKED], 77, Manner(1.0, 5))
    asked.answer("tuned", [ASKED], 77, Manner(schema={"type": "object"}))
    message = [{"role": "user", "content": "colour?"}]
    common = {"messages": message, "max_tokens": 77}
    greedy = {"model": "tuned", **common, "temperature": 0.0, "seed": 0, "logprobs": True}
    bound = {"type": "json_schema", "json_schema": {"name": "output", "schema": {"type": "object"}, "strict": True}}
    assert [body for body, _ in seen] == [
        greedy,
        {"model": "plain", **common, "temperature": 1.0, "seed": 5},
        {**greedy, "response_format": bound},
    ]
    assert {key for _, key in seen} == {"Bearer secret-key"}


def test_answers_stand_in_the_order_of_the_questions() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        number = int(json.loads(request.content)["messages"][0]["content"])
        time.sleep(0.02 if number % 3 == 0 else 0)
        return httpx.Response(200, json=completion(str(number)))

    prompts = [json.dumps([{"role": "user", "content": str(i)}]) for i in range(40)]
    found = endpoint(handler, concurrency=7).answer("tuned", prompts, 5)
    assert [one.text for one in found] == [str(i) for i in range(40)]
    assert found[0].seconds >= 0.02
    assert found[0].count == 2


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_what_passes_is_sent_again_after_a_wait(status: int) -> None:
    replies = iter([httpx.Response(status), httpx.Response(status), httpx.Response(200, json=completion())])
    waits: list[float] = []
    assert endpoint(lambda _: next(replies), waits).answer("tuned", [ASKED], 5)[0].text == TEXT
    assert waits == [0.5, 1.0]


def test_the_servers_own_wait_is_kept_within_reason() -> None:
    asked = ["7", "99999", "Wed, 21 Oct 2037 07:28:00 GMT"]
    replies = iter([*(httpx.Response(429, headers={"retry-after": one}) for one in asked)])
    waits: list[float] = []
    endpoint(lambda _: next(replies, httpx.Response(200, json=completion())), waits).answer("tuned", [ASKED], 5)
    assert waits == [7.0, 60.0, 2.0]


@pytest.mark.parametrize("error", [httpx.ReadTimeout("slow"), httpx.ConnectError("refused"), httpx.ReadError("cut")])
def test_a_broken_line_is_tried_again_and_then_said(error: Exception) -> None:
    calls: list[float] = []
    waits: list[float] = []

    def handler(_: httpx.Request) -> httpx.Response:
        calls.append(0)
        raise error

    with pytest.raises(EndpointError, match=f"no answer after {ATTEMPTS} attempts: {type(error).__name__}") as caught:
        endpoint(handler, waits).answer("tuned", [ASKED], 5)
    assert caught.value.where == URL
    assert "goes on where this one stopped" in str(caught.value)
    assert len(calls) == ATTEMPTS
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0]


def test_nobody_is_let_in_without_the_key_and_the_key_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(401, text=f"bad key {request.headers.get('authorization')}")

    monkeypatch.delenv(KEY, raising=False)
    waits: list[float] = []
    with pytest.raises(EndpointError, match="put the key into the environment as TUTELAGE_API_KEY"):
        endpoint(handler, waits).answer("tuned", [ASKED], 5)
    assert not waits, "asking again does not help"
    monkeypatch.setenv(KEY, "secret-key")
    with pytest.raises(EndpointError, match="is not accepted") as caught:
        endpoint(handler).answer("tuned", [ASKED], 5)
    assert "secret" not in str(caught.value)
    assert "***" in str(caught.value)


def test_a_server_without_logprobs_is_said_or_done_without() -> None:
    def handler(_: httpx.Request) -> httpx.Response:
        reply = completion()
        reply["choices"][0]["logprobs"] = None
        return httpx.Response(200, json=reply)

    with pytest.raises(EndpointError, match="no log-probabilities") as caught:
        endpoint(handler).answer("tuned", [ASKED], 5)
    assert "--samples 5" in str(caught.value)
    silent = endpoint(handler, logprobs=False)
    reply = silent.answer("tuned", [ASKED], 5)[0]
    assert silent.confidence(eval_cases.behaviour(), reply) is None
    assert endpoint(handler).answer("tuned", [ASKED], 5, Manner(1.0))[0].text == TEXT, "a draw needs none"


@pytest.mark.parametrize("odd", [{1}, {2, 5}, set(range(1, 8))])
def test_an_odd_answer_without_logprobs_has_no_confidence_and_stops_nothing(odd: set[int]) -> None:
    asked = itertools.count(1)

    def handler(_: httpx.Request) -> httpx.Response:
        reply = completion()
        if next(asked) in odd:
            reply["choices"][0]["logprobs"] = None
        return httpx.Response(200, json=reply)

    replies = endpoint(handler, concurrency=1).answer("tuned", [ASKED] * 20, 5)
    assert [number for number, one in enumerate(replies, start=1) if one.logprobs is None] == sorted(odd)


def test_a_server_without_logprobs_is_not_asked_everything_first() -> None:
    asked: list[int] = []

    def handler(_: httpx.Request) -> httpx.Response:
        asked.append(1)
        return httpx.Response(200, json={"choices": [{"message": {"content": TEXT}}]})

    with pytest.raises(EndpointError, match="no log-probabilities"):
        endpoint(handler, concurrency=1).answer("tuned", [ASKED] * 64, 5)
    assert len(asked) < 12


@pytest.mark.parametrize(
    "body", ["<html>", "[]", "{}", '{"choices": []}', '{"choices": [{"message": {"content": 5}}]}']
)
def test_what_is_no_completion_is_said(body: str) -> None:
    with pytest.raises(EndpointError, match=r"not JSON|no chat completion"):
        endpoint(lambda _: httpx.Response(200, text=body)).answer("tuned", [ASKED], 5)


def test_a_refused_request_shows_what_the_server_says() -> None:
    with pytest.raises(EndpointError, match="HTTP 400: too long"):
        endpoint(lambda _: httpx.Response(400, text="too\nlong")).answer("tuned", [ASKED], 5)
    with pytest.raises(EndpointError, match="--model"):
        endpoint(lambda _: httpx.Response(404, text="no such model")).answer("tuned", [ASKED], 5)


def test_the_only_model_is_taken_and_one_of_many_is_asked_for() -> None:
    def serving(*names: str) -> Handler:
        return lambda _: httpx.Response(200, json={"data": [{"id": name} for name in names]})

    assert endpoint(serving("one"), model=None).model == "one"
    with pytest.raises(EndpointError, match="The server has: one, two"):
        endpoint(serving("one", "two"), model=None)
    with pytest.raises(EndpointError, match="The server has: none"):
        endpoint(serving(), model=None)


@pytest.mark.parametrize(
    ("given_", "wanted"),
    [
        ("http://h:8000", "http://h:8000/v1"),
        ("http://h:8000/", "http://h:8000/v1"),
        ("https://h/openai/v1/", "https://h/openai/v1"),
        ("http://h/v1/chat/completions", "http://h/v1"),
    ],
)
def test_an_address_may_be_short_or_long(given_: str, wanted: str) -> None:
    assert base_url(given_) == wanted


@pytest.mark.parametrize("given_", ["localhost:8000", "ftp://h/v1", "", "http://user:pass@h/v1", "http://"])
def test_a_bad_address_is_refused(given_: str) -> None:
    with pytest.raises(EndpointError):
        base_url(given_)


@pytest.mark.parametrize("given_", ["http://host/v1?api-key=hunter2", "ftp://b:hunter2@host"])
def test_a_bad_address_does_not_show_what_is_secret_in_it(given_: str) -> None:
    with pytest.raises(EndpointError) as caught:
        base_url(given_)
    assert "hunter2" not in str(caught.value)


def test_confidence_is_that_of_the_answers_value() -> None:
    at = TEXT.index("ink")
    logprobs = {0: -5.0, at - 1: -4.0, at: math.log(0.5), at + 1: math.log(0.8), at + 3: -3.0, len(TEXT): -9.0}
    reply = read_reply(completion(logprobs=logprobs), 0.1)
    assert reply is not None
    found = endpoint(lambda _: httpx.Response(200)).confidence(eval_cases.behaviour(), reply)
    assert found == pytest.approx(0.4 ** (1 / 3), abs=1e-6)


def test_an_interrupt_stops_the_rest() -> None:
    asked: list[int] = []

    def handler(_: httpx.Request) -> httpx.Response:
        asked.append(0)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return httpx.Response(200, json=completion())

    with pytest.raises(KeyboardInterrupt):
        endpoint(handler, concurrency=1).answer("tuned", [ASKED] * 50, 5)
    assert len(asked) < 50


def test_a_refusal_ends_at_once_while_others_are_tried_again() -> None:
    """The waits are the endpoint's own: they end with the first refusal."""
    asked: list[int] = []
    lock = threading.Lock()

    def handler(_: httpx.Request) -> httpx.Response:
        with lock:
            asked.append(0)
            first = len(asked) == 1
        if first:
            time.sleep(0.2)  # so that the others are waiting for their second attempt
        return httpx.Response(400, text="no") if first else httpx.Response(503)

    begun = time.monotonic()
    asker = Endpoint("e", Served(URL, "tuned", concurrency=4), None, httpx.MockTransport(handler))
    with pytest.raises(EndpointError, match="no"):
        asker.answer("tuned", [ASKED] * 50, 5)
    assert time.monotonic() - begun < 5, "six attempts with their waits take 15 seconds"
    count = len(asked)
    time.sleep(1)
    assert len(asked) == count < 50


def test_who_stops_does_not_wait_for_answers_in_flight() -> None:
    """One answer is refused while another is on its way from a real server, which takes its time."""
    slow = threading.Event()

    class Slow(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            refused = b"refuse" in self.rfile.read(int(self.headers["content-length"]))
            if not refused:
                slow.wait(20)
            self.send_error(400)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    asker = Endpoint("e", Served(f"http://127.0.0.1:{server.server_port}", "m", concurrency=4))
    refuse = json.dumps([{"role": "user", "content": "refuse"}])
    begun = time.monotonic()
    with pytest.raises(EndpointError, match="400"):
        asker.answer("tuned", [ASKED, ASKED, refuse], 5)
    assert time.monotonic() - begun < 10
    slow.set()
    server.shutdown()


def test_as_many_requests_are_under_way_as_were_asked_for() -> None:
    """More than the hundred that an HTTP client allows by itself: what waits for a place looks like a slow answer."""
    together = threading.Barrier(120, timeout=20)

    class Patient(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            together.wait()
            body = json.dumps({"choices": [{"message": {"content": TEXT}}]}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """A test is quiet."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 200

    server = Server(("127.0.0.1", 0), Patient)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    served = Served(f"http://127.0.0.1:{server.server_port}", "m", concurrency=120, logprobs=False)
    assert len(Endpoint("e", served).answer("tuned", [ASKED] * 120, 5)) == 120
    server.shutdown()


def test_tokens_that_are_not_those_of_the_answers_are_said() -> None:
    def handler(_: httpx.Request) -> httpx.Response:
        document = completion()
        document["choices"][0]["logprobs"]["content"] = [{"token": "Ġthat", "logprob": -0.1}]
        return httpx.Response(200, json=document)

    with pytest.raises(EndpointError, match="not those of its answers"):
        endpoint(handler).answer("tuned", [ASKED], 5)
    asker = endpoint(lambda _: httpx.Response(200, json=completion()))
    asker.answer("tuned", [ASKED], 5)
    asker._client = httpx.Client(transport=httpx.MockTransport(handler))
    (odd,) = asker.answer("tuned", [ASKED], 5)
    assert asker.confidence(eval_cases.behaviour(), odd) is None, "one odd answer among others"


@pytest.mark.parametrize("key", ["secret\nOTHER=1", "sécret"])
def test_a_key_that_no_header_can_hold_is_refused_unseen(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, key)
    with pytest.raises(TutelageError, match="is no API key") as caught:
        endpoint(lambda _: httpx.Response(200, json=completion()))
    assert key not in str(caught.value)


def test_answers_of_another_address_are_others() -> None:
    keys = [
        Endpoint("e", served, None, httpx.MockTransport(lambda _: httpx.Response(500))).key("tuned")
        for served in (Served(URL, "m"), Served("http://other.test/v1", "m"), Served(URL, "m", logprobs=False))
    ]
    assert len({tuple(key) for key in keys}) == 3
    more = Endpoint("e", Served(URL, "m", "base"), None, httpx.MockTransport(lambda _: httpx.Response(500)))
    assert more.key("tuned") == keys[0], "a base beside it changes none of its own answers"
    assert all("server.test" not in part for key in keys for part in key)


def test_no_content_is_an_empty_text() -> None:
    reply = read_reply({"choices": [{"message": {"content": None}, "finish_reason": "length"}]}, 0.5)
    assert reply == Reply("", False, 0.5, None)


@pytest.mark.parametrize("entry", [{"token": "a", "logprob": None}, {"token": "a"}, {"bytes": [300], "logprob": 0}, 5])
def test_an_answer_with_broken_logprobs_is_one_without(entry: Any) -> None:
    listed = [{"token": "b", "logprob": -0.5}, entry]
    choice = {"message": {"content": "ba"}, "logprobs": {"content": listed}, "finish_reason": "stop"}
    assert read_reply({"choices": [choice], "usage": {"completion_tokens": -1}}, 0.5) == Reply("ba", True, 0.5, None)


@pytest.mark.parametrize("logprobs", [True, False])
def test_half_a_character_is_kept_as_one_that_a_file_can_hold(logprobs: bool) -> None:
    tokens = [{"token": one, "bytes": None, "logprob": -0.5} for one in ("It is ", "\ud83d")]
    choice = {"message": {"content": "It is \ud83d"}, "logprobs": {"content": tokens} if logprobs else None}
    body = json.dumps({"choices": [choice]}).encode()  # the escape \ud83d, as servers write it
    server = endpoint(lambda _: httpx.Response(200, content=body), logprobs=logprobs)
    (reply,) = server.answer("tuned", [ASKED], 20)
    assert reply.text == "It is \ufffd"
    assert server.confidence(eval_cases.behaviour(output=Output(format="text")), reply) == (
        0.606531 if logprobs else None
    )
