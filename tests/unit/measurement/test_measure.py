"""A model and prompts in, the dataset of the schema out: compared with the definitions."""

import copy
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from architectures import FAMILIES, VOCABULARY, WIDE, prompt, small_model
from coupling_by_definition import blocks_of, definition, jacobians, numbers
from sklearn.decomposition import PCA
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

import blockcoupling as bc
from blockcoupling.config.variants import OF_BLOCKS
from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.reduce.summary import summary
from blockcoupling.store.svd import SVD, check_values

LENGTHS = (9, 4, 1, 6)
PROMPTS = [" ".join(map(str, prompt(n, seed=n)[0].tolist())) for n in LENGTHS]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "method", "tolerance"),
    [
        # Softmax is in float32 even here, and S and A are stored in it; singular vectors carry
        # such errors times s_1 over the gap to their neighbour, some hundred for random matrices.
        (torch.float64, "dense", 1e-4),
        (torch.float64, "krylov", 1e-4),
        (torch.float32, "dense", 1e-3),
        (torch.float32, "krylov", 1e-3),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_coupling_is_its_definition(
    family: str, dtype: torch.dtype, method: str, tolerance: float
) -> None:
    model = small_model(family, dtype)
    ds = bc.measure(model, numbers, PROMPTS[:2], k=8, method=method, swapped=True, tolerance=1e-6)
    exact = small_model(family)
    for p, text in enumerate(PROMPTS[:2]):
        j = jacobians(exact, text, LENGTHS[p] - 1, LENGTHS[p] - 1)
        np.testing.assert_allclose(
            ds["S"][p, 0], np.linalg.svd(j)[1][:, :8], rtol=tolerance / 10, atol=0
        )
        for variant in OF_BLOCKS:
            for k in (1, 5, 8):
                found = bc.miscoupling(ds, k=k, variant=variant)[p, 0]
                wanted = definition(j, k, variant)
                np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance)
                off = ~np.eye(3, dtype=bool)
                assert float(bc.coupling(ds, k, variant)[p, 0]) == pytest.approx(
                    -wanted[off].mean(), abs=tolerance
                )


@pytest.mark.parametrize("method", ["dense", "krylov"])
@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_overlaps_are_those_of_full_jacobians(family: str, method: str) -> None:
    """Float32 measurements against float64 Jacobians of the whole pass, SVD by NumPy."""
    model = small_model(family, torch.float32)
    ds = bc.measure(model, numbers, PROMPTS[:2], k=8, method=method, overlaps=True, tolerance=1e-6)
    for p, text in enumerate(PROMPTS[:2]):
        u, _, vt = np.linalg.svd(
            jacobians(small_model(family), text, LENGTHS[p] - 1, LENGTHS[p] - 1)
        )
        v = vt.transpose(0, 2, 1)
        for k in (1, 5, 8):
            for i, j in np.ndindex(3, 3):
                for kind, left, right in (
                    ("output_overlap", u, u),
                    ("input_overlap", v, v),
                    ("composition", v, u),
                ):
                    found = bc.overlap(ds, k, kind).values[p, 0, i, j]
                    wanted = np.linalg.norm(left[i, :, :k].T @ right[j, :, :k]) ** 2 / k
                    if kind == "composition" and j >= i:
                        assert np.isnan(found)
                    else:  # as for m: singular vectors in float32, see above
                        assert found == pytest.approx(wanted, abs=1e-3)


def test_weights_of_several_types_are_measured_in_float32() -> None:
    """The first parameter's type says nothing of the others'."""
    model = small_model("llama", torch.float32)
    model.model.layers.to(torch.bfloat16)
    found = bc.measure(model, numbers, PROMPTS[:1], k=3)
    wanted = bc.measure(copy.deepcopy(model).double(), numbers, PROMPTS[:1], k=3)
    np.testing.assert_allclose(found["S"], wanted["S"], rtol=1e-4)


def test_a_name_is_no_model() -> None:
    with pytest.raises(UserError, match="a str, not a model object: load it"):
        bc.measure("a/name", numbers, PROMPTS)  # type: ignore[arg-type]


