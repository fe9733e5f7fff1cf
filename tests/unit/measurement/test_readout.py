"""What singular vectors say: the model's own norm and unembedding, in float64."""

import numpy as np
import pytest
import torch
from architectures import VOCABULARY, prompt, small_model
from coupling_by_definition import numbers
from torch import Tensor, nn
from transformers import PreTrainedModel

import blockcoupling as bc
from blockcoupling.errors import UserError
from blockcoupling.transformer.readout import BYTES, _as_bytes

TEXT = " ".join(map(str, prompt(7, seed=1)[0].tolist()))


def llama(model: PreTrainedModel, u: Tensor) -> Tensor:
    return model.lm_head(model.model.norm(u))


def gpt2(model: PreTrainedModel, u: Tensor) -> Tensor:
    return nn.functional.linear(model.transformer.ln_f(u), model.transformer.wte.weight)  # tied


def gemma2(model: PreTrainedModel, u: Tensor) -> Tensor:
    cap = model.config.final_logit_softcapping
    return cap * torch.tanh(model.lm_head(model.model.norm(u)) / cap)


def cohere(model: PreTrainedModel, u: Tensor) -> Tensor:
    return model.lm_head(model.model.norm(u)) * model.logit_scale


HEADS = {"llama": llama, "gpt2": gpt2, "gemma2": gemma2, "cohere": cohere}


@pytest.mark.parametrize("family", HEADS)
def test_readout_is_the_models_own_head(family: str) -> None:
    model = small_model(family)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "ln_" in name:  # of a trained model they are no ones and zeros
                parameter.add_(0.3 * torch.randn(parameter.shape, dtype=parameter.dtype))
    ds = bc.measure(model, numbers, TEXT, k=4, vectors=True, readout=3)
    words = bc.readout(ds)
    assert len(words) == 3 * 2 * 2 * 4 * 3  # block, vector, sign, k, rank
    for (block, vector, sign, k), rows in words.groupby(["block", "vector", "sign", "k"]):
        u = torch.tensor(sign * ds[vector].sel(block=block, k=k).values[0, 0], dtype=torch.float64)
        with torch.no_grad():
            logits = HEADS[family](model, u).numpy()
        # Vectors and logits are kept in float32.
        np.testing.assert_allclose(rows["logit"], np.sort(logits)[::-1][:3], rtol=0, atol=1e-4)
        np.testing.assert_allclose(logits[rows["token"]], rows["logit"], rtol=0, atol=1e-4)


class Letters:
    """A tokenizer that can decode."""

    def __call__(self, text: str) -> list[int]:
        return numbers(text)

    def decode(self, ids: list[int]) -> str:
        return "".join(f"·{i}" for i in ids)


def test_texts_are_kept_with_the_ids() -> None:
    ds = bc.measure(small_model("llama", torch.float32), Letters(), TEXT, k=2)
    words = bc.readout(ds)  # cheap: kept without being asked for
    assert words["rank"].max() == 5
    assert (words["text"] == [f"·{token}" for token in words["token"]]).all()


def test_a_long_text_is_cut_between_characters() -> None:
    kept = bytes(_as_bytes("é" * BYTES))
    assert len(kept) == BYTES
    assert kept.rstrip(b"\0").decode() == "é" * (BYTES // 2)
    assert bytes(_as_bytes("a" + "é" * BYTES)).rstrip(b"\0").decode() == "a" + "é" * (
        BYTES // 2 - 1
    )


def test_readout_can_be_left_out() -> None:
    model = small_model("llama", torch.float32)
    ds = bc.measure(model, numbers, TEXT, k=2, readout=0)
    assert "readout_token" not in ds
    with pytest.raises(UserError, match="the dataset has no readout: measure with readout=5"):
        bc.readout(ds)
    with pytest.raises(UserError, match=f"this model knows {VOCABULARY} tokens"):
        bc.measure(model, numbers, TEXT, k=2, readout=VOCABULARY + 1)


def test_a_model_without_a_head_is_not_read_out() -> None:
    body = small_model("llama", torch.float32).model
    assert "readout_token" not in bc.measure(body, numbers, TEXT, k=2)
    with pytest.raises(UserError, match=r"no head to predict.*Omit `readout` for it"):
        bc.measure(body, numbers, TEXT, k=2, readout=3)
