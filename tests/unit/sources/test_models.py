"""Records say what a model is; loading gives that model, ready to be differentiated."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import save_tiny_model

from blockcoupling.errors import UserError
from blockcoupling.sources import models
from blockcoupling.sources.hub import Snapshot
from blockcoupling.sources.models import load_model, model_record, record_of
from blockcoupling.sources.records import read_record, spec_from_argument, write_record


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory that tests only read."""
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny, tmp_path / "copy")


def local(path: Path, **more: object) -> dict:
    return {"name": "tiny", "checkpoint": "main", "source": "local", "path": str(path), **more}


def stored_weights(directory: Path) -> dict[str, torch.Tensor]:
    """Weights by the names that transformers 5 gives them, read from the file."""
    weights = load_file(directory / "model.safetensors")
    weights["lm_head.weight"] = weights.pop("embed_out.weight")
    return weights


def edit_config(directory: Path, **changes: object) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_record_of_a_directory(tiny: Path) -> None:
    record = model_record(local(tiny, family="neox", tokens=5, facts={"licence": "none"}))
    weights = load_file(tiny / "model.safetensors")
    assert record["parameters"] == sum(w.numel() for w in weights.values())
    expected = {
        "architecture": "GPTNeoXForCausalLM",
        "blocks": 2,
        "dimension": 64,
        "context": 64,
        "vocabulary": 257,
        "family": "neox",
        "tokens": 5,
        "facts": {"licence": "none"},
        "dtype": "float32",
        "path": str(tiny),
    }
    assert expected.items() <= record.items()


def test_a_record_of_a_checkpoint_trained_here(copy: Path) -> None:
    (copy / "training.json").write_text('{"tokens": 4096}')
    record = model_record(local(copy) | {"source": "train", "step": 4, "checkpoint": "step4"})
    by_class = model_record(local(copy))
    assert (record["tokens"], record["step"]) == (4096, 4)
    for fact in ("architecture", "parameters", "blocks", "dimension", "context", "vocabulary"):
        assert record[fact] == by_class[fact]


def test_a_record_goes_through_its_file(tiny: Path, tmp_path: Path) -> None:
    record = model_record(local(tiny))
    write_record(record, tmp_path / "r" / "main.json")
    assert read_record(tmp_path / "r" / "main.json") == record


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot read"), ("{", "is not a model record"), ("[]", "is not a model record")],
)
def test_a_file_that_is_no_record(tmp_path: Path, content: str | None, words: str) -> None:
    file = tmp_path / "record.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=words):
        read_record(file)


def test_a_flipped_bit_in_a_record_is_found(tiny: Path, tmp_path: Path) -> None:
    write_record(model_record(local(tiny)), tmp_path / "main.json")
    whole = (tmp_path / "main.json").read_bytes()
    inside = range(whole.index(b"{") + 1, whole.index(b'"record_sha256"'))
    for place in np.random.default_rng(0).choice(inside, size=50):
        content = bytearray(whole)
        content[place] ^= 1
        (tmp_path / "main.json").write_bytes(content)
        with pytest.raises(UserError, match="remove it, then run snakemake again"):
            read_record(tmp_path / "main.json")


def test_loaded_models_are_ready_to_be_differentiated(tiny: Path) -> None:
    model, tokenizer = load_model(model_record(local(tiny)), device="cpu")
    assert model.config._attn_implementation == "eager"
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    stored = stored_weights(tiny)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, stored[name])
    assert tokenizer("né")["input_ids"] == list("né".encode())


def test_precision_of_weights_and_of_products(tiny: Path) -> None:
    record = model_record(local(tiny, dtype="bfloat16"))
    rounded, _ = load_model(record, device="cpu")
    assert rounded.dtype == torch.bfloat16
    widened, _ = load_model(record, device="cpu", dtype="float64")
    assert widened.dtype == torch.float64
    for a, b in zip(rounded.parameters(), widened.parameters(), strict=True):
        assert torch.equal(a.double(), b)


def test_reinitialised_weights_follow_their_seed_alone(tiny: Path) -> None:
    first, again, other = (
        load_model(model_record(local(tiny, init_seed=seed)), device="cpu")[0].state_dict()
        for seed in (1, 1, 2)
    )
    trained = stored_weights(tiny)
    for name, weight in first.items():
        assert torch.equal(weight, again[name])
        if "norm" not in name and not name.endswith("bias"):
            assert not torch.equal(weight, other[name])
            assert not torch.equal(weight, trained[name])
    # The configuration's own spread (0.2), over 257 x 64 draws: 5 standard errors are 3 %.
    assert first["gpt_neox.embed_in.weight"].std() == pytest.approx(0.2, rel=0.03)


def test_reinitialising_leaves_the_callers_random_numbers_alone(tiny: Path) -> None:
    record = model_record(local(tiny, init_seed=1))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_model(record, device="cpu")
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("quantization", "least", "most"),
    [
        # Blocks of 64 normal draws: the 16 levels of nf4 leave a relative error of 9 %.
        ("nf4", 0.07, 0.12),
        ("nf4-double", 0.07, 0.12),
        # A row's largest of 64 or 128 draws is about 2.5 sigma; rounding to 127 steps of it leaves
        # 2.5 / 127 / sqrt(12) = 0.6 %.
        ("int8", 0.002, 0.02),
    ],
)
def test_quantized_weights_are_rounded_float32(
    tiny: Path, quantization: str, least: float, most: float
) -> None:
    record = model_record(local(tiny))
    exact, _ = load_model(record, device="cpu")
    rounded, tokenizer = load_model(record | {"quantization": quantization}, device="cpu")
    assert {p.dtype for p in rounded.parameters()} == {torch.float32}
    name = "gpt_neox.layers.1.mlp.dense_h_to_4h.weight"
    difference = rounded.state_dict()[name] - exact.state_dict()[name]
    assert least < difference.norm() / exact.state_dict()[name].norm() < most

    # A quantized kernel without a gradient would leave the block's Jacobian exactly the identity,
    # from the second call on.
    for model in (rounded, rounded, exact):
        block = model.gpt_neox.layers[1]
        hidden = torch.linspace(-1, 1, 64).expand(1, 1, 64).clone().requires_grad_()
        ids = tokenizer("a", return_tensors="pt")["input_ids"]
        positions = model.gpt_neox.rotary_emb(hidden, torch.zeros_like(ids))
        output = block(hidden, attention_mask=None, position_embeddings=positions)
        (gradient,) = torch.autograd.grad(output.sum(), hidden)
        assert (gradient - 1).abs().max() > 0.1


