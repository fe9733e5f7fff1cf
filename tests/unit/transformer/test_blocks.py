"""Blocks are found by what they do, refused with the reason, and can be called again."""

from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from architectures import FAMILIES, VOCABULARY, WIDE, prompt, small_model
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.cache_utils import DynamicLayer

from blockcoupling.errors import UserError
from blockcoupling.transformer.blocks import (
    BlockCall,
    Blocks,
    differentiable,
    find_blocks,
    record_decode,
    record_full,
)

D = 8
# One block called twice on the same numbers does the same sums, unless the library splits them by
# another number of tokens.
ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-5}


class Block(nn.Module):
    """x + W x, returned in the way that is asked for."""

    def __init__(self, returns: Callable[[Tensor], Any] = lambda x: x) -> None:
        super().__init__()
        self.linear = nn.Linear(D, D)
        self.returns = returns

    def forward(self, hidden: Tensor) -> Any:
        return self.returns(hidden + self.linear(hidden))


class Toy(nn.Module):
    """Embedding, blocks in an order, and something to do between them."""

    def __init__(
        self,
        blocks: list[nn.Module],
        order: list[int] | None = None,
        between: Callable[[Tensor], Tensor] = lambda x: x,
        keyword: bool = False,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, D)
        self.blocks = nn.ModuleList(blocks)
        self.order = list(range(len(blocks))) if order is None else order
        self.between, self.keyword = between, keyword

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embedding(input_ids)
        for index in self.order:
            block = self.blocks[index]
            x = block(hidden=x) if self.keyword else block(x)
            if isinstance(x, tuple | list):
                x = max((v for v in x if v is not None), key=Tensor.numel)
            x = self.between(x)
        return x


class Nested(nn.Module):
    """A block that is itself a stack of small blocks, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.ModuleList([Block(), Block()])

    def forward(self, hidden: Tensor) -> Tensor:
        for step in self.steps:
            hidden = step(hidden)
        return hidden


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_of_every_family(family: str) -> None:
    model = small_model(family)
    blocks = find_blocks(model, prompt(4))
    assert len(blocks) == 3
    assert blocks.dimension == 32
    assert tuple(model.get_submodule(blocks.path)) == blocks.modules
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize(
    "returns",
    [lambda x: x, lambda x: (x, None), lambda x: [None, x[..., :1], x]],
    ids=["tensor", "tuple", "among others"],
)
@pytest.mark.parametrize("keyword", [False, True])
def test_however_the_hidden_state_is_passed(returns: Callable, keyword: bool) -> None:
    blocks = [Block(returns) for _ in range(3)]
    model = Toy(blocks, keyword=keyword)
    found = find_blocks(model, prompt(3))
    assert found == Blocks("blocks", tuple(blocks), D)
    calls = record_full(model, found, prompt(3))
    assert [call.place for call in calls] == (["hidden"] if keyword else [0]) * 3


def test_a_prompt_of_one_token_is_enough() -> None:
    assert len(find_blocks(small_model("llama"), prompt(1))) == 3


def test_stacks_inside_blocks_are_not_taken_for_the_blocks() -> None:
    found = find_blocks(Toy([Nested(), Nested(), Nested()]), prompt(3))
    assert found.path == "blocks"
    assert len(found) == 3


def refusal(model: nn.Module) -> str:
    with pytest.raises(UserError) as caught:
        find_blocks(model, prompt(4))
    assert not any(m._forward_hooks for m in model.modules())
    return str(caught.value)


def test_one_block_is_refused() -> None:
    message = refusal(Toy([Block()]))
    assert "Toy has 1 block (blocks)" in message
    assert "at least two" in message


def test_encoder_decoder_is_refused() -> None:
    config = T5Config(d_model=16, d_kv=4, d_ff=16, num_layers=2, num_heads=2, vocab_size=VOCABULARY)
    model = T5ForConditionalGeneration(config)
    message = refusal(model)
    assert "T5ForConditionalGeneration is an encoder-decoder" in message
    assert "submodel" in message
    assert len(find_blocks(model.encoder.eval(), prompt(4))) == 2  # as the message says


def test_a_models_own_complaint_is_passed_on() -> None:
    def fail(x: Tensor) -> Tensor:
        raise ValueError("its own reason")

    with pytest.raises(ValueError, match="its own reason"):
        find_blocks(Toy([Block(), Block()], between=fail), prompt(3))


def test_two_stacks_are_refused() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = Toy([Block(), Block()]), Toy([Block(), Block()])

        def forward(self, input_ids: Tensor) -> Tensor:
            return self.first(input_ids) + self.second(input_ids)

    message = refusal(Two())
    assert "2 stacks of blocks (first.blocks, second.blocks)" in message


def test_a_hidden_state_changed_between_blocks_is_refused() -> None:
    message = refusal(Toy([Block(), Block(), Block()], between=lambda x: 2 * x))
    assert "blocks: the hidden state is changed between blocks 1 and 2" in message


@pytest.mark.parametrize("order", [[1, 0, 2], [0, 1, 2, 0, 1, 2], [0, 2]])
def test_blocks_called_in_another_order_are_refused(order: list[int]) -> None:
    message = refusal(Toy([Block(), Block(), Block()], order=order))
    assert f"its 3 members are called in the order {order}" in message


def test_a_model_without_blocks_is_refused() -> None:
    assert "no module list that is called" in refusal(Toy([]))


def test_blocks_of_another_shape_are_refused() -> None:
    message = refusal(Toy([Block(lambda x: x[0]), Block(lambda x: x[0])], between=lambda x: x))
    assert "not every member takes and returns a hidden state of one shape" in message


# ------------------------------------------------------------------------------------ recording


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


# -------------------------------------------------------------------------------- differentiable


def tiny(implementation: str) -> PreTrainedModel:
    config = AutoConfig.for_model("llama", vocab_size=VOCABULARY, **WIDE)
    return AutoModelForCausalLM.from_config(config, attn_implementation=implementation)


def test_differentiable_means_evaluation_and_plain_attention_for_a_while() -> None:
    model = tiny("sdpa").train()
    model.lm_head.eval()
    with differentiable(model):
        assert not any(module.training for module in model.modules())
        assert model.config._attn_implementation == "eager"
    assert model.config._attn_implementation == "sdpa"
    assert model.training
    assert model.model.layers[0].training
    assert not model.lm_head.training


def test_everything_is_put_back_after_an_error() -> None:
    model = tiny("sdpa").train()
    with pytest.raises(RuntimeError, match="on the way"), differentiable(model):
        raise RuntimeError("on the way")
    assert model.config._attn_implementation == "sdpa"
    assert model.training


def test_plain_experts_for_a_while() -> None:
    model = small_model("mixtral")
    model.config._experts_implementation = "grouped_mm"
    with differentiable(model):
        assert model.config._experts_implementation == "eager"
    assert model.config._experts_implementation == "grouped_mm"


def test_a_model_without_a_configuration_is_only_put_into_evaluation() -> None:
    model = Toy([Block(), Block()]).train()
    model.config = SimpleNamespace(anything="else")
    with differentiable(model):
        assert not model.blocks[0].training
    assert model.blocks[0].training
    assert vars(model.config) == {"anything": "else"}