def test_the_dataset_follows_the_schema() -> None:
    ds = bc.measure(
        small_model("llama", torch.float32),
        numbers,
        PROMPTS,
        k=4,
        vectors=True,
        swapped=True,
        overlaps=True,
        full=True,
    )
    SVD.validate(ds)
    for p in range(len(PROMPTS)):
        one = ds.isel(prompt=[p], token=slice(LENGTHS[p]))
        check_values(one)
    assert list(ds["prompt"].values) == ["p0", "p1", "p2", "p3"]
    assert list(ds["tokens"].values) == list(LENGTHS)
    assert ds["token_in"].values.ravel().tolist() == [n - 1 for n in LENGTHS]
    assert ds.sizes["block"] == 3
    assert ds.sizes["k_full"] == 32
    assert ds.attrs["weight_dtype"] == "float32"
    assert ds.attrs["attention"] == "eager"
    assert (ds["context_apart"] == 1).all()
    assert (ds["svd_residual"] < 1e-4).all()  # the default tolerance
    assert (ds["jacobian_norm_error"] == 0).all()  # dense: exact
    # Numbers of one matrix, computed in several ways; float32 rounding.
    norm = np.sqrt((ds["S_full"].astype(np.float64) ** 2).sum("k_full"))
    np.testing.assert_allclose(norm, ds["jacobian_norm"], rtol=1e-6)
    np.testing.assert_allclose(ds["S_full"][..., :4], ds["S"], rtol=1e-5)
    unit = xr.dot(ds["U"], ds["U"].rename(k="k_other"), dim="embed")
    np.testing.assert_allclose(unit, np.broadcast_to(np.eye(4), unit.shape), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("k", "kept"), [(None, 32), (7, 7), (32, 32)])
def test_how_many_triples_are_kept(k: int | None, kept: int) -> None:
    ds = bc.measure(small_model("gpt2", torch.float32), numbers, PROMPTS[:1], k=k)
    assert ds.sizes["k"] == kept  # 50, or d where d < 50


@pytest.mark.parametrize("family", ["llama", "gpt2", "mpt"])
def test_pairs_of_tokens(family: str) -> None:
    model = small_model(family)
    asked = [(2, 5), 5, (0, -1), (-1, -1)]
    ds = bc.measure(model, numbers, PROMPTS[:1], k=32, tokens=asked)
    pairs = [(2, 5), (5, 5), (0, 8), (8, 8)]
    assert list(zip(ds["token_in"].values[0], ds["token_out"].values[0], strict=True)) == pairs
    for q, (a, b) in enumerate(pairs):
        j = jacobians(model, PROMPTS[0], a, b)
        # Nothing is subtracted between different tokens; stored in float32, from float32 softmax.
        np.testing.assert_allclose(
            ds["S"][0, q], np.linalg.svd(j)[1], rtol=0, atol=1e-5 * np.linalg.norm(j)
        )
        np.testing.assert_allclose(
            ds["jacobian_norm"][0, q], np.linalg.norm(j, axis=(1, 2)), rtol=1e-5
        )


def test_all_tokens_of_prompts_of_different_length() -> None:
    ds = bc.measure(small_model("llama", torch.float32), numbers, PROMPTS, k=3, tokens="all")
    SVD.validate(ds)
    assert ds.sizes["pair"] == max(LENGTHS)
    for p, length in enumerate(LENGTHS):
        assert ds["token_in"].values[p].tolist() == [*range(length), *[-1] * (9 - length)]
        assert np.isfinite(ds["S"].values[p, :length]).all()
        assert np.isnan(ds["S"].values[p, length:]).all()
    assert len(summary(ds, k=3)) == sum(LENGTHS)


def test_every_token_is_measured_as_if_it_were_the_last() -> None:
    """In a causal model no later token changes an earlier measurement."""
    model = small_model("gpt_neox", torch.float32)
    words = PROMPTS[0].split()
    whole = bc.measure(model, numbers, PROMPTS[:1], k=5, tokens="all")
    for t in range(1, 9, 3):
        cut = bc.measure(model, numbers, [" ".join(words[: t + 1])], k=5)
        # float32: the rest of the prompt changes how sums are split.
        np.testing.assert_allclose(cut["S"][0, 0], whole["S"][0, t], rtol=1e-4)
        for variant in ("frobenius", "absolute"):
            one, other = (bc.miscoupling(ds, 3, variant) for ds in (cut, whole))
            np.testing.assert_allclose(one[0, 0], other[0, t], rtol=0, atol=1e-3)


