"""A model set up for measuring: a batch of prompts in, one dataset of the schema for each out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import Any, Literal, get_args

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor, nn

from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.jacobian.block_operators import SameToken, between_tokens
from blockcoupling.jacobian.decompose import Decomposition, decompose
from blockcoupling.jacobian.matmul import Matmul, full_float32
from blockcoupling.jacobian.method import Method
from blockcoupling.jacobian.operator import Operator, StackedOperator
from blockcoupling.jacobian.trivial import AtPrompt
from blockcoupling.measurement.memory import bytes_per_prompt, free_bytes, prompts_at_once
from blockcoupling.measurement.states import gram, principal_components
from blockcoupling.store.schema import plain, stamp
from blockcoupling.transformer.blocks import (
    BlockCall,
    Blocks,
    differentiable,
    find_blocks,
    record_full,
    record_in_two,
)
from blockcoupling.transformer.final_norm import after_norm, find_final_norm
from blockcoupling.transformer.streaming import BlockWeights, StreamedModel, in_lockstep
from blockcoupling.transformer.tokens import TokenizedPrompt, Tokens, token_pairs

logger = logging.getLogger(__name__)

DEFAULT_K = 50
Context = Literal["auto", "decode", "full"]


@dataclass(frozen=True)
class Settings:
    """What to measure, and how exactly.

    Attributes:
        k: K_max, how many singular triples to keep; None: 50, or d where d < 50.
        tokens: "last", "all", a list of tokens t (or of pairs (t1, t2), t1 ≤ t2; negative ones
            count from the end), or {"every": n}.
        method: "auto", "dense" or "krylov".
        tolerance: residual ‖J v − s u‖ / s_1 at which the SVD may stop.
        vectors: keep U and V in the result.
        swapped: keep V_jᵀ J_i U_j for the mis-coupling variant `swapped`.
        full: keep all singular values.
        context: "decode" (one token's decode step, cost independent of the prompt's length),
            "full" (the whole prompt's pass), or "auto": "full" only where a model cannot decode.
        final_norm: measure the last block after the model's final norm, as the released code does.
        matmul: "float32", or "tf32" or "bfloat16" for a block's matrix products of lower
            precision, on request only; their relative error is measured and kept.
        seed: of the iteration's random start.
    """

    k: int | None = None
    tokens: Tokens = "last"
    method: Method = "auto"
    tolerance: float = 1e-4
    vectors: bool = False
    swapped: bool = False
    full: bool = False
    context: Context = "auto"
    final_norm: bool = False
    matmul: Matmul = "float32"
    seed: int = 0


@dataclass
class Instrument:
    """A model set up for measuring; keeps what it has learned about the model between batches.

    Attributes:
        model: weights in float32 or float64.
        settings: what to measure.
        identity: attributes for the store that only the caller knows (model_id, revision, …).
        methods: method per block once chosen; the first batch chooses, so that every later batch,
            and a resumed job that is handed them, does the same arithmetic.
        weights: brings blocks into memory, for a streamed model.
    """

    model: nn.Module
    settings: Settings
    identity: dict[str, Any] = field(default_factory=dict)
    methods: list[str] | None = None
    weights: BlockWeights | None = None
    _blocks: Blocks | None = None
    _final_norm: nn.Module | None = None
    _cannot_decode: bool = False
    _verified: int = 0

    @classmethod
    def of(
        cls, model: nn.Module | StreamedModel, settings: Settings, identity: dict[str, Any]
    ) -> Instrument:
        """Set up a model that is in memory, or one that is streamed."""
        if isinstance(model, StreamedModel):
            return cls(model.model, settings, identity, weights=model.weights)
        return cls(model, settings, identity)

    @property
    def device(self) -> torch.device:
        """Where the model is (of a streamed one, what lies outside its blocks)."""
        return next(p.device for p in self.model.parameters() if not p.is_meta)

    def blocks(self, example: TokenizedPrompt | None) -> Blocks:
        """The model's blocks, found on the first call by passing a few of the example's tokens."""
        if self._blocks is None:
            ids = torch.zeros(1, 1, dtype=torch.long)
            if example is not None and example.input_ids.shape[1]:
                ids = example.input_ids[:, :8]
            with ExitStack() as around:
                around.enter_context(differentiable(self.model))
                if self.weights is not None:
                    around.enter_context(self.weights.on_entry())
                blocks = find_blocks(self.model, ids.to(self.device))
                if self.settings.final_norm:
                    self._final_norm = find_final_norm(self.model, blocks, ids.to(self.device))
                self._blocks = blocks
        return self._blocks

    def check(self, prompts: Sequence[TokenizedPrompt]) -> int:
        """Check everything that can be wrong before long work starts; return K_max.

        Raises:
            UserError: listing all that is wrong.
        """
        if not prompts:
            raise UserError("there is no prompt to measure")
        wrong = self._wrong_settings()
        fit = []
        for prompt in prompts:
            if problem := self._unfit(prompt):
                wrong.append(f"prompt {prompt.id!r} {problem}")
            else:
                fit.append(prompt)
        try:
            d = self.blocks(fit[0] if fit else None).dimension
            if self.settings.k is not None and not 1 <= self.settings.k <= d:
                wrong.append(
                    f"k = {self.settings.k}: this model's residual stream is d = {d} wide, so a "
                    f"Jacobian has 1 … {d} singular triples. Choose k from 1 to {d}."
                )
        except UserError as error:
            wrong.append(str(error))
        if wrong:
            raise UserError("\n".join(wrong))
        return self.settings.k or min(DEFAULT_K, d)

    def _wrong_settings(self) -> list[str]:
        settings = self.settings
        wrong = [
            f"{name} = {value!r}: choose {', '.join(allowed)}"
            for name, value, allowed in (
                ("method", settings.method, get_args(Method)),
                ("context", settings.context, get_args(Context)),
                ("matmul", settings.matmul, get_args(Matmul)),
            )
            if value not in allowed
        ]
        if not settings.tolerance > 0:
            wrong.append(f"tolerance = {settings.tolerance}: choose one above 0, such as 1e-4")
        return wrong

    def _unfit(self, prompt: TokenizedPrompt) -> str | None:
        """Why a prompt cannot be measured with these settings on this model; None if it can."""
        length = prompt.input_ids.shape[1]
        if length == 0:
            return "is empty: it has no token to measure. Remove it."
        config: Any = getattr(self.model, "config", None)
        text = config.get_text_config() if hasattr(config, "get_text_config") else config
        limit = getattr(text, "max_position_embeddings", None)
        if isinstance(limit, int) and 0 < limit < length:
            return f"has {length} tokens, the model's context holds {limit}. Shorten or remove it."
        vocabulary, largest = getattr(text, "vocab_size", None), int(prompt.input_ids.max())
        if isinstance(vocabulary, int) and largest >= vocabulary:
            return (
                f"has the token id {largest}, the model knows 0 … {vocabulary - 1}. Is it the "
                "model's own tokenizer?"
            )
        try:
            token_pairs(self.settings.tokens, length)
        except UserError as error:
            return f"cannot be measured: {error}"
        return None

    def prompts_at_once(self, prompts: Sequence[TokenizedPrompt], k: int) -> int:
        """How many of these prompts to measure together, by what memory is free now."""
        blocks = self.blocks(prompts[0])
        longest = max(p.input_ids.shape[1] for p in prompts)
        pairs = len(token_pairs(self.settings.tokens, longest))
        each = bytes_per_prompt(blocks.dimension, len(blocks), k, longest, pairs)
        return prompts_at_once(each, free_bytes(str(self.device)))

    def measure(self, prompts: Sequence[TokenizedPrompt]) -> list[xr.Dataset]:
        """Measure a batch of prompts together; one dataset of the schema for each.

        Raises:
            MeasurementError: naming block and prompt.
        """
        blocks = self.blocks(prompts[0])
        k = self.settings.k or min(DEFAULT_K, blocks.dimension)
        with differentiable(self.model), full_float32():
            verify = self._to_verify(prompts)
            runs = [partial(self._record, blocks, p, p is verify) for p in prompts]
            if self.weights is None:
                recorded = [run() for run in runs]
            else:
                recorded = in_lockstep(self.weights, blocks.modules, runs)
            points = [point for one in recorded for point in one.points]
            # Decoded tokens go through a block together, the others after them, one by one.
            points.sort(key=lambda point: not point.decoded)

            decoded = [point for point in points if point.decoded]
            same_token = SameToken(
                lambda block: [point.calls[block] for point in decoded], self.settings.matmul
            )

            def operators(block: int) -> Operator:
                if self.weights is not None:
                    self.weights.hold(blocks.modules[block])
                members = [same_token(block)] if decoded else []
                members += [
                    _full_sequence(point, block, self.settings.matmul)
                    for point in points[len(decoded) :]
                ]
                return members[0] if len(members) == 1 else StackedOperator(members)

            try:
                found = decompose(
                    operators,
                    len(blocks),
                    k,
                    method=self._method(),
                    tolerance=self.settings.tolerance,
                    swapped=self.settings.swapped,
                    full=self.settings.full,
                    seed=self.settings.seed,
                    # One block's weights are held at a time; TF32 is a setting of the process.
                    workers=None if self.weights is None and self._plain else 1,
                )
            except AtPrompt as error:
                name = points[error.prompt].prompt
                raise MeasurementError(f"prompt {name!r}, {error}") from error
            except MeasurementError as error:
                names = ", ".join(repr(p.id) for p in prompts)
                raise MeasurementError(f"prompt {names}: {error}") from error
        self.methods = self.methods or found.methods
        return [
            self._dataset(one, found, [points.index(point) for point in one.points])
            for one in recorded
        ]

    @property
    def _plain(self) -> bool:
        return self.settings.matmul == "float32"

    def _method(self) -> Method | Sequence[str]:
        """What the user asked for, or, where the choice is ours, what was chosen before."""
        if self.settings.method == "auto" and self.methods is not None:
            return self.methods
        return self.settings.method

    def _to_verify(self, prompts: Sequence[TokenizedPrompt]) -> TokenizedPrompt | None:
        """The prompt whose decoding is held against the whole prompt's pass: the longest so far.

        A model that decodes wrongly does so for all prompts, or for those past some length.
        """
        longest = max(prompts, key=lambda prompt: prompt.input_ids.shape[1])
        if longest.input_ids.shape[1] <= self._verified:
            return None
        self._verified = longest.input_ids.shape[1]
        return longest

    def _record(self, blocks: Blocks, prompt: TokenizedPrompt, verify: bool) -> _Recorded:
        """Pass a prompt through the model: its trajectories, and every point's block calls."""
        ids = prompt.input_ids.to(self.device)
        last = ids.shape[1] - 1
        points, states = [], None
        for a, b in token_pairs(self.settings.tokens, last + 1):
            part = ids[:, : b + 1]
            decoded = self._in_two(blocks, part) if a == b else None
            if decoded is None:
                calls = record_full(self.model, blocks, part)
            else:
                before, calls = decoded
                if b == last:
                    states = _states(prompt.id, before, calls)
            points.append(_Point(prompt.id, a, b, calls, decoded is not None))
        if states is None or verify:
            whole = _states(prompt.id, [], record_full(self.model, blocks, ids))
        else:
            whole = states
        states = whole if states is None else states
        for point in points:
            if point.decoded:
                _same_trajectory(point, whole)
            if self._final_norm is not None:
                point.calls[-1] = after_norm(point.calls[-1], self._final_norm)
        return _Recorded(prompt, points, gram(states), *principal_components(states))

    def _in_two(
        self, blocks: Blocks, ids: Int[Tensor, "1 token"]
    ) -> tuple[list[BlockCall], list[BlockCall]] | None:
        """The calls before the last token and on it; None for a model that cannot decode.

        Raises:
            UserError: for a model that cannot, where decoding was asked for.
        """
        if self.settings.context == "full" or self._cannot_decode:
            return None
        try:
            return record_in_two(self.model, blocks, ids)
        except UserError as error:
            if self.settings.context == "decode":
                raise
            logger.info("%s It is now.", error)
            self._cannot_decode = True
            return None

    def _dataset(
        self,
        recorded: _Recorded,
        found: Decomposition,
        rows: list[int],
    ) -> xr.Dataset:
        prompt = recorded.prompt
        pairs = [(point.token_in, point.token_out) for point in recorded.points]
        block = ("prompt", "pair", "block")

        def of(values: Tensor, dtype: Any = np.float32) -> np.ndarray:
            return values[rows].numpy().astype(dtype)[None]

        variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
            "S": ((*block, "k"), of(found.S)),
            "A": ((*block, "block_other", "k", "k_other"), of(found.A)),
            "jacobian_norm": (block, of(found.norm, np.float64)),
            "jacobian_norm_error": (block, of(found.norm_error, np.float64)),
            "svd_residual": (block, of(found.residual)),
            "gram": (("prompt", "token", "state", "state_other"), recorded.gram[None]),
            "pca": (
                ("prompt", "token", "state", "component"),
                recorded.pca[None],
            ),
            "pca_explained": (("prompt", "component"), recorded.explained[None]),
        }
        if found.A_swapped is not None:
            variables["A_swapped"] = (variables["A"][0], of(found.A_swapped))
        if found.S_full is not None:
            variables["S_full"] = ((*block, "k_full"), of(found.S_full))
        if found.matmul_error is not None:
            variables["matmul_error"] = (block, of(found.matmul_error))
        if self.settings.vectors:
            variables["U"] = ((*block, "embed", "k"), of(found.U))
            variables["V"] = ((*block, "embed", "k"), of(found.V))
        for name, per_block in {
            "products": found.products,
            "matrix_free": [how == "krylov" for how in found.methods],
            "context_apart": ["one-token" in how for how in found.attention],
        }.items():
            values = np.tile(np.array(per_block, np.float32), (1, len(pairs), 1))
            variables[name] = (block, values)
        tokens, count, k = len(recorded.gram), len(found.methods), found.S.shape[-1]
        coordinates: dict[str, Any] = {
            "prompt": np.array([prompt.id], dtype=object),
            "pair": np.arange(len(pairs)),
            "token_in": (("prompt", "pair"), np.array([[a for a, _ in pairs]])),
            "token_out": (("prompt", "pair"), np.array([[b for _, b in pairs]])),
            "block": np.arange(1, count + 1),
            "block_other": np.arange(1, count + 1),
            "k": np.arange(1, k + 1),
            "k_other": np.arange(1, k + 1),
            "token": np.arange(tokens),
            "token_text": (("prompt", "token"), np.array([prompt.token_text], dtype=object)),
            "tokens": (("prompt",), np.array([tokens])),
            "state": np.arange(count + 1),
            "state_other": np.arange(count + 1),
            "component": np.arange(1, 3),
        }
        if found.S_full is not None:
            coordinates["k_full"] = np.arange(1, found.S_full.shape[-1] + 1)
        return xr.Dataset(variables, coordinates, plain(self._attributes()))

    def _attributes(self) -> dict[str, Any]:
        weights = next(p for p in self.model.parameters() if p.is_floating_point())
        return {
            **stamp(),
            "model_id": getattr(getattr(self.model, "config", None), "_name_or_path", "") or "",
            "revision": None,
            "weight_dtype": str(weights.dtype).removeprefix("torch."),
            "quantization": None,
            "attention": "eager",
            "method": self.settings.method,
            "tolerance": self.settings.tolerance,
            "matmul": self.settings.matmul,
            "final_norm": self.settings.final_norm,
            "seed": self.settings.seed,
            "torch_version": version("torch"),
            "transformers_version": version("transformers"),
            **self.identity,
        }


