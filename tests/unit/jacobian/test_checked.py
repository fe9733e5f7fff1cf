"""When an operator is compared with the block itself."""

import pytest
import torch
from architectures import prompt, small_model

from blockcoupling.jacobian import checked
from blockcoupling.jacobian.block_operators import SameToken, same_token
from blockcoupling.transformer.blocks import find_blocks
from blockcoupling.transformer.calls import BlockCall
from blockcoupling.transformer.recording import record_decode


@pytest.mark.parametrize("agrees", [True, False])
def test_how_a_block_attends_is_found_out_once(
    agrees: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(checked, "_agree", lambda *args: asked.append(agrees) or agrees)
    model, ids = small_model("llama"), prompt(6)
    calls = record_decode(model, find_blocks(model, ids), ids)
    operators = SameToken(lambda block: [calls[block]])
    first = operators(1)
    found = first.dense()
    assert asked == [agrees]
    second = operators(1)
    assert first.attention == second.attention == ("one-token" if agrees else "eager")
    assert torch.equal(found, second.dense())
    assert asked == [agrees]


def test_a_batch_is_compared_at_its_shortest_and_its_longest_context(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[int] = []
    pulled = checked._own_pull

    def counting(call: BlockCall, u: torch.Tensor) -> torch.Tensor:
        compared.extend(i for i, each in enumerate(calls) if each is call)
        return pulled(call, u)

    monkeypatch.setattr(checked, "_own_pull", counting)
    model = small_model("llama")
    prompts = [prompt(length) for length in (6, 9, 3, 5)]
    blocks = find_blocks(model, prompts[0])
    calls = [record_decode(model, blocks, ids)[1] for ids in prompts]
    assert same_token(calls).attention == "one-token"
    assert compared == [1, 2]
