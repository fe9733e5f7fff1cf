"""Directories of models as users have them: measured equally in memory and streamed, or refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import xarray as xr
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_model import save_tiny_model
from transformers import (
    AutoConfig,
    GPTNeoXForCausalLM,
    GPTNeoXForSequenceClassification,
    GPTNeoXModel,
)

import blockcoupling as bc
from blockcoupling.errors import UserError
from blockcoupling.scores.scores import evaluate
from blockcoupling.sources.local import checkpoint_problems
from blockcoupling.sources.models import load_model, load_streamed, model_record
from blockcoupling.transformer.streaming import stream_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory that tests only read."""
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny, tmp_path / "copy")


def local(path: Path, **more: object) -> dict:
    return {"name": "tiny", "checkpoint": "main", "source": "local", "path": str(path), **more}


def edit_config(directory: Path, **changes: object) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def measured(directory: Path, streamed: bool) -> xr.Dataset:
    record = model_record(local(directory))
    model, tokenizer = (load_streamed if streamed else load_model)(record, "cpu")
    return bc.measure(model, tokenizer, "a couple", k=3)


def alike(one: xr.Dataset, other: xr.Dataset) -> None:
    """Weights at another address are multiplied in another order: a few eps, grown by blocks."""
    for name in ("S", "A", "gram"):
        scale = float(abs(other[name]).max())
        xr.testing.assert_allclose(one[name], other[name], rtol=0, atol=1e-5 * scale)


# ------------------------------------------------------------------------------- without its head


def keep_the_body(directory: Path) -> None:
    GPTNeoXModel.from_pretrained(directory).save_pretrained(directory)


def keep_a_classifier(directory: Path) -> None:
    config = AutoConfig.from_pretrained(directory, pad_token_id=0)
    model = GPTNeoXForSequenceClassification.from_pretrained(directory, config=config)
    model.save_pretrained(directory)


def drop_the_head(directory: Path) -> None:
    weights = load_file(directory / "model.safetensors")
    del weights["embed_out.weight"]
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("change", [keep_the_body, keep_a_classifier, drop_the_head])
def test_a_model_without_its_head_is_measured(
    tiny: Path, copy: Path, change: Callable[[Path], None]
) -> None:
    expected = measured(tiny, streamed=False)
    change(copy)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    for streamed in (False, True):
        alike(measured(copy, streamed), expected)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_without_its_head_is_recorded_as_what_it_is_and_not_scored(copy: Path) -> None:
    body = GPTNeoXModel.from_pretrained(copy)
    keep_the_body(copy)
    record = model_record(local(copy))
    assert record["parameters"] == sum(p.numel() for p in body.parameters())
    with pytest.raises(UserError, match="its files have no head"):
        evaluate(record, {"heldout": True}, "cpu")


def test_the_body_must_be_whole(copy: Path) -> None:
    keep_the_body(copy)
    edit_config(copy, num_hidden_layers=3)
    with pytest.raises(UserError, match=r"13 weights are missing .*layers\.2\."):
        measured(copy, streamed=False)


# --------------------------------------------------------------------- two models in a directory


def change_weights(directory: Path) -> Path:
    """A file of other weights, elsewhere."""
    weights = {k: w * 1.5 for k, w in load_file(directory / "model.safetensors").items()}
    file = directory / "other.safetensors"
    save_file(weights, file, metadata={"format": "pt"})
    return file


def test_two_sets_of_weights_are_refused_at_both_doors(tiny: Path, copy: Path) -> None:
    expected = measured(tiny, streamed=False)
    other = change_weights(copy)
    model = GPTNeoXForCausalLM.from_pretrained(copy)
    model.load_state_dict({k: w * 1.5 for k, w in model.state_dict().items()})
    shutil.move(copy / "model.safetensors", copy / "kept")
    other.unlink()
    model.save_pretrained(copy, max_shard_size="60KB")
    assert len(list(copy.glob("model-*.safetensors"))) > 1
    shards = [measured(copy, streamed) for streamed in (False, True)]
    alike(*shards)
    assert not shards[0].equals(expected)
    shutil.move(copy / "kept", copy / "model.safetensors")
    for streamed in (False, True):
        with pytest.raises(UserError, match="two sets of weights"):
            measured(copy, streamed)
    for shard in copy.glob("model-*.safetensors"):
        shard.unlink()  # an index alone is no set
    for streamed in (False, True):
        alike(measured(copy, streamed), expected)


def test_both_doors_read_the_file_that_the_configuration_names(copy: Path) -> None:
    change_weights(copy)
    edit_config(copy, transformers_weights="other.safetensors")
    alike(measured(copy, streamed=False), measured(copy, streamed=True))
    loaded, _ = load_model(model_record(local(copy)), "cpu")
    stored = load_file(copy / "other.safetensors")["gpt_neox.embed_in.weight"]
    assert torch.equal(loaded.gpt_neox.embed_in.weight, stored)


