"""Image models learn, repeat themselves, go on after a kill, and are ordinary directories."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_vit import TINY as SPEC
from transformers import AutoImageProcessor, AutoModelForImageClassification

from blockcoupling.config.section import parse
from blockcoupling.config.vision import VisionTraining
from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.lab.training import checkpoints, keep_states, train
from blockcoupling.lab.training.image_data import channel_statistics, image_data, normalised, scaled
from blockcoupling.lab.training.run import Run
from blockcoupling.lab.training.vit import VitRun, decayed
from blockcoupling.sources.images import load_images
from blockcoupling.sources.preprocessing import prepared


def equal(first: Path, second: Path) -> bool:
    a, b = (load_file(path / "model.safetensors") for path in (first, second))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def facts(path: Path) -> dict:
    return json.loads((path / "training.json").read_text())


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    return train(SPEC, tmp_path_factory.mktemp("straight"), threads=1)


def test_checkpoints_are_ordinary_directories(straight: dict[int, Path]) -> None:
    assert [path.name for path in straight.values()] == ["epoch0", "epoch1", "epoch3"]
    pictures = load_images(parse(VisionTraining, {}, "x").images, "test").pictures[:3]
    for epoch, path in straight.items():
        model = AutoModelForImageClassification.from_pretrained(path)
        processor = AutoImageProcessor.from_pretrained(path)
        assert model(pixel_values=torch.stack(prepared(processor, pictures))).logits.shape == (
            3,
            10,
        )
        assert model.config.id2label[7] == "7"
        told = facts(path)
        assert (told["epoch"], told["step"], told["images"]) == (epoch, 3 * epoch, 180 * epoch)
        assert told["parameters"] == model.num_parameters()
        assert [row["epoch"] for row in told["log"]] == list(range(1, epoch + 1))
        assert not [each for each in path.iterdir() if each.suffix in (".bin", ".pt")]


def test_the_log_says_what_the_saved_model_does(straight: dict[int, Path]) -> None:
    shape = VisionTraining.model_validate(
        {key: value for key, value in SPEC.items() if key not in ("name", "checkpoints")}
    )
    data = image_data(shape)
    model = AutoModelForImageClassification.from_pretrained(straight[3])
    processor = AutoImageProcessor.from_pretrained(straight[3])
    pixels = torch.stack(prepared(processor, list(data.watched.permute(0, 2, 3, 1).numpy())))
    with torch.inference_mode():
        logits = model(pixel_values=pixels).logits
    row = facts(straight[3])["log"][-1]
    loss = torch.nn.functional.cross_entropy(logits, data.watched_labels)
    # Another attention kernel and another batch: float32's rounding over two blocks.
    assert row["watched_loss"] == pytest.approx(float(loss), rel=1e-4)
    right = (logits.argmax(1) == data.watched_labels).float().mean()
    assert row["watched_accuracy"] == pytest.approx(float(right))
    # DeiT's schedule: it ends at the last learning rate, and warms up to the full one.
    rates = [each["learning_rate"] for each in facts(straight[3])["log"]]
    assert rates == pytest.approx([1e-2, 1e-5 + (1e-2 - 1e-5) * 0.5, 1e-5])


def test_the_same_seed_gives_the_same_bits_and_another_others(
    straight: dict[int, Path], tmp_path: Path
) -> None:
    again = train(SPEC | {"checkpoints": [3]}, tmp_path / "again", threads=1)
    assert equal(straight[3], again[3])
    other = train(SPEC | {"checkpoints": [0], "seed": 1}, tmp_path / "other", threads=1)
    assert not equal(straight[0], other[0])


@pytest.mark.parametrize("kill_at", [2, 4, 7])
def test_a_training_killed_within_an_epoch_goes_on_to_the_same_bits(
    straight: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int
) -> None:
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN_STATES", 0.0)
    update, made = Run.update, []

    def killed(run: Run) -> None:
        if run.step == kill_at:
            raise KeyboardInterrupt
        made.append(run.step)
        update(run)

    with monkeypatch.context() as only_now:
        only_now.setattr(Run, "update", killed)
        with pytest.raises(KeyboardInterrupt):
            keep_states(SPEC, tmp_path / "states", threads=1)
    kept = train(SPEC, tmp_path / "out", threads=1, states=tmp_path / "states")
    for epoch, path in straight.items():
        assert equal(path, kept[epoch])
        assert facts(path) == facts(kept[epoch])
    assert made == list(range(kill_at))


def test_a_plain_training_learns_the_digits(tmp_path: Path) -> None:
    plain = {
        "crop": 0, "flip": False, "randaugment": 0, "erasing": 0,
        "mixup": 0, "cutmix": 0, "label_smoothing": 0,
    }  # fmt: skip
    spec = SPEC | {"augmentation": plain, "epochs": 15, "checkpoints": [15], "stochastic_depth": 0}
    spec |= {"image_count": None, "watched": 360, "dropout": 0, "batch": 64}
    row = facts(train(spec, tmp_path, threads=1)[15])["log"][-1]
    # By chance 0.1; the images held out are mostly of other writers.
    assert row["watched_accuracy"] > 0.75
    assert row["loss"] < math.log(10) / 4


def test_weight_decay_is_for_matrices() -> None:
    run = VitRun(VisionTraining(hidden_size=24, blocks=2, batch=8), "x")
    names = {id(p): name for name, p in run.model.named_parameters()}
    matrices, others = ([names[id(p)] for p in part] for part in decayed(run.model))
    assert all(name.endswith("weight") for name in matrices)
    assert "vit.embeddings.cls_token" in others
    assert "vit.embeddings.position_embeddings" in others
    assert not [n for n in matrices if "norm" in n or "bias" in n]
    assert len(matrices) + len(others) == len(names)


def test_scaled_pictures_are_the_image_processors(straight: dict[int, Path]) -> None:
    picture = np.random.default_rng(0).integers(256, size=(20, 20, 3), dtype=np.uint8)
    processor = AutoImageProcessor.from_pretrained(straight[0])
    theirs = prepared(processor, [picture])[0][None]
    ours = torch.from_numpy(scaled(picture, 8)).permute(2, 0, 1)[None]
    ours = normalised(ours, processor.image_mean, processor.image_std)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)  # float32's rounding


def test_channel_statistics() -> None:
    images = torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None].expand(2, 3, 4, 4)
    mean, std = channel_statistics(images)
    assert mean == [0.5] * 3
    assert std == pytest.approx([(32 / 31) ** 0.5 / 2] * 3, abs=1e-4)


def test_a_loss_that_is_not_finite_stops_it(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match=r"training tiny: the loss is .* at step"):
        train(SPEC | {"learning_rate": 1e30}, tmp_path, threads=1)


def folder(path: Path, sizes: list[tuple[int, int]], split: str) -> None:
    for label in ("cat", "dog"):
        (path / split / label).mkdir(parents=True)
        for number, size in enumerate(sizes):
            Image.new("RGB", size, (number, 0, 0)).save(path / split / label / f"{number}.png")


@pytest.mark.parametrize(
    ("changed", "sizes", "message"),
    [
        ({}, [(8, 8), (9, 9)], "images of 2 sizes"),
        ({}, [(8, 12)], "images of 12 × 8; set image_size"),
        ({}, [(10, 10)], "images of 10 pixels do not divide into patches of 4"),
        ({"image_count": 9}, [(8, 8)], "has 2 images, 9 are asked for; lower `image_count`"),
        ({"batch": 9}, [(8, 8)], "batch = 9 is more than the 2 images there are"),
    ],
)
def test_images_that_do_not_fit_are_refused_in_a_sentence(
    tmp_path: Path, changed: dict, sizes: list[tuple[int, int]], message: str
) -> None:
    folder(tmp_path, sizes, "train")
    folder(tmp_path, sizes, "test")
    spec = SPEC | {"images": {"source": "folder", "path": str(tmp_path)}, "image_count": None}
    with pytest.raises(UserError, match=message):
        train(spec | {"batch": 2} | changed, tmp_path / "out")


def test_folders_of_other_classes_are_refused(tmp_path: Path) -> None:
    folder(tmp_path, [(8, 8)], "train")
    folder(tmp_path, [(8, 8)], "test")
    (tmp_path / "test" / "cat").rename(tmp_path / "test" / "cow")
    spec = SPEC | {"images": {"source": "folder", "path": str(tmp_path)}, "image_count": None}
    with pytest.raises(UserError, match="has other classes than"):
        train(spec | {"batch": 2}, tmp_path / "out")


def test_a_share_of_the_labels_is_drawn_at_random_and_held_out_ones_are_not() -> None:
    shape = {key: value for key, value in SPEC.items() if key not in ("name", "checkpoints")}
    shape |= {"image_count": None}
    plain, half, whole = (
        image_data(parse(VisionTraining, shape | {"random_labels": share}, "x"))
        for share in (0.0, 0.5, 1.0)
    )
    # 1437 images of 10 classes: of the drawn ones a tenth keeps its class by chance. The binomial
    # errors of the shares are 0.013 and 0.008.
    assert (half.labels != plain.labels).float().mean() == pytest.approx(0.45, abs=0.05)
    assert (whole.labels != plain.labels).float().mean() == pytest.approx(0.9, abs=0.03)
    changed = half.labels != plain.labels
    assert torch.equal(half.labels[changed], whole.labels[changed])
    assert torch.equal(whole.images, plain.images)
    assert torch.equal(whole.watched_labels, plain.watched_labels)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"hidden_size": 17}, "hidden_size 17 is not a multiple of 2 heads"),
        ({"image_size": 10}, "image_size 10 is not a multiple of patch = 4"),
        ({"warmup": 3}, "warmup 3 is not below epochs = 3"),
        ({"final_learning_rate": 1}, "final_learning_rate 1 is above learning_rate = 0.01"),
        ({"checkpoints": [4]}, "epoch 4 is after the last, train.epochs = 3"),
        ({"augmentation": {"crops": 1}}, "unknown key; did you mean crop"),
        ({"architecture": "vitt"}, "unknown architecture 'vitt'; did you mean vit"),
    ],
)
def test_a_wrong_description_is_refused_in_a_sentence(
    tmp_path: Path, wrong: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        train(SPEC | wrong, tmp_path)
