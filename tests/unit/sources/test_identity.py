"""A model's identity is the content of its files: names, places and facts are not in it."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_model import save_tiny_model

from blockcoupling import digests
from blockcoupling.digests import json_digest, remembered_digest
from blockcoupling.errors import UserError
from blockcoupling.sources.identity import content_identity, demand_same_content
from blockcoupling.sources.models import load_model, model_record
from blockcoupling.sources.records import with_facts, without_facts


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny", hidden_size=16)


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BLOCKCOUPLING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "digests"


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny, tmp_path / "copy")


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose bytes are read."""
    names: list[str] = []
    digest = digests.hashlib.file_digest

    def noting(stream, kind):
        names.append(Path(stream.name).name)
        return digest(stream, kind)

    monkeypatch.setattr(digests.hashlib, "file_digest", noting)
    return names


def flip(file: Path, at: int = -1) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def settle(directory: Path) -> None:
    """Make files look as if they had been written long ago (all but ctime, which cannot be set)."""
    for file in directory.iterdir():
        os.utime(file, (1, 1))


def test_a_copy_elsewhere_is_the_same_model(tiny: Path, copy: Path) -> None:
    assert content_identity({"path": tiny}) == content_identity({"path": copy})


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda d: flip(d / "model.safetensors"), "weights"),
        (lambda d: edit(d / "config.json", rope_theta=7.0), "config"),
        (lambda d: edit(d / "tokenizer_config.json", add_bos_token=True), "tokenizer"),
        (lambda d: edit(d / "tokenizer.json", version="x"), "tokenizer"),
        (lambda d: (d / "processor_config.json").write_text("{}"), "tokenizer"),
        (lambda d: (d / "preprocessor_config.json").write_text("{}"), "tokenizer"),
        (lambda d: (d / "vocab.bpe").write_text("a"), "tokenizer"),
        (lambda d: (d / "sentencepiece.bpe.model").write_text("a"), "tokenizer"),
        (lambda d: (d / "tokenizer.model.v3").write_text("a"), "tokenizer"),
        (lambda d: (d / "source.spm").write_text("a"), "tokenizer"),
        (lambda d: (d / "tekken.json").write_text("{}"), "tokenizer"),
        (lambda d: (d / "tokenizer.4.0.0.json").write_text("{}"), "tokenizer"),
        (lambda d: (d / "adapter_model.safetensors").write_bytes(b"x"), "weights"),
    ],
)
def test_what_decides_numbers_is_in_it(copy: Path, change: Callable, part: str) -> None:
    before = content_identity({"path": copy})
    change(copy)
    after = content_identity({"path": copy})
    assert [key for key in before if before[key] != after[key]] == [part]


@pytest.mark.parametrize(
    "change",
    [
        lambda d: edit(d / "config.json", _name_or_path="elsewhere", transformers_version="0"),
        lambda d: (d / "README.md").write_text("a model"),
        lambda d: (d / "training.json").write_text("{}"),
        lambda d: (d / "trainer_state.json").write_text("{}"),
        lambda d: (d / "chat_template.jinja").write_text("a"),
        lambda d: (d / "chat_template.json").write_text("{}"),
        lambda d: edit(d / "tokenizer_config.json", chat_template="a"),
        lambda d: (d / "generation_config.json").write_text("{}"),
        lambda d: (d / "pytorch_model.bin").write_bytes(b"not read"),
        lambda d: (d / "model.safetensors.index.json").write_text("{}"),
        lambda d: (d / "model-00001-of-00002.safetensors").write_bytes(b"not read"),
        lambda d: (d / "tool.py").write_text("never run"),
        lambda d: os.utime(d / "model.safetensors", (5, 5)),
    ],
)
def test_what_decides_none_is_not(copy: Path, change: Callable) -> None:
    before = content_identity({"path": copy})
    change(copy)
    assert content_identity({"path": copy}) == before


