"""Models with a block that does nothing, or a token out of reach: Jacobians that are zero."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from architectures import prompt, small_model
from coupling_by_definition import blocks_of, definition, jacobians, numbers
from full_jacobian import full_jacobian
from torch import Tensor, nn
from transformers import PreTrainedModel

import blockcoupling as bc
from blockcoupling.config.measurement import Settings, TokenSettings
from blockcoupling.config.variants import OF_BLOCKS
from blockcoupling.errors import MeasurementError
from blockcoupling.measurement.prepare import prepare_prompts
from blockcoupling.measurement.tokenwise import compare_tokens
from blockcoupling.store.svd import SVD, check_values
from blockcoupling.transformer.tokens import TokenizedPrompt

K = 3
PROMPTS = [" ".join(map(str, prompt(n, seed=n)[0].tolist())) for n in (9, 4)]
# S and A are stored in float32, softmax is in float32; vectors carry that over a gap, some hundred.
TOLERANCE = 1e-3


class Identity(nn.Module):
    """A block that hands on what it was given, and nothing else."""

    def forward(self, hidden_states: Tensor, *args: object, **kwargs: object) -> Tensor:
        return hidden_states


def expanded(family: str, dtype: torch.dtype, how: str) -> PreTrainedModel:
    """A model whose second block does nothing, as one that was put in to be trained (LLaMA-Pro)."""
    model = small_model(family, dtype)
    block = blocks_of(model)[1]
    if how == "replaced":
        (parent,) = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == 3]
        parent[1] = Identity()
        return model
    last = ("o_proj", "down_proj") if family == "llama" else ("dense", "dense_4h_to_h")
    for name, module in block.named_modules():
        if name.split(".")[-1] in last:
            module.weight.data.zero_()
            if how == "with a bias" and module.bias is not None:
                module.bias.data.copy_(torch.linspace(-1, 1, len(module.bias)))
            elif module.bias is not None:
                module.bias.data.zero_()
    return model


SETTINGS = [
    {"method": "dense"},
    {"method": "krylov"},
    {"context": "full"},
    {"full": True},
    {"matmul": "bfloat16"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize(
    ("family", "how"),
    [
        ("llama", "zeroed"),
        ("gpt_neox", "zeroed"),
        ("gpt_neox", "with a bias"),
        ("llama", "replaced"),
    ],
)
def test_the_other_blocks_have_their_numbers(
    family: str, how: str, settings: dict, caplog: pytest.LogCaptureFixture
) -> None:
    model, exact = (expanded(family, dtype, how) for dtype in (torch.float32, torch.float64))
    ds = bc.measure(model, numbers, PROMPTS, k=K, swapped=True, **settings)
    SVD.validate(ds)
    check_values(ds.isel(prompt=[0]))  # the longest: without padding
    # bfloat16 has 8 bits.
    tolerance = 0.1 if settings.get("matmul") == "bfloat16" else TOLERANCE
    for name in ("S", "jacobian_norm", "svd_residual"):
        assert not ds[name].sel(block=2).any(), name
    for p, text in enumerate(PROMPTS):
        last = len(numbers(text)) - 1
        j = jacobians(exact, text, last, last)
        for variant in OF_BLOCKS:
            m = bc.miscoupling(ds, K, variant).values[p, 0]
            assert np.isnan(m[1]).all()
            assert np.isnan(m[:, 1]).all()
            wanted = definition(j[[0, 2]], K, variant)
            np.testing.assert_allclose(m[np.ix_([0, 2], [0, 2])], wanted, atol=tolerance)
            mean = (wanted[0, 1] + wanted[1, 0]) / 2
            assert bc.coupling(ds, K, variant).values[p, 0] == pytest.approx(-mean, abs=tolerance)
    (line,) = [r.message for r in caplog.records if "exactly zero" in r.message]
    assert line.startswith("block 2 (prompt 'p0', token 8, and 1 more): ")


def test_one_prompt_of_a_batch(caplog: pytest.LogCaptureFixture) -> None:
    """A block that does nothing for short prompts: the others of the batch are as alone."""

    class Choosy(nn.Module):
        def __init__(self, block: nn.Module) -> None:
            super().__init__()
            self.block = block

        def forward(self, hidden_states: Tensor, *args: object, **kwargs: object) -> Tensor:
            output = self.block(hidden_states, *args, **kwargs)
            output = output[0] if isinstance(output, tuple) else output
            return torch.where(kwargs["position_ids"][..., None] < 5, hidden_states, output)

    model = small_model("llama", torch.float32)
    model.model.layers[1] = Choosy(model.model.layers[1])
    settings = {"k": K, "context": "full"}
    both = bc.measure(model, numbers, PROMPTS, **settings)
    alone = bc.measure(model, numbers, PROMPTS[:1], **settings)
    assert (both["S"].values[1, 0, :, 0] > 0).tolist() == [True, False, True]
    assert "block 2 (prompt 'p1', token 3)" in caplog.text
    for name in ("S", "A"):
        np.testing.assert_array_equal(both[name][0], alone[name][0])


def test_a_pair_beyond_the_window() -> None:
    """All blocks have a window of 5: of the pair (0, 8) nothing is there, the others are whole."""
    model, exact = (small_model("mistral", dtype) for dtype in (torch.float32, torch.float64))
    pairs = [(0, 8), (6, 8), (8, 8)]
    ds = bc.measure(model, numbers, PROMPTS[:1], k=K, tokens=pairs)
    assert not ds["S"].isel(pair=0).any()
    assert np.isnan(bc.coupling(ds, K).values[0]).tolist() == [True, False, False]
    for n, pair in enumerate(pairs[1:], start=1):
        wanted = definition(jacobians(exact, PROMPTS[0], *pair), K, "frobenius")
        found = bc.miscoupling(ds, K).values[0, n]
        np.testing.assert_allclose(found, wanted, atol=TOLERANCE)


def lose_gradients(blocks: Sequence[nn.Module], names: Sequence[str]) -> None:
    for block in blocks:
        for name in names:
            block.get_submodule(name).register_forward_hook(lambda m, args, out: out.detach())


@pytest.mark.parametrize("settings", SETTINGS[:3], ids=str)
def test_a_lost_gradient_is_no_zero(settings: dict) -> None:
    model = small_model("llama", torch.float32)
    lose_gradients(model.model.layers[1:2], ["self_attn.o_proj", "mlp"])
    with pytest.raises(MeasurementError, match=r"'p0', block 2: .* exactly 0 \(but the block"):
        bc.measure(model, numbers, PROMPTS, k=K, **settings)


def test_a_lost_gradient_between_tokens_is_no_zero() -> None:
    """Keys and values without a gradient: what one token does to another is lost, not nothing."""
    model = small_model("llama", torch.float32)
    lose_gradients(model.model.layers[1:2], ["self_attn.k_proj", "self_attn.v_proj"])
    with pytest.raises(MeasurementError, match=r"'p0', block 2: .* exactly 0 \(but the block"):
        bc.measure(model, numbers, PROMPTS[:1], k=K, tokens=[(6, 8)])


def test_a_block_that_ignores_its_input_is_refused() -> None:
    class Deaf(Identity):
        def forward(self, hidden_states: Tensor, *args: object, **kwargs: object) -> Tensor:
            return 0 * hidden_states + torch.arange(hidden_states.shape[-1])

    model = small_model("llama", torch.float32)
    model.model.layers[1] = Deaf()
    with pytest.raises(MeasurementError, match=r"block 2: .* exactly −I .*does not depend"):
        bc.measure(model, numbers, PROMPTS, k=K)


def compare(model: PreTrainedModel, tokens: list[int], blocks: list, **more: object):
    settings = TokenSettings(tokens=tokens, blocks=blocks, k=K, **more)
    length = max(tokens) + 1
    one = TokenizedPrompt("p", prompt(length), ("",) * length)
    prepared, (complete,) = prepare_prompts(model, [one], Settings(tokens=tokens))
    return compare_tokens(prepared, complete, settings)


def test_tokens_out_of_reach_cost_the_others_nothing(caplog: pytest.LogCaptureFixture) -> None:
    model = small_model("mistral")
    far = compare(model, [0, 7], [(1, 2)], swapped=True)
    assert "block 1 (prompt 'p', token 0 → 7), block 2 (prompt 'p', token 0 → 7)" in caplog.text
    reference = {}
    for block in (1, 2):
        for a, b in ((0, 0), (0, 7), (7, 7)):
            j = full_jacobian(model, blocks_of(model)[block - 1], prompt(8), a, b).numpy()
            u, s, vt = np.linalg.svd(j)
            reference[block, a, b] = j, u[:, :K], s[:K], vt[:K].T
    assert not reference[1, 0, 7][0].any()
    for row in range(far.sizes["comparison"]):
        one = far.isel(comparison=row)
        i = (1, int(one["token_in"]), int(one["token_out"]))
        other = (2, int(one["token_in_other"]), int(one["token_out_other"]))
        j, _, s, _ = reference[i]
        np.testing.assert_allclose(one["S"], s, atol=1e-5 * max(s[0], 1))
        if other[1:] == (0, 7):
            assert np.isnan(one["A"]).all()
            assert np.isnan(one["A_swapped"]).all()
        else:
            _, u, _, v = reference[other]
            wanted = abs(u.T @ j @ v)  # signs are free in the reference
            np.testing.assert_allclose(abs(one["A"]), wanted, atol=1e-4 * max(s[0], 1))
        assert one["svd_residual"] < 1e-4


def test_a_block_that_does_nothing_between_tokens() -> None:
    model = expanded("llama", torch.float32, "zeroed")
    ds = compare(model, [1, 4], [(1, 2), (2, 1), (1, 3)])
    to_zero, zero = ds["block_other"] == 2, ds["block"] == 2
    assert np.isnan(ds["A"].values[to_zero.values]).all()
    assert not ds["S"].values[zero.values].any()
    assert (ds["S"].values[~zero.values, 0] > 0).all()
    assert np.isfinite(ds["A"].values[~to_zero.values]).all()


def test_a_lost_gradient_in_compared_tokens_is_refused() -> None:
    model = small_model("llama", torch.float32)
    lose_gradients(model.model.layers[1:2], ["self_attn.k_proj", "self_attn.v_proj"])
    message = r"prompt 'p', block 2, token 1 → 4: .* exactly 0 \(but the block"
    with pytest.raises(MeasurementError, match=message):
        compare(model, [1, 4], [(1, 2)])