@pytest.mark.parametrize("family", ["llama", "mpt"])  # with the context apart, and without
def test_order_and_batch_of_prompts_change_nothing(family: str) -> None:
    model = small_model(family, torch.float32)
    together = bc.measure(model, numbers, PROMPTS, k=5, batch=4)
    again = bc.measure(model, numbers, PROMPTS, k=5, batch=4)
    xr.testing.assert_identical(together, again)  # the same work: the same bits
    for order, batch in (([0, 1, 2, 3], 1), ([2, 0, 3, 1], 3), ([3, 2, 1, 0], 4)):
        other = bc.measure(model, numbers, [PROMPTS[p] for p in order], k=5, batch=batch)
        # float32 rounding of sums over d; A carries it times s_1 over the gap of its vectors.
        np.testing.assert_allclose(other["S"], together["S"][order], rtol=1e-5)
        np.testing.assert_allclose(other["jacobian_norm"], together["jacobian_norm"][order], 1e-5)
        np.testing.assert_allclose(
            bc.coupling(other, 5), bc.coupling(together, 5)[order], rtol=0, atol=1e-4
        )
        xr.testing.assert_equal(
            other["gram"].drop_vars("prompt"), together["gram"][order].drop_vars("prompt")
        )


def test_matrix_free_path_does_not_depend_on_the_batch_beyond_its_tolerance() -> None:
    model = small_model("llama", torch.float32)
    options = {"k": 5, "method": "krylov", "tolerance": 1e-5}
    together = bc.measure(model, numbers, PROMPTS, batch=4, **options)
    single = bc.measure(model, numbers, PROMPTS, batch=1, **options)
    first = together["S"].values[..., :1]
    assert (abs(together["S"] - single["S"]) <= 2e-5 * first).all()
    assert (together["matrix_free"] == 1).all()
    # Its norm is an estimate, from the same probes in either batch.
    np.testing.assert_allclose(together["jacobian_norm"], single["jacobian_norm"], rtol=1e-4)


def test_decoding_and_the_whole_prompt_give_the_same() -> None:
    model = small_model("gemma2", torch.float32)
    decoded, full = (
        bc.measure(model, numbers, PROMPTS, k=5, context=context) for context in ("decode", "full")
    )
    np.testing.assert_allclose(decoded["S"], full["S"], rtol=1e-4)  # float32, as above
    np.testing.assert_allclose(bc.coupling(decoded, 5), bc.coupling(full, 5), rtol=0, atol=1e-3)
    assert (decoded["context_apart"] == 1).all()
    assert (full["context_apart"] == 0).all()


def test_sdpa_is_measured_through_eager_attention() -> None:
    model = small_model("llama", torch.float32)
    fused = copy.deepcopy(model)
    fused.set_attn_implementation("sdpa")
    fused.train()
    xr.testing.assert_identical(
        bc.measure(model, numbers, PROMPTS, k=5), bc.measure(fused, numbers, PROMPTS, k=5)
    )
    assert fused.config._attn_implementation == "sdpa"
    assert fused.training


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_measured_in_float32(dtype: torch.dtype) -> None:
    half = small_model("llama", dtype)
    ds = bc.measure(half, numbers, PROMPTS[:2], k=5)
    xr.testing.assert_identical(
        ds, bc.measure(copy.deepcopy(half).float(), numbers, PROMPTS[:2], k=5)
    )
    assert ds.attrs["weight_dtype"] == "float32"
    assert next(half.parameters()).dtype == dtype  # the user's model is left as it was


def test_another_precision_where_asked_for() -> None:
    model = small_model("llama", torch.float32)
    ds = bc.measure(model, numbers, PROMPTS[:1], k=5, dtype=torch.float64)
    assert ds.attrs["weight_dtype"] == "float64"
    assert next(model.parameters()).dtype == torch.float32


@pytest.mark.parametrize("method", ["dense", "krylov"])
def test_products_of_lower_precision_are_told(method: str) -> None:
    model = small_model("llama", torch.float32)
    plain, lower = (
        bc.measure(model, numbers, PROMPTS[:2], k=3, method=method, matmul=matmul)
        for matmul in ("float32", "bfloat16")
    )
    assert "matmul_error" not in plain
    assert lower.attrs["matmul"] == "bfloat16"
    error = lower["matmul_error"]
    assert error.dims == ("prompt", "pair", "block")
    assert ((error > 1e-4) & (error < 0.1)).all()  # 8 bits, a few products in a row
    # A singular value moves by ‖J' − J‖ at most, which a few per cent of ‖J‖_F may reach.
    moved = abs(lower["S"] - plain["S"]).max("k")
    assert (moved <= 2 * error * plain["jacobian_norm"]).all()