def test_every_file_that_a_tokenizer_of_transformers_reads_is_in_it(copy: Path) -> None:
    """Asked of transformers: the names that its tokenizers give to their files."""
    from transformers.models.auto.tokenization_auto import (
        TOKENIZER_MAPPING_NAMES,
        tokenizer_class_from_name,
    )

    classes = {tokenizer_class_from_name(n) for n in TOKENIZER_MAPPING_NAMES.values() if n}
    names = {file for kind in classes for file in getattr(kind, "vocab_files_names", {}).values()}
    assert {"tokenizer.json", "vocab.txt"} < names
    seen = content_identity({"path": copy})["tokenizer"]
    for name in sorted(names):
        (copy / name).write_text("{}" if name != "tokenizer.json" else "{ }")
        after = content_identity({"path": copy})["tokenizer"]
        assert after != seen, name
        seen = after


def test_the_file_that_an_image_processor_is_read_from_is_in_it(copy: Path) -> None:
    """transformers 5 prefers `processor_config.json`, where both are there."""
    from transformers import AutoImageProcessor, ViTImageProcessorPil

    ViTImageProcessorPil(size={"height": 4, "width": 4}).save_pretrained(copy)
    before = content_identity({"path": copy})
    inner = json.loads((copy / "preprocessor_config.json").read_text())
    edited = {"image_processor": inner | {"image_mean": [0.1, 0.2, 0.3]}}
    (copy / "processor_config.json").write_text(json.dumps(edited))
    loaded = AutoImageProcessor.from_pretrained(copy, backend="pil")
    assert list(loaded.image_mean) == [0.1, 0.2, 0.3]
    assert content_identity({"path": copy})["tokenizer"] != before["tokenizer"]


def test_how_it_is_loaded_is_in_it(copy: Path, tmp_path: Path) -> None:
    plain = content_identity({"path": copy})
    assert content_identity({"path": copy, "dtype": "float32"}) == plain
    other_tokenizer = shutil.copytree(copy, tmp_path / "t")
    edit(other_tokenizer / "tokenizer_config.json", model_max_length=3)
    for more in (
        {"dtype": "bfloat16"},
        {"quantization": "nf4"},
        {"init_seed": 0},
        {"tokenizer": str(other_tokenizer)},
    ):
        assert json_digest(content_identity({"path": copy, **more})) != json_digest(plain)
    (copy / "code.py").write_text("1")
    trusted = content_identity({"path": copy, "trust_remote_code": True})
    (copy / "code.py").write_text("2")
    assert content_identity({"path": copy, "trust_remote_code": True}) != trusted


def test_weights_drawn_anew_are_those_of_the_seed(copy: Path) -> None:
    before = content_identity({"path": copy, "init_seed": 1})
    flip(copy / "model.safetensors")
    assert content_identity({"path": copy, "init_seed": 1}) == before


def test_of_shards_every_one_counts(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "model-1.safetensors")
    (copy / "model-2.safetensors").write_bytes(b"abc")
    shards = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    seen = {content_identity({"path": copy})["weights"]}
    for shard in shards.values():
        flip(copy / shard)
        seen.add(content_identity({"path": copy})["weights"])
    assert len(seen) == 3


def test_weights_under_a_name_of_their_own_count(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "other.safetensors")
    edit(copy / "config.json", transformers_weights="other.safetensors")
    before = content_identity({"path": copy})
    flip(copy / "other.safetensors")
    assert content_identity({"path": copy})["weights"] != before["weights"]


