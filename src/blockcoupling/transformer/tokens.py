"""Prompts as the model sees them, and which of their tokens are measured.

The last token of a prompt is the one that answers. So an EOS token or padding that a tokenizer adds
after every text is removed; a BOS token before the text is kept, once.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from io import IOBase
from numbers import Integral
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from blockcoupling.errors import UserError
from blockcoupling.wording import lone_surrogate

logger = logging.getLogger(__name__)

Tokens = (
    Literal["last", "all", "class", "mean"]
    | Sequence[int | str]
    | Sequence[tuple[int | str, int | str]]
    | dict[str, int]
)
# Position of both tokens of the mean of J[t, t] over an image's patches.
MEAN = -2


@dataclass(frozen=True)
class TokenizedPrompt:
    """A prompt as the model sees it.

    Attributes:
        id: stable name of the prompt.
        input_ids: (1, token).
        token_text: the text of every token ("" if the tokenizer cannot decode).
        special_after: number of special tokens after the text.
        pairs: pairs of tokens (t1, t2) to measure, once they are known.
    """

    id: str
    input_ids: Int[Tensor, "1 token"]
    token_text: tuple[str, ...]
    special_after: int = 0
    pairs: tuple[tuple[int, int], ...] = ()

    @property
    def given(self) -> Int[Tensor, "1 token"]:
        """The model's input."""
        return self.input_ids

    @property
    def beginning(self) -> Int[Tensor, "1 token"]:
        """An input that shows what the model does: the first tokens."""
        return self.input_ids[:, :32]

    @property
    def length(self) -> int:
        """Number of tokens."""
        return self.input_ids.shape[1]

    @property
    def places(self) -> dict[str, tuple[int, ...]]:
        """Positions by name: the last token of the text itself."""
        return {"last": (max(0, self.length - 1 - self.special_after),)}


def texts_of(prompts: object) -> list[str]:
    """The texts that a user passed as prompts: one text, or several in a fixed order.

    Args:
        prompts: a text, or a list, tuple, column, array or generator of texts.

    Raises:
        UserError: the argument, or one of its elements, is of another type.
    """
    if isinstance(prompts, str):
        return [str(prompts)]
    kind = type(prompts).__name__
    holds_texts = isinstance(prompts, Mapping | Set | IOBase) or hasattr(prompts, "columns")
    if not isinstance(prompts, Iterable) or isinstance(prompts, bytes | bytearray) or holds_texts:
        raise UserError(
            f"prompts must be a string or a list of strings, not a {kind}"
            + ("; pass its texts as a list, in the order you want" if holds_texts else "")
        )
    texts = list(prompts)
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            kind = type(text).__name__
            raise UserError(f"prompts must be strings; p{number} is of type {kind}: {text!s:.40}")
    return [str(text) for text in texts]


def tokenize_prompts(
    tokenizer: Callable[..., Any], prompts: Iterable[tuple[str, str]], model: object = None
) -> list[TokenizedPrompt]:
    """Turn texts into prompts that end in their own text, as causal models are measured.

    Args:
        tokenizer: text → input_ids, or → a mapping that holds them.
        prompts: (id, text) of each.
        model: the model, whose configuration names BOS and EOS tokens.

    Raises:
        UserError: an entry is not a text, or the tokenizer does not return one row of ids for it.
    """
    return TokenizedTexts.of(tokenizer, prompts, model).without_special()


