"""Directories of models with several parts, of encoders alone, and of code of their own."""

import copy
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from bidirectional import IMAGE, TEXT, exact_jacobian, pixels
from PIL import Image
from tiny_model import save_tiny_model
from torch import nn
from transformers import (
    AltCLIPConfig,
    AltCLIPModel,
    BertConfig,
    BertModel,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipVisionConfig,
    BlipVisionModel,
    CLIPVisionConfig,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    OwlViTConfig,
    OwlViTForObjectDetection,
    PreTrainedModel,
    T5Config,
    T5EncoderModel,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)
from typer.testing import CliRunner

import blockcoupling as bc
from blockcoupling.cli import app
from blockcoupling.errors import UserError
from blockcoupling.sources.image_folder import read_image
from blockcoupling.sources.models import load_model, load_streamed, model_record
from blockcoupling.sources.preprocessing import prepared

LLAMA = {**TEXT, "model_type": "llama", "num_key_value_heads": 2, "vocab_size": 300}


def blip() -> PreTrainedModel:
    return BlipForConditionalGeneration(BlipConfig(text_config=TEXT, vision_config=IMAGE))


def blip_vision() -> PreTrainedModel:
    return BlipVisionModel(BlipVisionConfig(**IMAGE))


def altclip() -> PreTrainedModel:
    return AltCLIPModel(AltCLIPConfig(text_config=TEXT, vision_config=IMAGE))


def owlvit() -> PreTrainedModel:
    return OwlViTForObjectDetection(OwlViTConfig(text_config=TEXT, vision_config=IMAGE))


def llava() -> PreTrainedModel:
    text, image = LlamaConfig(**LLAMA), CLIPVisionConfig(**IMAGE)
    return LlavaForConditionalGeneration(
        LlavaConfig(text_config=text, vision_config=image, image_token_index=5)
    )


def idefics3() -> PreTrainedModel:
    return Idefics3ForConditionalGeneration(
        Idefics3Config(text_config=LLAMA, vision_config=IMAGE, pad_token_id=0)
    )


