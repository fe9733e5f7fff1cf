"""The model that the user passes is measured: the outermost one, with its wrappers."""

import copy
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import peft
import pytest
import torch
from tiny_model import save_tiny_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from whole_model import coupling, jacobians

import blockcoupling as bc
from blockcoupling.config.measurement import Settings
from blockcoupling.errors import UserError
from blockcoupling.measurement.prepare import prepare
from blockcoupling.sources.models import load_model, record_of
from blockcoupling.transformer.blocks import find_blocks
from blockcoupling.transformer.final_norm import find_final_norm
from blockcoupling.transformer.running import differentiable, without_head

PROMPT = "abcdefghijklmn"


def numbers(text: str) -> list[int]:
    return [3 + (ord(c) * 7) % 190 for c in text]


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=211,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=0.15,
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


def measured(model: nn.Module, **settings: Any) -> float:
    return float(bc.coupling(bc.measure(model, numbers, [PROMPT], k=8, **settings), 8)[0, 0])


def wanted(model: nn.Module, path: str) -> float:
    """The coupling by float64 autograd through the model's own, outermost forward."""
    return coupling(jacobians(model, path, torch.tensor([numbers(PROMPT)])), 8)[1]


def path_of(model: nn.Module) -> str:
    (path,) = [n for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == 4]
    return path


# ------------------------------------------------------------------------------------- adapters

ADAPTERS = {
    "prefix": peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5),
    "lora": peft.LoraConfig(task_type="CAUSAL_LM", r=4, init_lora_weights=False),
    "ia3": peft.IA3Config(task_type="CAUSAL_LM", init_ia3_weights=False),
}


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_adapter_is_measured_with_the_model(adapter: str, llama: LlamaForCausalLM) -> None:
    torch.manual_seed(0)
    model = peft.get_peft_model(copy.deepcopy(llama), ADAPTERS[adapter]).eval()
    right = wanted(model, path_of(model))
    assert measured(model) == pytest.approx(right, abs=1e-5)
    assert measured(model, context="full") == pytest.approx(right, abs=1e-5)
    assert abs(right - measured(llama)) > 1e-3  # the adapter counts


def test_an_adapter_among_the_weights_decodes_as_the_model_does(llama: LlamaForCausalLM) -> None:
    model = peft.get_peft_model(copy.deepcopy(llama), ADAPTERS["lora"]).eval()
    ds = bc.measure(model, numbers, [PROMPT], k=8, context="decode")
    assert (ds["context_apart"] == 1).all()
    merged = model.merge_and_unload()
    np.testing.assert_allclose(
        ds["S"],
        bc.measure(merged, numbers, [PROMPT], k=8)["S"],
        rtol=1e-4,  # float32
    )


def test_the_final_norm_below_an_adapter(llama: LlamaForCausalLM) -> None:
    model = peft.get_peft_model(copy.deepcopy(llama), ADAPTERS["lora"]).eval()
    ids = torch.tensor([numbers(PROMPT)])
    with differentiable(model):
        found = find_final_norm(model, find_blocks(model, ids), ids)
    assert found is model.base_model.model.model.norm


def test_tokens_that_are_not_the_prompts_are_refused(llama: LlamaForCausalLM) -> None:
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5)
    model = peft.get_peft_model(copy.deepcopy(llama), config).eval()
    with pytest.raises(UserError, match="adds tokens of its own"):
        measured(model)


# ------------------------------------------------------------------------------------- wrappers


