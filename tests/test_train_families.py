"""Chat templates of the families we ship recipes for: what each does to a prompt, its answer and the stop token.

The templates are short versions of the published ones: tools, images and tool calls are left out, what is kept is
written as it is there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import tutelage_recipes

from curate.errors import TrainingError
from train.recipe import load_recipe
from train.rendering import Rendered, encode, follows_the_date, render_pairs, render_prompt, with_arguments

RECIPES = Path(str(tutelage_recipes.__file__)).parent
SYSTEM = {"role": "system", "content": "Answer from the passages."}
ASK = [{"role": "user", "content": "[p1] The mug is red.\nWhich colour?"}]
EARLIER = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."}]
ANSWER = '{"answer": "red"}'

# Qwen3 0.6B and 8B: one model for thinking and for answering at once
QWEN3 = """
{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.last_query_index == messages|length - 1 and message.role == "user" %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set content = message.content %}
        {%- set reasoning_content = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or reasoning_content) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') }}
            {{- '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""

# Qwen3 4B Instruct 2507: no thinking
QWEN3_2507 = """
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}"""

# Llama 3.1; 3.2 differs in the date alone
LLAMA = """
{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}"""
LLAMA_32 = LLAMA.replace(
    '    {%- set date_string = "26 Jul 2024" %}',
    "    {%- if strftime_now is defined %}\n"
    '        {%- set date_string = strftime_now("%d %b %Y") %}\n'
    "    {%- else %}\n"
    '        {%- set date_string = "26 Jul 2024" %}\n'
    "    {%- endif %}",
)

# Mistral 7B Instruct 0.3
MISTRAL = """
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
        {{- raise_exception("After the optional system message, conversation roles must alternate user/assistant") }}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- endif %}
{%- endfor %}"""

GEMMA_TURNS = (
    "{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}"
    "{% endif %}{{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else '')"
    " + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
# Gemma 2 raises at a system message, Gemma 3 writes it into the first user turn
GEMMA_2 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% set loop_messages = messages %}{% set first_user_prefix = '' %}" + GEMMA_TURNS
)
GEMMA_3 = (
    "{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}"
    "{%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}{%- set loop_messages = messages[1:] -%}"
    "{%- else -%}{%- set first_user_prefix = '' -%}{%- set loop_messages = messages -%}{%- endif -%}" + GEMMA_TURNS
)

# SmolLM2: a system message of its own where none is given
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Family:
    """A family's template, its special tokens, and what ends an answer."""

    template: str
    eos: str  # of tokenizer_config.json
    stop: tuple[str, ...]  # of generation_config.json, and eos
    tokens: tuple[str, ...] = ("<|im_start|>", "<|im_end|>")
    bos: str | None = None
    pad: str | None = None  # none published
    arguments: dict[str, bool | int | str] = field(default_factory=dict)

    def tokenizer(self) -> Any:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        special = list(dict.fromkeys([*self.tokens, *self.stop, *(one for one in (self.bos, self.pad) if one)]))
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        core = Tokenizer(models.BPE(vocab={one: i for i, one in enumerate(special + alphabet)}, merges=[]))
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = decoders.ByteLevel()
        core.add_special_tokens(special)
        made = PreTrainedTokenizerFast(
            tokenizer_object=core, bos_token=self.bos, eos_token=self.eos, pad_token=self.pad or self.eos
        )
        made.chat_template = with_arguments(self.template, self.arguments)
        return made

    def render(self, messages: list[dict[str, str]], answer: str = ANSWER) -> Rendered:
        tokenizer = self.tokenizer()
        stop = tokenizer.convert_tokens_to_ids(list(self.stop))
        return render_pairs(tokenizer, [("p1", messages, answer)], stop)[0]


LLAMA_TOKENS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end_of_text|>")
LLAMA_STOP = ("<|end_of_text|>", "<|eot_id|>")
GEMMA_TOKENS = ("<start_of_turn>", "<end_of_turn>")
FAMILIES = {
    "qwen3-thinking-off": Family(
        QWEN3, "<|im_end|>", ("<|im_end|>", "<|endoftext|>"), pad="<|endoftext|>", arguments={"enable_thinking": False}
    ),
    "qwen3-2507": Family(QWEN3_2507, "<|im_end|>", ("<|im_end|>", "<|endoftext|>"), pad="<|endoftext|>"),
    "llama-3.1": Family(LLAMA, "<|eot_id|>", LLAMA_STOP, LLAMA_TOKENS, bos="<|begin_of_text|>"),  # pad = eos
    "mistral": Family(MISTRAL, "</s>", ("</s>",), ("[INST]", "[/INST]"), bos="<s>"),  # pad = eos
    "gemma-2": Family(GEMMA_2, "<eos>", ("<eos>", "<end_of_turn>"), GEMMA_TOKENS, bos="<bos>", pad="<pad>"),
    "gemma-3": Family(GEMMA_3, "<eos>", ("<eos>", "<end_of_turn>"), GEMMA_TOKENS, bos="<bos>", pad="<pad>"),
    "smollm2": Family(SMOLLM2, "<|im_end|>", ("<|im_end|>",), pad="<|im_end|>"),
}
ENDS = {"mistral": "</s>", "gemma-2": "<end_of_turn>", "gemma-3": "<end_of_turn>", "llama-3.1": "<|eot_id|>"}
WITHOUT_SYSTEM = ("mistral", "gemma-2")


def learned(family: Family, row: Rendered) -> str:
    """The text of the tokens that carry loss in the batch the model is given, padding and all."""
    from train.guards import Example, collate
    from train.preflight import pad_of

    tokenizer = family.tokenizer()
    rows = [Example(row.ids, row.prompt_tokens), Example((*row.ids, 0, 0, 0), row.prompt_tokens)]
    labels = collate(rows, pad_of(tokenizer))["labels"][0].tolist()
    return str(tokenizer.decode([one for one in labels if one != -100], clean_up_tokenization_spaces=False))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("history", [[], EARLIER], ids=["alone", "after-history"])
def test_the_answer_and_its_stop_token_are_learned_after_the_prompt_a_server_renders(
    name: str, history: list[dict[str, str]]
) -> None:
    family = FAMILIES[name]
    messages = [*([] if name in WITHOUT_SYSTEM else [SYSTEM]), *history, *ASK]
    row = family.render(messages)
    assert not row.faults
    tokenizer = family.tokenizer()
    served = encode(tokenizer, [render_prompt(tokenizer, messages)])[0]
    assert list(row.ids[: row.prompt_tokens]) == served
    space = " " if name == "mistral" else ""  # its template writes one, so the model will
    assert learned(family, row) == space + ANSWER + ENDS.get(name, "<|im_end|>")
    if name not in WITHOUT_SYSTEM:
        assert SYSTEM["content"] in row.prompt
    assert row.prompt.count(family.bos or "no such text") == (1 if family.bos else 0)


def test_gemma_2_takes_no_system_message_and_we_say_where_to_put_it() -> None:
    with pytest.raises(TrainingError, match="takes no system message: System role not supported") as caught:
        FAMILIES["gemma-2"].render([SYSTEM, *ASK])
    assert "at the head of its `prompt`" in str(caught.value)


def test_gemma_3_folds_the_system_text_into_the_user_turn() -> None:
    row = FAMILIES["gemma-3"].render([SYSTEM, *ASK])
    assert row.prompt.startswith(f"<bos><start_of_turn>user\n{SYSTEM['content']}\n\n[p1]")


def test_mistral_drops_the_system_text_once_an_answer_follows_and_is_refused() -> None:
    row = FAMILIES["mistral"].render([SYSTEM, *ASK])
    assert [one.rule for one in row.faults] == ["prompt-mismatch"]
    assert "drops the system text" in row.faults[0].message


@pytest.mark.parametrize("name", ["mistral", "gemma-2", "gemma-3"])
def test_roles_that_must_take_turns_are_an_error_about_turns(name: str) -> None:
    with pytest.raises(TrainingError, match="alternate") as caught:
        FAMILIES[name].render([*ASK, *ASK])
    assert "in turn" in str(caught.value)


def test_a_thinking_template_is_refused_until_it_is_told_not_to_think() -> None:
    thinking = Family(QWEN3, "<|im_end|>", ("<|im_end|>",))
    row = thinking.render([SYSTEM, *ASK])
    assert [one.rule for one in row.faults] == ["prompt-mismatch"]
    assert "base.template_arguments: {enable_thinking: false}" in row.faults[0].message
    assert FAMILIES["qwen3-thinking-off"].render([SYSTEM, *ASK]).prompt.endswith("<think>\n\n</think>\n\n")


def test_arguments_are_written_into_the_template_so_that_nobody_need_pass_them() -> None:
    told = Family(QWEN3, "<|im_end|>", ("<|im_end|>",), arguments={"enable_thinking": False}).tokenizer()
    asked = Family(QWEN3, "<|im_end|>", ("<|im_end|>",)).tokenizer()
    wanted = asked.apply_chat_template(ASK, tokenize=False, add_generation_prompt=True, enable_thinking=False)
    assert render_prompt(told, ASK) == wanted
    words = with_arguments("{{ a }}|{{ b }}|{{ c }}", {"a": 'é "%}', "b": 3, "c": False})
    told.chat_template = words
    assert render_prompt(told, ASK) == 'é "%}|3|False'


def test_a_template_with_todays_date_is_noticed_until_the_date_is_fixed() -> None:
    newer = Family(LLAMA_32, "<|eot_id|>", LLAMA_STOP, LLAMA_TOKENS, bos="<|begin_of_text|>")
    assert follows_the_date(newer.tokenizer(), ASK)
    fixed = Family(
        LLAMA_32, "<|eot_id|>", LLAMA_STOP, LLAMA_TOKENS, "<|begin_of_text|>", arguments={"date_string": "26 Jul 2024"}
    )
    assert not follows_the_date(fixed.tokenizer(), ASK)
    assert "Today Date: 26 Jul 2024" in render_prompt(fixed.tokenizer(), ASK)
    assert not follows_the_date(FAMILIES["llama-3.1"].tokenizer(), ASK)


SHIPPED = {
    "qwen3-0.6b.yaml": "qwen3-thinking-off",
    "qwen3-4b.yaml": "qwen3-2507",
    "qwen3-8b.yaml": "qwen3-thinking-off",
    "llama-3.1-8b.yaml": "llama-3.1",
    "mistral-7b.yaml": "mistral",
    "gemma-2-9b.yaml": "gemma-2",
    "smollm2-1.7b.yaml": "smollm2",
}


def test_every_shipped_recipe_has_a_family_here() -> None:
    assert {path.name for path in RECIPES.glob("*.yaml") if not path.name.startswith("accelerate-")} == set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_parses_and_opens_with_what_a_person_needs(name: str) -> None:
    recipe = load_recipe(RECIPES / name)
    assert recipe.base.template_arguments == FAMILIES[SHIPPED[name]].arguments
    text = (RECIPES / name).read_text(encoding="utf-8")
    opening = text[: text.index("\nbase:")]
    assert all(line.startswith("#") for line in opening.splitlines())
    for wanted in ("# For: ", "# Hardware: ", "# Launch: tutelage train run recipe.yaml"):
        assert wanted in opening, wanted
    if SHIPPED[name] in WITHOUT_SYSTEM:
        assert "`system`" in opening
