"""While blocks are differentiated a model is in another state, and afterwards in its own."""

from types import SimpleNamespace

import pytest
import torch
from architectures import VOCABULARY, WIDE, small_model
from torch import nn
from toy_model import Block, Toy
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
)

from blockcoupling.transformer.running import differentiable


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


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_batch_norm_has_its_own_gradient_whatever_the_layout(
    images: int, layout: torch.memory_format
) -> None:
    """For one image, PyTorch 2.13 returns another one on a CPU where the layouts differ."""
    model = nn.BatchNorm2d(8).eval().requires_grad_(False)
    model.running_var.uniform_(0.5, 1.5)
    x = torch.randn(images, 16, 8, requires_grad=True)
    u = torch.randn(images, 8, 4, 4)
    for rows in (x.transpose(1, 2), x.transpose(1, 2).contiguous()):
        with differentiable(model):
            y = model(rows.view(images, 8, 4, 4))
            (found,) = torch.autograd.grad(y, x, u.contiguous(memory_format=layout))
        scale = (model.running_var + model.eps).rsqrt()[:, None, None]
        torch.testing.assert_close(found, (scale * u).flatten(2).transpose(1, 2))
    torch.testing.assert_close(y, model(rows.view(images, 8, 4, 4)))
