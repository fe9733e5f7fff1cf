"""Digests are SHA-256, of content alone."""

import hashlib
from pathlib import Path

import pytest

from blockcoupling.digests import (
    file_digest,
    json_digest,
    remembered_digest,
    remembered_tree_digest,
)

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # printf abc | sha256sum


@pytest.mark.parametrize("digest", [file_digest, remembered_digest])
def test_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digest) -> None:
    monkeypatch.setenv("BLOCKCOUPLING_CACHE", str(tmp_path / "cache"))
    (tmp_path / "f").write_bytes(b"abc")
    assert digest(tmp_path / "f") == ABC
    with pytest.raises(FileNotFoundError):
        digest(tmp_path / "gone")


def test_json_in_any_order_of_keys() -> None:
    assert json_digest({"b": 1, "a": None}) == json_digest({"a": None, "b": 1})
    assert json_digest({"b": 1, "a": None}) == hashlib.sha256(b'{"a": null, "b": 1}').hexdigest()
    assert json_digest(["abc"]) != json_digest("abc")


def test_a_directory_is_its_names_and_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLOCKCOUPLING_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "pictures"
    (place / "cat").mkdir(parents=True)
    (place / "cat" / "a").write_bytes(b"1")
    first = remembered_tree_digest(place)
    assert first == json_digest({"cat/a": hashlib.sha256(b"1").hexdigest()})
    assert remembered_tree_digest(place.rename(tmp_path / "moved")) == first
    (tmp_path / "moved" / "cat" / "a").write_bytes(b"2")
    assert remembered_tree_digest(tmp_path / "moved") != first
    (tmp_path / "moved" / "cat" / "a").write_bytes(b"1")
    (tmp_path / "moved" / "cat" / "a").rename(tmp_path / "moved" / "cat" / "b")
    assert remembered_tree_digest(tmp_path / "moved") != first


def test_a_directory_is_read_once_until_a_file_in_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLOCKCOUPLING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("blockcoupling.digests._UNSETTLED_NS", -(10**12))
    place = tmp_path / "pictures"
    place.mkdir()
    (place / "a").write_bytes(b"1")
    first = remembered_tree_digest(place)
    with monkeypatch.context() as without:
        without.setattr("blockcoupling.digests.file_digest", None)
        assert remembered_tree_digest(place) == first
    (place / "a").write_bytes(b"2")
    assert remembered_tree_digest(place) != first
