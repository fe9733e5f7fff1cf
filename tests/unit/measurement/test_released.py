"""The preset `released` against the released algorithm, written again from its description.

The reference shares no code with the package: Jacobians between the entries of `hidden_states` over
all tokens of the whole prompt, in float64, their full SVD, and the mis-couplings from the formulas.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from architectures import prompt, small_model
from full_jacobian import full_jacobian
from torch import nn
from transformers import PreTrainedModel

import blockcoupling as bc
from blockcoupling.config.presets import with_preset
from blockcoupling.errors import UserError
from blockcoupling.study.check import load_config
from blockcoupling.transformer.blocks import find_blocks
from blockcoupling.transformer.final_norm import find_final_norm
from blockcoupling.transformer.streaming import stream_model

K = 6
IDS = [prompt(n, seed=n)[0].tolist() for n in (7, 4)]
PROMPTS = [" ".join(map(str, ids)) for ids in IDS]
# Both sides run in float64, but S and A are stored in float32 and many models take their softmax in
# it; singular vectors carry such errors times s_1 over the gap to their neighbour, some hundred for
# random matrices.
TOLERANCE = 1e-4


def numbers(text: str) -> list[int]:
    """A tokenizer: the text is its own token ids."""
    return [int(word) for word in text.split()]


def released_jacobians(model: PreTrainedModel, ids: list[int]) -> torch.Tensor:
    """∂ hidden_states[l] / ∂ hidden_states[l − 1] − I at the last token, (L, d, d)."""
    embedded = model.get_input_embeddings()(torch.tensor([ids])).requires_grad_(True)
    states = model(inputs_embeds=embedded, output_hidden_states=True, use_cache=False).hidden_states
    found = []
    for before, after in pairwise(states):
        rows = [
            torch.autograd.grad(value, before, retain_graph=True)[0][0, -1]
            for value in after[0, -1]
        ]
        found.append(torch.stack(rows) - torch.eye(after.shape[-1], dtype=after.dtype))
    return torch.stack(found)


def released_miscouplings(jacobians: torch.Tensor, k: int) -> dict[str, np.ndarray]:
    """Its three normalized distances for all pairs of blocks."""
    u, s, vh = torch.linalg.svd(jacobians)
    u, s, v = u[:, :, :k], s[:, :k], vh.transpose(1, 2)[:, :, :k]
    found = {
        name: torch.zeros(len(s), len(s)) for name in ("absolute", "absolute_trace", "swapped")
    }
    for i, (jacobian, own) in enumerate(zip(jacobians, s, strict=True)):
        for j in range(len(s)):
            distance = (torch.abs(u[j].T @ jacobian @ v[j]) - torch.diag(own)).square().sum().sqrt()
            swapped = (torch.abs(v[j].T @ jacobian @ u[j]) - torch.diag(own)).square().sum().sqrt()
            found["absolute"][i, j] = distance / own.square().sum().sqrt()
            found["absolute_trace"][i, j] = distance / own.sum()
            found["swapped"][i, j] = swapped / own.square().sum().sqrt()
    return {name: values.numpy() for name, values in found.items()}


@pytest.mark.parametrize(
    "family", ["gpt2", "llama", "gemma2", "gpt_neox", "falcon_7b", "mpt", "olmo2", "opt"]
)
def test_preset_gives_the_released_numbers(family: str) -> None:
    model = small_model(family)
    ds = bc.measure(model, numbers, PROMPTS, k=K, preset="released")
    assert ds.attrs["final_norm"]
    assert (ds["context_apart"] == 0).all()
    assert (ds["matrix_free"] == 0).all()
    for p, ids in enumerate(IDS):
        jacobians = released_jacobians(model, ids)
        spectrum = torch.linalg.svdvals(jacobians).numpy()
        np.testing.assert_allclose(ds["S_full"][p, 0], spectrum, rtol=0, atol=1e-6 * spectrum.max())
        for k in (1, K):
            for variant, expected in released_miscouplings(jacobians, k).items():
                got = bc.miscoupling(ds, k, variant)[p, 0]
                np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE)
                between = expected[~np.eye(len(expected), dtype=bool)].mean()
                coupling = float(bc.coupling(ds, k, variant)[p, 0])
                assert coupling == pytest.approx(-between, abs=TOLERANCE)


def test_only_the_last_block_is_another_one() -> None:
    model = small_model("llama")
    at_the_block = bc.measure(model, numbers, PROMPTS, k=K, method="dense")
    after_norm = bc.measure(model, numbers, PROMPTS, k=K, method="dense", final_norm=True)
    np.testing.assert_allclose(at_the_block["S"][:, :, :-1], after_norm["S"][:, :, :-1], rtol=1e-6)
    assert (abs(at_the_block["S"] - after_norm["S"])[:, :, -1, 0] > 0.01).all()
    # Trajectories are taken at the blocks whichever way the last Jacobian is.
    np.testing.assert_array_equal(at_the_block["gram"], after_norm["gram"])


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "falcon_7b"])
@pytest.mark.parametrize("method", ["dense", "krylov"])
def test_one_decode_step_gives_the_same_last_block(family: str, method: str) -> None:
    model = small_model(family)
    ds = bc.measure(model, numbers, PROMPTS, k=K, method=method, final_norm=True, context="decode")
    for p, ids in enumerate(IDS):
        spectrum = torch.linalg.svdvals(released_jacobians(model, ids))[:, :K].numpy()
        # Off by the square of the residual allowed (1e-4), and by a softmax in float32.
        np.testing.assert_allclose(ds["S"][p, 0], spectrum, rtol=0, atol=1e-5 * spectrum.max())
    if family == "llama":
        assert (ds["context_apart"] == 1).all()


def test_from_one_token_to_another_after_the_norm() -> None:
    """∂ norm(F(X))_5 / ∂ x_2 = norm'(x^L_5) · J[2, 5]; the skip connection crosses no tokens."""
    model = small_model("llama")
    text = [PROMPTS[0]]
    ds = bc.measure(
        model, numbers, text, k=K, tokens=[(2, 5)], method="dense", full=True, final_norm=True
    )
    block, ids = model.model.layers[-1], torch.tensor([IDS[0]])
    seen: list[torch.Tensor] = []
    handle = block.register_forward_hook(lambda m, a, out: seen.append(out))
    model(input_ids=ids, use_cache=False)
    handle.remove()
    derivative = torch.autograd.functional.jacobian(model.model.norm, seen[0][0, 5])
    expected = derivative @ full_jacobian(model, block, ids, 2, 5)
    spectrum = torch.linalg.svdvals(expected).numpy()
    np.testing.assert_allclose(ds["S_full"][0, 0, -1], spectrum, rtol=0, atol=1e-6 * spectrum[0])


