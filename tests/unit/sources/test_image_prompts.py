"""Images in a file of prompts, and an image model measured at them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from bidirectional import IMAGE, SIZE
from sklearn.datasets import load_digits
from transformers import ViTConfig, ViTImageProcessorPil, ViTModel
from typer.testing import CliRunner

import blockcoupling as bc
from blockcoupling import cli
from blockcoupling.errors import UserError
from blockcoupling.sources.image_prompts import (
    load_image_prompts,
    read_image_prompts,
    write_image_prompts,
)
from blockcoupling.store.svd import open_store

SPEC = {"images": {"source": "digits"}, "prompts": 3, "seed": 1}


def test_pictures_come_back_as_they_were(tmp_path: Path) -> None:
    prompts = load_image_prompts(SPEC)
    assert [p.id for p in prompts] == [p.id for p in load_image_prompts(SPEC)]
    everything = load_image_prompts({"images": {"source": "digits"}})
    assert len({p.id for p in everything}) == len(everything)  # some scans are there twice
    assert {p.id for p in prompts} < {p.id for p in everything}
    scans = np.rint(load_digits().images * (255 / 16)).astype(np.uint8)
    write_image_prompts(prompts, tmp_path / "images.jsonl")
    for found, wanted in zip(read_image_prompts(tmp_path / "images.jsonl"), prompts, strict=True):
        assert (found.id, found.facts) == (wanted.id, wanted.facts)
        np.testing.assert_array_equal(found.picture, wanted.picture)
        (which,) = np.flatnonzero((scans == found.picture[..., 0]).all((1, 2)))
        assert found.facts["class"] == str(load_digits().target[which])


def run(*words: object) -> str:
    ended = CliRunner().invoke(cli.app, list(map(str, words)))
    return ended.stderr if ended.exit_code else ""


def test_an_image_model_is_measured_at_a_file_of_images(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, place = ViTModel(ViTConfig(**IMAGE)).eval(), tmp_path / "vit"
    processor = ViTImageProcessorPil(size={"height": SIZE, "width": SIZE})
    model.save_pretrained(place)
    processor.save_pretrained(place)
    spec = {"name": "vit", "checkpoint": "main", "source": "local", "path": str(place)}
    files = {name: tmp_path / name for name in ("m.json", "i.jsonl", "t.jsonl", "parts", "s.zarr")}
    assert not run("model", "--spec", json.dumps(spec), "--out", files["m.json"])
    assert not run("prompts", "--spec", json.dumps(SPEC), "--out", files["i.jsonl"])
    texts = '{"source": "builtin", "name": "handwritten"}'
    assert not run("prompts", "--spec", texts, "--out", files["t.jsonl"])

    def extract(prompts: str) -> str:
        to = ("--parts", files["parts"], "--out", files["s.zarr"], "--k", 4)
        tokens = ("--tokens", '["class", "last", "mean"]')
        return run("extract", "--model", files["m.json"], "--prompts", files[prompts], *to, *tokens)

    assert "no id and image; an image model is measured at images" in extract("t.jsonl")
    assert not extract("i.jsonl")
    prompts = load_image_prompts(SPEC)
    images = processor([p.picture for p in prompts], return_tensors="pt")
    wanted = bc.measure(model, images=images, k=4, tokens=["class", "last", "mean"])
    found = open_store(files["s.zarr"])
    assert found["prompt"].values.tolist() == [p.id for p in prompts]
    # Batches of another composition: roundings of float32, of A over gaps of singular values.
    np.testing.assert_allclose(found["S"], wanted["S"], rtol=1e-4)
    np.testing.assert_allclose(bc.coupling(found, 4), bc.coupling(wanted, 4), atol=1e-3)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", "line 1: not JSON"),
        ('{"id": "a", "text": "b"}', "line 1: no id and image"),
        ('{"id": "a", "image": "é"}', "line 1: the image is not in base64"),
        ('{"id": "a", "image": "aGVsbG8="}', "line 1: the image is not an image that can be read"),
        ("", "holds no images"),
    ],
)
def test_broken_lines_are_told(line: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "i.jsonl").write_text(line)
    with pytest.raises(UserError, match=sentence):
        read_image_prompts(tmp_path / "i.jsonl")


def test_more_than_there_are() -> None:
    with pytest.raises(UserError, match=r"has 359 images, but 2000 are requested; lower `prompts`"):
        load_image_prompts({**SPEC, "prompts": 2000})
