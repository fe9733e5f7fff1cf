"""A byte-level tokenizer in Hugging Face's form: 256 bytes and an end-of-text token."""

from typing import Any

END_OF_TEXT = "<|endoftext|>"
END_OF_TEXT_ID = 256
VOCABULARY = 257


def byte_characters() -> list[str]:
    """The printable character that byte-level tokenizers (GPT-2's) use for each byte, in order.

    Printable Latin-1 characters stand for themselves; the others are moved up, in order, to
    U+0100 and on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    moved = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(moved)) for byte in range(256)]


def byte_tokenizer(context: int) -> Any:
    """A `PreTrainedTokenizerFast` whose ids are the bytes of the text in UTF-8.

    Args:
        context: Length in bytes that it reports as the model's limit.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {character: byte for byte, character in enumerate(byte_characters())}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TEXT,
        bos_token=END_OF_TEXT,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
