"""Files of weights: one rule for which they are, and one sentence for each way of being broken."""

import errno
import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from blockcoupling.errors import UserError
from blockcoupling.transformer.weight_files import (
    read_header,
    stored_tensors,
    weight_files,
    weight_problems,
)

CONFIG = {"model_type": "llama", "num_hidden_layers": 2}
NAMES = ["model.embed", "model.layers.0.w", "model.layers.1.w", "lm_head.weight"]


def tensors(names: list[str] = NAMES) -> dict[str, torch.Tensor]:
    return {name: torch.full((2, 3), float(n)) for n, name in enumerate(names)}


def single(directory: Path, names: list[str] = NAMES, **config: object) -> Path:
    save_file(tensors(names), directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(CONFIG | config))
    return directory


def sharded(directory: Path) -> Path:
    """Two shards and their index, of the same names."""
    (directory / "config.json").write_text(json.dumps(CONFIG))
    where = {}
    for number, names in enumerate((NAMES[:2], NAMES[2:]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file(tensors(names), directory / file)
        where |= dict.fromkeys(names, file)
    write_index(directory, where)
    return directory


def write_index(directory: Path, where: object) -> None:
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))


def test_headers_tell_names_shapes_and_types(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    types = {torch.float32: "F32", torch.bfloat16: "BF16", torch.int64: "I64", torch.bool: "BOOL"}
    save_file({str(t): torch.ones(2, 1, dtype=t) for t in types}, file, metadata={"format": "pt"})
    header = read_header(file)
    assert {name: t.dtype for name, t in header.items()} == {str(t): n for t, n in types.items()}
    assert {t.shape for t in header.values()} == {(2, 1)}
    save_file({"scalar": torch.tensor(1.0), "none": torch.ones(0, 4)}, file)
    assert {name: t.shape for name, t in read_header(file).items()} == {
        "scalar": (),
        "none": (0, 4),
    }


def test_shards_are_those_of_their_index(tmp_path: Path) -> None:
    sharded(tmp_path)
    save_file({"other": torch.ones(1)}, tmp_path / "consolidated.safetensors")
    assert [f.name[:11] for f in weight_files(tmp_path)] == ["model-00001", "model-00002"]
    assert set(stored_tensors(tmp_path)) == set(NAMES)
    assert weight_problems(tmp_path) == []


def test_a_single_file_with_shards_is_refused_unless_the_configuration_names_its_own(
    tmp_path: Path,
) -> None:
    single(sharded(tmp_path), NAMES[:3])
    with pytest.raises(UserError, match=r"two sets of weights: model\.safetensors, and the shards"):
        stored_tensors(tmp_path)
    save_file(tensors(NAMES[1:3]), tmp_path / "ema.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"transformers_weights": "ema.safetensors"}))
    assert set(stored_tensors(tmp_path)) == set(NAMES[1:3])


def test_a_directory_without_weights_has_no_problem_with_them(tmp_path: Path) -> None:
    assert weight_files(tmp_path) == []
    assert stored_tensors(tmp_path) == {}


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5])


def lengthen(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0" * 5)


def cut_in_its_header(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:40])


def put_a_pointer(file: Path) -> None:
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0a\nsize 9\n")


def empty(file: Path) -> None:
    file.write_bytes(b"")


def put_a_directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def put_a_dead_link(file: Path) -> None:
    file.unlink()
    file.symlink_to("nowhere")


def put_a_web_page(file: Path) -> None:
    file.write_text("<!DOCTYPE html><html><body>401 Unauthorized</body></html>")


def edit_header(edit: Callable[[str], str]) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        data = file.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        header = edit(data[8 : 8 + length].decode()).encode()
        file.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + length :])

    return change


BROKEN = {
    "half": (truncate, r"has \d+ bytes, but its header describes \d+: it is incomplete"),
    "too long": (lengthen, "it is incomplete; download or copy it again"),
    "half header": (cut_in_its_header, "is not a complete safetensors file"),
    "pointer": (put_a_pointer, "a Git LFS pointer, not the weights; run `git lfs pull`"),
    "empty": (empty, "is empty; download or copy it again"),
    "directory": (put_a_directory, "is a directory instead of a file of weights"),
    "dead link": (put_a_dead_link, r"is missing \(a dangling link\)"),
    "web page": (put_a_web_page, "is not a complete safetensors file"),
    "type": (
        edit_header(lambda h: h.replace("F32", "F31")),
        "of type F31, which torch does not know",
    ),
    "shape": (edit_header(lambda h: h.replace("[2,3]", "[2,4]")), "contradicts itself"),
    "no shape": (edit_header(lambda h: h.replace("shape", "form")), "not a complete safetensors"),
    "twice": (
        edit_header(lambda h: h.replace("layers.1", "layers.0")),
        "a name occurs twice in its header",
    ),
}


