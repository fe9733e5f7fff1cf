"""On a GPU, the numbers that float64 on the CPU gives: pytest tests/gpu, where there is one.

BLOCKCOUPLING_DEVICE names another device of torch's; `cpu` tries the tests themselves.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from allowed_precision import ALLOWED, allowed
from architectures import FAMILIES, prompt, small_model
from tiny_model import save_tiny_model

import blockcoupling as bc
from blockcoupling.config.measurement import Settings
from blockcoupling.jacobian.matmul import full_float32
from blockcoupling.measurement.extract import extract
from blockcoupling.sources.models import load_model, model_record, record_of
from blockcoupling.sources.records import write_record
from blockcoupling.store.svd import open_store
from blockcoupling.transformer.streaming import stream_model

DEVICE = os.environ.get("BLOCKCOUPLING_DEVICE", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        DEVICE.startswith("cuda") and not torch.cuda.is_available(), reason="no GPU here"
    ),
]
PROMPTS = [" ".join(map(str, prompt(n, seed=n)[0].tolist())) for n in (9, 4, 6)]
TEXTS = ["The mill stands by the river.", "Every miller knows the weir.", "Water."]


def numbers(text: str) -> list[int]:
    """A tokenizer: the text is its own token ids."""
    return [int(word) for word in text.split()]


def differences(found: xr.Dataset, exact: xr.Dataset) -> dict[str, float]:
    """Largest differences: S over s_1, and m, whose singular vectors have no sign of their own."""
    s, known = found["S"].values.astype(float), exact["S"].values.astype(float)
    m, right = (bc.miscoupling(ds, k=8).values.astype(float) for ds in (found, exact))
    return {
        "S": float(np.abs((s - known) / known[..., :1]).max()),
        "m": float(np.abs(m - right).max()),
    }


@pytest.mark.parametrize("method", ["dense", "krylov"])
@pytest.mark.parametrize("family", FAMILIES)
def test_float32_on_the_device_is_float64_on_the_cpu(family: str, method: str) -> None:
    exact = bc.measure(small_model(family), numbers, PROMPTS, k=8, method="dense", full=True)
    model = small_model(family, torch.float32).to(DEVICE)
    found = bc.measure(model, numbers, PROMPTS, k=8, method=method, tolerance=1e-6)
    # As on the CPU (tests/unit/measurement/test_measure.py): rounding over the gaps between s_k.
    assert max(differences(found, exact).values()) < 1e-3


@pytest.mark.parametrize("how", ALLOWED)
def test_what_the_process_allows_its_products_does_not_reach_the_numbers(how: str) -> None:
    """TF32 has 10 bits: set by the user for training, it would be in every number, unseen."""
    model = small_model("llama", torch.float32).to(DEVICE)
    right = bc.measure(model, numbers, PROMPTS, k=8, method="krylov", tolerance=1e-6)
    with allowed(how):
        found = bc.measure(model, numbers, PROMPTS, k=8, method="krylov", tolerance=1e-6)
    np.testing.assert_array_equal(found["S"].values, right["S"].values)
    np.testing.assert_array_equal(found["A"].values, right["A"].values)


def test_convolutions_are_in_float32_too() -> None:
    """Torch rounds them on a GPU unless configured otherwise; a state space block has one."""
    x, weight = torch.randn(1, 64, 256, dtype=torch.float64), torch.randn(64, 64, 4).double()
    right = torch.nn.functional.conv1d(x, weight)
    single = [t.float().to(DEVICE) for t in (x, weight)]
    with full_float32():
        found = torch.nn.functional.conv1d(*single).double().cpu()
    assert float((found - right).norm() / right.norm()) < 1e-6  # TF32: 3e-4


def test_autocast_around_the_call() -> None:
    model = small_model("llama", torch.float32).to(DEVICE)
    right = bc.measure(model, numbers, PROMPTS, k=8)
    with torch.autocast(torch.device(DEVICE).type, dtype=torch.bfloat16):
        found = bc.measure(model, numbers, PROMPTS, k=8)
    np.testing.assert_array_equal(found["S"].values, right["S"].values)


def test_a_model_in_bfloat16_is_measured_in_float32() -> None:
    model = small_model("gpt2", torch.bfloat16).to(DEVICE)
    found = bc.measure(model, numbers, PROMPTS, k=8)
    exact = bc.measure(model.double().cpu(), numbers, PROMPTS, k=8, full=True, method="dense")
    assert max(differences(found, exact).values()) < 1e-3


@pytest.mark.parametrize("stream", [False, True])
def test_a_job_on_the_device_is_the_job_on_the_cpu(stream: bool, tmp_path: Path) -> None:
    directory = save_tiny_model(tmp_path / "model")
    write_record(record_of(str(directory)), tmp_path / "model.json")
    lines = [json.dumps({"id": f"q{i}", "text": text}) for i, text in enumerate(TEXTS)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines) + "\n")
    stores = {}
    for device in (DEVICE, "cpu"):
        parts, out = tmp_path / f"parts-{device}", tmp_path / f"{device}.zarr"
        extract(
            tmp_path / "model.json",
            tmp_path / "prompts.jsonl",
            parts,
            out,
            Settings(k=8, method="krylov", tolerance=1e-6),
            device=device,
            stream=stream,
        )
        stores[device] = open_store(out).load()
    assert max(differences(stores[DEVICE], stores["cpu"]).values()) < 1e-3


def test_streamed_is_in_memory(tmp_path: Path) -> None:
    directory = save_tiny_model(tmp_path / "model")
    model, tokenizer = load_model(record_of(str(directory)), DEVICE)
    assert next(model.parameters()).device.type == torch.device(DEVICE).type
    whole = bc.measure(model, tokenizer, TEXTS, k=8)
    streamed = bc.measure(stream_model(directory, device=DEVICE), tokenizer, TEXTS, k=8)
    assert max(differences(streamed, whole).values()) < 1e-5


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_quantized_model_is_what_its_rounded_weights_say(
    quantization: str, tmp_path: Path
) -> None:
    """The weights come back rounded, the same on every device, and with a Jacobian."""
    pytest.importorskip("bitsandbytes")
    directory = save_tiny_model(tmp_path / "model", hidden_size=128)
    spec = {"name": "m", "checkpoint": "main", "source": "local", "path": str(directory)}
    record = model_record(spec | {"quantization": quantization})
    model, tokenizer = load_model(record, DEVICE)
    here, _ = load_model(record, "cpu")
    # bfloat16 or float16 steps may fall differently: half a step of what 8 bits leave.
    for (name, one), (_, other) in zip(
        model.named_parameters(), here.named_parameters(), strict=True
    ):
        assert one.dtype == torch.float32, name
        torch.testing.assert_close(one.cpu(), other, rtol=0, atol=float(other.abs().max()) / 254)
    plain, _ = load_model(model_record(spec), DEVICE)
    rounded = bc.measure(model, tokenizer, TEXTS, k=8)
    exact = bc.measure(model.double().cpu(), tokenizer, TEXTS, k=8, method="dense", full=True)
    assert max(differences(rounded, exact).values()) < 1e-3
    whole = bc.measure(plain, tokenizer, TEXTS, k=8)
    assert differences(rounded, whole)["S"] > 1e-4  # it was rounded


def test_the_prompts_at_once_fit_the_free_memory() -> None:
    """What is free is asked of the device, not of the machine around it."""
    model = small_model("llama", torch.float32).to(DEVICE)
    found = bc.measure(model, numbers, PROMPTS * 12, k=4)
    assert found.sizes["prompt"] == 36
