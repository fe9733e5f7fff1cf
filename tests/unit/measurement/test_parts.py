"""Halves of blocks, detached and cumulative Jacobians, eigenvalues: against float64 references."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from architectures import FAMILIES, prompt, small_model
from coupling_by_definition import blocks_of, definition, jacobians, numbers
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

import blockcoupling as bc
from blockcoupling.config.measurement import Settings
from blockcoupling.errors import UserError
from blockcoupling.jacobian.block_operators import between_tokens
from blockcoupling.jacobian.eigenvalues import eigenvalues
from blockcoupling.measurement.measure_batch import measure_batch
from blockcoupling.measurement.prepare import prepare_texts
from blockcoupling.store.svd import SVD, check_values
from blockcoupling.transformer.blocks import find_blocks
from blockcoupling.transformer.detached import detached
from blockcoupling.transformer.halves import find_halves
from blockcoupling.transformer.recording import record_full
from blockcoupling.transformer.running import differentiable

TEXT = " ".join(map(str, prompt(7, seed=1)[0].tolist()))
IDS, LAST = torch.tensor([numbers(TEXT)]), 6
K = 8
# Softmax and norms are in float32 even in models of float64.
HALF_PRECISION = 1e-6

# Where the halves of a block are: what returns attention's output; what takes the MLP's input (""
# is the block itself), and what returns its output.
HALVES = {
    "gpt2": ("attn", "ln_2", "mlp"),
    "llama": ("self_attn", "post_attention_layernorm", "mlp"),
    "gpt_neox": ("attention", "", "mlp"),
    "gemma2": (
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    ),
    "olmo2": ("post_attention_layernorm", "mlp", "post_feedforward_layernorm"),
    "opt": ("self_attn", "final_layer_norm", "fc2"),
    "mixtral": ("self_attn", "post_attention_layernorm", "mlp"),
    "cohere": ("self_attn", "", "mlp"),
}


def response(model: nn.Module, enter: nn.Module, leave: nn.Module) -> np.ndarray:
    """∂ (output of a module) / ∂ (a change of another's input), both at the last token."""
    seen: dict[str, Tensor] = {}

    def change(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        hidden = args[0] if args else kwargs["hidden_states"]
        seen["change"] = torch.zeros(hidden.shape[-1], dtype=hidden.dtype, requires_grad=True)
        place = torch.zeros(hidden.shape[-2], 1, dtype=hidden.dtype)
        place[LAST] = 1
        hidden = hidden.detach() + place * seen["change"]
        return (
            ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})
        )

    def keep(module: nn.Module, args: tuple, output: object) -> None:
        output = output[0] if isinstance(output, tuple) else output
        seen["output"] = output.reshape(-1, output.shape[-1])[LAST]

    with ExitStack() as hooks:
        hooks.callback(enter.register_forward_pre_hook(change, with_kwargs=True).remove)
        hooks.callback(leave.register_forward_hook(keep).remove)
        model(input_ids=IDS, use_cache=False)
    rows = [torch.autograd.grad(y, seen["change"], retain_graph=True)[0] for y in seen["output"]]
    return torch.stack(rows).numpy()


def halves_of(family: str) -> tuple[np.ndarray, np.ndarray]:
    """Jacobians of attention and MLP of all blocks, (block, d, d) each, in float64."""
    model = small_model(family)
    attention, into, out = HALVES[family]
    return tuple(
        np.stack(
            [response(model, b.get_submodule(a), b.get_submodule(z)) for b in blocks_of(model)]
        )
        for a, z in (("", attention), (into, out))
    )


