"""A recorded call holds everything a block was given, and can be repeated."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from architectures import FAMILIES, prompt, small_model
from torch import Tensor, nn
from toy_model import Block, D, Toy
from transformers.cache_utils import DynamicLayer

from blockcoupling.errors import UserError
from blockcoupling.transformer.blocks import find_blocks
from blockcoupling.transformer.calls import BlockCall
from blockcoupling.transformer.recording import record_decode, record_full

# One block called twice on the same numbers does the same sums, unless the library splits them by
# another number of tokens.
ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-5}


def assert_same(found: Tensor, wanted: Tensor) -> None:
    scale = float(wanted.abs().max())
    torch.testing.assert_close(found, wanted, rtol=0, atol=scale * ROUNDING[wanted.dtype])


@pytest.mark.parametrize("family", FAMILIES)
def test_recorded_calls_can_be_repeated(family: str) -> None:
    model, ids = small_model(family), prompt(8)
    blocks = find_blocks(model, ids)
    with torch.no_grad():
        for calls in (record_full(model, blocks, ids), record_decode(model, blocks, ids)):
            assert [call.block for call in calls] == list(blocks.modules)
            for call in reversed(calls):  # whatever was called before, and more than once
                for _ in range(2):
                    assert_same(call(call.input), call.output)
            for before, after in pairwise(calls):
                assert torch.equal(before.output, after.input)


@pytest.mark.parametrize("family", FAMILIES)
def test_decoding_sees_what_the_whole_prompt_does(family: str) -> None:
    model, ids = small_model(family), prompt(8)
    blocks = find_blocks(model, ids)
    whole, last = record_full(model, blocks, ids), record_decode(model, blocks, ids)
    for full, decoded in zip(whole, last, strict=True):
        assert decoded.input.shape == (1, 1, 32)
        # Softmax and norms are taken in float32: 6e-8, growing through weights five times the
        # usual.
        difference = (decoded.output[0, 0] - full.output[0, -1]).norm()
        assert difference < 1e-5 * full.output[0, -1].norm()


def test_a_call_takes_other_arguments_in_place_of_recorded_ones() -> None:
    class Scaled(nn.Module):
        def forward(self, hidden: Tensor, scale: float = 1.0) -> Tensor:
            return scale * hidden

    x = torch.ones(1, 2, D)
    call = BlockCall(Scaled(), (None,), {"scale": 2.0}, 0, x, 2 * x)
    assert torch.equal(call(3 * x), 6 * x)
    assert torch.equal(call(3 * x, scale=1.0), 3 * x)


def test_hooks_are_gone_after_an_error_on_the_way() -> None:
    def fail(x: Tensor) -> Tensor:
        raise RuntimeError("on the way")

    model = Toy([Block(), Block()])
    blocks = find_blocks(model, prompt(3))
    model.between = fail
    with pytest.raises(RuntimeError, match="on the way"):
        record_full(model, blocks, prompt(3))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_cache_changed_in_place_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    update = DynamicLayer.update

    def in_place(self: DynamicLayer, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if getattr(self, "keys", None) is not None:
            self.keys.mul_(1.0)
        return update(self, *args, **kwargs)

    model, ids = small_model("llama"), prompt(6)
    blocks = find_blocks(model, ids)
    monkeypatch.setattr(DynamicLayer, "update", in_place)
    with pytest.raises(UserError, match=r"in place.*context='full'"):
        record_decode(model, blocks, ids)


def test_a_model_without_a_cache_is_refused_for_decoding() -> None:
    model = Toy([Block(), Block()])
    with pytest.raises(UserError, match=r"no key-value cache.*context='full'"):
        record_decode(model, find_blocks(model, prompt(3)), prompt(3))


def test_recording_leaves_a_prompts_cache_alone() -> None:
    """The keys of every layer that a recorded call holds are those before the token."""
    model, ids = small_model("llama"), prompt(6)
    calls = record_decode(model, find_blocks(model, ids), ids)
    with torch.no_grad():
        for call in calls:
            call(call.input)
    for index, call in enumerate(calls):
        cache = call.cache()
        assert cache is not None
        assert cache.layers[index].keys.shape[-2] == 5
        assert call.with_cache(None).cache() is None


class WithItsCacheByTheNewName(nn.Module):
    """A model whose cache is called as in Transformers 5.24 and later."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, cache: Any = None, **kwargs: Any) -> SimpleNamespace:
        output = self.model(input_ids, past_key_values=cache, **kwargs)
        return SimpleNamespace(cache=output.past_key_values)


def test_a_cache_by_its_new_name_is_decoded_with() -> None:
    model, ids = small_model("llama"), prompt(5)
    blocks = find_blocks(model, ids)
    expected = record_decode(model, blocks, ids)
    found = record_decode(WithItsCacheByTheNewName(model), blocks, ids)
    for call, same in zip(found, expected, strict=True):
        assert torch.equal(call.input, same.input)
        assert torch.equal(call.output, same.output)