def test_an_adapter_is_refused_at_every_door(tiny: Path, copy: Path) -> None:
    record = model_record(local(copy))
    adapted = get_peft_model(
        GPTNeoXForCausalLM.from_pretrained(tiny), LoraConfig(task_type="CAUSAL_LM")
    )
    adapted.save_pretrained(copy)
    assert (copy / "adapter_model.safetensors").is_file()
    for door in (
        lambda: model_record(local(copy)),
        lambda: load_model(record, "cpu"),
        lambda: load_streamed(record, "cpu"),
        lambda: stream_model(copy),
    ):
        with pytest.raises(UserError, match=r"holds an adapter.*merge_and_unload"):
            door()
    (copy / "config.json").unlink()
    (problem,) = checkpoint_problems(copy)
    assert "holds an adapter" in problem


# ----------------------------------------------------------------------- broken, and told in words


def drop(*names: str) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        for name in names:
            (directory / name).unlink()

    return change


def write(name: str, content: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).write_text(content) and None


def configured(**changes: object) -> Callable[[Path], None]:
    return lambda directory: edit_config(directory, **changes)


def halve(directory: Path) -> None:
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def shards_without_index(directory: Path) -> None:
    shutil.move(directory / "model.safetensors", directory / "model-00001-of-00002.safetensors")


def wrap(directory: Path) -> None:
    file = directory / "model.safetensors"
    weights = {f"module.{name}": w for name, w in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})


def put_a_file(directory: Path) -> None:
    shutil.rmtree(directory)
    directory.write_text("")


TOLD_BY_FILES = {
    "half a file": (halve, "it is incomplete"),
    "a prefix": (wrap, "have the prefix 'module.'"),
    "fewer blocks": (configured(num_hidden_layers=1), "hold 2 blocks"),
    "no index": (shards_without_index, r"no model\.safetensors\.index\.json, the index of its"),
    "no weights": (drop("model.safetensors"), r"no model\*\.safetensors, the weights"),
    "no configuration": (drop("config.json"), "has no config.json"),
    "no JSON": (write("config.json", "{"), "config.json cannot be read as"),
    "a list": (write("config.json", "[1]"), "config.json is not a model's configuration"),
    "no type": (configured(model_type=None), "names no model_type"),
    "an encoder-decoder": (configured(is_encoder_decoder=True), "is an encoder-decoder"),
    "a file": (put_a_file, "is a file, and should be"),
}


@pytest.mark.parametrize(("damage", "words"), TOLD_BY_FILES.values(), ids=TOLD_BY_FILES)
def test_what_files_tell_is_one_sentence(
    copy: Path, damage: Callable[[Path], None], words: str
) -> None:
    damage(copy)
    found = checkpoint_problems(copy)
    assert len([p for p in found if "needs two" not in p]) == 1, found
    with pytest.raises(UserError, match=words) as refused:
        model_record(local(copy))
    assert str(copy) in str(refused.value)


@pytest.mark.parametrize("quantized", [[1], "nf4", {"quant_method": "gptq"}])
def test_a_stored_quantization_of_any_form_is_refused(copy: Path, quantized: object) -> None:
    edit_config(copy, quantization_config=quantized)
    with pytest.raises(UserError, match="is stored quantized"):
        model_record(local(copy))


def test_what_has_been_damaged_since_it_was_recorded(copy: Path) -> None:
    record = model_record(local(copy))
    halve(copy)
    for load in (load_model, load_streamed):
        with pytest.raises(UserError, match=r"model tiny, checkpoint main .* but its header"):
            load(record, "cpu")


@pytest.mark.parametrize("content", ['{"version', "{}", "[]", '{"model": 5}'])
def test_a_broken_tokenizer(copy: Path, content: str) -> None:
    (copy / "tokenizer.json").write_text(content)
    record = model_record(local(copy))
    for load in (load_model, load_streamed):
        with pytest.raises(UserError, match=r"tokenizer\.json is not a tokenizer"):
            load(record, "cpu")


def test_shapes_that_are_not_the_configurations(copy: Path) -> None:
    edit_config(copy, vocab_size=300)
    with pytest.raises(UserError, match=r"2 weights .* have another shape: .*embed_in"):
        load_model(model_record(local(copy)), "cpu")


def test_no_quantization_is_no_quantization(tiny: Path, copy: Path) -> None:
    edit_config(copy, quantization_config=None)
    for streamed in (False, True):
        alike(measured(copy, streamed), measured(tiny, streamed=False))


@pytest.mark.parametrize(
    ("model_type", "words"),
    [
        ("t5", "is an encoder-decoder"),
        ("bart", "is an encoder-decoder"),
        ("whisper", "is an encoder-decoder"),
        (
            "wav2vec2",
            "is a Wav2Vec2.*, which takes input_values.*: neither it nor a part of it takes",
        ),
        ("timesformer", "is a video model"),
        ("novel", "does not know its model_type, novel, and no Python code comes with it"),
    ],
)
def test_models_of_other_kinds(copy: Path, model_type: str, words: str) -> None:
    edit_config(copy, model_type=model_type, is_encoder_decoder="encoder-d" in words)
    with pytest.raises(UserError, match=words) as refused:
        model_record(local(copy))
    assert len(str(refused.value)) < 500