def saved(model: PreTrainedModel, directory: Path, **asked: object) -> dict:
    """The record of a model in a directory, with larger weights than new ones."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.2)
    model.save_pretrained(directory)
    save_tiny_model(directory / "tiny", hidden_size=8)
    for file in (directory / "tiny").glob("token*"):
        file.rename(directory / file.name)
    ViTImageProcessor(size={"height": 12, "width": 12}).save_pretrained(directory)
    about = {"name": "m", "checkpoint": "main", "source": "local", "path": str(directory)}
    return model_record(about | asked)


def agrees(measured: nn.Module, own: nn.Module, path: str) -> None:
    """A loaded image model has the singular values of a part of the saved one, by autograd."""
    image = pixels(1)
    found = bc.measure(measured, images=image, k=4)["S"][0, 0]
    own = own.double().eval()
    for block in range(3):
        wanted = torch.linalg.svdvals(exact_jacobian(own, path, image, block, -1, -1))[:4]
        # The model that was loaded computes in float32, at 1e-7 of each of its sums.
        np.testing.assert_allclose(found[block], wanted, rtol=2e-4)


@pytest.mark.parametrize("build", [blip, blip_vision, altclip, owlvit])
def test_the_vision_tower_of_a_directory_is_measured(build: object, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build()  # type: ignore[operator]
    record = saved(model, tmp_path)
    assert (record["modality"], record["causal"], record["blocks"]) == ("image", False, 3)
    loaded, _ = load_model(record, "cpu")
    own = next(m for m in model.modules() if type(m).__name__ == record["architecture"])
    agrees(loaded, own, "encoder.layers")


@pytest.mark.parametrize("build", [llava, idefics3])
def test_a_model_of_images_and_texts_is_measured_at_either(build: object, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build()  # type: ignore[operator]
    record = saved(model, tmp_path)
    assert (record["modality"], record["causal"], record["dimension"]) == ("text", True, 32)
    loaded, tokenizer = load_model(record, "cpu")
    whole = bc.measure(loaded, tokenizer, "ab", k=3)
    text = LlamaForCausalLM(model.config.text_config).eval()
    text.model.load_state_dict(model.model.get_submodule(text_part(model)).state_dict())
    alone = bc.measure(text, tokenizer, "ab", k=3)
    np.testing.assert_allclose(whole["S"], alone["S"], rtol=1e-5)
    if build is llava:  # its names in the files are those of an earlier version
        with pytest.raises(UserError, match="converted while loading, and cannot be streamed"):
            load_streamed(record, "cpu")
    else:
        streamed = bc.measure(load_streamed(record, "cpu")[0], tokenizer, "ab", k=3)
        np.testing.assert_allclose(streamed["S"], alone["S"], rtol=1e-5)
    of_images, _ = load_model(saved(model, tmp_path, modality="image"), "cpu")
    tower = model.get_submodule(record_part(tmp_path))
    agrees(of_images, tower, "encoder.layers")
    with pytest.raises(UserError, match=r"its vision tower, model\.model\."):
        bc.measure(loaded, images=pixels(1))


@pytest.mark.parametrize("dtype", [None, torch.float32])
def test_a_float32_tower_on_bfloat16_blocks(dtype: torch.dtype | None) -> None:
    torch.manual_seed(0)
    model = llava().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.2)
    model.model.language_model.bfloat16()
    model.lm_head.bfloat16()
    exact = copy.deepcopy(model).float()
    found, wanted = (
        bc.measure(each, lambda text: [3, 7, 9, 4], "x", k=3, **asked)
        for each, asked in ((model, {"dtype": dtype}), (exact, {}))
    )
    np.testing.assert_array_equal(found["S"], wanted["S"])
    assert model.lm_head.weight.dtype == torch.bfloat16


def text_part(model: PreTrainedModel) -> str:
    return "language_model" if hasattr(model.model, "language_model") else "text_model"


def record_part(directory: Path) -> str:
    about = {"name": "m", "checkpoint": "main", "source": "local", "path": str(directory)}
    return model_record(about | {"modality": "image"})["part"]


def test_an_encoder_saved_by_itself(tmp_path: Path) -> None:
    shape = {"d_model": 32, "d_ff": 48, "d_kv": 8, "num_layers": 3, "num_heads": 4}
    model = T5EncoderModel(T5Config(**shape, vocab_size=300, pad_token_id=0))
    record = saved(model, tmp_path)
    file = tmp_path / "config.json"  # as published encoders have it
    file.write_text(json.dumps(json.loads(file.read_text()) | {"is_encoder_decoder": True}))
    record = model_record({k: record[k] for k in ("name", "checkpoint", "source", "path")})
    assert (record["modality"], record["causal"]) == ("text", False)
    loaded, tokenizer = load_model(record, "cpu")
    found, wanted = (bc.measure(each, tokenizer, "ab", k=3) for each in (loaded, model.eval()))
    np.testing.assert_allclose(found["S"], wanted["S"], rtol=1e-4)


def test_the_vision_tower_of_idefics_takes_images() -> None:
    tower = idefics3().model.vision_model.double().eval()
    agrees(tower, tower, "encoder.layers")


def dinov3(directory: Path) -> dict:
    shape = {**IMAGE, "num_register_tokens": 1}
    record = saved(DINOv3ViTModel(DINOv3ViTConfig(**shape)), directory)
    settings = {
        "image_processor_type": "DINOv3ViTImageProcessorFast",
        "size": {"height": 12, "width": 12},
        **{"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "resample": 2},
        **{"do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]},
    }
    (directory / "preprocessor_config.json").write_text(json.dumps(settings))
    return model_record({k: record[k] for k in ("name", "checkpoint", "source", "path")})


def triangle(size: int, wanted: int) -> np.ndarray:
    """Weights (wanted, size) of linear interpolation that widens with what it leaves out."""
    scale = size / wanted
    centres = (np.arange(wanted) + 0.5) * scale
    distance = abs(np.arange(size) + 0.5 - centres[:, None]) / max(scale, 1)
    weights = np.clip(1 - distance, 0, None)
    return weights / weights.sum(1, keepdims=True)


def test_dinov3_has_its_own_image_processor(tmp_path: Path) -> None:
    loaded, processor = load_model(dinov3(tmp_path), "cpu")
    picture = np.random.default_rng(0).integers(0, 256, (30, 20, 3), np.uint8)
    (values,) = prepared(processor, [picture])
    rows, columns = triangle(30, 12), triangle(20, 12)
    small = np.einsum("yi,xj,ijc->cyx", rows, columns, picture / 255)
    wanted = (small - np.reshape([0.5, 0.4, 0.3], (3, 1, 1))) / np.reshape(
        [0.2, 0.3, 0.4], (3, 1, 1)
    )
    np.testing.assert_allclose(values, wanted, atol=2e-6)  # float32 at values up to 5
    assert bc.measure(loaded, images=[values], k=2)["S"].values.min() > 0


def test_a_processor_that_needs_torchvision_says_so(tmp_path: Path) -> None:
    record = dinov3(tmp_path)
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"do_center_crop": True}))
    record = model_record({k: record[k] for k in ("name", "checkpoint", "source", "path")})
    if "torchvision" in sys.modules:
        pytest.skip("torchvision is installed")
    with pytest.raises(UserError, match="DINOv3ViTImageProcessor, needs torchvision: install"):
        load_model(record, "cpu")


def test_one_channel(tmp_path: Path) -> None:
    model = ViTModel(ViTConfig(**{**IMAGE, "num_channels": 1}))
    record = saved(model, tmp_path)
    file = tmp_path / "preprocessor_config.json"
    grey = json.loads(file.read_text()) | {"image_mean": [0.5], "image_std": [0.5]}
    file.write_text(json.dumps(grey))
    record = model_record({k: record[k] for k in ("name", "checkpoint", "source", "path")})
    loaded, processor = load_model(record, "cpu")
    pixel = np.random.default_rng(0).integers(0, 256, (12, 12), np.uint8)
    Image.fromarray(pixel).save(tmp_path / "grey.png")
    (values,) = prepared(processor, [read_image(tmp_path / "grey.png")], channels=1)
    torch.testing.assert_close(values, torch.from_numpy(pixel[None] / 127.5 - 1).float())
    assert bc.measure(loaded, images=values[None], k=2)["S"].values.min() > 0
    with pytest.raises(UserError, match="image 0 is in colour, and the model takes one channel"):
        prepared(processor, [np.stack([pixel, pixel, 255 - pixel], -1)], channels=1)


def test_pictures_of_different_sizes(tmp_path: Path) -> None:
    loaded, _ = load_model(dinov3(tmp_path), "cpu")  # rotary positions: of any size
    processor = ViTImageProcessor(do_resize=False)
    pictures = [
        np.random.default_rng(n).integers(0, 256, (12, 8 + 4 * n, 3), np.uint8) for n in range(2)
    ]
    values = prepared(processor, pictures)
    assert [tuple(value.shape) for value in values] == [(3, 12, 8), (3, 12, 12)]
    asked = {"k": 2, "tokens": ["class", "mean"], "overlaps": False}
    together = bc.measure(loaded, images=values, **asked)
    for number, value in enumerate(values):
        alone = bc.measure(loaded, images=value[None], **asked)
        np.testing.assert_allclose(together["S"][number], alone["S"][0], rtol=1e-4)


def test_a_tokenizer_without_sentencepiece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = save_tiny_model(tmp_path / "m", hidden_size=8)
    for file in directory.glob("token*"):
        file.unlink()
    (directory / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02")
    (directory / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    about = {"name": "m", "checkpoint": "main", "source": "local", "path": str(directory)}
    with pytest.raises(UserError, match=r"pip install 'blockcoupling\[sentencepiece\]'"):
        load_model(model_record(about), "cpu")


OWN = """
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