@pytest.mark.parametrize(("damage", "words"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_named(tmp_path: Path, damage: Callable[[Path], None], words: str) -> None:
    file = single(tmp_path) / "model.safetensors"
    damage(file)
    with pytest.raises(UserError, match=words) as refused:
        stored_tensors(tmp_path)
    assert str(file) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_every_broken_shard_is_named(tmp_path: Path) -> None:
    first, second = weight_files(sharded(tmp_path))
    first.unlink()
    truncate(second)
    assert [p.split(" ")[0] for p in weight_problems(tmp_path)] == [str(first), str(second)]
    assert weight_problems(tmp_path)[0] == f"{first} is missing; download or copy it again"


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = single(tmp_path) / "model.safetensors"

    def refuse(self: Path, *args: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match="cannot be read: Permission denied"):
        read_header(file)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ([], "is not an index of weights"),
        ({"a": 5}, "is not an index of weights"),
        ({"a": "../elsewhere.safetensors"}, "names a file outside its directory"),
        ({"a": "/etc/passwd"}, "names a file outside its directory"),
    ],
)
def test_an_index_that_is_none(tmp_path: Path, where: object, words: str) -> None:
    write_index(sharded(tmp_path), where)
    assert len(weight_problems(tmp_path)) == 1
    with pytest.raises(UserError, match=words):
        weight_files(tmp_path)


def test_an_index_that_is_no_json(tmp_path: Path) -> None:
    (sharded(tmp_path) / "model.safetensors.index.json").write_text("{")
    (problem,) = weight_problems(tmp_path)
    assert "model.safetensors.index.json is not an index of weights (JSONDecodeError" in problem


def test_an_index_that_names_what_no_file_holds(tmp_path: Path) -> None:
    shard = weight_files(sharded(tmp_path))[0]
    save_file(tensors(NAMES[:1]), shard)
    (problem,) = weight_problems(tmp_path)
    assert "lists 1 tensors that no file holds, such as model.layers.0.w" in problem


def test_a_tensor_in_two_files(tmp_path: Path) -> None:
    shard = weight_files(sharded(tmp_path))[0]
    save_file(tensors(NAMES[:3]), shard)
    (problem,) = weight_problems(tmp_path)
    assert "1 tensors, such as model.layers.1.w, are both in" in problem


def test_an_adapter_next_to_the_weights(tmp_path: Path) -> None:
    (single(tmp_path) / "adapter_config.json").write_text("{}")
    (problem,) = weight_problems(tmp_path)
    assert "holds an adapter" in problem
    assert "merge_and_unload" in problem


@pytest.mark.parametrize(
    ("prefix", "said"),
    [
        ("module.", "module."),
        ("_orig_mod.", "_orig_mod."),
        ("student.", "student."),
        ("module._orig_mod.", "module._orig_mod."),
        ("base_model.model.", "base_model."),
    ],
)
def test_a_wrappers_prefix(tmp_path: Path, prefix: str, said: str) -> None:
    (problem,) = weight_problems(single(tmp_path, [prefix + name for name in NAMES]))
    assert f"have the prefix '{said}'" in problem


@pytest.mark.parametrize(
    ("names", "config"),
    [
        (NAMES, {}),
        (NAMES[:3], {}),  # a tied head
        (["embed_tokens.weight", "layers.0.w", "layers.1.w"], {}),  # a body
        (["transformer.h.0.w", "transformer.h.1.w"], {"num_hidden_layers": None, "n_layer": 2}),
        ([*NAMES, "model.layers.2.w"], {"num_nextn_predict_layers": 1}),
        ([*NAMES, *(f"model.layers.1.experts.{n}.w" for n in range(9))], {}),
        ([*NAMES, *(f"vision.layers.{n}.w" for n in range(9))], {"text_config": CONFIG}),
        ([f"own.model.layers.{n}.w" for n in range(2)], {"auto_map": {}}),
    ],
)
def test_names_that_are_in_order(tmp_path: Path, names: list[str], config: dict) -> None:
    assert weight_problems(single(tmp_path, names, **config)) == []


def test_more_blocks_than_the_configuration_says(tmp_path: Path) -> None:
    names = [*NAMES, "model.layers.2.w", "model.layers.3.w"]
    (problem,) = weight_problems(single(tmp_path, names))
    assert "hold 4 blocks (model.layers), but its config.json says 2" in problem