def test_pickles_count_where_there_is_nothing_else(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    before = content_identity({"path": copy})
    flip(copy / "pytorch_model.bin")
    assert content_identity({"path": copy})["weights"] != before["weights"]


def test_a_file_is_read_once(copy: Path, reading: list[str], monkeypatch) -> None:
    monkeypatch.setattr(digests, "_UNSETTLED_NS", 0)
    content_identity({"path": copy})
    assert "model.safetensors" in reading
    reading.clear()
    content_identity({"path": copy})
    assert reading == []
    (copy / "model.safetensors").touch()
    content_identity({"path": copy})
    assert reading == ["model.safetensors"]


def test_a_file_just_written_is_read_again(copy: Path, reading: list[str]) -> None:
    """Within a tick of the clock it could be written to again under the same times."""
    weights = copy / "model.safetensors"
    weights.touch()
    first = remembered_digest(weights)
    data, before = bytearray(weights.read_bytes()), weights.stat()
    data[-1] ^= 1
    with weights.open("r+b") as stream:  # in place: the same inode
        stream.write(data)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert remembered_digest(weights) != first


def test_old_times_do_not_hide_new_content(copy: Path, monkeypatch) -> None:
    monkeypatch.setattr(digests, "_UNSETTLED_NS", 0)
    settle(copy)
    first = remembered_digest(copy / "model.safetensors")
    time.sleep(0.02)  # more than a tick of the file system's clock
    flip(copy / "model.safetensors")
    settle(copy)
    assert remembered_digest(copy / "model.safetensors") != first


def test_a_link_is_what_it_leads_to(copy: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(digests, "_UNSETTLED_NS", 0)
    other = shutil.copytree(copy, tmp_path / "other")
    flip(other / "model.safetensors")
    link = tmp_path / "link"
    link.symlink_to(copy)
    first = content_identity({"path": link})
    assert first == content_identity({"path": copy})
    link.unlink()
    link.symlink_to(other)
    assert content_identity({"path": link}) == content_identity({"path": other}) != first
    (copy / "model.safetensors").unlink()
    (copy / "model.safetensors").symlink_to(other / "model.safetensors")
    assert content_identity({"path": copy}) == content_identity({"path": other})


def test_files_of_the_hub_are_held_against_their_names(tiny: Path, tmp_path: Path) -> None:
    """Its cache names large files by their SHA-256, small ones by Git's digest."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "commit"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    digest = remembered_digest(tiny / "model.safetensors")
    for file in tiny.iterdir():
        name = digest if file.name == "model.safetensors" else f"{len(file.name):040x}"
        shutil.copy(file, blobs / name)
        (snapshot / file.name).symlink_to(blobs / name)
    identity = content_identity({"source": "hub"}, snapshot)
    assert identity["weights"] == content_identity({"path": tiny})["weights"]
    content = bytearray((blobs / digest).read_bytes())
    content[-1] ^= 1
    (blobs / digest).write_bytes(content)
    with pytest.raises(UserError, match=f"{digest} is damaged: .* downloaded again"):
        content_identity({"source": "hub"}, snapshot)


def test_a_home_that_cannot_be_written_to_costs_time_only(
    copy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(digests, "_UNSETTLED_NS", 0)
    expected = content_identity({"path": copy})
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BLOCKCOUPLING_CACHE", str(tmp_path / "file"))
    assert content_identity({"path": copy}) == expected


def test_what_cannot_be_read_is_named(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "model.safetensors").symlink_to(copy / "gone")
    with pytest.raises(UserError, match=r"cannot read .*model\.safetensors: No such file"):
        content_identity({"path": copy})


# --------------------------------------------------------------------------------- in records


def record_of(path: Path, **more: object) -> dict:
    return model_record(
        {"name": "m", "checkpoint": "c", "source": "local", "path": str(path), **more}
    )


def test_a_record_that_no_longer_fits_is_refused(copy: Path) -> None:
    record = record_of(copy)
    demand_same_content(record, copy, "m")
    load_model(record)
    flip(copy / "model.safetensors")
    with pytest.raises(UserError, match=r"model m, checkpoint c .*weights changed.*Look it up"):
        load_model(record)


def test_facts_of_a_model_decide_no_number(copy: Path) -> None:
    spec = {"name": "m", "checkpoint": "c", "source": "local", "path": str(copy)}
    told = {**spec, "family": "a", "base": True, "facts": {"x": 1}, "parameters": 7, "tokens": 9}
    found = model_record(without_facts(told))
    assert found == model_record(spec)
    record = with_facts(found, told)
    assert record == model_record(told)
    assert (record["family"], record["parameters"], record["tokens"]) == ("a", 7, 9)
    assert record["identity"] == found["identity"]
