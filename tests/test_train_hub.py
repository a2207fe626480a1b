"""A base on a hub that cannot be reached is told at once, not after minutes of retries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import huggingface_hub
import pytest

from curate.errors import TrainingError
from train.model import hub_answers, load_config, load_tokenizer
from train.recipe import Base


class Unreachable:
    """A client of the hub whose every request fails, and which counts them."""

    def __init__(self) -> None:
        self.asked = 0

    def head(self, url: str, timeout: float) -> Any:
        self.asked += 1
        assert timeout <= 10
        raise httpx2.ConnectError("Name or service not known")


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Unreachable]:
    found = Unreachable()
    monkeypatch.setattr(huggingface_hub, "get_session", lambda: found)
    monkeypatch.setattr(huggingface_hub.constants, "is_offline_mode", lambda: False)
    hub_answers.cache_clear()
    yield found
    hub_answers.cache_clear()


def test_a_hub_that_does_not_answer_is_asked_once(client: Unreachable) -> None:
    base = Base(model="nobody/no-such-model")
    for load in (load_tokenizer, load_config):
        with pytest.raises(TrainingError, match="does not answer, and the base is not in its cache") as caught:
            load(base)
        assert "hf download nobody/no-such-model" in str(caught.value)
    assert client.asked == 1


def test_a_directory_never_asks(client: Unreachable, tiny_base: Any) -> None:
    assert load_tokenizer(Base(model=str(tiny_base))).chat_template
    assert client.asked == 0
