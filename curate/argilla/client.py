"""The part of Argilla's REST API (v1) that a round of review needs; a hosted Argilla is no different from ours.

Argilla's own SDK is not used: it loses the status of a response on export and takes seconds to import. Requests are
repeated while the server is away, up to `patience` seconds; every one of them can be repeated without harm.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

import httpx

from curate.apikey import without_password
from curate.errors import ReviewError

PAGE = 256  # records a request; argilla-server slows down beyond
_AWAY = (408, 429, 500, 502, 503, 504)
Json = dict[str, Any]


class Conflict(ReviewError):
    """Something of that name exists already, made by someone else in the same moment or before."""


class Missing(ReviewError):
    """There is no such thing in Argilla (any more)."""


class Client:
    """A connection to one Argilla as one user. Use as a context manager."""

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        patience: float = 30.0,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        url = url.rstrip("/")
        self.url = without_password(url)  # as it is shown; a proxy may want a name and a password
        self.patience = patience
        self._sleep = sleep
        local = url.startswith(("http://127.0.0.1", "http://localhost", "http://[::1]"))
        try:
            base = httpx.URL(f"{url}/api/v1")
        except httpx.InvalidURL as error:
            raise ReviewError(f"{self.url} is no URL: {error}") from None
        self._http = httpx.Client(
            base_url=base,
            # On one machine an answer takes longer to compress than to hand over.
            headers={"X-Argilla-Api-Key": api_key, **({"Accept-Encoding": "identity"} if local else {})},
            timeout=httpx.Timeout(120, connect=5),
            transport=transport,
            trust_env=not local,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def request(
        self, method: str, path: str, *, body: Any = None, content: bytes | None = None, params: Any = None
    ) -> Any:
        """One request, repeated while the server is away; the answer's JSON, None where it has none.

        It carries `body` as JSON, or `content`, which is JSON already. Raises `Conflict` (409, or 422 for a name that
        is taken) and `ReviewError` (everything else, with what to do).
        """
        begun = time.monotonic()
        pause = 0.2
        if body is not None:
            content = _encode(body)
        headers = {"Content-Type": "application/json"} if content is not None else None
        while True:
            try:
                answer = self._http.request(method, path, content=content, params=params, headers=headers)
                if answer.status_code not in _AWAY:
                    return self._read(answer, method, path)
                trouble = f"it answers {answer.status_code} to {method} {path}"
            except httpx.UnsupportedProtocol:
                raise ReviewError(f"{self.url} is no URL", fix="begin it with http:// or https://") from None
            except httpx.TransportError as error:
                trouble = str(error) or type(error).__name__
            if time.monotonic() + pause > begun + self.patience:
                raise self.away(trouble)
            self._sleep(pause)
            pause = min(pause * 2, 3.0)

    def away(self, trouble: str) -> ReviewError:
        """The error for a server that does not answer."""
        return ReviewError(
            f"Argilla at {self.url} does not answer: {trouble}",
            fix="start it (tutelage curate serve) or check the URL, then run this command again:"
            " it goes on where it stopped, and nothing is doubled",
        )

    def _read(self, answer: httpx.Response, method: str, path: str) -> Any:
        if answer.status_code in (401, 403):
            what = "the API key is not accepted" if answer.status_code == 401 else "this user may not do that"
            raise ReviewError(
                f"Argilla at {self.url}: {what} ({method} {path})",
                fix="set ARGILLA_API_KEY to the key of an owner or admin: Argilla shows it under My settings",
            )
        if answer.is_success:
            try:
                return answer.json() if answer.content else None
            except ValueError:
                raise ReviewError(
                    f"{self.url} is no Argilla: it answers {method} {path} with something else than JSON",
                    fix="give the address that a browser shows for Argilla's first page",
                ) from None
        detail = _detail(answer)
        if answer.status_code == 409 or (answer.status_code == 422 and "already" in detail):
            raise Conflict(f"Argilla at {self.url}: {detail}")
        if answer.status_code == 404:
            raise Missing(f"Argilla at {self.url} has no {path}: {detail}")
        raise ReviewError(f"Argilla at {self.url} refuses {method} {path} ({answer.status_code}): {detail}")

    def get(self, path: str, **params: Any) -> Any:
        return self.request("GET", path, params=params or None)

    def items(self, path: str, **params: Any) -> list[Json]:
        """The `items` of a listing."""
        return list(self.get(path, **params)["items"])

    def records(self, dataset_id: str, include: str | None = None) -> Iterator[list[Json]]:
        """A dataset's records page by page, oldest first; `include` may be "responses"."""
        offset = 0
        while True:
            params = {"offset": offset, "limit": PAGE, **({"include": include} if include else {})}
            page = self.items(f"/datasets/{dataset_id}/records", **params)
            if page:
                yield page
            if len(page) < PAGE:
                return
            offset += PAGE

    def upsert_records(self, dataset_id: str, content: bytes) -> None:
        """Add records or change those with the same `external_id`; `content` holds at most `PAGE`, encoded."""
        path = f"/datasets/{dataset_id}/records/bulk"
        try:
            self.request("PUT", path, content=content)
        except Conflict:  # someone else added one of them in the same moment: now they are there to be changed
            self.request("PUT", path, content=content)

    def create(self, path: str, body: Json) -> Json | None:
        """Make something; None where someone else has made it already."""
        try:
            made: Json = self.request("POST", path, body=body)
        except Conflict:
            return None
        return made


def encode_records(records: list[Json]) -> bytes:
    """A page of records for `upsert_records`."""
    return _encode({"items": records})


def _encode(body: Any) -> bytes:
    text = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")  # half of a surrogate pair, which no release takes, is shown as `?`


def _detail(answer: httpx.Response) -> str:
    """What Argilla says is wrong, on one line."""
    try:
        detail = answer.json().get("detail", answer.text)
    except (ValueError, AttributeError):
        detail = answer.text
    if isinstance(detail, dict):
        params = detail.get("params") or {}
        errors = [f"{one.get('loc')}: {one.get('msg')}" for one in params.get("errors") or []]
        detail = "; ".join(errors) or params.get("detail") or detail.get("code") or detail
    return " ".join(str(detail).split())[:300] or answer.reason_phrase
