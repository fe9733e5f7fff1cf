"""Displaced states, against a float64 pass of the whole model with the state changed on its way."""

import numpy as np
import pytest
import torch
from architectures import VOCABULARY, small_model
from full_jacobian import full_jacobian
from torch import Tensor, nn

from blockcoupling.lab import damage
from blockcoupling.lab.ablation.displacement import random_direction
from blockcoupling.transformer.blocks import find_blocks
from blockcoupling.transformer.tokens import TokenizedPrompt

TEXTS = ["one text", "another, which is longer"]
PUSH = 0.05


def ids_of(text: str, **_: object) -> list[int]:
    return [1 + ord(letter) % (VOCABULARY - 1) for letter in text]


def log_p(
    model: nn.Module, ids: Tensor, block: nn.Module | None = None, direction: Tensor | None = None
) -> tuple[Tensor, float]:
    """Log-probabilities after the last token, its state moved before a block; the length moved."""
    lengths = [0.0]

    def move(module: nn.Module, args: tuple, kwargs: dict) -> tuple:
        hidden = (args[0] if args else kwargs["hidden_states"]).clone()
        lengths.append(PUSH * float(hidden[0, -1].norm()))
        hidden[0, -1] += lengths[-1] * direction
        return ((hidden, *args[1:]), kwargs) if args else ((), {**kwargs, "hidden_states": hidden})

    handle = block.register_forward_pre_hook(move, with_kwargs=True) if block is not None else None
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[0, -1]
    if handle is not None:
        handle.remove()
    return torch.log_softmax(logits.double(), -1), lengths[-1]


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_a_displacement_is_a_change_of_one_state_before_one_block(family: str) -> None:
    model = small_model(family)
    ds = damage(model, ids_of, TEXTS, treatments=["displace", "displace_random"], push=PUSH)
    assert ds.sizes["change"] == 3 + 6 + 3
    blocks = find_blocks(model, torch.tensor([[1, 2]])).modules
    for row, text in enumerate(TEXTS):
        ids = torch.tensor([ids_of(text)])
        end, (before, _) = ids.shape[1] - 1, log_p(model, ids)
        matrices = [full_jacobian(model, block, ids, end, end) for block in blocks]
        first = [torch.linalg.svd(matrix)[2][0].detach() for matrix in matrices]
        named = (ds[name].values.tolist() for name in ("treatment", "block", "block_other"))
        for n, (treatment, block, other) in enumerate(zip(*named, strict=True)):
            v = first[other - 1]
            if treatment == "displace_random":
                prompt = TokenizedPrompt("", ids, ())
                v = torch.tensor(random_direction(prompt, block, len(v)))
            expected = []
            for sign in (1, -1):  # that of a singular vector is a convention
                after, length = log_p(model, ids, blocks[block - 1], sign * v)
                expected.append(float((before.exp() * (before - after)).sum()))
            # Directions are found to 1e-4 of the largest singular value, and softmax is in float32.
            kl = ds["kl"].values[row, n]
            assert min(abs(kl - each) for each in expected) <= 2e-3 * max(expected) + 2e-7
            assert max(expected) > 1e-5
            assert ds["step"].values[row, n] == pytest.approx(length, rel=1e-6)
    assert np.abs(ds["loss_change"].values).max() == 0  # no token comes after the last


def test_a_random_direction_is_a_unit_vector_that_tokens_and_block_decide() -> None:
    prompt = TokenizedPrompt("a", torch.tensor([[3, 1]]), ("", ""))
    same = TokenizedPrompt("b", torch.tensor([[3, 1]]), ("", ""))
    one, again, other = (
        random_direction(*each, 40) for each in ((prompt, 1), (same, 1), (same, 2))
    )
    assert np.linalg.norm(one) == pytest.approx(1)
    assert (one == again).all() and abs(one @ other) < 0.6  # 40 dimensions: sd 0.16


def test_a_small_displacement_has_an_effect_that_grows_with_its_square() -> None:
    model = small_model("llama")
    asked = {"treatments": ["displace"], "pairs": [[1, 2]]}
    small, large = (damage(model, ids_of, TEXTS, push=push, **asked) for push in (0.01, 0.02))
    # The next term of KL is of the order of the length: some percent here.
    np.testing.assert_allclose(large["kl"] / small["kl"], 4, rtol=0.2)