def test_quantities_of_the_trajectory() -> None:
    model = small_model("llama", torch.float32)
    ds = bc.measure(model, numbers, PROMPTS[:1], k=2)
    states = hidden_states(model, PROMPTS[0])
    steps = np.diff(states, axis=1)
    wanted = np.concatenate([states[:, :1], steps], axis=1)
    np.testing.assert_allclose(
        ds["gram"][0],
        np.einsum("tid,tjd->tij", wanted, wanted),
        rtol=1e-10,  # float64 sums of the same float32 states
        atol=1e-10 * float(np.square(wanted).sum(-1).max()),
    )
    length = np.linalg.norm(steps, axis=-1, keepdims=True)
    score = 3 / np.linalg.norm((steps / length).sum(axis=1), axis=-1)
    np.testing.assert_allclose(bc.line_shape_score(ds)[0], score, rtol=1e-7)
    growth = np.diff(np.log(np.linalg.norm(states, axis=-1)), axis=1)
    np.testing.assert_allclose(
        bc.expodistance(ds)[0], growth.std(axis=1) / growth.mean(axis=1), rtol=1e-6
    )
    pca = PCA(2, svd_solver="full").fit(states[:, -1])
    np.testing.assert_allclose(
        abs(ds["pca"][0, :, -1]),
        abs(pca.transform(states[:, -1])),
        rtol=0,
        atol=1e-6 * abs(states).max(),  # stored in float32
    )
    np.testing.assert_allclose(ds["pca_explained"][0], pca.explained_variance_ratio_, rtol=1e-6)


def hidden_states(model: PreTrainedModel, text: str) -> np.ndarray:
    """X^0 … X^L by hooks of the test's own: (token, state, d); the last token is decoded."""
    seen: list[Tensor] = []
    blocks = blocks_of(model)
    hooks = [blocks[0].register_forward_pre_hook(lambda m, args: seen.append(args[0]))]
    for block in blocks:
        hooks.append(
            block.register_forward_hook(
                lambda m, args, out: seen.append(out[0] if isinstance(out, tuple) else out)
            )
        )
    ids = torch.tensor([numbers(text)])
    with torch.no_grad():
        past = model(ids[:, :-1], use_cache=True).past_key_values
        model(ids[:, -1:], past_key_values=past)
    for hook in hooks:
        hook.remove()
    half = len(seen) // 2
    tokens = [torch.cat([a[0], b[0]]) for a, b in zip(seen[:half], seen[half:], strict=True)]
    return torch.stack(tokens, dim=1).double().numpy()


def test_progress_counts_prompts() -> None:
    counted: list[None] = []
    bc.measure(
        small_model("llama", torch.float32),
        numbers,
        PROMPTS,
        k=2,
        batch=3,
        progress=lambda: counted.append(None),
    )
    assert len(counted) == len(PROMPTS)


# -------------------------------------------------------------------------------------- refusals


def refusal(model: nn.Module, prompts: Sequence[str], **options: object) -> list[str]:
    with pytest.raises(UserError) as caught:
        bc.measure(model, numbers, prompts, **options)
    return str(caught.value).splitlines()


def test_everything_that_is_wrong_is_said_at_once() -> None:
    model = small_model("llama", torch.float32)
    said = refusal(
        model,
        ["", "1 2 3", "1 " * 65, "3 61"],
        k=33,
        tokens=[1],
        method="kryl",
        context="some",
        tolerance=0.0,
    )
    assert said == [
        "tolerance = 0.0: choose one above 0, such as 1e-4",
        "method = 'kryl': choose auto, dense, krylov",
        "context = 'some': choose auto, decode, full",
        "prompt 'p0' is empty: it has no token to measure. Remove it.",
        "prompt 'p2' has 65 tokens, the model's context holds 64. Shorten or remove it.",
        "prompt 'p3' has the token id 61, the model knows 0 … 60. Is it the model's own tokenizer?",
        "k = 33: this model's residual stream is d = 32 wide, so a Jacobian has 1 … 32 singular "
        "triples. Choose k from 1 to 32.",
    ]


@pytest.mark.parametrize(
    ("k", "why"), [(0, "choose one above 0"), (-1, "choose one above 0"), (33, "d = 32 wide")]
)
def test_k_out_of_range(k: int, why: str) -> None:
    (said,) = refusal(small_model("gpt2", torch.float32), PROMPTS[:1], k=k)
    assert said.startswith(f"k = {k}: ")
    assert why in said


@pytest.mark.parametrize(
    ("name", "meant"), [("tolerence", "tolerance"), ("token", "tokens"), ("progres", "progress")]
)
def test_a_setting_that_there_is_not(name: str, meant: str) -> None:
    (said,) = refusal(small_model("gpt2", torch.float32), PROMPTS[:1], **{name: 1})
    assert said == f"unknown setting {name}; did you mean {meant}?"


