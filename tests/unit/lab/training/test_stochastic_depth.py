"""Stochastic depth drops whole branches at the given rates, none in evaluation."""

import torch
from torch import nn
from transformers import ViTConfig, ViTModel

from blockcoupling.config.models import Training
from blockcoupling.lab.training.neox import new_model
from blockcoupling.lab.training.stochastic_depth import (
    DropBranch,
    drop_neox_branches,
    drop_vit_branches,
)

SHAPE = Training(hidden_size=32, blocks=4, heads=4, context=16, batch=2)


def test_a_branch_is_there_whole_or_not_at_all_and_right_in_the_mean() -> None:
    torch.manual_seed(0)
    drop = DropBranch(0.3)
    dropped = drop(torch.ones(20000, 2, 3))
    left = dropped[:, 0, 0]
    assert torch.equal(dropped, left[:, None, None].expand_as(dropped))
    assert set(left.unique().tolist()) == {0.0, float(torch.tensor(1.0) / 0.7)}
    # Four standard errors: of the share √(0.3 · 0.7 / n), of the mean that over 0.7.
    assert abs(float((left == 0).float().mean()) - 0.3) < 4 * (0.3 * 0.7 / 20000) ** 0.5
    assert abs(float(left.mean()) - 1) < 4 * (0.3 / 0.7 / 20000) ** 0.5
    x = torch.rand(3, 2, 3)
    assert torch.equal(drop.eval()(x), x)


def test_rates_rise_to_the_last_block() -> None:
    model = new_model(SHAPE)
    drop_neox_branches(model.gpt_neox.layers, 0.4)
    rates = [
        [branch.rate for branch in layer.modules() if isinstance(branch, DropBranch)]
        for layer in model.gpt_neox.layers
    ]
    for number, own in enumerate(rates, start=1):
        assert own == [0.4 * number / 4] * 2


def test_a_model_keeps_its_weights_names_and_what_it_computes() -> None:
    plain, model = new_model(SHAPE).eval(), new_model(SHAPE)
    drop_neox_branches(model.gpt_neox.layers, 0.9)
    model.eval()
    ids = torch.arange(10)[None]
    assert list(model.state_dict()) == list(plain.state_dict())
    assert torch.equal(model(ids).logits, plain(ids).logits)
    assert not torch.equal(model.train()(ids).logits, plain(ids).logits)


def test_without_both_branches_a_block_passes_its_input_on() -> None:
    model = new_model(SHAPE).train()
    layer = model.gpt_neox.layers[0]
    drop_neox_branches(nn.ModuleList([layer]), 0.999999)
    seen = {}
    layer.register_forward_hook(lambda module, args, output: seen.update(x=args[0], y=output))
    model(torch.arange(10)[None])
    y = seen["y"] if torch.is_tensor(seen["y"]) else seen["y"][0]
    assert torch.equal(seen["x"], y)


def test_a_vits_branches_are_left_out_each_by_itself_and_never_the_first_blocks() -> None:
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32,
        image_size=8, patch_size=4,
    )  # fmt: skip
    torch.manual_seed(0)
    plain, model = ViTModel(config).eval(), ViTModel(config)
    model.load_state_dict(plain.state_dict())
    drop_vit_branches(model.layers, 0.4)
    assert [layer.dropout[1].rate for layer in model.layers] == [0, 0.2, 0.4]
    images = torch.rand(2, 3, 8, 8)
    assert list(model.state_dict()) == list(plain.state_dict())
    same = model.eval()(images).last_hidden_state
    assert torch.equal(same, plain(images).last_hidden_state)

    # The last block's update of one image, many times: no branch, either, or both.
    layer = model.layers[2].train()
    x = torch.rand(1, 5, 16).expand(3000, -1, -1)
    with torch.no_grad():
        kept = torch.stack([(layer(x) - x).abs().amax((1, 2)) > 0])[0]
    share = 1 - 0.4**2
    # Four standard errors of the share of images that have a branch at all.
    assert abs(float(kept.float().mean()) - share) < 4 * (share * (1 - share) / 3000) ** 0.5