def test_a_streamed_model_too(tmp_path: Path) -> None:
    model = small_model("llama", torch.float32)
    model.save_pretrained(tmp_path)
    held = bc.measure(model, numbers, PROMPTS, k=K, preset="released")
    streamed = bc.measure(stream_model(tmp_path), numbers, PROMPTS, k=K, preset="released")
    np.testing.assert_allclose(streamed["S"], held["S"], rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------------------ finding the norm


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("gpt2", "transformer.ln_f"),
        ("llama", "model.norm"),
        ("gpt_neox", "gpt_neox.final_layer_norm"),
        ("mpt", "transformer.norm_f"),
        ("opt", "model.decoder.final_layer_norm"),
    ],
)
def test_the_final_norm_is_found(family: str, name: str) -> None:
    model = small_model(family)
    assert find_final_norm(model, find_blocks(model, prompt(4)), prompt(4)) is (
        model.get_submodule(name)
    )


def test_no_hook_is_left_behind() -> None:
    model = small_model("llama")
    find_final_norm(model, find_blocks(model, prompt(4)), prompt(4))
    assert not any(module._forward_hooks for module in model.modules())


def test_a_norm_of_several_modules_is_the_outermost() -> None:
    model = small_model("gpt2", torch.float32)
    norm = model.transformer.ln_f = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 32))
    assert find_final_norm(model, find_blocks(model, prompt(4)), prompt(4)) is norm


def test_a_model_without_one_is_refused() -> None:
    model = small_model("gpt2", torch.float32)
    model.transformer.ln_f = nn.Identity()
    with pytest.raises(UserError, match=r"no final norm .* is its last block's output"):
        bc.measure(model, numbers, PROMPTS, k=K, final_norm=True)
    assert bc.measure(model, numbers, PROMPTS, k=K).sizes["prompt"] == 2


def test_a_norm_without_a_module_is_refused() -> None:
    class Halved(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.inside = model

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return self.inside(input_ids=input_ids, use_cache=False)[0] / 2

    model = Halved(small_model("gpt2").transformer)
    with pytest.raises(UserError, match="no single module turns"):
        find_final_norm(model, find_blocks(model, prompt(4)), prompt(4))


# ------------------------------------------------------------------------------------ the preset


def test_a_setting_against_the_preset_is_refused() -> None:
    with pytest.raises(UserError, match="method = 'krylov' goes against the preset released"):
        bc.measure(small_model("gpt2"), numbers, PROMPTS, preset="released", method="krylov")
    with pytest.raises(UserError, match="unknown preset 'relaesed': choose from released"):
        with_preset("relaesed", {}, {})


def test_without_a_preset_settings_stay_as_they_are() -> None:
    assert with_preset(None, {"method": "krylov"}, {"method": "auto"}) == {"method": "krylov"}


def test_a_study_can_name_the_preset(tmp_path: Path) -> None:
    models = {"models": {"m": {"train": {"hidden_size": 16, "heads": 2}}}}
    study = load_config({**models, "extract": {"preset": "released"}})
    settled = study.extract
    assert (settled.method, settled.context) == ("dense", "full")
    assert settled.full
    assert settled.final_norm
    assert study.reduce.variants == ["absolute", "absolute_trace", "swapped"]
    assert study.correlate.variant == "absolute"
    named = {"reduce": {"variants": ["frobenius", "swapped"]}}
    study = load_config({**models, "extract": {"preset": "released"}, **named})
    assert study.reduce.variants == ["frobenius", "swapped"]
    assert study.correlate.variant == "swapped"
    with pytest.raises(UserError, match=r"extract: context = 'decode' goes against"):
        load_config({**models, "extract": {"preset": "released", "context": "decode"}})
    with pytest.raises(UserError, match=r"extract.preset"):
        load_config({**models, "extract": {"preset": "mine"}})
