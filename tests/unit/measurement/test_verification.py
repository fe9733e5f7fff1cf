"""A number of a model that decodes otherwise than it reads is right, or it is refused."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from full_jacobian import full_jacobian
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    Gemma3TextConfig,
    JambaConfig,
    Lfm2Config,
    LlamaConfig,
    Phi3Config,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.models.llama.modeling_llama import LlamaAttention
from whole_model import coupling, jacobians

import blockcoupling as bc
from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.jacobian.token_jacobians import jacobians_to_token, record_to_token
from blockcoupling.measurement import verification
from blockcoupling.measurement.verification import Verifier
from blockcoupling.transformer.blocks import find_blocks
from blockcoupling.transformer.running import differentiable

C = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 211,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "initializer_range": 0.15,
}
JAMBA = {
    "attn_layer_period": 2,
    "attn_layer_offset": 1,
    "expert_layer_period": 2,
    "num_experts": 2,
    "use_mamba_kernels": False,
    "mamba_d_state": 4,
    "mamba_dt_rank": 4,
}
PROMPT = "abcdefghijklmn"
LONG = "abcdefghijklmnopqrstuv"


def numbers(text: str) -> list[int]:
    return [3 + (ord(c) * 7) % 190 for c in text]


def build(config: PretrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


def lfm2() -> PreTrainedModel:
    return build(Lfm2Config(**C, layer_types=["conv", "full_attention"] * 2))


def longrope() -> PreTrainedModel:
    scaling = {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [8.0, 9.0, 12.0, 20.0]}
    return build(
        Phi3Config(
            **C,
            max_position_embeddings=64,
            original_max_position_embeddings=16,
            rope_scaling=scaling,
        )
    )


def assert_right(model: nn.Module, ds: Any, texts: list[str], path: str = "model.layers") -> None:
    """Last tokens' S and coupling are those of float64 autograd through the whole model."""
    for p, text in enumerate(texts):
        s, wanted = coupling(jacobians(model, path, torch.tensor([numbers(text)])), 8)
        # float32 against float64: some hundred roundings; vectors carry them times s_1 over a gap.
        np.testing.assert_allclose(ds["S"][p, 0], s, rtol=0, atol=1e-5 * s.max())
        assert float(bc.coupling(ds, 8)[p, 0]) == pytest.approx(wanted, abs=1e-4)


def measure(model: nn.Module, texts: list[str], **settings: Any) -> Any:
    return bc.measure(model, numbers, texts, k=8, **settings)


# ------------------------------------------------------- state outside the places looked at


@pytest.mark.parametrize("text", [PROMPT, "ab", "a"])
@pytest.mark.parametrize("make", [lfm2, lambda: build(JambaConfig(**C, **JAMBA))])
def test_hybrids_with_a_state_are_measured_by_the_whole_pass(
    make: Callable[[], PreTrainedModel], text: str
) -> None:
    model = make()
    assert_right(model, measure(model, [text]), [text])


def test_a_convolutions_state_is_not_shared_between_calls() -> None:
    model = lfm2()
    ds = measure(model, [PROMPT])
    assert float(ds["S"][0, 0, 0, 0]) == pytest.approx(26.91, abs=0.005)
    with pytest.raises(UserError, match=r"'p0': Lfm2.* updates its state in place.*'full'"):
        measure(model, [PROMPT], context="decode")


# --------------------------------------------------------------------- one sample for all


