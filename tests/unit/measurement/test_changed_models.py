"""What a user changed in a model is measured: against autograd through the model as it is."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from architectures import prompt, small_model
from coupling_by_definition import numbers
from full_jacobian import full_jacobian
from torch import nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama import modeling_llama

import blockcoupling as bc
from blockcoupling.errors import UserError

IDS = prompt(7)
TEXT = " ".join(map(str, IDS[0].tolist()))


def without_head_0(*args: object, **kwargs: object) -> tuple[torch.Tensor, None]:
    output, _ = sdpa_attention_forward(*args, **kwargs)
    kept = torch.ones(output.shape[-2], 1, dtype=output.dtype)
    kept[0] = 0
    return output * kept, None


def register(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(AttentionInterface._global_mapping, "without_head_0", without_head_0)
    model.set_attn_implementation("without_head_0")


def register_over_sdpa(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(AttentionInterface._global_mapping, "sdpa", without_head_0)
    model.set_attn_implementation("sdpa")


def override_sdpa_here(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._local_mapping, "sdpa", without_head_0)
    model.set_attn_implementation("sdpa")


def replace_torchs_sdpa(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    own = torch.nn.functional.scaled_dot_product_attention

    def doubled(query: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        return own(2 * query, *args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", doubled)
    model.set_attn_implementation("sdpa")


def replace_forward_of_the_class(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    own = type(model).forward

    def doubled(self: PreTrainedModel, input_ids: torch.Tensor, **kwargs: object) -> object:
        embeds = 2 * self.get_input_embeddings()(input_ids)
        return own(self, inputs_embeds=embeds, **kwargs)

    doubled.__module__ = own.__module__  # as functools.wraps does
    monkeypatch.setattr(type(model), "forward", doubled)


def replace_forward_of_the_object(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    own = model.forward

    def doubled(input_ids: torch.Tensor, **kwargs: object) -> object:
        return own(inputs_embeds=2 * model.get_input_embeddings()(input_ids), **kwargs)

    model.forward = doubled


def hook_an_attention(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    attention = model.model.layers[1].self_attn
    attention.register_forward_hook(lambda m, args, output: (3 * output[0], *output[1:]))


CHANGES = [
    register,
    register_over_sdpa,
    override_sdpa_here,
    replace_torchs_sdpa,
    replace_forward_of_the_class,
    replace_forward_of_the_object,
    hook_an_attention,
]


def singular_values(model: PreTrainedModel) -> np.ndarray:
    blocks = model.model.layers
    last = IDS.shape[1] - 1
    found = [full_jacobian(model, block, IDS, last, last) for block in blocks]
    return np.stack([np.linalg.svd(j.numpy())[1] for j in found])


# Changes that act on one implementation alone: with eager attention, it is another model.


def patch_eager_alone(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    own = modeling_llama.eager_attention_forward

    def sharper(module: nn.Module, query: torch.Tensor, *args: object, **kwargs: object) -> object:
        return own(module, 1.1 * query, *args, **kwargs)

    monkeypatch.setattr(modeling_llama, "eager_attention_forward", sharper)


def act_where_sdpa_is_configured(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    attention = model.model.layers[1].self_attn

    def thrice(module: nn.Module, args: object, output: tuple) -> tuple | None:
        fused = module.config._attn_implementation == "sdpa"
        return (3 * output[0], *output[1:]) if fused else None

    attention.register_forward_hook(thrice)


def replace_the_attention_of_the_class(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = modeling_llama.LlamaAttention.forward

    def windowed(self: nn.Module, *args: object, **kwargs: object) -> object:
        output, *rest = own(self, *args, **kwargs)
        return (2 * output if self.config._attn_implementation == "sdpa" else output, *rest)

    monkeypatch.setattr(modeling_llama.LlamaAttention, "forward", windowed)


@pytest.mark.parametrize(
    "change",
    [patch_eager_alone, act_where_sdpa_is_configured, replace_the_attention_of_the_class],
)
def test_what_eager_attention_would_change_is_refused(
    change: Callable[[PreTrainedModel, pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = small_model("llama")
    model.set_attn_implementation("sdpa")
    change(model, monkeypatch)
    with pytest.raises(UserError, match=r"with eager attention than with sdpa.*differ by \d") as no:
        bc.measure(model, numbers, TEXT, k=8)
    assert "set_attn_implementation" in str(no.value)
    assert model.config._attn_implementation == "sdpa"
    model.set_attn_implementation("eager")  # as the message says
    wanted = singular_values(model)
    found = bc.measure(model, numbers, TEXT, k=8)["S"][0, 0]
    np.testing.assert_allclose(found, wanted[:, :8], rtol=1e-5)


def patch_the_rotation(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", lambda q, k, *args, **kw: (q, k))


def patch_eager(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    patch_eager_alone(model, monkeypatch)
    model.set_attn_implementation("eager")


def replace_the_forward_of_a_block(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    own = modeling_llama.LlamaMLP.forward
    monkeypatch.setattr(modeling_llama.LlamaMLP, "forward", lambda self, x: 2 * own(self, x))


@pytest.mark.parametrize(
    "change", [*CHANGES, patch_the_rotation, patch_eager, replace_the_forward_of_a_block]
)
def test_what_the_user_changed_is_measured(
    change: Callable[[PreTrainedModel, pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = small_model("llama")
    plain = singular_values(model)
    change(model, monkeypatch)
    wanted = singular_values(model)
    assert abs(wanted / plain - 1).max() > 0.01
    found = bc.measure(model, numbers, TEXT, k=8)["S"][0, 0]
    np.testing.assert_allclose(found, wanted[:, :8], rtol=1e-5)


def test_a_copy_in_float32_is_the_model_in_bfloat16() -> None:
    model = small_model("llama").bfloat16()
    assert bc.measure(model, numbers, TEXT, k=3)["S"].values.min() > 0
    original = model.model.layers[0].self_attn.o_proj
    original.register_forward_hook(  # as a hook that knows one module does not act on a copy
        lambda module, args, output: -output if module is original else None
    )
    with pytest.raises(UserError, match=r"the copy of it with weights in float32.*differ by \d"):
        bc.measure(model, numbers, TEXT, k=3)
