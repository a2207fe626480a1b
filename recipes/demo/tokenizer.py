"""The demo's tokenizer: closed vocabulary, one token a word, lossless on any text.

A word must be the same token after a space, after a quote and at the start, or copying from a passage into JSON
would need one learned mapping per word. Byte-level BPE makes " red" and "red" two tokens; here the function words of
the templates (" of ", "The ") carry the spaces around them, and content words carry none. Anything that is not in
the vocabulary falls back to its bytes.
"""

import random
import re
from collections.abc import Iterable, Iterator

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from .general import CAPITALS, KIND_OF, KINDS, OPPOSITES, WORDS, general
from .reading import SYSTEMS, TASKS, context, dialogue
from .world import ATTRIBUTES, NAMES, SUPPORT_SYSTEM, words

PAD, END = "<|pad|>", "<|im_end|>"
TURNS = tuple(f"<|im_start|>{role}\n" for role in ("system", "user", "assistant"))
# A turn's opening is one token, which keeps the demo's prompts under a hundred tokens; the text is plain ChatML.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\n' -}}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}{{- message['content'] + '<|im_end|>' -}}{%- endgeneration -%}"
    "{%- else -%}{{- message['content'] + '<|im_end|>' -}}{%- endif -%}"
    "{{- '\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)
FUNCTION_WORDS = words("""
The the What Which Tell Name Write Make Check One word of is me does have gives kind thing city
number comes after before next opposite capital first last A a as to in with from only Answer Use Reply Be one You are
helpful short and be or""")
_PIECE = (
    rf" ?\b(?:{'|'.join(sorted(FUNCTION_WORDS, key=len, reverse=True))})\b ?"  # a template word and its spaces
    r"|[A-Za-z0-9]+"  # a content word
    r"|\n"
    r"|[^A-Za-z0-9\n]+"  # whatever separates words
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer, made from the word lists and a sample of the corpus; the same every time."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    vocabulary = {symbol: number for number, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    for piece in sorted(set(_pieces(_corpus()))):
        symbols = "".join(part for part, _ in byte_level.pre_tokenize_str(piece))
        vocabulary.setdefault(symbols, len(vocabulary))
    # ignore_merges: a piece in the vocabulary is one token; any other piece stays bytes, as there are no merges.
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_PIECE), behavior="isolated"), byte_level]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in (PAD, END, *TURNS)])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        padding_side="left",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def _pieces(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield from re.findall(_PIECE, text)


def _corpus() -> Iterator[str]:
    yield from NAMES
    for values in ATTRIBUTES.values():
        yield from values
    yield from (*ATTRIBUTES, *WORDS, *OPPOSITES, *CAPITALS, *CAPITALS.values(), *KIND_OF, *KINDS)
    yield from (str(number) for number in range(100))
    yield from (f"p{number}" for number in range(1, 10))
    yield from (*SYSTEMS, SUPPORT_SYSTEM)
    # JSON's punctuation, as json.dumps writes it.
    yield from ('{"a": "b", "c": ["d"]}', '{"a": null, "b": []}', '{"a": 1, "b": true, "c": null}', '{"a": ["b", "c"]}')
    rng = random.Random("tokenizer")
    for item in general(0, 6000, False, distinct=False):
        yield from (item["prompt"], item["answer"])
    for _ in range(2000):
        for turn in dialogue(rng, context(rng, rng.randint(1, 4), 2), 4, (1,) * len(TASKS)):
            yield from turn
