"""`blockcoupling measure`: what it prints is what `bc.measure` finds, and how it refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import torch
from bidirectional import IMAGE, SIZE
from PIL import Image
from tiny_model import save_tiny_model
from transformers import AutoModelForCausalLM, ViTConfig, ViTImageProcessorPil, ViTModel
from typer.testing import CliRunner

import blockcoupling as bc
from blockcoupling import cli
from blockcoupling.config.overlaps import OVERLAPS
from blockcoupling.measurement import measure
from blockcoupling.measurement.prepare import Prepared


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def measured(directory: Path, tmp_path: Path) -> Callable[..., pd.DataFrame]:
    """The table that the verb prints."""

    def run(*words: str) -> pd.DataFrame:
        picture = [] if "--out" in words else ["--out", str(tmp_path / "m.png")]
        ended = CliRunner().invoke(cli.app, ["measure", str(directory), "--json", *picture, *words])
        assert ended.exit_code == 0, ended.output
        return pd.DataFrame(json.loads(ended.stdout))

    return run


def test_table_and_picture(measured: Callable[..., pd.DataFrame], tmp_path: Path) -> None:
    picture = tmp_path / "new" / "m.png"
    table = measured("one prompt", "and another", "--k", "4", "--out", str(picture))
    assert list(table["prompt"]) == ["p0", "p1"]
    assert list(table["tokens"]) == [10, 11]
    assert list(table["token_out"]) == [9, 10]
    assert (table["coupling"] < 0).all()
    # Two blocks: every pair is adjacent.
    assert list(table["adjacent"]) == pytest.approx(list(table["coupling"]))
    assert (table["line_shape_score"] >= 1).all()
    image = matplotlib.image.imread(picture)
    assert min(image.shape[:2]) > 500
    assert image[..., :3].std() > 0.05  # not blank


def test_the_table_says_what_measure_says(
    directory: Path, measured: Callable[..., pd.DataFrame]
) -> None:
    words = ["--k", "4", "--variant", "swapped", "--token", "all", "--dtype", "float64"]
    table = measured("one prompt", *words)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float64)
    ds = bc.measure(
        model,
        lambda text: list(text.encode()),
        ["one prompt"],
        4,
        tokens="all",
        swapped=True,
        overlaps=True,
    )
    assert len(table) == 10
    wanted = bc.coupling(ds, 4, "swapped")[0]
    # The same computation in batches that may differ: float64, stored in float32, and printed
    # with ten decimals.
    np.testing.assert_allclose(table["coupling"], wanted, rtol=0, atol=1e-6)
    # Of two blocks, both ordered pairs, or the second after the first.
    excess = bc.excess(ds, 4, "swapped")[0].values
    np.testing.assert_allclose(
        table["excess"], (excess[:, 0, 1] + excess[:, 1, 0]) / 2, rtol=0, atol=1e-6
    )
    for kind in OVERLAPS:
        shared = bc.overlap(ds, 4, kind)[0].values
        np.testing.assert_allclose(table[kind], shared[:, 1, 0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        table["s_1 (median block)"], ds["S"][0, :, :, 0].median("block"), rtol=1e-6
    )
    np.testing.assert_allclose(table["expodistance"], bc.expodistance(ds)[0], rtol=1e-6)


@pytest.mark.parametrize("token", ["-1", "0", "3"])
def test_a_position(measured: Callable[..., pd.DataFrame], token: str) -> None:
    table = measured("one prompt", "--k", "2", "--token", token)
    assert list(table["token_in"]) == [int(token) % 10]


def test_settings_reach_the_measurement(
    measured: Callable[..., pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    measure_batch = measure.measure_batch

    def noting(prepared: Prepared, prompts: list) -> list:
        seen.append(prepared.settings)
        return measure_batch(prepared, prompts)

    monkeypatch.setattr(measure, "measure_batch", noting)
    streamed = "--context full --tolerance 1e-5 --method krylov --seed 3 --batch 1 --stream"
    measured("one prompt", "--k", "2", *streamed.split())
    (settings,) = seen
    chosen = (settings.context, settings.tolerance, settings.method, settings.seed, settings.k)
    assert chosen == ("full", 1e-5, "krylov", 3, 2)


def test_a_preset(measured: Callable[..., pd.DataFrame]) -> None:
    by_preset = measured("a b c", "--k", "3", "--preset", "released")
    by_hand = measured("a b c", "--k", "3", "--variant", "absolute")
    assert by_preset["coupling"].item() != by_hand["coupling"].item()
    np.testing.assert_allclose(by_preset["line_shape_score"], by_hand["line_shape_score"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--token first", "tokens = 'first': should be last, all, "),
        ("--token --1", "'--1' is not JSON|No such option|not JSON"),
        ("--variant frobenious", "'frobenious' is not one of 'frobenius'"),
        ("--dtype int8", "'int8' is not one of 'float32', 'float64'"),
        ("--k 65", "Choose k from 1 to 64"),
        ("--method exact", "'exact' is not one of 'auto'"),
        ("--tolerance 0", "tolerance = 0.0: choose one above 0, such as 1e-4"),
        ("--preset released --method krylov", "goes against the preset released"),
        ("--out picture.bmp", "use a name that ends in"),
    ],
)
def test_a_wrong_option_is_refused_before_measuring(
    directory: Path, words: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: object) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr(measure, "measure_batch", never)
    monkeypatch.chdir(tmp_path)
    ended = CliRunner().invoke(cli.app, ["measure", str(directory), "one prompt", *words.split()])
    assert ended.exit_code == 2
    said = " ".join(ended.stderr.replace("│", " ").split())
    assert any(each in said for each in message.split("|")), said


def test_an_image_model_is_measured_at_images(tmp_path: Path) -> None:
    place = str(tmp_path / "vit")
    model = ViTModel(ViTConfig(**IMAGE)).eval()
    model.save_pretrained(place)
    processor = ViTImageProcessorPil(size={"height": SIZE, "width": SIZE})
    processor.save_pretrained(place)
    pictures = [Image.new("RGB", (20, 10 + i), (200, 90 * i, 30)) for i in range(2)]
    files = [str(tmp_path / f"{i}.png") for i in range(2)]
    for picture, file in zip(pictures, files, strict=True):
        picture.save(file)

    def run(*words: str) -> Any:
        to = ["--json", "--out", str(tmp_path / "m.png"), "--k", "4"]
        return CliRunner().invoke(cli.app, ["measure", place, *to, *words])

    images = [word for file in files for word in ("--image", file)]
    table = pd.DataFrame(json.loads(run(*images, "--token", '["class", "mean"]').stdout))
    ds = bc.measure(
        model, images=processor(pictures, return_tensors="pt"), tokens=["class", "mean"]
    )
    assert list(table["prompt"]) == ["i0", "i0", "i1", "i1"]
    found = np.array(table["coupling"]).reshape(2, 2)
    np.testing.assert_allclose(found, bc.coupling(ds, 4), atol=1e-5)  # of all triples, and of 4
    for words, sentence in {
        (): "give one or more PROMPTs, or --image for an image model",
        ("text", *images): "give one or more PROMPTs",
        ("text",): "expects images: give --image FILE",
        ("--image", "none.png"): "there is no file none.png",
        (*images, "--stage", "1"): "stage 1: ViTModel has one stack of blocks; leave stage out",
        (*images, "--stream"): "a bidirectional model is measured in memory",
    }.items():
        refused = run(*words)
        assert refused.exit_code == 2
        assert sentence in " ".join(refused.stderr.split()), refused.stderr


def test_a_language_model_is_given_no_image(directory: Path, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    words = ["measure", str(directory), "--image", str(tmp_path / "a.png")]
    assert "expects text: give a PROMPT" in CliRunner().invoke(cli.app, words).stderr
