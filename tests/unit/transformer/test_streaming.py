"""A streamed model is the model in memory, or is refused: every tensor of its files counts."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from architectures import prompt, small_model
from bidirectional import small_encoder
from coupling_by_definition import numbers
from safetensors.torch import load_file, save_file
from tiny_causal_lms import tiny
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

import blockcoupling as bc
from blockcoupling.errors import UserError
from blockcoupling.sources.local import checkpoint_problems
from blockcoupling.transformer.running import refuse_absent_weights
from blockcoupling.transformer.streaming import stream_model
from blockcoupling.transformer.weight_files import weight_problems

TEXT = " ".join(map(str, prompt(7)[0].tolist()))


def drawn(kind: str) -> PreTrainedModel:
    """A model of a kind in which every saved buffer is random, too."""
    model = tiny(kind)
    saved = model.state_dict()
    for name, buffer in model.named_buffers():
        if name in saved and buffer.is_floating_point():
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "kind", ["gemma4_text", "gemma3_text", "glm4_moe", "mamba", "opt", "llama"]
)
def test_streamed_is_in_memory(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    drawn(kind).to(dtype).save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    wanted = bc.measure(loaded, numbers, TEXT, k=8)
    try:
        streamed = stream_model(tmp_path)
    except UserError as error:
        assert kind == "glm4_moe"
        assert "converted while loading" in str(error)
        return
    found = bc.measure(streamed, numbers, TEXT, k=8)
    for name in ("S", "A", "gram", "own_loss"):
        scale = float(abs(wanted[name]).max())
        np.testing.assert_allclose(found[name], wanted[name], rtol=0, atol=1e-4 * scale)


def edit(directory: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    file = directory / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


NORM = "model.layers.1.self_attn.q_norm.weight"
WEIGHT = "model.layers.1.self_attn.q_proj.weight"


def test_a_tensor_without_a_use_is_refused_by_name(tmp_path: Path) -> None:
    small_model("llama", torch.float32).save_pretrained(tmp_path)
    edit(tmp_path, lambda weights: weights.update({NORM: torch.ones(8)}))
    with pytest.raises(UserError, match=rf"no use for: {NORM}"):
        stream_model(tmp_path)


def test_constants_of_earlier_versions_are_no_weights(tmp_path: Path) -> None:
    """Transformers computes them: Llama 2 on the hub stores them in every block."""
    small_model("llama", torch.float32).save_pretrained(tmp_path)
    before = "model.layers.1.self_attn."
    old = {before + "rotary_emb.inv_freq": torch.ones(4), before + "masked_bias": torch.ones(())}
    edit(tmp_path, lambda weights: weights.update(old))
    assert np.isfinite(bc.measure(stream_model(tmp_path), numbers, TEXT, k=3)["S"]).all()


def test_a_second_head_is_named_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small_model("llama", torch.float32).save_pretrained(tmp_path)
    edit(tmp_path, lambda weights: weights.update({"score.weight": torch.ones(2, 32)}))
    stream_model(tmp_path)
    assert "no block depends on: score.weight" in caplog.text


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    small_encoder("distilbert", torch.float32).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="of kind distilbert, and only causal language models can"):
        stream_model(tmp_path)


def test_a_saved_buffer_that_is_not_in_the_files_is_refused_by_name(tmp_path: Path) -> None:
    drawn("gemma4_text").save_pretrained(tmp_path)
    edit(tmp_path, lambda weights: [weights.pop(n) for n in list(weights) if "1.layer_sc" in n])
    with pytest.raises(UserError, match=r"no tensor model\.layers\.1\.layer_scalar"):
        stream_model(tmp_path)


def test_a_stored_head_is_the_head_where_the_configuration_ties(tmp_path: Path) -> None:
    small_model("llama", torch.float32).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tie_word_embeddings": True}))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    wanted = bc.measure(loaded, numbers, TEXT, k=3)["own_loss"]
    found = bc.measure(stream_model(tmp_path), numbers, TEXT, k=3)["own_loss"]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("added", "dtype"),
    [
        ({"q_proj.weight_scale_inv": torch.ones(1, 1)}, torch.float32),
        ({"q_proj.weight_scale": torch.ones(32)}, torch.bfloat16),
        ({"q_proj.SCB": torch.ones(32)}, torch.float32),
        ({}, torch.float8_e4m3fn),
        ({}, torch.int8),
    ],
)
def test_numbers_that_are_not_the_weights_are_refused(
    added: dict[str, Tensor], dtype: torch.dtype, tmp_path: Path
) -> None:
    small_model("llama", torch.float32).save_pretrained(tmp_path)
    before = WEIGHT.removesuffix("q_proj.weight")
    scales = {before + name: value for name, value in added.items()}
    edit(tmp_path, lambda weights: weights.update(scales | {WEIGHT: weights[WEIGHT].to(dtype)}))
    (problem,) = weight_problems(tmp_path)
    assert "they are not the weights" in problem
    assert problem in checkpoint_problems(tmp_path)  # which loading in memory asks for, too
    with pytest.raises(UserError, match="they are not the weights"):
        stream_model(tmp_path)


def test_a_scale_that_is_a_parameter_of_the_model_is_none_of_a_weight(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    names = {"logit_scale": torch.ones(1), "layer_scale": torch.ones(3), "w": torch.ones(2)}
    save_file(names, tmp_path / "model.safetensors")
    assert weight_problems(tmp_path) == []


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
def test_a_model_with_quantized_layers_is_refused(dtype: torch.dtype) -> None:
    model = small_model("llama", torch.float32)
    layer = model.get_submodule(WEIGHT.removesuffix(".weight"))
    layer.weight = torch.nn.Parameter(layer.weight.to(dtype), requires_grad=False)
    with pytest.raises(UserError, match=rf"is quantized .* such as {WEIGHT}"):
        refuse_absent_weights(model)
    with pytest.raises(UserError, match="is quantized"):
        bc.measure(model, numbers, TEXT, k=3)


def test_a_directory_stored_quantized_is_refused(tmp_path: Path) -> None:
    small_model("llama", torch.float32).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    quantized = {"quantization_config": {"quant_method": "fp8"}}
    file.write_text(json.dumps(json.loads(file.read_text()) | quantized))
    scale = {f"{WEIGHT}_scale_inv": torch.ones(1, 1)}
    edit(
        tmp_path,
        lambda w: w.update(scale | {WEIGHT: w[WEIGHT].to(torch.float8_e4m3fn)}),
    )
    with pytest.raises(UserError, match="is stored quantized"):
        stream_model(tmp_path)
