"""Texts become rows of token ids, and a wish for tokens becomes pairs of them."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from blockcoupling.errors import UserError
from blockcoupling.train.tokenizer import byte_tokenizer
from blockcoupling.transformer.tokens import token_pairs, tokenize


@pytest.mark.parametrize(
    "returned",
    [
        [3, 1, 4],
        [[3, 1, 4]],
        torch.tensor([3, 1, 4]),
        torch.tensor([[3, 1, 4]], dtype=torch.int32),
        {"input_ids": [3, 1, 4], "attention_mask": [1, 1, 1]},
        {"input_ids": torch.tensor([[3, 1, 4]])},
    ],
    ids=repr,
)
def test_any_callable_that_gives_ids_is_a_tokenizer(returned: object) -> None:
    prompt = tokenize(lambda text: returned, "anything", "p0")
    assert torch.equal(prompt.input_ids, torch.tensor([[3, 1, 4]]))
    assert prompt.input_ids.dtype == torch.long
    assert prompt.token_text == ("", "", "")
    assert prompt.id == "p0"


def test_a_tokenizer_of_the_library_also_tells_the_texts() -> None:
    prompt = tokenize(byte_tokenizer(64), "née", "p0")
    assert prompt.input_ids.tolist() == [list("née".encode())]
    assert prompt.token_text[0] == "n"
    assert prompt.token_text[-1] == "e"
    assert len(prompt.token_text) == 4  # the accented letter is two bytes


@pytest.mark.parametrize("returned", [[], [[]], {"input_ids": []}], ids=repr)
def test_an_empty_text_has_no_tokens(returned: object) -> None:
    assert tokenize(lambda text: returned, "", "p0").input_ids.shape == (1, 0)


@pytest.mark.parametrize("returned", [[[1, 2], [3, 4]], [[[1, 2]]]], ids=repr)
def test_more_than_one_row_is_refused(returned: object) -> None:
    with pytest.raises(UserError, match=r"prompt 'p0': .* shape \("):
        tokenize(lambda text: returned, "anything", "p0")


@pytest.mark.parametrize(
    ("tokens", "pairs"),
    [
        ("last", [(5, 5)]),
        ("all", [(t, t) for t in range(6)]),
        ([0, 3], [(0, 0), (3, 3)]),
        ([-1, -6], [(5, 5), (0, 0)]),
        ([(0, 5), (-2, -1)], [(0, 5), (4, 5)]),
        ([2, (1, 2)], [(2, 2), (1, 2)]),
        ({"every": 2}, [(1, 1), (3, 3), (5, 5)]),
        ({"every": 9}, [(5, 5)]),
        ({"every": 1}, [(t, t) for t in range(6)]),
    ],
    ids=repr,
)
def test_pairs(tokens: object, pairs: list[tuple[int, int]]) -> None:
    assert token_pairs(tokens, 6) == pairs


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ("first", "tokens = 'first': choose last, all"),
        ({"each": 2}, "every: n"),
        ({"every": 0}, "n ≥ 1"),
        ({"every": -1}, "n ≥ 1"),
        ([], "empty"),
        ([6], "token 6 is asked for, the prompt has tokens 0 … 5"),
        ([-7], "token -7 is asked for"),
        ([(0, 6)], r"token \(0, 6\) is asked for"),
        ([(3, 1)], r"tokens \(3, 1\): no later token acts on an earlier one"),
        ([(-1, -2)], r"tokens \(-1, -2\): no later token"),
    ],
    ids=repr,
)
def test_what_cannot_be_measured_is_refused(tokens: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        token_pairs(tokens, 6)


@given(st.integers(1, 300), st.integers(1, 50))
def test_law_every_nth_token_counts_back_from_the_last(length: int, n: int) -> None:
    chosen = [a for a, _ in token_pairs({"every": n}, length)]
    assert chosen[-1] == length - 1
    assert all(b - a == n for a, b in pairwise(chosen))
    assert chosen[0] < n
