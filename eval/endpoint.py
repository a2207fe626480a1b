"""Answers over an OpenAI-compatible chat-completions endpoint: vLLM, `transformers serve`, a hosted model.

Messages go over as they are: the server writes the prompt, as it will for the product. The key comes from the
environment (`TUTELAGE_API_KEY`) and goes nowhere but into the request's header.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit

import httpx

from curate.apikey import read_key, without_password
from curate.behaviour import Behaviour
from curate.errors import EndpointError, WorkspaceError
from curate.files import sha256_text
from curate.manifest import Input
from curate.workspace import Workspace
from eval.answering import confidence_from
from eval.placing import place_tokens
from eval.reply import Reply, read_reply
from eval.subject import LIKELIEST, Manner, Side, run_input
from train.rendering import Message
from train.run import Run, load_run

KEY = "TUTELAGE_API_KEY"
ATTEMPTS = 6
LONGEST_WAIT_SECONDS = 60.0
FEW = 8  # answers without log-probabilities, after which none is looked for in more
TIMEOUT = httpx.Timeout(600.0, connect=10.0)  # an answer may have to wait for others


@dataclass(frozen=True)
class Served:
    """Where models are served and by which names. `base_model` is the base beside the tuned one, where there is one."""

    url: str
    model: str | None = None
    base_model: str | None = None
    concurrency: int = 8
    logprobs: bool = True


class Endpoint:
    """A served model, asked like a `Subject`. A refused, late or failed request is sent again, with longer waits."""

    def __init__(
        self,
        name: str,
        served: Served,
        run: Run | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self.name = name
        self.run = run
        self.served = served
        self.url = base_url(served.url)
        self._stop = Event()  # set when an answer is refused or Ctrl-C comes: no other request is begun or repeated
        self._sleep = sleep or self._stop.wait
        self._told: list[bool] = []  # of each answer, whether it had log-probabilities
        self._placed = False  # whether the tokens of any answer were found in its text
        self._key = read_key(KEY)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        kept = httpx.Limits(max_connections=served.concurrency, max_keepalive_connections=served.concurrency)
        self._client = httpx.Client(headers=headers, timeout=TIMEOUT, limits=kept, transport=transport)
        self.model = served.model or self._only_model()

    @property
    def sides(self) -> tuple[Side, ...]:
        """The base can be asked where the server has it under a name of its own."""
        return ("tuned", "base") if self.served.base_model else ("tuned",)

    def render(self, messages: Sequence[Message]) -> str:
        """The messages as JSON: here a prompt is what goes over the wire."""
        return json.dumps(list(messages), ensure_ascii=False)

    def longest(self, texts: Sequence[str]) -> int:
        """Tokens of the longest text at most, counted without a tokenizer: two bytes a token is few for any text."""
        return max((len(text.encode()) // 2 for text in texts), default=0)

    def answer(
        self, side: Side, prompts: Sequence[str], max_new_tokens: int, manner: Manner = LIKELIEST
    ) -> list[Reply]:
        """Answers in the order of the prompts, `concurrency` at a time. Raises `EndpointError`."""
        model = self._name_of(side)

        def ask(prompt: str) -> Reply:
            return self._reply(self._body(model, prompt, max_new_tokens, manner), bool(manner.temperature))

        replies = self._all(ask, prompts)
        if self.served.logprobs and not manner.temperature:
            self._check_told()
            self._check_places(replies)
        return replies

    def _all(self, ask: Callable[[str], Reply], prompts: Sequence[str]) -> list[Reply]:
        """Ask by several threads. They are daemons: who stops must not wait for answers that nobody wants any more."""
        waiting: SimpleQueue[tuple[int, str]] = SimpleQueue()
        done: SimpleQueue[tuple[int, Reply | BaseException]] = SimpleQueue()
        for one in enumerate(prompts):
            waiting.put(one)

        def work() -> None:
            while not self._stop.is_set():
                try:
                    number, prompt = waiting.get_nowait()
                except Empty:
                    return
                try:
                    done.put((number, ask(prompt)))
                except BaseException as error:  # it is raised again where it is waited for
                    done.put((number, error))
                    return

        for _ in range(min(self.served.concurrency, len(prompts))):
            Thread(target=work, daemon=True).start()
        replies: dict[int, Reply] = {}
        try:
            while len(replies) < len(prompts):
                number, found = done.get()
                if isinstance(found, BaseException):
                    raise found
                replies[number] = found
        except BaseException:
            self._stop.set()
            raise
        return [replies[number] for number in range(len(prompts))]

    def _check_places(self, replies: Sequence[Reply]) -> None:
        """Raise `EndpointError` where of no answer so far the tokens stand in its text; one odd one is no reason."""
        told = [one for one in replies if one.text and one.tokens is not None]
        self._placed = self._placed or any(place_tokens(one.text, one.tokens or ()) for one in told)
        if told and not self._placed:
            raise EndpointError(
                "the tokens that the server names are not those of its answers, so there is no confidence",
                where=self.url,
                fix="update it, take confidence from drawn answers (--samples 5), or go without (--no-logprobs);"
                " each in a report of its own (--name)",
            )

    def confidence(self, behaviour: Behaviour, answer: Reply) -> float | None:
        """The same number as in process: see `answering.confidence_of`."""
        if answer.logprobs is None or answer.tokens is None:
            return None
        places = place_tokens(answer.text, answer.tokens)
        if places is None:
            return None

        def within(span: tuple[int, int]) -> list[int]:
            return [i for i, (start, end) in enumerate(places) if start < span[1] and end > span[0]]

        return confidence_from(behaviour, answer.text, answer.logprobs[: len(places)], within)

    def input(self, directory: Path) -> tuple[str, Input]:
        """The run it serves, else the served name. The address is hashed: a report may go where it must not."""
        if self.run:
            return run_input(self.run, directory)
        return "model", Input(path=f"endpoint:{self.model}", sha256=sha256_text(f"{self.url} {self.model}"))

    def binding(self, schema: Any) -> dict[str, Any]:
        """The server binds outputs by an engine of its own; some servers ignore that they were asked to."""
        return {"engine": "the server's", "ignored": None}

    def facts(self) -> dict[str, str]:
        """What decides its answers, as a report names it."""
        named = {"Served model": self.model}
        return named | ({"Served base": self.served.base_model} if self.served.base_model else {})

    def key(self, side: Side) -> list[str]:
        """What marks its answers beside the run and the side: the served name, the address (hashed), what was asked."""
        return [self._name_of(side), sha256_text(self.url), str(self.served.logprobs)]

    def _name_of(self, side: Side) -> str:
        return self.model if side == "tuned" else str(self.served.base_model)

    def _body(self, model: str, prompt: str, max_new_tokens: int, manner: Manner) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": model,
            "messages": json.loads(prompt),
            "max_tokens": max_new_tokens,
            "temperature": manner.temperature,
            "seed": manner.seed,
        }
        if self.served.logprobs and not manner.temperature:
            body["logprobs"] = True
        if manner.schema is not None:
            wanted = {"name": "output", "schema": manner.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": wanted}
        return body

    def _reply(self, body: dict[str, Any], drawn: bool) -> Reply:
        begun = time.perf_counter()
        document = self._send("POST", "/chat/completions", body)
        reply = read_reply(document, time.perf_counter() - begun)
        if reply is None:
            raise EndpointError(
                f"this is no chat completion: {self._shown(json.dumps(document))}",
                where=self.url,
                fix="name the address under which /chat/completions stands, as in http://localhost:8000/v1",
            )
        if self.served.logprobs and not drawn and reply.text:
            self._told.append(reply.logprobs is not None)
            if len(self._told) >= FEW:  # a server that has none need not be asked the whole batch
                self._check_told()
        return reply

    def _check_told(self) -> None:
        """Raise `EndpointError` where no answer so far had log-probabilities; one odd one is no reason."""
        if self._told and not any(self._told):
            raise EndpointError(
                "the server gives no log-probabilities, so there is no confidence and no calibration",
                where=self.url,
                fix="take confidence from drawn answers (--samples 5), or go without (--no-logprobs)",
            )

    def _only_model(self) -> str:
        document = self._send("GET", "/models", None)
        listed = document.get("data") if isinstance(document, dict) else None
        names = [str(one.get("id")) for one in listed or [] if isinstance(one, dict) and one.get("id")]
        if len(names) != 1:
            shown = ", ".join(names[:10]) or "none"
            raise EndpointError(f"which model? The server has: {shown}", where=self.url, fix="name one with --model")
        return names[0]

    def _send(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        """The JSON that came back; raises `EndpointError` where it did not after all attempts."""
        last = ""
        for attempt in range(ATTEMPTS):
            if self._stop.is_set():
                raise EndpointError("stopped", where=self.url)
            wait = min(LONGEST_WAIT_SECONDS, 0.5 * 2**attempt)
            try:
                response = self._client.request(method, self.url + path, json=body)
            except httpx.RequestError as error:
                last = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            except httpx.InvalidURL as error:
                raise EndpointError(f"this is no address: {error}", where=self.url) from None
            else:
                if response.is_success:
                    return _json(response, self.url)
                last = f"HTTP {response.status_code}: {self._shown(response.text)}"
                if response.status_code not in (408, 409, 429) and response.status_code < 500:
                    raise self._refused(response.status_code, last)
                wait = max(wait, _retry_after(response))
            if attempt + 1 < ATTEMPTS:
                self._sleep(min(wait, LONGEST_WAIT_SECONDS))
        fix = "see that the server runs and the address is right; the same command goes on where this one stopped"
        raise EndpointError(f"no answer after {ATTEMPTS} attempts: {self._shown(last)}", where=self.url, fix=fix)

    def _refused(self, status: int, said: str) -> EndpointError:
        if status in (401, 403):
            key = f"the key in {KEY} is not accepted" if self._key else f"put the key into the environment as {KEY}"
            return EndpointError(f"the server lets nobody in without a right key ({said})", where=self.url, fix=key)
        fix = "name a model that the server has, with --model" if status == 404 else "see what the server says"
        return EndpointError(f"the server refuses the request: {said}", where=self.url, fix=fix)

    def _shown(self, text: str) -> str:
        """What a server said, on one line, cut, and without the key should it echo it."""
        shown = " ".join(text.split())
        return (shown.replace(self._key, "***") if self._key else shown)[:300]


def base_url(given: str) -> str:
    """The address under which /chat/completions stands: `http://host:8000` means `http://host:8000/v1`."""
    try:
        parts = urlsplit(given)
    except ValueError:  # half an IPv6 address
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise EndpointError(
            f"{without_password(given)!r} is no http address", fix="as in --endpoint http://localhost:8000/v1"
        )
    if parts.query:
        fix = "an OpenAI-compatible server needs none; some have a path without it, such as Azure's /openai/v1"
        raise EndpointError("an address with a query is not supported", fix=fix)  # nor shown: it may be a key
    if parts.username or parts.password:
        raise EndpointError("an address must hold no password: it gets into logs", fix=f"put a key into {KEY}")
    path = parts.path.rstrip("/").removesuffix("/chat/completions") or "/v1"
    return f"{parts.scheme}://{parts.netloc}{path}"


def _json(response: httpx.Response, url: str) -> Any:
    try:
        return response.json()
    except ValueError:
        fix = "name the address of the API, as in http://localhost:8000/v1"
        raise EndpointError("what came back is not JSON", where=url, fix=fix) from None


def _retry_after(response: httpx.Response) -> float:
    """Seconds the server asks to wait; 0 where it does not say so in seconds."""
    try:
        return max(0.0, float(response.headers.get("retry-after", "0")))
    except ValueError:
        return 0.0


def find_endpoint(workspace: Workspace, named: str, served: Served) -> Endpoint:
    """The served run of that name, or a served model that is called so in the report."""
    try:
        run = load_run(workspace.find("run", named))
    except WorkspaceError:
        if (workspace.runs / named).exists() or Path(named).exists():
            raise
        return Endpoint(named.rpartition("/")[2], served)
    return Endpoint(f"{run.manifest.name}-served", served, run)