class EncoderConfig(BertConfig):
    model_type = "own_encoder"

class Encoder(BertModel):
    config_class = EncoderConfig

class DecoderConfig(LlamaConfig):
    model_type = "own_decoder"

class Decoder(LlamaForCausalLM):
    config_class = DecoderConfig
"""


def with_own_code(model: PreTrainedModel, directory: Path, name: str, auto: str) -> dict:
    """A directory whose classes are in a file of its own; the keys of its description."""
    record = saved(model, directory)
    (directory / "own.py").write_text(OWN)
    file = directory / "config.json"
    config = json.loads(file.read_text())
    config |= {"model_type": f"own_{name.lower()}", "architectures": [name]}
    config["auto_map"] = {"AutoConfig": f"own.{name}Config", auto: f"own.{name}"}
    file.write_text(json.dumps(config))
    return {k: record[k] for k in ("name", "checkpoint", "source", "path")}


def test_an_encoder_of_its_own_code(tmp_path: Path) -> None:
    model = BertModel(BertConfig(**{**TEXT, "vocab_size": 300})).eval()
    spec = with_own_code(model, tmp_path, "Encoder", "AutoModel")
    with pytest.raises(UserError, match="or --trust-remote-code if you trust it"):
        model_record(spec)
    record = model_record(spec | {"trust_remote_code": True})
    assert (record["modality"], record["causal"]) == ("text", False)
    loaded, tokenizer = load_model(record, "cpu")
    found, wanted = (bc.measure(each, tokenizer, "ab", k=3) for each in (loaded, model))
    np.testing.assert_allclose(found["S"], wanted["S"], rtol=1e-4)


def test_a_decoder_of_its_own_code_is_measured_from_a_shell_and_streamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = LlamaForCausalLM(LlamaConfig(**LLAMA)).eval()
    spec = with_own_code(model, tmp_path / "m", "Decoder", "AutoModelForCausalLM")
    _, tokenizer = load_model(model_record(spec | {"trust_remote_code": True}), "cpu")
    wanted = coupling(bc.measure(model, tokenizer, "ab", k=3))
    words = ["measure", str(tmp_path / "m"), "ab", "--k", "3", "--json", "--trust-remote-code"]
    for more in ([], ["--stream"]):
        result = CliRunner().invoke(app, [*words, *more])
        assert result.exit_code == 0, result.output
        (row,) = json.loads(result.stdout)
        assert row["coupling"] == pytest.approx(wanted, rel=1e-4)


def coupling(ds: xr.Dataset) -> float:
    return bc.coupling(ds, k=3).values.item()
