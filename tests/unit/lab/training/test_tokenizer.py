"""Byte-level tokens are the bytes, whatever the text, also after saving."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from blockcoupling.lab.training.tokenizer import (
    END_OF_TEXT,
    END_OF_TEXT_ID,
    VOCABULARY,
    byte_characters,
    byte_tokenizer,
)

TOKENIZER = byte_tokenizer(128)
texts = st.text().filter(lambda text: END_OF_TEXT not in text)


@given(texts)
def test_tokens_are_bytes_and_come_back_as_the_text(text: str) -> None:
    ids = TOKENIZER(text)["input_ids"]
    assert ids == list(text.encode())
    assert TOKENIZER.decode(ids) == text


def test_characters_for_bytes_are_gpt2s() -> None:
    assert dict(enumerate(byte_characters())) == bytes_to_unicode()


def test_the_mark_between_texts() -> None:
    assert TOKENIZER(END_OF_TEXT)["input_ids"] == [END_OF_TEXT_ID]
    assert len(TOKENIZER) == VOCABULARY
    assert TOKENIZER.bos_token_id == TOKENIZER.eos_token_id == END_OF_TEXT_ID


@pytest.mark.parametrize("text", ["", " two  spaces ", "né\x00\n", "don't"])
def test_a_saved_tokenizer_is_the_same(tmp_path: Path, text: str) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded(text)["input_ids"] == list(text.encode())
    assert loaded.model_max_length == 128
