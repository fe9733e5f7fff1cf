"""Texts become rows of token ids, and a wish for tokens becomes pairs of them."""

from io import StringIO
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, PreTrainedTokenizerFast

from blockcoupling.errors import UserError
from blockcoupling.lab.training.tokenizer import byte_tokenizer
from blockcoupling.transformer.tokens import texts_of, token_pairs, tokenize, tokenize_prompts


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
        ([6], "token 6 is out of range: the prompt has tokens 0 … 5"),
        ([-7], "token -7 is out of range"),
        ([(0, 6)], r"token \(0, 6\) is out of range"),
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


# ------------------------------------------------------- what a user hands over, as prompts of text


@pytest.mark.parametrize(
    "prompts",
    [
        ["one", "two"],
        ("one", "two"),
        pd.Series(["one", "two"], index=[7, 3]),
        pd.DataFrame({"text": ["one", "two"]})["text"],
        np.array(["one", "two"]),
        (word for word in ("one", "two")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_prompts_are_any_texts_in_an_order(prompts: object) -> None:
    assert texts_of(prompts) == ["one", "two"]


def test_a_text_alone_is_one_prompt() -> None:
    assert texts_of("couple") == ["couple"]
    assert texts_of(np.str_("couple")) == ["couple"]


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        (None, "not a NoneType"),
        (b"couple", "not a bytes"),
        (5, "not a int"),
        (Path("prompts.txt"), "not a PosixPath"),
        ({"a": "one"}, "not a dict; pass its texts as a list"),
        ({"one", "two"}, "not a set; pass"),
        (pd.DataFrame({"text": ["one"]}), "not a DataFrame; pass"),
        (StringIO("one\ntwo\n"), "not a StringIO; pass"),
        (["one", None], r"prompts must be strings; p1 is of type NoneType"),
        (["one", 2], r"p1 is of type int: 2"),
        ([b"one"], r"p0 is of type bytes"),
        ([["one", "two"]], r"p0 is of type list"),
        (pd.Series(["one", np.nan]), r"p1 is of type float: nan"),
        (torch.tensor([[1, 2]]), r"p0 is of type Tensor"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_text_is_refused(prompts: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        texts_of(prompts)


# ------------------------------------------------------------------- marks that a tokenizer adds

BEGIN, END, PAD = 1, 2, 0
VOCABULARY = {"<pad>": PAD, "<s>": BEGIN, "</s>": END, "a": 5, "b": 6, "c": 7}


def fast_tokenizer(template: str) -> PreTrainedTokenizerFast:
    """A tokenizer of the library whose post-processor adds what the template has around $A."""
    words = Tokenizer(WordLevel(VOCABULARY))
    words.pre_tokenizer = Whitespace()
    marks = [("<s>", BEGIN), ("</s>", END)]
    words.post_processor = TemplateProcessing(single=template, special_tokens=marks)
    return PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


class SlowTokenizer:
    """A tokenizer in Python that takes the library's option, and adds both marks."""

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        ids = [VOCABULARY[word] for word in text.split()]
        return {"input_ids": [BEGIN, *ids, END] if add_special_tokens else ids}


CONFIGURED = SimpleNamespace(config=LlamaConfig(bos_token_id=BEGIN, eos_token_id=[END, 9]))


def plain_function(text: str) -> torch.Tensor:
    """A function that adds both marks, and that nothing can be asked about."""
    return torch.tensor([[BEGIN, *(VOCABULARY[word] for word in text.split()), END]])


def ids_of(tokenizer: object, *texts: str, model: object = CONFIGURED) -> list[list[int]]:
    prompts = tokenize_prompts(tokenizer, [(f"p{i}", t) for i, t in enumerate(texts)], model)
    return [prompt.input_ids[0].tolist() for prompt in prompts]


BOTH = pytest.mark.parametrize(
    "tokenizer",
    [fast_tokenizer("<s> $A </s>"), SlowTokenizer(), plain_function],
    ids=["fast", "slow", "function"],
)


@BOTH
def test_a_prompt_ends_in_its_own_text(tokenizer: object) -> None:
    assert ids_of(tokenizer, "a b c", "b") == [[BEGIN, 5, 6, 7], [BEGIN, 6]]
    assert ids_of(tokenizer, "a") == [[BEGIN, 5]]


@BOTH
def test_a_prompt_begins_once(tokenizer: object) -> None:
    assert ids_of(tokenizer, "<s> a b") == [[BEGIN, 5, 6]]


@BOTH
def test_an_end_mark_in_the_text_is_the_texts_own(tokenizer: object) -> None:
    assert ids_of(tokenizer, "a </s>", "b") == [[BEGIN, 5, END], [BEGIN, 6]]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("$A", [5, 6]),
        ("<s> $A", [BEGIN, 5, 6]),
        ("$A </s>", [5, 6]),
        ("<s> <s> $A </s> </s>", [BEGIN, BEGIN, 5, 6]),
        ("</s> $A", [END, 5, 6]),  # one mark for the end of a text and the beginning of the next
        ("</s> $A </s>", [END, 5, 6]),
    ],
)
def test_marks_are_told_by_where_the_tokenizer_puts_them(
    template: str, expected: list[int]
) -> None:
    assert ids_of(fast_tokenizer(template), "a b") == [expected]


def test_a_text_without_tokens_keeps_the_begin_mark_only() -> None:
    assert ids_of(fast_tokenizer("<s> $A </s>"), "") == [[BEGIN]]
    assert ids_of(fast_tokenizer("$A </s>"), "") == [[]]


def test_what_is_left_out_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    ids_of(fast_tokenizer("<s> $A </s>"), "a b c", "b", "c")
    (line,) = caplog.messages
    assert line.startswith(
        "3 of 3 prompts are measured without a special token that the tokenizer adds"
    )
    assert line.endswith("p0 has the tokens [1, 5, 6, 7], of [1, 5, 6, 7, 2]")


def test_a_tokenizer_that_adds_nothing_behind_the_text_is_no_news(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert ids_of(fast_tokenizer("<s> $A"), "a b") == [[BEGIN, 5, 6]]
    assert ids_of(lambda text: [4, 3], "a", "b") == [[4, 3], [4, 3]]
    assert caplog.messages == []


def test_without_a_configuration_ids_are_taken_as_they_are() -> None:
    assert ids_of(plain_function, "a", model=None) == [[BEGIN, 5, END]]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_no_part_of_a_prompt(side: str) -> None:
    library = fast_tokenizer("<s> $A")

    def padded(text: str) -> object:
        return library(
            text, padding="max_length", max_length=7, padding_side=side, return_tensors="pt"
        )

    assert ids_of(padded, "a b") == [[BEGIN, 5, 6]]


def test_a_mask_with_gaps_is_refused() -> None:
    with pytest.raises(UserError, match="leaves gaps"):
        ids_of(lambda text: {"input_ids": [3, 4, 5], "attention_mask": [1, 0, 1]}, "a")


@pytest.mark.parametrize(
    ("tokenizer", "words"),
    [
        (None, "of type NoneType, which cannot be called"),
        (Tokenizer(WordLevel({"a": 0})), "of type Tokenizer, which cannot be called"),
        (lambda text: None, "must return input_ids, not None"),
        (lambda text: ["▁a", "b"], "must return input_ids"),
        (lambda text: {"ids": [1]}, "returned ids without input_ids"),
        (lambda text: [1.5, 2.0], r"returned \[1.5, 2.0\]; input_ids are whole numbers"),
        (lambda text: [3, -1], r"returned \[3, -1\]; input_ids are whole numbers from 0"),
        (lambda text: 7, r"input_ids of shape \(\)"),
    ],
)
def test_what_is_no_tokenizer_is_refused(tokenizer: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        ids_of(tokenizer, "a")


def test_half_of_a_surrogate_pair_is_named() -> None:
    with pytest.raises(UserError, match=r"prompt 'p1': character 3 is half of a surrogate pair"):
        ids_of(fast_tokenizer("$A"), "a", "a \ud800")
