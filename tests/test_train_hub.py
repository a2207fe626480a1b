"""A base on a hub that cannot be reached is told at once, not after minutes of retries."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub
import pytest

from curate.errors import TrainingError
from train.hub import hub_answers
from train.model import load_config, load_tokenizer
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


CALLS = {
    "trl": "train(Workspace(Path()), Request(Path('recipe.yaml')))",  # there is no release: it ends after its imports
    "lm_eval": "_manager(['none'], Path('nowhere'))",
}
SCRIPT = """
import sys
from pathlib import Path
from curate.errors import TutelageError
from curate.workspace import Workspace
from eval.harness import _manager
from train.training import Request, train
try:
    {call}
except TutelageError:
    assert {library!r} in sys.modules
    from huggingface_hub import constants
    print("silent", constants.HF_HUB_DISABLE_TELEMETRY)
"""


@pytest.mark.slow
@pytest.mark.parametrize("library", CALLS)
def test_the_hub_is_told_nothing_and_no_kernel_is_missed(library: str, tiny_base: Path, tmp_path: Path) -> None:
    pytest.importorskip(library)
    (tmp_path / "recipe.yaml").write_text(f"base: {{model: '{tiny_base}'}}\n", encoding="utf-8")
    script = SCRIPT.format(call=CALLS[library], library=library)
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_TELEMETRY"}
    environment["PYTHONPATH"] = str(Path(__file__).parent.parent)
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.stdout == "silent True\n", done.stderr
    assert "kernels" not in done.stderr