def test_weights_that_would_be_dequantized_wrongly_are_refused(tmp_path: Path) -> None:
    narrow = save_tiny_model(tmp_path / "narrow", hidden_size=32)
    record = model_record(local(narrow)) | {"quantization": "nf4"}
    with pytest.raises(UserError, match="rows of 32, not a multiple of 64"):
        load_model(record, device="cpu")


def test_weights_are_never_made_up(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    del weights["gpt_neox.layers.1.mlp.dense_h_to_4h.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"1 weights are missing.*layers\.1\.mlp\.dense_h_to_4h"):
        load_model(model_record(local(copy)), device="cpu")


def test_pickles_are_not_opened(copy: Path, tiny: Path) -> None:
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(UserError, match="a pickle"):
        model_record(local(copy))
    model, _ = load_model(model_record(local(copy, allow_pickle=True)), device="cpu")
    assert torch.equal(model.lm_head.weight, stored_weights(tiny)["lm_head.weight"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"model_type": "novel", "auto_map": {"AutoConfig": "code.Config"}},
            "comes with Python code of its own.*trust_remote_code: true",
        ),
        ({"model_type": "novel"}, "does not know its model_type, novel"),
        ({"quantization_config": {"quant_method": "gptq"}}, r"stored quantized \(gptq\)"),
        ({"num_hidden_layers": 1}, "1 block"),
    ],
)
def test_models_that_are_refused(copy: Path, changes: dict, words: str) -> None:
    edit_config(copy, **changes)
    with pytest.raises(UserError, match=words):
        model_record(local(copy))


def test_a_model_without_a_tokenizer(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    (copy / "tokenizer_config.json").unlink()
    record = model_record(local(copy))
    with pytest.raises(UserError, match="there is no tokenizer in"):
        load_model(record, device="cpu")


def test_a_tokenizer_from_another_directory(copy: Path, tiny: Path) -> None:
    (copy / "tokenizer.json").unlink()
    (copy / "tokenizer_config.json").unlink()
    _, tokenizer = load_model(model_record(local(copy, tokenizer=str(tiny))), device="cpu")
    assert tokenizer("a")["input_ids"] == [97]


def test_an_incomplete_description() -> None:
    with pytest.raises(UserError, match="has no id, revision"):
        model_record({"name": "a", "checkpoint": "main", "source": "hub"})


# --------------------------------------------------------------------------------- from one word


def test_one_word_for_a_directory(tiny: Path) -> None:
    record = record_of(str(tiny))
    assert (record["name"], record["source"], record["blocks"]) == ("tiny", "local", 2)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("gpt2", ("gpt2", "main", "gpt2", "main", None)),
        ("a/pythia-70m@step1000", ("pythia-70m", "step1000", "a/pythia-70m", "step1000", 1000)),
        ("a/b@refs/pr/1", ("b", "refs-pr-1", "a/b", "refs/pr/1", None)),
    ],
)
def test_one_word_for_the_hub(argument: str, expected: tuple) -> None:
    spec = spec_from_argument(argument)
    assert (*(spec[k] for k in ("name", "checkpoint", "id", "revision", "step")),) == expected


@pytest.mark.parametrize("argument", ["./nowhere", "/no/where", "a/b/c", "two words", "~/none", ""])
def test_one_word_that_is_neither(argument: str) -> None:
    with pytest.raises(UserError, match=r"neither a directory here .* nor a model's id"):
        spec_from_argument(argument)


def test_a_model_of_the_hub_is_recorded_with_its_commit(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(repository: str, revision: str, **options: object) -> Snapshot:
        asked.append((repository, revision, options["weights"]))
        return Snapshot(tiny, "c" * 40)

    monkeypatch.setattr(models, "download_model", download)
    record = record_of("a/tiny@v1")
    assert (record["revision"], record["revision_requested"]) == ("c" * 40, "v1")
    load_model(record, device="cpu")
    load_model(record | {"init_seed": 0}, device="cpu")
    assert asked == [
        ("a/tiny", "v1", True),
        ("a/tiny", "c" * 40, True),
        ("a/tiny", "c" * 40, False),
    ]


@pytest.mark.parametrize("name", ["gpt_neox.layers.1.q_norm.weight", "gpt_neox.embed_norm.weight"])
def test_stored_weights_without_a_use_are_refused_by_name(copy: Path, name: str) -> None:
    file = copy / "model.safetensors"
    save_file(load_file(file) | {name: torch.ones(64)}, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=f"no use for: {name}"):
        load_model(model_record(local(copy)), "cpu")


def test_a_second_head_is_named_in_the_log(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = copy / "model.safetensors"
    save_file(
        load_file(file) | {"score.weight": torch.ones(2, 64)}, file, metadata={"format": "pt"}
    )
    load_model(model_record(local(copy)), "cpu")
    assert "does not use and no block depends on: score.weight" in caplog.text
