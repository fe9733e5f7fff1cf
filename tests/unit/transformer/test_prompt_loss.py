"""The model's own loss on a prompt, against a whole pass of the model in float64."""

from pathlib import Path

import numpy as np
import pytest
import torch
from architectures import FAMILIES, prompt, small_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPT2Config, GPT2ForTokenClassification

import blockcoupling as bc
from blockcoupling.measurement.measure import measure
from blockcoupling.transformer import prompt_loss, slices
from blockcoupling.transformer.blocks import find_blocks
from blockcoupling.transformer.prompt_loss import NoPredictions, prompt_losses
from blockcoupling.transformer.recording import record_whole
from blockcoupling.transformer.streaming import stream_model

PROMPTS = [prompt(9), prompt(1), prompt(14, seed=1)]
# Both in float64, on other batches: a few hundred roundings of 1e-16 of logits up to some hundred.
ROUNDING = 1e-12


def wanted(model: nn.Module, ids: Tensor) -> float:
    """Of one whole pass of the model as it is, by NumPy; NaN of one token."""
    if ids.shape[1] == 1:
        return float("nan")
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0].double().numpy()
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    following = ids[0, 1:].numpy()
    return -log_p[np.arange(len(following)), following].mean()


def found(model: nn.Module) -> list[float]:
    blocks = find_blocks(model, PROMPTS[0])
    returned = [record_whole(model, blocks, ids, every_logit=True)[1] for ids in PROMPTS]
    return prompt_losses(model, blocks, PROMPTS, returned)


@pytest.mark.parametrize("family", FAMILIES)
def test_of_every_family(family: str) -> None:
    model = small_model(family)
    before = [set(vars(module)) for module in model.modules()]
    np.testing.assert_allclose(
        found(model), [wanted(model, ids) for ids in PROMPTS], rtol=ROUNDING, atol=ROUNDING
    )
    assert [set(vars(module)) for module in model.modules()] == before


def test_a_few_tokens_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model("gemma2")  # soft caps on its logits
    monkeypatch.setattr(prompt_loss, "LOGITS", 200)  # of 61 words: 3 tokens of 21
    np.testing.assert_allclose(
        found(model), [wanted(model, ids) for ids in PROMPTS], rtol=ROUNDING, atol=ROUNDING
    )


def test_a_model_in_a_class_of_its_own_is_asked_for_all_logits() -> None:
    model = small_model("llama")
    kept = type(model)
    model.__class__ = type("MyLlama", (kept,), {"__module__": "my"})
    np.testing.assert_allclose(
        found(model), [wanted(model, ids) for ids in PROMPTS], rtol=ROUNDING, atol=ROUNDING
    )


@pytest.mark.parametrize("tied", [True, False])
def test_streamed_heads_come_in_slices_and_go(
    tied: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_model("llama")
    model.config.tie_word_embeddings = tied
    if tied:
        model.tie_weights()
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float64, attn_implementation="eager"
    ).eval()
    streamed = stream_model(tmp_path, torch.float64)
    monkeypatch.setattr(slices, "WEIGHTS", 200)  # 6 of 61 words at a time
    head = streamed.model.lm_head
    before, forward = head.weight, vars(head).get("forward")
    with streamed.weights.on_entry():
        blocks = find_blocks(streamed.model, PROMPTS[0])
        returned = [record_whole(streamed.model, blocks, ids)[1] for ids in PROMPTS]
    for _ in range(2):  # of every batch
        with streamed.weights.head_in_slices(streamed.model):
            losses = prompt_losses(streamed.model, blocks, PROMPTS, returned)
        np.testing.assert_allclose(
            losses, [wanted(loaded, ids) for ids in PROMPTS], rtol=ROUNDING, atol=ROUNDING
        )
    assert head.weight is before
    assert before.is_meta
    assert vars(head).get("forward") is forward is None


def test_what_does_not_predict_tokens_has_no_loss() -> None:
    config = GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=61, num_labels=3)
    for model in (GPT2ForTokenClassification(config).eval(), small_model("gpt2").base_model):
        with pytest.raises(NoPredictions, match=f"{type(model).__name__} has no head"):
            found(model)


def test_measured_with_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    model = small_model("gpt2")
    ids = {str(n): each[0].tolist() for n, each in enumerate(PROMPTS)}
    ds = bc.measure(model, ids.__getitem__, list(ids), k=3)
    np.testing.assert_allclose(
        ds["own_loss"], [wanted(model, ids) for ids in PROMPTS], rtol=ROUNDING, atol=ROUNDING
    )
    with caplog.at_level("INFO", "blockcoupling"):
        body = measure(model.base_model, ids.__getitem__, list(ids), k=3)
    assert body["own_loss"].isnull().all()
    assert "the loss on the prompts is not available: GPT2Model has no head" in caplog.text
