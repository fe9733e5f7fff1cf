"""Each augmentation does what its name says: known images, Pillow's operations, frequencies."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from blockcoupling.config.vision import Augmentation
from blockcoupling.lab.training.augmentation import (
    OPERATIONS,
    Augmenting,
    cropped,
    flipped,
    rand_augmented,
    rectangles,
)


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def levels(seed: int = 0, count: int = 4, size: int = 16) -> torch.Tensor:
    """Images of whole levels, 0 … 255."""
    return torch.randint(256, (count, 3, size, size), generator=draw(seed))


def pillow(levels: torch.Tensor) -> Image.Image:
    return Image.fromarray(levels.permute(1, 2, 0).numpy().astype(np.uint8))


def back(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image).astype(np.float32)).permute(2, 0, 1)


BY = 0.5
FACTOR = 1 + 0.9 * BY
PILLOWS = {
    "auto_contrast": (ImageOps.autocontrast, 1.5),
    "equalize": (ImageOps.equalize, 1),
    "invert": (ImageOps.invert, 0.5),
    "posterize": (lambda x: ImageOps.posterize(x, 2), 1),
    "colour": (lambda x: ImageEnhance.Color(x).enhance(FACTOR), 2),
    "sharpness": (lambda x: ImageEnhance.Sharpness(x).enhance(FACTOR), 2),
    "brightness": (lambda x: ImageEnhance.Brightness(x).enhance(FACTOR), 1.5),
    "contrast": (lambda x: ImageEnhance.Contrast(x).enhance(FACTOR), 2),
}
"""With how far, in levels, Pillow's whole numbers can be off: one rounding, or two of them and the
weights of a grey value in three digits."""


@pytest.mark.parametrize("name", PILLOWS)
def test_an_operation_is_pillows(name: str) -> None:
    theirs, bound = PILLOWS[name]
    images = levels()
    ours = OPERATIONS[name](images / 255, torch.full((4,), BY)).clamp(0, 1) * 255
    for image, own in zip(images, ours, strict=True):
        assert float((own - back(theirs(pillow(image)))).abs().max()) <= bound


def test_solarized_images_turn_round_what_is_above_the_threshold() -> None:
    x = torch.tensor([0.1, 0.4, 0.6, 0.9]).view(1, 1, 1, 4)
    turned = OPERATIONS["solarize"](x, torch.tensor([0.5]))
    torch.testing.assert_close(turned.flatten(), torch.tensor([0.1, 0.4, 0.4, 0.1]))
    added = OPERATIONS["solarize_add"](x, torch.tensor([1.0]))
    torch.testing.assert_close(
        added.flatten(), torch.tensor([0.1 + 110 / 255, 0.4 + 110 / 255, 0.6, 0.9])
    )


def test_images_are_moved_turned_and_sheared_about_their_middle() -> None:
    x = torch.zeros(1, 1, 21, 21)
    x[0, 0, 10, 10] = 1
    moved = OPERATIONS["translate_x"](x, torch.tensor([4 / 21 / 0.45]))
    # An interpolated pixel: four places of a float32 position.
    assert float(moved[0, 0, 10, 14]) == pytest.approx(1, abs=1e-4)
    moved = OPERATIONS["translate_y"](x, torch.tensor([-4 / 21 / 0.45]))
    assert float(moved[0, 0, 6, 10]) == pytest.approx(1, abs=1e-4)
    for name in ("rotate", "shear_x", "shear_y"):
        stays = OPERATIONS[name](x, torch.tensor([1.0]))
        assert float(stays[0, 0, 10, 10]) == pytest.approx(1, abs=1e-4)
        still = OPERATIONS[name](x, torch.tensor([0.0]))
        torch.testing.assert_close(still, x, rtol=0, atol=1e-4)
    x = torch.zeros(1, 1, 21, 21)
    x[0, 0, 10, :] = 1  # a level line, at 30 degrees: down by tan 30° a pixel
    turned = OPERATIONS["rotate"](x, torch.tensor([1.0]))[0, 0]
    ridge = turned[:, 4:17].argmax(0).float()
    slope = float(np.polyfit(np.arange(13), ridge.numpy(), 1)[0])
    # Rows are whole numbers: over 13 columns a slope is good to about 1/13.
    assert abs(slope) == pytest.approx(np.tan(np.pi / 6), abs=0.08)


def test_crops_are_windows_of_the_padded_image() -> None:
    images = levels(count=200, size=5).float() + 1
    windows = cropped(images, 2, draw())
    padded = torch.nn.functional.pad(images, [2] * 4)
    places = set()
    for image, window in zip(padded, windows, strict=True):
        found = [
            (row, column)
            for row in range(5)
            for column in range(5)
            if torch.equal(image[:, row : row + 5, column : column + 5], window)
        ]
        assert len(found) == 1
        places.add(found[0])
    assert len(places) == 25  # each missing with probability (24/25)^200 < 3e-4; the seed is fixed


def test_half_of_the_images_are_mirrored() -> None:
    images = levels(count=400, size=4)
    turned = flipped(images, draw())
    mirrored = (turned == images.flip(3)).all((1, 2, 3))
    assert bool((mirrored | (turned == images).all((1, 2, 3))).all())
    assert abs(float(mirrored.float().mean()) - 0.5) < 4 * 0.5 / 20  # four standard errors


def test_every_image_has_operations_of_its_own() -> None:
    images = (levels(count=1) / 255).expand(256, -1, -1, -1)
    changed = rand_augmented(images, 1, 9, 0.5, draw())
    # Images that differ: not less than two signs or strengths of some operations.
    assert len(torch.unique(changed.flatten(1), dim=0)) > len(OPERATIONS)
    assert float(changed.min()) >= 0
    assert float(changed.max()) <= 1
    assert torch.equal(rand_augmented(images, 0, 9, 0.5, draw()), images)


def test_rectangles_are_of_the_size_and_as_often_as_said() -> None:
    taken = rectangles(2000, 32, 32, 0.25, draw())
    areas = taken.flatten(1).sum(1)
    erased = areas > 0
    assert abs(float(erased.float().mean()) - 0.25) < 4 * (0.25 * 0.75 / 2000) ** 0.5
    # Sides are rounded to whole pixels: the area is off by half a pixel along each of them.
    share = areas[erased] / 32**2
    assert float(share.min()) > 0.01
    assert float(share.max()) < 1 / 3 + 0.04
    for mask in taken[erased][:50]:
        rows, columns = mask.any(1), mask.any(0)
        assert int(mask.sum()) == int(rows.sum()) * int(columns.sum())
    assert not rectangles(50, 32, 32, 0.0, draw()).any()


def test_augmented_images_are_normalised_and_repeat_themselves() -> None:
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.3])
    off = Augmentation(crop=0, flip=False, randaugment=0, erasing=0)
    images = levels() / 255
    plain = Augmenting(off, mean, std, draw())(images)
    torch.testing.assert_close(plain * std[:, None, None] + mean[:, None, None], images)
    all_of_it = Augmentation(erasing=1.0)
    first, again = (Augmenting(all_of_it, mean, std, draw(3))(images) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, Augmenting(all_of_it, mean, std, draw(4))(images))
    assert first.shape == images.shape
