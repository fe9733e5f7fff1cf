"""Digests are SHA-256, of content alone."""

import hashlib
from pathlib import Path

import pytest

from blockcoupling.digests import file_digest, json_digest, remembered_digest

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