@dataclass(frozen=True)
class TokenizedTexts:
    """Texts as a tokenizer returns them, and without the special tokens that it adds after them.

    Which tokens are the tokenizer's is seen from what it returns with `add_special_tokens=False`,
    where it takes that argument. For any other callable, ids of the model's configuration are
    looked for: an EOS token was added if all the prompts end in it.

    Attributes:
        whole: as the tokenizer returns them, without padding.
        own: without an EOS token at the end, and with one BOS token at most.
    """

    whole: Sequence[TokenizedPrompt]
    own: Sequence[TokenizedPrompt]

    @classmethod
    def of(
        cls,
        tokenizer: Callable[..., Any],
        prompts: Iterable[tuple[str, str]],
        model: object = None,
    ) -> TokenizedTexts:
        """Tokenize texts; arguments and errors as in `tokenize_prompts`."""
        tokenizer = _callable(tokenizer)
        texts = list(prompts)
        whole = [tokenize(tokenizer, text, name) for name, text in texts]
        if _takes_special(tokenizer):
            plain = {"add_special_tokens": False}
            bare = [tokenize(tokenizer, text, name, **plain) for name, text in texts]
            before = _special_before(tokenizer)
            own = [_own(a, b, before) for a, b in zip(whole, bare, strict=True)]
        else:
            begin, end = (_ids_of(name, tokenizer, model) for name in ("bos", "eos"))
            appended = all(_ends_in(prompt, end) for prompt in whole)
            own = [_without(prompt, begin, end if appended else set()) for prompt in whole]
        return cls(whole, own)

    def with_special(self) -> list[TokenizedPrompt]:
        """The prompts with all their special tokens, as encoders were trained.

        The last token of a prompt is still the text's own (`special_after`).
        """
        return [
            replace(a, special_after=_behind(a.input_ids[0].tolist(), b.input_ids[0].tolist()))
            for a, b in zip(self.whole, self.own, strict=True)
        ]

    def without_special(self) -> list[TokenizedPrompt]:
        """The prompts that end in their own text; a warning says where tokens were removed."""
        changed = [
            (a, b)
            for a, b in zip(self.whole, self.own, strict=True)
            if a.input_ids.shape != b.input_ids.shape
        ]
        if changed:
            a, b = changed[0]
            logger.warning(
                "%d of %d prompts are measured without a special token that the tokenizer adds "
                "after the text, or a second time before it, so that they begin once and end in "
                "their own text: %s has the tokens %s, of %s",
                len(changed),
                len(self.whole),
                a.id,
                _shown(b),
                _shown(a),
            )
        return list(self.own)


def tokenize(
    tokenizer: Callable[..., Any], text: str, name: str, **options: Any
) -> TokenizedPrompt:
    """Turn a text into one row of token ids without padding, which may be empty.

    Args:
        tokenizer: text → input_ids, or → a mapping that holds them.
        text: the text.
        name: the prompt's id.
        options: arguments for the tokenizer.

    Raises:
        UserError: the text is not a string, or the tokenizer does not return one row of ids.
    """
    if not isinstance(text, str):
        raise UserError(f"prompt {name!r} must be a string, not {type(text).__name__}")
    if (place := lone_surrogate(text)) is not None:
        raise UserError(
            f"prompt {name!r}: character {place + 1} is half of a surrogate pair "
            f"({text[place]!a}) and has no meaning; correct the text"
        )
    encoded = tokenizer(text, **options)
    mask = None
    if hasattr(encoded, "keys"):
        if "input_ids" not in encoded:
            raise UserError(
                f"prompt {name!r}: the tokenizer returned {', '.join(map(str, encoded))} without "
                "input_ids"
            )
        encoded, mask = encoded["input_ids"], encoded.get("attention_mask")
    ids = _row(getattr(encoded, "ids", encoded), name)
    if mask is not None and torch.as_tensor(mask).numel() == len(ids):
        ids = _unmasked(ids, torch.as_tensor(mask).reshape(-1), name)
    return TokenizedPrompt(name, ids[None], tuple(text_of(tokenizer, i) for i in ids.tolist()))


def text_of(tokenizer: Any, token: int) -> str:
    """The text of a token; "" if the tokenizer cannot decode."""
    decode = getattr(tokenizer, "decode", None)
    return str(decode([token])) if decode else ""