class Passing(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.model(*args, **kwargs)


class LogitsOnly(Passing):
    def forward(self, tokens: Tensor) -> Tensor:
        return self.model(tokens).logits


class Steered(LlamaForCausalLM):
    """A class of the user's, whose forward does something to what its base model is given."""

    def forward(self, input_ids: Tensor, **kwargs: Any) -> Any:
        return super().forward(inputs_embeds=3 * self.model.embed_tokens(input_ids), **kwargs)


@pytest.mark.parametrize("wrap", [Passing, LogitsOnly, nn.DataParallel, torch.compile])
def test_a_wrapper_that_changes_nothing(wrap: Any, llama: LlamaForCausalLM) -> None:
    assert measured(wrap(copy.deepcopy(llama))) == pytest.approx(measured(llama), abs=1e-6)


def test_compiled_blocks(llama: LlamaForCausalLM) -> None:
    wrapped, inside = copy.deepcopy(llama), copy.deepcopy(llama)
    for index, layer in enumerate(wrapped.model.layers):
        wrapped.model.layers[index] = torch.compile(layer)
    for layer in inside.model.layers:
        layer.compile()
    for model in (wrapped, inside):
        assert measured(model) == pytest.approx(measured(llama), abs=1e-6)


def test_a_forward_of_the_users_own(llama: LlamaForCausalLM) -> None:
    model = Steered(llama.config).eval()
    model.load_state_dict(llama.state_dict())
    right = wanted(model, "model.layers")
    assert measured(model) == pytest.approx(right, abs=1e-5)
    assert abs(right - measured(llama)) > 1e-3


def test_a_hook_on_the_outermost_model(llama: LlamaForCausalLM) -> None:
    model = copy.deepcopy(llama)
    other = torch.tensor([numbers(PROMPT[::-1])])

    def read_backwards(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        ids = kwargs["input_ids"]
        return args, {**kwargs, "input_ids": other[:, : ids.shape[1]]}

    model.register_forward_pre_hook(read_backwards, with_kwargs=True)
    assert without_head(model) is model
    assert without_head(llama) is llama.model
    found = measured(model, context="full")
    assert found == pytest.approx(coupling(jacobians(llama, "model.layers", other), 8)[1], abs=1e-5)


# ------------------------------------------------------------------------ what stands around


def test_inference_mode_around_the_call(llama: LlamaForCausalLM) -> None:
    right, half = measured(llama), copy.deepcopy(llama).half()
    with torch.inference_mode():
        assert measured(llama) == right
        assert measured(half) == pytest.approx(right, abs=0.01)
        assert torch.is_inference_mode_enabled()


def test_weights_made_in_inference_mode_are_refused(llama: LlamaForCausalLM) -> None:
    with torch.inference_mode():
        made = copy.deepcopy(llama)
    with pytest.raises(UserError, match=r"torch.inference_mode\(\).* Load the model outside"):
        measured(made)


def test_no_grad_and_autocast_around_the_call(llama: LlamaForCausalLM) -> None:
    right = measured(llama)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert measured(llama) == right
        assert torch.is_autocast_enabled("cpu")


def test_offloaded_weights_are_refused(llama: LlamaForCausalLM, tmp_path: Path) -> None:
    offloaded = accelerate.disk_offload(copy.deepcopy(llama), tmp_path)
    with pytest.raises(UserError, match=r"weights that are not in memory .* without offloading"):
        measured(offloaded)
    with pytest.raises(UserError, match="not in memory"):
        measured(copy.deepcopy(llama).to("meta"))


def test_a_model_with_hooks_of_accelerate_but_its_weights(llama: LlamaForCausalLM) -> None:
    hooked = accelerate.dispatch_model(copy.deepcopy(llama), {"": "cpu"}, force_hooks=True)
    assert measured(hooked) == pytest.approx(measured(llama), abs=1e-6)


def test_a_model_without_weights() -> None:
    with pytest.raises(UserError, match="no floating-point weights"):
        prepare(nn.Identity(), torch.zeros(1, 1, dtype=torch.long), Settings())


@pytest.mark.parametrize("device", ["cuda", "cuda:7", "meta", "gpu", "tpu0"])
def test_a_device_that_is_not_there(device: str, tmp_path: Path) -> None:
    if device.startswith("cuda") and torch.cuda.is_available():
        pytest.skip("this machine has one")
    record = record_of(str(save_tiny_model(tmp_path / "m")))
    with pytest.raises(UserError, match=f"device '{device}': torch cannot use .* Choose auto"):
        load_model(record, device)