@dataclass(eq=False)
class _Point:
    """One Jacobian's place: a prompt and a pair of its tokens, with the recorded block calls."""

    prompt: str
    token_in: int
    token_out: int
    calls: list[BlockCall]
    decoded: bool


@dataclass(frozen=True)
class _Recorded:
    """What passing one prompt through the model left behind."""

    prompt: TokenizedPrompt
    points: list[_Point]
    gram: Float[np.ndarray, "token state state_other"]
    pca: Float[np.ndarray, "token state component"]
    explained: Float[np.ndarray, " component"]


def _full_sequence(point: _Point, block: int, matmul: Matmul) -> Operator:
    call = point.calls[block]
    operator = between_tokens(call, point.token_in, point.token_out, matmul)
    operator.attention = "full-sequence"
    return operator


def _states(
    prompt: str, before: Sequence[BlockCall], calls: Sequence[BlockCall]
) -> Float[np.ndarray, "token state embed"]:
    """X^0 … X^L of every token, taken at the blocks, float64, from one pass or from two."""
    seen = [
        # Blocks may be on several devices.
        torch.stack([s[0].cpu() for s in (part[0].input, *(c.output for c in part))], dim=1)
        for part in (before, calls)
        if part
    ]
    array = torch.cat(seen).double().numpy()
    if not np.isfinite(array).all():
        state = int(np.argwhere(~np.isfinite(array))[0][1])
        where = f"after block {state}" if state else "before the first block"
        raise MeasurementError(f"prompt {prompt!r}: the hidden state {where} is not finite")
    return array


def _same_trajectory(point: _Point, states: Float[np.ndarray, "token state embed"]) -> None:
    """Check that decoding a token gave the hidden states of the whole prompt's pass.

    Rounding grows through the blocks: 1e4 eps of the state's norm (1e-3) allows for it, and a token
    seen at another position or past another context is off by far more. That of float32 in float64
    too, since most models take their softmax in float32 all the same.
    """
    decoded = point.calls[-1].output[0, -1].double().cpu().numpy()
    whole = states[point.token_out, -1]
    eps = torch.finfo(torch.float32).eps
    error = float(np.linalg.norm(decoded - whole) / np.linalg.norm(whole))
    if not error <= 1e4 * eps:
        raise MeasurementError(
            f"prompt {point.prompt!r}: decoding token {point.token_out} with a cache gives another "
            f"hidden state than the whole prompt does (relative difference {error:.1e}). Measure "
            "this model with context='full'."
        )