@pytest.mark.parametrize("method", ["dense", "krylov"])
@pytest.mark.parametrize("family", HALVES)
def test_halves_are_those_of_the_modules(family: str, method: str) -> None:
    """Float32 measurements against float64 Jacobians of the modules, SVD by NumPy."""
    model = small_model(family, torch.float32)
    parts = ["block", "attention", "mlp"]
    ds = bc.measure(model, numbers, TEXT, k=K, method=method, parts=parts, tolerance=1e-6)
    for part, exact in zip(parts[1:], halves_of(family), strict=True):
        found, s = ds[f"S_{part}"][0, 0], np.linalg.svd(exact)[1][:, :K]
        np.testing.assert_allclose(found, s, rtol=0, atol=1e-4 * s.max())
        wanted = definition(exact, K, "frobenius")
        # Singular vectors in float32 carry its rounding times s_1 over the gap of their values.
        np.testing.assert_allclose(
            bc.miscoupling(ds, K, variant=part)[0, 0], wanted, rtol=0, atol=2e-3
        )
        np.testing.assert_allclose(
            ds[f"jacobian_norm_{part}"][0, 0],
            np.linalg.norm(exact, axis=(1, 2)),
            rtol=1e-5 if method == "dense" else 0.05,  # Hutch++ estimates it
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_halves_make_the_block(family: str) -> None:
    """J = J_att + J_mlp (I + J_att), or the sum of both where they are parallel."""
    model = small_model(family)
    with differentiable(model):
        calls = record_full(model, find_blocks(model, IDS), IDS)
        for call, halves in zip(calls, find_halves(calls), strict=True):
            whole, attention, mlp = (
                between_tokens(each, LAST, LAST).dense()[0]
                for each in (call, halves.call(call, "attention"), halves.call(call, "mlp"))
            )
            through = mlp if halves.parallel else mlp @ (torch.eye(len(mlp)) + attention)
            torch.testing.assert_close(
                attention + through, whole, rtol=0, atol=HALF_PRECISION * float(whole.norm())
            )


def test_a_block_that_is_no_sum_is_refused() -> None:
    config = AutoConfig.for_model(
        "bert", vocab_size=61, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=40, is_decoder=True,
    )  # fmt: skip
    torch.manual_seed(0)
    bert = AutoModelForCausalLM.from_config(config)
    with pytest.raises(UserError, match=r"block 1 \(BertLayer\) is not the sum of its input"):
        bc.measure(bert, numbers, TEXT, k=K, parts=["block", "mlp"])


def constant_softmax(x: Tensor, dim: int = -1, **kwargs: object) -> Tensor:
    return torch.softmax(x, dim, **kwargs).detach()


@contextmanager
def detached_modules(model: PreTrainedModel) -> Iterator[None]:
    """The modules of a model in the words of the definition, one by one."""

    def norm(module: nn.Module) -> Callable[[Tensor], Tensor]:
        def rms(x: Tensor) -> Tensor:
            scale = x.pow(2).mean(-1, keepdim=True).add(module.variance_epsilon).sqrt().detach()
            return module.weight * x / scale

        def layer(x: Tensor) -> Tensor:
            centred = x - x.mean(-1, keepdim=True)
            scale = (x.var(-1, keepdim=True, unbiased=False) + module.eps).sqrt().detach()
            return module.weight * centred / scale + module.bias

        return layer if isinstance(module, nn.LayerNorm) else rms

    def gated(module: nn.Module) -> Callable[[Tensor], Tensor]:
        def forward(x: Tensor) -> Tensor:
            gate = module.act_fn(module.gate_proj(x)).detach()
            return module.down_proj(gate * module.up_proj(x))

        return forward

    def activation(module: nn.Module) -> Callable[[Tensor], Tensor]:
        own = module.forward
        return lambda z: z * (own(z) / z).detach()

    with pytest.MonkeyPatch.context() as patch:
        for module in model.modules():
            name = type(module).__name__
            if name.endswith("Norm"):
                patch.setattr(module, "forward", norm(module))
            elif name == "LlamaMLP":
                patch.setattr(module, "forward", gated(module))
            elif "GELU" in name:
                patch.setattr(module, "forward", activation(module))
        patch.setattr(nn.functional, "softmax", constant_softmax)
        yield


@pytest.mark.parametrize("method", ["dense", "krylov"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_the_detached_jacobian_is_that_of_detached_modules(family: str, method: str) -> None:
    exact = small_model(family)
    with detached_modules(exact):
        j = jacobians(exact, TEXT, LAST, LAST)
    model = small_model(family, torch.float32)
    ds = bc.measure(model, numbers, TEXT, k=K, method=method, detached=True, tolerance=1e-6)
    s = np.linalg.svd(j)[1][:, :K]
    np.testing.assert_allclose(ds["S_detached"][0, 0], s, rtol=0, atol=1e-4 * s.max())
    found = bc.miscoupling(ds, K, variant="detached")[0, 0]
    np.testing.assert_allclose(found, definition(j, K, "frobenius"), rtol=0, atol=2e-3)
    # It is another Jacobian: this test could fail.
    assert abs(ds["S_detached"] / ds["S"] - 1).max() > 0.01


# bloom's activation is an autograd function of its own; gpt_oss adds 1 to a vector that is gated.
LINEAR = [family for family in FAMILIES if family not in ("bloom", "gpt_oss")]


@pytest.mark.parametrize("family", LINEAR)
def test_detached_jacobians_reproduce_the_block(family: str) -> None:
    """Σ J[t1, t2] x_t1 + x_t2 is the block's output, where there are no biases."""
    model = small_model(family)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    with differentiable(model):
        for call in record_full(model, find_blocks(model, IDS), IDS):
            mine = detached(call)(call)
            output = call.input[0, LAST].clone()
            for token in range(LAST + 1):
                output += between_tokens(mine, token, LAST).dense()[0] @ call.input[0, token]
            torch.testing.assert_close(
                output,
                call.output[0, LAST],
                rtol=0,
                atol=HALF_PRECISION * float(call.output[0, LAST].norm()),
            )


def test_a_block_with_another_operation_has_no_detached_jacobian() -> None:
    with pytest.raises(UserError, match="BloomBlock has an operation that is neither a norm"):
        bc.measure(small_model("bloom"), numbers, TEXT, k=K, detached=True)


def test_eigenvalues_are_those_of_full_jacobians() -> None:
    j = jacobians(small_model("llama"), TEXT, LAST, LAST)
    ds = bc.measure(small_model("llama", torch.float32), numbers, TEXT, k=K, eigenvalues=True)
    exact, found = np.linalg.eigvals(j), ds["eigenvalues"].values[0, 0]
    for mine, theirs in zip(found, exact, strict=True):
        distance = abs(mine[:, None] - theirs)
        # float32 rounding of J, times the condition of an eigenvalue, at most some dozens here.
        assert max(distance.min(0).max(), distance.min(1).max()) < 1e-3
        assert (np.diff(abs(mine)) <= 1e-6).all()
    norm = np.linalg.norm(j, axis=(1, 2))
    departure = np.sqrt(norm**2 - (abs(exact) ** 2).sum(1)) / norm
    np.testing.assert_allclose(bc.departure_from_normality(ds)[0, 0], departure, atol=1e-4)


def test_a_normal_matrix_does_not_depart_from_normality() -> None:
    random = torch.Generator().manual_seed(0)
    a = torch.randn(1, 6, 6, generator=random, dtype=torch.float64)
    symmetric = a + a.mT
    wanted = torch.linalg.eigvalsh(symmetric).abs().sort(descending=True).values
    found = eigenvalues(symmetric)
    torch.testing.assert_close(found.abs().double(), wanted, rtol=1e-6, atol=0)
    turned = eigenvalues(a - a.mT)[0]  # conjugate pairs, side by side
    torch.testing.assert_close(turned[0::2], turned[1::2].conj(), rtol=1e-6, atol=1e-6)


def test_left_and_right_vectors_are_compared() -> None:
    ds = bc.measure(small_model("llama", torch.float32), numbers, TEXT, k=K, vectors=True)
    cosine = (ds["U"] * ds["V"]).sum("embed")
    np.testing.assert_allclose(ds["uv_cosine"], cosine, rtol=0, atol=1e-6)


def test_the_cumulative_jacobian_is_the_product() -> None:
    j = jacobians(small_model("llama"), TEXT, LAST, LAST)
    model = small_model("llama", torch.float32)
    tokens = [LAST, [2, LAST]]
    ds = bc.measure(
        model, numbers, TEXT, k=K, method="dense", cumulative=True, tokens=tokens, tolerance=1e-6
    )
    product = np.eye(j.shape[-1])
    u, _, vt = np.linalg.svd(j)
    for block, step in enumerate(j):
        product = (np.eye(len(step)) + step) @ product
        left, s, right = np.linalg.svd(product)
        found = ds["S_cumulative"].values[0, 0, block]
        np.testing.assert_allclose(found, s[:K], rtol=0, atol=1e-4 * s[0])
        for kind, one, other in (
            ("cumulative_output_overlap", left[:, :K], u[:, :, :K]),
            ("cumulative_input_overlap", right[:K].T, vt[:, :K].transpose(0, 2, 1)),
        ):
            shared = bc.overlap(ds, K, kind).values[0, 0, block]
            wanted = [np.linalg.norm(one.T @ each) ** 2 / K for each in other]
            np.testing.assert_allclose(shared, wanted, rtol=0, atol=1e-3)
    assert ds["S_cumulative"].sel(pair=1).isnull().all()  # of two tokens


def test_everything_is_kept_and_read_again(tmp_path: Path) -> None:
    """Two prompts, one of them shorter, with different numbers of pairs."""
    model = small_model("gpt_neox", torch.float32)
    settings = Settings.of(
        {
            "k": 3,
            "parts": ["block", "attention", "mlp"],
            "detached": True,
            "eigenvalues": True,
            "cumulative": True,
            "readout": 2,
            "tokens": "all",
        }
    )
    texts = [("long", TEXT), ("short", "1 2 3")]
    prepared, prompts = prepare_texts(model, numbers, texts, settings)
    parts = measure_batch(prepared, prompts)
    for part in parts:
        check_values(part)
    in_memory = SVD.combine(parts)
    SVD.validate(in_memory)
    expected = {"long": "a", "short": "b"}
    for (name, mark), part in zip(expected.items(), parts, strict=True):
        SVD.write(tmp_path / "parts", name, part, mark)
    SVD.join(tmp_path / "parts", tmp_path / "svd.zarr", expected)
    joined = bc.open_store(tmp_path / "svd.zarr").compute()
    for name, variable in in_memory.data_vars.items():
        np.testing.assert_array_equal(joined[name], variable, err_msg=str(name))
        assert joined[name].dtype == variable.dtype


def test_halves_of_a_released_measurement_are_refused() -> None:
    with pytest.raises(UserError, match="parts and detached are of the block itself"):
        Settings.of({"parts": ["block", "mlp"], "final_norm": True})