def test_settings_are_taken_as_numpy_has_them() -> None:
    ds = bc.measure(
        small_model("gpt2", torch.float32),
        numbers,
        PROMPTS[:1],
        k=np.int64(3),
        tokens=[*np.arange(2), (0, np.int64(1))],
    )
    assert (ds.sizes["k"], ds.sizes["pair"]) == (3, 3)


def test_a_token_that_some_prompts_do_not_have() -> None:
    (said,) = refusal(small_model("llama", torch.float32), PROMPTS[:2], tokens=[6])
    assert said.startswith(
        "prompt 'p1' cannot be measured: token 6 is out of range: the prompt has"
    )


def test_no_prompts() -> None:
    assert refusal(small_model("llama", torch.float32), []) == ["no prompt to measure"]


def test_one_block_among_other_mistakes() -> None:
    config = AutoConfig.for_model("llama", vocab_size=VOCABULARY, **WIDE | {"num_hidden_layers": 1})
    said = refusal(AutoModelForCausalLM.from_config(config), [""])
    assert said[0].startswith("prompt 'p0' is empty")
    assert said[1].startswith("LlamaForCausalLM has 1 block")


# ----------------------------------------------------------------------- what is read as a prompt


def test_a_text_alone_is_one_prompt(tmp_path: Path) -> None:
    model = small_model("llama", torch.float32)
    ds = bc.measure(model, numbers, PROMPTS[0], k=2)
    xr.testing.assert_identical(ds, bc.measure(model, numbers, [PROMPTS[0]], k=2))
    ds.to_netcdf(tmp_path / "one.nc", engine="scipy")
    with xr.open_dataset(tmp_path / "one.nc", engine="scipy") as read:
        xr.testing.assert_equal(read, ds)
        assert read.attrs == ds.attrs


def test_an_end_mark_that_a_tokenizer_adds_is_not_measured() -> None:
    model = small_model("llama", torch.float32)
    model.config.eos_token_id = 5
    ds = bc.measure(model, lambda text: [*numbers(text), 5], PROMPTS[:2], k=2)
    assert ds["tokens"].values.tolist() == list(LENGTHS[:2])
    xr.testing.assert_equal(ds, bc.measure(model, numbers, PROMPTS[:2], k=2))


# ------------------------------------------------------------------------- numbers not to trust


def test_a_nan_weight_is_named_by_prompt_and_block() -> None:
    model = small_model("llama", torch.float32)
    model.model.layers[1].mlp.down_proj.weight.data[3, 4] = torch.nan
    with pytest.raises(MeasurementError, match=r"prompt 'p0': .* after block 2 is not finite"):
        bc.measure(model, numbers, PROMPTS, k=2)


def test_a_nan_embedding_comes_before_the_first_block() -> None:
    model = small_model("llama", torch.float32)
    model.model.embed_tokens.weight.data[:, 3] = torch.nan
    with pytest.raises(MeasurementError, match="before the first block is not finite"):
        bc.measure(model, numbers, PROMPTS, k=2)


def test_a_gradient_that_does_not_come_through_is_noticed() -> None:
    """As with quantized kernels that have no gradient: only the skip connection is left."""
    model = small_model("llama", torch.float32)
    for part in (model.model.layers[0].mlp, model.model.layers[0].self_attn.o_proj):
        part.register_forward_hook(lambda m, args, output: output.detach())
    with pytest.raises(MeasurementError, match=r"block 1: .* exactly 0 \(but the block"):
        bc.measure(model, numbers, PROMPTS[:1], k=2)


class NoCache(nn.Module):
    """Blocks of two layers, no attention, no cache, no configuration."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(VOCABULARY, 8)
        self.blocks = nn.ModuleList(
            [nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 8)) for _ in range(3)]
        )

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embedding(input_ids)
        for block in self.blocks:
            x = block(x)
        return x


def test_a_model_that_cannot_decode_is_measured_on_the_whole_prompt(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = NoCache()
    with caplog.at_level(logging.INFO):
        ds = bc.measure(model, numbers, PROMPTS[:2], k=8)
    assert "no key-value cache" in caplog.text
    assert (ds["context_apart"] == 0).all()
    with pytest.raises(UserError, match="no key-value cache"):
        bc.measure(model, numbers, PROMPTS[:2], k=8, context="decode")
    x = model.embedding(torch.tensor(numbers(PROMPTS[0])))[-1].detach()
    for index, block in enumerate(model.blocks):
        j = torch.autograd.functional.jacobian(block, x) - torch.eye(8)
        wanted = torch.linalg.svdvals(j.double())
        np.testing.assert_allclose(ds["S"][0, 0, index], wanted, rtol=1e-4, atol=1e-5)  # float32
        x = block(x).detach()