@pytest.mark.parametrize("texts", [[LONG[:17], LONG], [LONG, LONG[:17]], [LONG[:17]]])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_length_at_which_decoding_is_wrong(
    texts: list[str], batch: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Keys of the short rotary factors meet queries of the long ones, at 17 tokens only."""
    model = longrope()
    with caplog.at_level(logging.INFO):
        ds = measure(model, texts, batch=batch)
    assert_right(model, ds, texts)
    assert caplog.text.count("another hidden state") == 1
    assert ds["context_apart"].values[:, 0, 0].tolist() == [float(len(t) != 17) for t in texts]
    with pytest.raises(UserError, match=r"decoding token 16 .* another hidden state .*'full'"):
        measure(model, texts, batch=batch, context="decode")


def test_tokens_before_the_length_at_which_a_model_changes() -> None:
    """In the whole prompt, that is: 22 tokens, all of them seen by the long factors."""
    model = longrope()
    ds = measure(model, [LONG], tokens=[3, 15, 16, 21])
    for pair, token in enumerate((3, 15, 16, 21)):
        s, _ = coupling(jacobians(model, "model.layers", torch.tensor([numbers(LONG)]), token), 8)
        np.testing.assert_allclose(ds["S"][0, pair], s, rtol=0, atol=1e-5 * s.max())


def detached_where(
    monkeypatch: pytest.MonkeyPatch, when: Callable[[int, int], bool]
) -> PreTrainedModel:
    """A model whose attention has the right value and no gradient for some lengths."""
    forward = LlamaAttention.forward

    def detaching(self: LlamaAttention, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        cache = kwargs.get("past_key_values")
        before = 0 if cache is None else cache.get_seq_length()
        output, *rest = forward(self, hidden_states, *args, **kwargs)
        lost = when(hidden_states.shape[1], before)
        return (output.detach() if lost else output, *rest)

    monkeypatch.setattr(LlamaAttention, "forward", detaching)
    return build(LlamaConfig(**C))


@pytest.mark.parametrize("length", [9, 13, 22])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_gradient_lost_while_decoding_at_one_length(
    length: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every state is right; at one length, between or at the ends, the Jacobian is not."""
    model = detached_where(monkeypatch, lambda tokens, before: (tokens, before) == (1, length - 1))
    texts = [LONG[:n] for n in (9, 22, 13, 14)]
    ds = measure(model, texts, batch=batch)
    assert_right(model, ds, texts)
    assert ds["context_apart"].values[:, 0, 0].tolist() == [float(len(t) != length) for t in texts]
    with pytest.raises(UserError, match=f"token {length - 1} .* another Jacobian of block 1"):
        measure(model, texts, batch=batch, context="decode")


def test_only_what_is_new_is_compared_again(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    pulled = verification.pulled_back

    def counting(*args: Tensor) -> Tensor:
        compared.append(1)
        return pulled(*args)

    monkeypatch.setattr(verification, "pulled_back", counting)
    measure(build(LlamaConfig(**C)), [LONG[:n] for n in (9, 22, 13, 14, 10)], batch=3)
    assert len(compared) == 2 * 4 * 2  # two lengths, four blocks, both sides


def test_ends_of_what_has_been_seen() -> None:
    verifier = Verifier(shortest=5, longest=9)
    verifier.plan([(4, "a"), (8, "b"), (6, "c")])
    assert verifier._thorough == frozenset()
    verifier.plan([(3, "a"), (9, "b"), (9, "c"), (6, "d")])
    assert verifier._thorough == {(3, "a"), (9, "c")}


# --------------------------------------------------------------- blocks that are not functions


class Remembering(nn.Module):
    """Adds up what it has seen: no two calls return the same."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.sum = nn.Linear(8, 8), 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.sum = self.sum + x.detach().mean()
        return x + self.linear(x) * (1 + self.sum)


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear(x) + 0.1 * torch.randn_like(x)


class OfBlocks(nn.Module):
    def __init__(self, block: type[nn.Module]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(211, 8)
        self.blocks = nn.ModuleList([block() for _ in range(3)])

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embedding(input_ids)
        for block in self.blocks:
            x = block(x)
        return x


@pytest.mark.parametrize("block", [Remembering, Noisy])
@pytest.mark.parametrize("context", ["auto", "full"])
def test_a_block_that_returns_something_else_when_called_again(
    block: type[nn.Module], context: str
) -> None:
    with pytest.raises((UserError, MeasurementError), match=r"different output|bidirectional"):
        measure(OfBlocks(block), [PROMPT], context=context)


# ----------------------------------------------------------------- models that look both ways


@pytest.mark.parametrize(
    ("config", "path"),
    [
        (
            Gemma3TextConfig(**C, head_dim=8, sliding_window=64, use_bidirectional_attention=True),
            "model.layers",
        ),
        (
            BertConfig(**{k: v for k, v in C.items() if k != "num_key_value_heads"}),
            "bert.encoder.layer",
        ),
    ],
    ids=["gemma3", "bert"],
)
def test_language_models_that_look_both_ways(config: PretrainedConfig, path: str) -> None:
    model = build(config)
    for context, apart in (("auto", 1), ("full", 0)):
        ds = measure(model, [PROMPT], context=context)
        assert_right(model, ds, [PROMPT], path)
        assert ds.attrs["causal"] is False
        assert (ds["context_apart"] == apart).all()
    with pytest.raises(UserError, match="is bidirectional, so there is no decoding"):
        measure(model, [PROMPT], context="decode")


def test_the_same_family_that_looks_back_is_measured() -> None:
    config = BertConfig(**{k: v for k, v in C.items() if k != "num_key_value_heads"})
    config.is_decoder = True
    model = build(config)
    assert_right(model, measure(model, [PROMPT]), [PROMPT], "bert.encoder.layer")


def test_pairs_of_tokens_are_those_of_the_whole_prompt() -> None:
    """Followed through the cache or not, a model that changes with the length is seen as it is."""
    model = longrope()
    ids = torch.tensor([numbers(LONG)])
    exact = model.__class__(model.config).double()
    exact.load_state_dict(model.state_dict())
    with differentiable(model), differentiable(exact):
        blocks = find_blocks(model, ids)
        for token, through_cache in ((10, False), (21, True)):
            calls = record_to_token(model, blocks, ids, token)
            found, fast = jacobians_to_token(calls, 1, [3, 10])
            assert fast == through_cache
            for jacobian, before in zip(found, (3, 10), strict=True):
                wanted = full_jacobian(exact, exact.model.layers[1], ids, before, token)
                assert float((jacobian - wanted).norm() / wanted.norm()) < 1e-4  # float32
