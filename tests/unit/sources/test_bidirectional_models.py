"""Directories of text encoders and image models: what is loaded is the model that was saved."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from bidirectional import IMAGE, SIZE, TEXT, small_encoder
from PIL import Image
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    CLIPConfig,
    CLIPModel,
    CLIPProcessor,
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from blockcoupling.errors import UserError
from blockcoupling.scores.scores import evaluate
from blockcoupling.sources.image_folder import read_image
from blockcoupling.sources.models import load_model, load_streamed, model_record
from blockcoupling.sources.preprocessing import prepared

PROCESSOR = {"size": {"height": SIZE, "width": SIZE}}


def clip() -> CLIPModel:
    parts = {"text_config": {**TEXT, "hidden_size": 16}, "vision_config": IMAGE}
    return CLIPModel(CLIPConfig(**parts))


MODELS = {
    "a body": lambda: small_encoder("bert", torch.float32),
    "masked": lambda: BertForMaskedLM(BertConfig(**TEXT)),
    "classifier": lambda: ViTForImageClassification(ViTConfig(**IMAGE, num_labels=7)),
    "tower": lambda: small_encoder("siglip", torch.float32),
    "two towers": clip,
}


SPEC = {"name": "m", "checkpoint": "main", "source": "local"}


def save(model: PreTrainedModel, directory: Path) -> dict:
    torch.manual_seed(0)
    model.save_pretrained(directory)
    ViTImageProcessor(**PROCESSOR).save_pretrained(directory)
    (directory / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b"]))
    (directory / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer"})
    )
    return model_record({**SPEC, "path": str(directory)})


@pytest.mark.parametrize("kind", MODELS)
def test_what_is_loaded_is_what_was_saved(kind: str, tmp_path: Path) -> None:
    saved = MODELS[kind]().eval()
    record = save(saved, tmp_path)
    of_images = kind not in ("a body", "masked")
    assert record["modality"] == ("image" if of_images else "text")
    assert record["causal"] is False
    assert (record["blocks"], record["dimension"]) == (3, 32)
    model, processor = load_model(record, "cpu")
    if of_images:
        picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
        given = {"pixel_values": torch.stack(prepared(processor, [picture]))}
        assert given["pixel_values"].shape == (1, 3, SIZE, SIZE)
        # Resized, then from 0 … 255 to −1 … 1: the class's defaults.
        small = np.asarray(Image.fromarray(picture).resize((SIZE, SIZE), Image.Resampling.BILINEAR))
        wanted = torch.from_numpy(small / 127.5 - 1).permute(2, 0, 1)[None]
        torch.testing.assert_close(given["pixel_values"].double(), wanted, atol=1e-6, rtol=0)
    else:
        given = {"input_ids": torch.tensor([processor("a b a")["input_ids"]])}
    body = saved.vision_model if kind == "two towers" else saved.base_model
    with torch.no_grad():
        wanted = body(**given).last_hidden_state
        found = model.base_model(**given).last_hidden_state
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)  # fused attention, and eager


def test_a_processor_that_transformers_5_saved_is_enough(tmp_path: Path) -> None:
    record = save(MODELS["two towers"](), tmp_path)
    images = load_model(record, "cpu")[1]
    (tmp_path / "preprocessor_config.json").unlink()
    CLIPProcessor(images, BertTokenizer(str(tmp_path / "vocab.txt"))).save_pretrained(tmp_path)
    assert not (tmp_path / "preprocessor_config.json").exists()
    found = load_model(model_record({**SPEC, "path": str(tmp_path)}), "cpu")[1]
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    assert torch.equal(prepared(found, [picture])[0], prepared(images, [picture])[0])


def test_new_weights_for_a_classifiers_configuration(tmp_path: Path) -> None:
    record = save(MODELS["classifier"](), tmp_path) | {"init_seed": 3}
    record["identity"] |= {"weights": None, "init_seed": 3}
    one, two = (load_model(record, "cpu")[0].state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    kept = load_model(save(MODELS["classifier"](), tmp_path), "cpu")[0].state_dict()
    weight = "vit.embeddings.patch_embeddings.projection.weight"
    assert not torch.equal(kept[weight], one[weight])


def test_what_looks_both_ways_predicts_nothing_and_is_not_streamed(tmp_path: Path) -> None:
    record = save(MODELS["masked"](), tmp_path)
    with pytest.raises(UserError, match="bidirectional model does not predict the next token"):
        evaluate(record, {"heldout": True}, device="cpu")
    with pytest.raises(UserError, match="a bidirectional model is measured in memory"):
        load_streamed(record, "cpu")


def test_images_are_prepared_or_refused(tmp_path: Path) -> None:
    record = save(MODELS["tower"](), tmp_path)
    processor = load_model(record, "cpu")[1]
    Image.new("L", (5, 9), 100).save(tmp_path / "grey.png")
    assert prepared(processor, [read_image(tmp_path / "grey.png")])[0].shape == (3, SIZE, SIZE)
    with pytest.raises(UserError, match="image processor cannot prepare the images"):
        prepared(processor, [np.zeros((3, 4, 5, 6), np.uint8)])
    (tmp_path / "preprocessor_config.json").write_text("{}")
    with pytest.raises(UserError, match="changed after the model's record was made"):
        load_model(record, "cpu")
    (tmp_path / "preprocessor_config.json").unlink()
    (tmp_path / "processor_config.json").write_text("{}")  # of a tokenizer alone
    with pytest.raises(UserError, match=r"no preprocessor_config\.json in .* how its images"):
        load_model(record, "cpu")