def _callable(tokenizer: Any) -> Callable[..., Any]:
    inner = getattr(tokenizer, "tokenizer", None)
    if hasattr(tokenizer, "image_processor") and callable(inner):  # a processor of several inputs
        return inner
    if not callable(tokenizer):
        raise UserError(
            f"the tokenizer is of type {type(tokenizer).__name__}, which cannot be called: pass a "
            "function from a text to its input_ids"
        )
    return tokenizer


def _row(values: Any, name: str) -> Int[Tensor, " token"]:
    """One row of whole numbers, from (token,) or (1, token)."""
    try:
        found = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"prompt {name!r}: the tokenizer must return input_ids, not {str(values)[:60]} "
            f"({type(values).__name__})"
        ) from error
    if found.ndim == 0 or found.ndim > 2 or (found.ndim == 2 and found.shape[0] != 1):
        raise UserError(
            f"prompt {name!r}: the tokenizer returned input_ids of shape {tuple(found.shape)}; a "
            "text has one row of ids, (token,) or (1, token)"
        )
    if found.numel() and (found.is_floating_point() or found.is_complex() or (found < 0).any()):
        raise UserError(
            f"prompt {name!r}: the tokenizer returned {found.flatten().tolist()[:5]}; input_ids "
            "are whole numbers from 0"
        )
    return found.reshape(-1).long()


def _unmasked(
    ids: Int[Tensor, " token"], mask: Int[Tensor, " token"], name: str
) -> Int[Tensor, " token"]:
    """The ids that the attention mask keeps; the others are padding, before or after them."""
    kept = mask.nonzero().flatten()
    if len(kept) and int(kept[-1] - kept[0]) + 1 != len(kept):
        raise UserError(
            f"prompt {name!r}: the tokenizer's attention_mask leaves gaps between the tokens, but "
            "only a contiguous text can be measured"
        )
    return ids[kept]


def _takes_special(tokenizer: Callable[..., Any]) -> bool:
    try:
        return "add_special_tokens" in inspect.signature(tokenizer).parameters
    except (TypeError, ValueError):  # a callable without a signature
        return False


def _special_before(tokenizer: Callable[..., Any]) -> int:
    """How many ids the tokenizer puts before a text."""
    probe = [
        tokenize(tokenizer, "a", "a", **options).input_ids[0].tolist()
        for options in ({}, {"add_special_tokens": False})
    ]
    return next(iter(_places(*probe)), 0)


def _places(whole: Sequence[int], piece: Sequence[int]) -> list[int]:
    """The positions of `piece` in `whole`."""
    last = len(whole) - len(piece)
    return [start for start in range(last + 1) if whole[start : start + len(piece)] == piece]


def _own(whole: TokenizedPrompt, bare: TokenizedPrompt, before: int) -> TokenizedPrompt:
    """A text with what the tokenizer adds before it, once, and nothing after it."""
    ids, own = whole.input_ids[0].tolist(), bare.input_ids[0].tolist()
    places = _places(ids, own)
    if not places:
        # With special tokens the text itself is tokenized differently: they cannot be separated.
        return whole
    start = before if before in places else places[0]
    if start and own[:start] == ids[:start]:
        return bare
    return _part(whole, 0, start + len(own))


def _behind(whole: Sequence[int], own: Sequence[int]) -> int:
    """How many ids follow a text's own ids, which are contiguous in the whole."""
    return len(whole) - len(own) - _places(whole, own)[0]


def _ids_of(token: str, *owners: object) -> set[int]:
    """The ids of a special token (`bos`, `eos`) in a tokenizer and a model's configuration."""
    found: set[int] = set()
    for owner in owners:
        config: Any = getattr(owner, "config", owner)
        text = config.get_text_config() if hasattr(config, "get_text_config") else config
        value = getattr(text, f"{token}_token_id", None)
        found |= {
            v for v in (value if isinstance(value, list | tuple) else [value]) if v is not None
        }
    return found


def _ends_in(prompt: TokenizedPrompt, ends: set[int]) -> bool:
    return prompt.input_ids.shape[1] > 1 and int(prompt.input_ids[0, -1]) in ends


