"""Labelled images from every form they come in, and what is wrong with them in one sentence."""

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blockcoupling.config.images import IMAGES, Cifar10Images, DigitsImages, FolderImages
from blockcoupling.errors import UserError
from blockcoupling.sources import cifar10
from blockcoupling.sources.images import load_images
from blockcoupling.sources.pictures import Images, content_digest, stacked

BATCH = 6


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """A CIFAR-10 of five and one batches of six images, as if it were the published one."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6 * BATCH, 3072), dtype=np.uint8)
    labels = rng.integers(0, 10, (6 * BATCH, 1), dtype=np.uint8)
    records = np.concatenate([labels, pixels], axis=1)
    import hashlib

    parts = {"train": records[: 5 * BATCH], "test": records[5 * BATCH :]}
    monkeypatch.setattr(cifar10, "_BATCH", BATCH)
    monkeypatch.setattr(cifar10, "COUNT", {name: len(part) for name, part in parts.items()})
    digests = {name: hashlib.sha256(part.tobytes()).hexdigest() for name, part in parts.items()}
    monkeypatch.setattr(cifar10, "SHA256", digests)
    return records


def names() -> list[str]:
    return [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]


def write_binary(records: np.ndarray, place: Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for name, part in zip(names(), np.split(records, 6), strict=True):
        (place / f"{name}.bin").write_bytes(part.tobytes())


def write_python(records: np.ndarray, place: Path, protocol: int = 2) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for name, part in zip(names(), np.split(records, 6), strict=True):
        content = {
            b"batch_label": name.encode(),
            b"labels": part[:, 0].tolist(),
            b"data": np.ascontiguousarray(part[:, 1:]),
            b"filenames": [f"{n}.png".encode() for n in range(len(part))],
        }
        (place / name).write_bytes(pickle.dumps(content, protocol=protocol))


def write_npz(records: np.ndarray, place: Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for split, part in (("train", records[: 5 * BATCH]), ("test", records[5 * BATCH :])):
        images = part[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        np.savez_compressed(place / f"cifar10_{split}.npz", images=images, labels=part[:, 0])


def archive(place: Path, path: Path) -> Path:
    with tarfile.open(path, "w:gz") as out:
        out.add(place, arcname=place.name)
    return path


@pytest.mark.parametrize("form", ["binary", "python", "python-5", "npz", "archive", "inside"])
def test_every_form_of_cifar10_gives_the_same_images(
    published: np.ndarray, tmp_path: Path, form: str
) -> None:
    place = tmp_path / "cifar-10-batches-bin"
    if form.startswith("python"):
        place = tmp_path / "cifar-10-batches-py"
        write_python(published, place, 5 if form == "python-5" else 2)
    elif form == "npz":
        write_npz(published, place)
    else:
        write_binary(published, place)
    path = archive(place, tmp_path / "c.tar.gz") if form == "archive" else place
    found = load_images(Cifar10Images(path=tmp_path if form == "inside" else path), "test")
    wanted = published[5 * BATCH :]
    assert found.labels.tolist() == wanted[:, 0].tolist()
    for picture, record in zip(found.pictures, wanted, strict=True):
        assert (picture[:, :, 1].ravel() == record[1 + 1024 : 1 + 2048]).all()  # green is second
    assert len(load_images(Cifar10Images(path=path), "train")) == 5 * BATCH


def test_a_pickle_of_cifar10_is_read_and_nothing_in_it_runs(
    published: np.ndarray, tmp_path: Path
) -> None:
    write_python(published, tmp_path)
    mark = tmp_path / "ran"

    class Bad:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (mark,)  # type: ignore[return-value]

    content = pickle.loads((tmp_path / "test_batch").read_bytes())
    (tmp_path / "test_batch").write_bytes(pickle.dumps({b"more": Bad(), **content}, protocol=2))
    assert len(load_images(Cifar10Images(path=tmp_path), "test")) == BATCH
    assert not mark.exists()
    pickle.loads((tmp_path / "test_batch").read_bytes())
    assert mark.exists()  # loading it would have run it


def test_damaged_or_other_cifar10_is_refused(published: np.ndarray, tmp_path: Path) -> None:
    place = tmp_path / "bin"
    write_binary(published, place)
    flipped = bytearray((place / "test_batch.bin").read_bytes())
    flipped[100] ^= 1
    (place / "test_batch.bin").write_bytes(flipped)
    with pytest.raises(UserError, match="not the published test images of CIFAR-10"):
        load_images(Cifar10Images(path=place), "test")
    (place / "test_batch.bin").write_bytes(flipped[:-1])
    with pytest.raises(UserError, match=r"test_batch\.bin has \d+ bytes"):
        load_images(Cifar10Images(path=place), "test")
    (place / "data_batch_3.bin").unlink()
    with pytest.raises(UserError, match=r"data_batch_3\.bin is missing"):
        load_images(Cifar10Images(path=place), "train")
    whole = archive(place, tmp_path / "c.tar.gz").read_bytes()
    (tmp_path / "half.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"half\.tar\.gz is damaged"):
        load_images(Cifar10Images(path=tmp_path / "half.tar.gz"), "test")
    with pytest.raises(UserError, match="does not exist"):
        load_images(Cifar10Images(path=tmp_path / "none"), "test")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no CIFAR-10"):
        load_images(Cifar10Images(path=tmp_path / "empty"), "test")
    (tmp_path / "weights.pt").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(UserError, match="neither a tar archive nor an npz file"):
        load_images(Cifar10Images(path=tmp_path / "weights.pt"), "test")


@pytest.mark.usefixtures("published")
def test_pickled_arrays_and_wrong_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "cifar10_test.npz"
    np.savez(path, images=np.array([{"a": 1}], dtype=object), labels=np.zeros(1, np.uint8))
    with pytest.raises(UserError, match="pickled objects are not read"):
        load_images(Cifar10Images(path=path), "test")
    np.savez(path, pictures=np.zeros(1))
    with pytest.raises(UserError, match="no array 'images'; it has pictures"):
        load_images(Cifar10Images(path=path), "test")
    np.savez(path, images=np.zeros((BATCH, 32, 32, 3), np.uint8), labels=np.full(BATCH, 11))
    with pytest.raises(UserError, match="labels are not one number from 0 to 9"):
        load_images(Cifar10Images(path=path), "test")
    np.savez(path, images=np.zeros((2, 32, 32, 3), np.uint8), labels=np.zeros(2, np.uint8))
    with pytest.raises(UserError, match="2 images in the test split"):
        load_images(Cifar10Images(path=path), "test")
    path.write_bytes(b"PK\x03\x04 something")
    with pytest.raises(UserError, match="not an npz file, or damaged"):
        load_images(Cifar10Images(path=path), "test")


def png(path: Path, size: int = 4, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size, size, 3), value, np.uint8)).save(path)


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    png(tmp_path / "test" / "cat" / "2.png", value=2)
    png(tmp_path / "test" / "cat" / "1.png", value=1)
    png(tmp_path / "test" / "dog" / "a.jpg", value=9)
    Image.new("L", (4, 4), 7).save(tmp_path / "test" / "dog" / "grey.png")
    (tmp_path / "test" / "dog" / "notes.txt").write_text("no image")
    found = load_images(FolderImages(path=tmp_path), "test")
    assert found.classes == ("cat", "dog")
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert [int(p[0, 0, 0]) for p in found.pictures][:2] == [1, 2]
    assert stacked(found).shape == (4, 4, 4, 3)


def test_all_broken_files_of_a_folder_are_named(tmp_path: Path) -> None:
    png(tmp_path / "train" / "a" / "good.png", size=64)
    whole = (tmp_path / "train" / "a" / "good.png").read_bytes()
    (tmp_path / "train" / "a" / "half.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "train" / "a" / "text.png").write_text("no image")
    with pytest.raises(UserError) as caught:
        load_images(FolderImages(path=tmp_path), "train")
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert "half.png is not a whole image" in lines[0]
    assert "text.png is not an image" in lines[1]


def test_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a directory"):
        load_images(FolderImages(path=tmp_path), "train")
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match="holds no folders"):
        load_images(FolderImages(path=tmp_path), "train")
    (tmp_path / "train" / "a").mkdir()
    with pytest.raises(UserError, match="no image files in a"):
        load_images(FolderImages(path=tmp_path), "train")


def test_pictures_of_two_sizes_do_not_stack(tmp_path: Path) -> None:
    png(tmp_path / "test" / "a" / "1.png", size=4)
    png(tmp_path / "test" / "a" / "2.png", size=5)
    with pytest.raises(UserError, match="images of 2 sizes"):
        stacked(load_images(FolderImages(path=tmp_path), "test"))


def test_digits_are_split_into_two_parts_that_share_nothing() -> None:
    train, test = (load_images(DigitsImages(), split) for split in ("train", "test"))
    assert len(train) + len(test) == 1797
    assert set(np.bincount(test.labels)) <= set(range(30, 42))
    assert stacked(test).shape == (359, 8, 8, 3)
    assert stacked(test).max() == 255
    assert content_digest(train) != content_digest(test)
    both = [{p.tobytes() for p in part.pictures} for part in (train, test)]
    assert not both[0] & both[1]


def test_labels_that_do_not_fit_are_refused() -> None:
    picture = np.zeros((2, 2, 3), np.uint8)
    with pytest.raises(UserError, match="1 images with 2 labels"):
        Images([picture], np.array([0, 1]), ("a", "b"), "mine")
    with pytest.raises(UserError, match="image 0 has the label 2, and there are 2 classes"):
        Images([picture], np.array([2]), ("a", "b"), "mine")


def test_a_dataset_of_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets

    from blockcoupling.sources import hub

    features = datasets.Features(
        {"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )
    buffer = io.BytesIO()
    Image.fromarray(np.full((3, 3, 3), 5, np.uint8)).save(buffer, "png")
    rows = {"img": [{"bytes": buffer.getvalue(), "path": None}] * 2, "label": [1, 0]}
    table = datasets.Dataset.from_dict(rows, features=features)
    monkeypatch.setattr(hub, "dataset_table", lambda *_: (table, "c0ffee"))
    section = IMAGES.kind({"id": "x/y"}).model_validate({"id": "x/y", "revision": "main"})
    found = load_images(section, "test")  # type: ignore[arg-type]
    assert found.classes == ("cat", "dog")
    assert found.labels.tolist() == [1, 0]
    assert (stacked(found) == 5).all()
    assert "revision c0ffee" in found.source
    wrong = section.model_copy(update={"image": "picture"})
    with pytest.raises(UserError, match="no column 'picture'; it has img, label"):
        load_images(wrong, "test")  # type: ignore[arg-type]
