"""Where the tokens that a server names stand in its text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from eval.placing import place_tokens


@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12), st.data())
def test_tokens_are_placed_byte_for_byte(text: str, data: st.DataObject) -> None:
    whole = text.encode()
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(whole) - 1)), max_size=5)))
    tokens = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True) if a < b]
    places = place_tokens(text, [*tokens, b"<|im_end|>"])
    assert places is not None
    assert len(places) == len(tokens)
    for (start, end), token in zip(places, tokens, strict=True):
        assert token in text[start:end].encode()
        assert len(text[start:end].encode()) <= len(token) + 6, "no more than the characters it touches"
    assert places[0][0] == 0
    assert places[-1][1] == len(text)


def test_pieces_spelled_as_replacement_characters_share_their_characters() -> None:
    broken = "\ufffd".encode()
    assert place_tokens("aüb", [b"a", broken, broken, b"b", b"<end>"]) == [(0, 1), (1, 2), (1, 2), (2, 3)]
    assert place_tokens("aü", [b"a", broken, broken]) == [(0, 1), (1, 2), (1, 2)]
    assert place_tokens("abc", [b"a", b"x"]) is None
    assert place_tokens("abc", [b"a"]) is None


def test_a_blank_that_a_server_leaves_out_is_passed_over() -> None:
    assert place_tokens("a bc", [b"a", b"bc"]) == [(0, 1), (2, 4)]
    assert place_tokens("a, bc", [b"a", b"bc"]) is None