def _without(prompt: TokenizedPrompt, begin: set[int], end: set[int]) -> TokenizedPrompt:
    """A prompt without the second of two BOS tokens, and without an EOS token at its end."""
    ids = prompt.input_ids[0].tolist()
    twice = len(ids) > 1 and ids[0] == ids[1] and ids[0] in begin and ids[1:2] != ids[2:3]
    return _part(prompt, int(twice), len(ids) - _ends_in(prompt, end))


def _part(prompt: TokenizedPrompt, start: int, stop: int) -> TokenizedPrompt:
    return replace(
        prompt,
        input_ids=prompt.input_ids[:, start:stop],
        token_text=prompt.token_text[start:stop],
    )


def _shown(prompt: TokenizedPrompt) -> str:
    ids = [str(i) for i in prompt.input_ids[0].tolist()]
    shown = ids if len(ids) <= 8 else [*ids[:3], "…", *ids[-3:]]
    return f"[{', '.join(shown)}]"


def token_pairs(
    tokens: Tokens,
    length: int,
    places: Mapping[str, Sequence[int]] | None = None,
    causal: bool = True,
) -> list[tuple[int, int]]:
    """The pairs (t1, t2) to measure in a prompt, or an image, of `length` tokens.

    Args:
        tokens: see `Settings.tokens`.
        length: number of tokens.
        places: positions by name, such as "last"; by default the last token alone.
        causal: whether only earlier tokens act on a token.

    Returns:
        The pairs; (MEAN, MEAN) for the mean over patches.

    Raises:
        UserError: there is no pair, or one is out of range, has an unknown name, or has t1 > t2
            in a causal model, where the Jacobian is exactly zero.
    """
    places = {"last": (length - 1,)} if places is None else places
    pairs = []
    for asked in _chosen(tokens, length):
        if asked == "mean":
            _named("mean", places)
            pairs.append((MEAN, MEAN))
            continue
        first, second = (asked, asked) if isinstance(asked, Integral | str) else tuple(asked)
        a, b = (_position(t, length, places) for t in (first, second))
        if not (0 <= a < length and 0 <= b < length):
            raise UserError(
                f"token {asked} is out of range: the prompt has tokens 0 … {length - 1}"
            )
        if a > b and causal:
            raise UserError(
                f"tokens {asked}: no later token acts on an earlier one in a causal model; the "
                "Jacobian is exactly zero. Ask for t1 ≤ t2."
            )
        pairs.append((a, b))
    if not pairs:
        raise UserError("the list of tokens to measure is empty")
    return pairs


def _position(token: Any, length: int, places: Mapping[str, Sequence[int]]) -> int:
    if isinstance(token, str):
        return int(_named(token, places)[0])
    return int(token) + length if token < 0 else int(token)


def _named(word: str, places: Mapping[str, Sequence[int]]) -> Sequence[int]:
    """The tokens that a word names."""
    if found := places.get(word):
        return found
    if word not in ("class", "mean"):
        raise UserError(f"unknown token name {word!r}; choose last, class or mean")
    if word in places:
        raise UserError(
            f"tokens = {word!r}: this model has no such token, as all its tokens change with the "
            "image; choose last (the last patch), mean (over all patches) or positions"
        )
    raise UserError(f"tokens = {word!r} is for images; for a text, choose last, all or positions")


def _chosen(tokens: Tokens, length: int) -> Sequence[Any]:
    if isinstance(tokens, str) and tokens in ("last", "class", "mean"):
        return [tokens]
    if isinstance(tokens, str) and tokens == "all":
        return range(length)
    if isinstance(tokens, Mapping) and set(tokens) == {"every"} and int(tokens["every"]) > 0:
        return range(length - 1, -1, -int(tokens["every"]))[::-1]
    if isinstance(tokens, str | Mapping):
        raise UserError(
            f"tokens = {tokens!r}: choose last, all, a list of positions or of pairs, or "
            "{every: n} with n ≥ 1; for an image also class or mean"
        )
    return tokens
