"""Small datasets of the schema, from Jacobians that are known."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float

from blockcoupling.config.overlaps import OVERLAPS
from blockcoupling.store.schema import stamp
from blockcoupling.store.svd import SVD


def example(
    prompts: int = 2,
    *,
    blocks: int = 3,
    embed: int = 8,
    k: int = 4,
    tokens: int | Sequence[int] = 5,
    all_tokens: bool = False,
    vectors: bool = False,
    swapped: bool = False,
    overlaps: bool = False,
    more: bool = False,
    seed: int = 0,
) -> xr.Dataset:
    """Return a valid dataset whose numbers belong together: true SVDs of random Jacobians.

    The Jacobians of a prompt share a common part, so that its blocks are partly coupled.

    Args:
        prompts: number of prompts, named `p0`, `p1`, …
        blocks: number of blocks L.
        embed: embedding dimension d.
        k: number of singular triples kept, at most `embed`.
        tokens: length of every prompt, or the length of each.
        all_tokens: pairs (t, t) for every token t; otherwise the last token alone.
        vectors: keep U and V.
        swapped: keep `A_swapped`.
        overlaps: keep `output_overlap`, `input_overlap` and `composition`.
        more: keep eigenvalues, a readout, and the transposed Jacobians as those of attention.
        seed: of the random numbers.
    """
    random = np.random.default_rng(seed)
    lengths = [tokens] * prompts if isinstance(tokens, int) else list(tokens)
    parts = []
    for index, length in enumerate(lengths):
        pairs = [(t, t) for t in range(length)] if all_tokens else [(length - 1, length - 1)]
        common = random.normal(size=(embed, embed))
        own = random.normal(size=(len(pairs), blocks, embed, embed))
        states = random.normal(size=(length, blocks + 1, embed)).cumsum(axis=1)
        parts.append(
            from_jacobians(
                f"p{index}",
                common + 0.5 * own,
                states,
                k,
                pairs=pairs,
                vectors=vectors,
                swapped=swapped,
                overlaps=overlaps,
                more=more,
            )
        )
    return SVD.combine(parts)


def from_jacobians(
    prompt: str,
    jacobians: Float[np.ndarray, "pair block embed embed"],
    states: Float[np.ndarray, "token state embed"],
    k: int,
    *,
    pairs: Sequence[tuple[int, int]] | None = None,
    vectors: bool = False,
    swapped: bool = False,
    overlaps: bool = False,
    more: bool = False,
) -> xr.Dataset:
    """Return the dataset of one prompt with the given residual Jacobians and hidden states.

    Everything is computed in float64 and rounded to the schema's data types at the end.

    Args:
        prompt: its id.
        jacobians: J, rows = output, columns = input.
        states: x^0 … x^L of every token.
        k: number of singular triples kept.
        pairs: (t1, t2) of each Jacobian; by default the last token for a single one.
        vectors: keep U and V.
        swapped: keep `A_swapped`.
        overlaps: keep `output_overlap`, `input_overlap` and `composition`.
        more: keep eigenvalues, a readout, and the transposed Jacobians as those of attention.
    """
    length, blocks = states.shape[0], jacobians.shape[1]
    pairs = [(length - 1, length - 1)] if pairs is None else list(pairs)
    u, s, v = _truncated_svd(jacobians, k)
    steps = np.concatenate([states[:, :1], np.diff(states, axis=1)], axis=1)
    residual = np.linalg.norm(jacobians @ v - u * s[:, :, None, :], axis=-2).max(-1) / s[..., 0]

    block, state, counted = np.arange(1, blocks + 1), np.arange(blocks + 1), np.arange(1, k + 1)
    product = ("pair", "block", "block_other", "k", "k_other")
    ds = xr.Dataset(
        {
            "S": (("pair", "block", "k"), s.astype(np.float32)),
            "A": (product, _products(u, jacobians, v)),
            "jacobian_norm": (("pair", "block"), np.linalg.norm(jacobians, axis=(-2, -1))),
            "svd_residual": (("pair", "block"), residual.astype(np.float32)),
            "gram": (("token", "state", "state_other"), steps @ steps.swapaxes(-1, -2)),
        },
        coords={
            "pair": np.arange(len(pairs)),
            "token_in": ("pair", np.array([t1 for t1, _ in pairs])),
            "token_out": ("pair", np.array([t2 for _, t2 in pairs])),
            "block": block,
            "block_other": block,
            "k": counted,
            "k_other": counted,
            "token": np.arange(length),
            "token_text": ("token", np.array([f"t{t}" for t in range(length)], dtype=object)),
            "tokens": length,
            "state": state,
            "state_other": state,
        },
        attrs=stamp()
        | {
            "model_id": "example",
            "dimension": jacobians.shape[-1],
            "revision": "",
            "weight_dtype": "float64",
            "quantization": "",
            "attention": "none",
            "method": "dense",
            "seed": "",
            "torch_version": "none",
            "transformers_version": "none",
        },
    )
    if vectors:
        axes = ("pair", "block", "embed", "k")
        ds = ds.assign(U=(axes, u.astype(np.float32)), V=(axes, v.astype(np.float32)))
    if swapped:
        ds = ds.assign(A_swapped=(product, _products(v, jacobians, u)))
    if overlaps:
        frames = {"U": u, "V": v}
        ds = ds.assign(
            {
                name: (product, _inner(frames[each.left], frames[each.right]))
                for name, each in OVERLAPS.items()
            }
        )
    if more:
        ds = ds.assign(_more(jacobians, u, s, v)).assign_coords(
            vector=np.array(["U", "V"], dtype=object), sign=[1, -1], k_read=[1, 2], rank=[1, 2]
        )
        ds = ds.assign_coords(k_full=np.arange(1, jacobians.shape[-1] + 1))
    per_prompt = [name for name, variable in ds.variables.items() if name not in ds.indexes]
    ds = ds.assign_coords(prompt=np.array([prompt], dtype=object))
    return ds.assign({name: ds[name].expand_dims("prompt") for name in per_prompt})


def _more(
    jacobians: Float[np.ndarray, "pair block embed embed"],
    u: Float[np.ndarray, "pair block embed k"],
    s: Float[np.ndarray, "pair block k"],
    v: Float[np.ndarray, "pair block embed k"],
) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    block, turned = ("pair", "block"), jacobians.swapaxes(-1, -2)
    read = (*block, "vector", "sign", "k_read", "rank")
    tokens = np.arange(np.prod((*s.shape[:2], 2, 2, 2, 2)), dtype=np.int32)
    tokens = tokens.reshape(*s.shape[:2], 2, 2, 2, 2)
    texts = np.array([f" w{token}".encode().ljust(8, b"\0") for token in tokens.ravel()], "S8")
    return {
        "uv_cosine": ((*block, "k"), (u * v).sum(-2).astype(np.float32)),
        "eigenvalues": (
            (*block, "k_full"),
            np.linalg.eigvals(jacobians).astype(np.complex64),
        ),
        "S_attention": ((*block, "k"), s.astype(np.float32)),
        "A_attention": (
            (*block, "block_other", "k", "k_other"),
            _products(v, turned, u).astype(np.float32),
        ),
        "jacobian_norm_attention": (block, np.linalg.norm(jacobians, axis=(-2, -1))),
        "svd_residual_attention": (block, np.zeros(s.shape[:2], np.float32)),
        "readout_token": (read, tokens),
        "readout_logit": (read, -tokens.astype(np.float32)),
        "readout_text": (
            (*read, "byte"),
            texts.view(np.uint8).reshape(*tokens.shape, 8).copy(),
        ),
    }


def _truncated_svd(
    jacobians: Float[np.ndarray, "pair block embed embed"], k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    u, s, vt = np.linalg.svd(jacobians)
    u, s, v = u[..., :k], s[..., :k], vt.swapaxes(-1, -2)[..., :k]
    largest = np.take_along_axis(u, np.abs(u).argmax(axis=-2, keepdims=True), axis=-2)
    return u * np.sign(largest), s, v * np.sign(largest)


def _products(left: np.ndarray, jacobians: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return left_jᵀ J_i right_j for every pair of blocks: (pair, i, j, k, k), float32."""
    products = np.einsum("pjak,piab,pjbl->pijkl", left, jacobians, right, optimize=True)
    return products.astype(np.float32)


def _inner(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return left_iᵀ right_j for every pair of blocks: (pair, i, j, k, k), float32."""
    return np.einsum("piak,pjal->pijkl", left, right, optimize=True).astype(np.float32)
