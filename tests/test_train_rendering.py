"""The prompt is the start of what is trained on, and loss stands on answer and stop token alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from shared_base import CHATML, make_tokenizer

from curate.errors import TrainingError
from train.rendering import Rendered, contract, render_pairs, render_prompt

STOP = (3,)
ASK = [{"role": "user", "content": "Which colour?"}]


def render_pair(tokenizer: Any, messages: Any, answer: str, stop: tuple[int, ...], name: str = "") -> Rendered:
    return render_pairs(tokenizer, [(name, messages, answer)], stop)[0]


def rendered(template: str = CHATML, answer: str = '{"a": "red"}', stop: tuple[int, ...] = STOP) -> Any:
    return render_pair(make_tokenizer(template), ASK, answer, stop, "p1")


def test_loss_is_on_the_answer_and_one_stop_token() -> None:
    tokenizer = make_tokenizer()
    row = render_pair(tokenizer, ASK, "réd", STOP, "p1")
    assert not row.faults
    assert (
        tokenizer.decode(row.ids[: row.prompt_tokens])
        == "<|im_start|>user\nWhich colour?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.decode(list(row.ids[row.prompt_tokens :])) == "réd<|im_end|>"


def test_what_follows_the_stop_token_is_left_out() -> None:
    assert rendered().ids[-1] == 3  # ChatML writes a line break after it


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        # the prompt alone ends otherwise than the conversation goes on
        (("'<|im_start|>assistant\n'", "'<|im_start|>assistant: '"), "prompt-mismatch"),
        # a thinking model's template: a block before the answer that the prompt does not have
        (
            (
                "m['content'] + '<|im_end|>",
                "('<think></think>' if m['role'] == 'assistant' else '') + m['content'] + '<|im_end|>",
            ),
            "prompt-mismatch",
        ),
        # no stop token after an answer
        (("m['content'] + '<|im_end|>\n'", "m['content'] + '\n'"), "stop-token-not-learned"),
        # the template loses the answer
        (
            ("m['content'] + '<|im_end|>", "('' if m['role'] == 'assistant' else m['content']) + '<|im_end|>"),
            "prompt-mismatch",
        ),
    ],
)
def test_templates_that_train_badly(change: tuple[str, str], rule: str) -> None:
    assert change[0] in CHATML
    faults = rendered(CHATML.replace(*change)).faults
    assert [one.rule for one in faults] == [rule]


def test_a_stop_token_that_the_model_does_not_know() -> None:
    assert [one.rule for one in rendered(stop=(1,)).faults] == ["stop-token-not-learned"]


def test_tokens_that_join_over_the_boundary() -> None:
    from tokenizers import AddedToken

    tokenizer = make_tokenizer()
    tokenizer.add_tokens([AddedToken('\n{"a', normalized=False)])
    row = render_pair(tokenizer, ASK, '{"a": 1}', STOP)
    assert [one.rule for one in row.faults] == ["prompt-mismatch"]


def test_a_stop_token_inside_the_answer() -> None:
    assert [one.rule for one in rendered(answer="red<|im_end|>blue").faults] == ["control-token"]


def test_an_answer_of_nothing_has_the_stop_token_only() -> None:
    row = rendered(answer="")
    assert not row.faults
    assert row.ids[row.prompt_tokens :] == (3,)


def test_a_template_that_refuses_is_an_error_of_ours() -> None:
    with pytest.raises(TrainingError, match="refuses"):
        render_prompt(make_tokenizer("{{ raise_exception('no system here') }}"), ASK)


def test_contract_says_what_a_server_must_do() -> None:
    tokenizer = make_tokenizer()
    said = contract(tokenizer, STOP, ASK)
    assert said["stop_tokens"] == [{"id": 3, "text": "<|im_end|>"}]
    assert said["example"]["prompt"] == render_prompt(tokenizer, ASK)
    other = contract(make_tokenizer(CHATML + " "), STOP, ASK)
    assert other["template_sha256"] != said["template_sha256"]


def test_letters_that_the_tokenizer_writes_anew_are_the_same_letters() -> None:
    from tokenizers import normalizers

    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    row = render_pair(tokenizer, ASK, "cafe\u0301 \u2126", STOP, "p1")
    assert row.faults == ()
    assert "caf\u00e9" in tokenizer.decode(row.ids[row.prompt_tokens :])


def test_of_several_templates_the_default_is_taken(tiny_base: Path, tmp_path: Path) -> None:
    from train.model import load_tokenizer
    from train.recipe import Base

    tokenizer = make_tokenizer()
    tokenizer.chat_template = {"default": CHATML, "tool_use": "{{ raise_exception('tools') }}"}
    base = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    tokenizer.save_pretrained(str(base))
    assert "tools" not in load_tokenizer(Base(model=str(base))).chat_template
