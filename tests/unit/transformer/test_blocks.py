"""Blocks are found by what they do, or refused with the reason."""

from collections.abc import Callable

import pytest
from architectures import FAMILIES, VOCABULARY, prompt, small_model
from torch import Tensor, nn
from toy_model import Block, D, Toy
from transformers import (
    T5Config,
    T5ForConditionalGeneration,
)

from blockcoupling.errors import UserError
from blockcoupling.transformer.blocks import Blocks, find_blocks
from blockcoupling.transformer.recording import record_full


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

    said = refusal(Toy([Block(), Block()], between=fail))
    assert said.startswith("Toy cannot be run on a prompt's token ids alone: its own reason. Pass")


def test_skipped_members_and_several_streams_are_called_that() -> None:
    said = refusal(Toy([Block(), Block(), Block()], order=[0, 2]))
    assert "blocks: its members 2 of 3 are skipped" in said

    class Streams(Toy):
        def forward(self, input_ids: Tensor) -> Tensor:
            x = self.embedding(input_ids).expand(4, -1, -1, -1)
            for block in self.blocks:
                x = block(x)
            return x.mean(0)

    assert "its members have 4 parallel residual streams" in refusal(Streams([Block(), Block()]))


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


@pytest.mark.parametrize("order", [[1, 0, 2], [0, 1, 2, 0, 1, 2]])
def test_blocks_called_in_another_order_are_refused(order: list[int]) -> None:
    message = refusal(Toy([Block(), Block(), Block()], order=order))
    assert f"its 3 members are called in the order {order}" in message


def test_a_model_without_blocks_is_refused() -> None:
    assert "no module list that is called" in refusal(Toy([]))


def test_blocks_of_another_shape_are_refused() -> None:
    message = refusal(Toy([Block(lambda x: x[0]), Block(lambda x: x[0])], between=lambda x: x))
    assert "not every member takes and returns a hidden state of shape" in message
