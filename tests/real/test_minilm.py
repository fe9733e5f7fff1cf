"""Real weights of a text encoder: all-MiniLM-L6-v2 against autograd through the whole of it.

Needs a directory that holds `minilm/` (a Hugging Face model directory), named by the environment
variable BLOCKCOUPLING_REAL.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

import blockcoupling as bc
from blockcoupling.sources.models import load_model, record_of

PROMPT = "What is the capital of France?"

pytestmark = pytest.mark.real


def test_every_block_is_that_of_the_whole_pass() -> None:
    if "BLOCKCOUPLING_REAL" not in os.environ:
        pytest.skip("BLOCKCOUPLING_REAL is not set (to the directory that holds minilm/)")
    path = Path(os.environ["BLOCKCOUPLING_REAL"]) / "minilm"
    model, tokenizer = load_model(record_of(str(path)), "cpu")
    ds = bc.measure(model, tokenizer, [PROMPT], k=20, tokens=["last", [2, 5], [5, 2]])
    assert ds["token_text"].values[0, [0, -2, -1]].tolist() == ["[CLS]", "?", "[SEP]"]
    last = ds["last"].item()
    assert last == ds.sizes["token"] - 2
    assert (ds["context_apart"][0, 0] == 1).all()
    exact = model.double()
    ids = torch.tensor([tokenizer(PROMPT)["input_ids"]])
    states = exact(input_ids=ids, output_hidden_states=True).hidden_states
    for pair, (a, b) in enumerate([(last, last), (2, 5), (5, 2)]):
        for block, layer in enumerate(exact.encoder.layer):
            x = states[block][0].detach()

            def through(token: torch.Tensor, layer=layer, x=x, a=a, b=b) -> torch.Tensor:
                whole = torch.cat([x[:a], token[None], x[a + 1 :]])[None]
                return layer(whole)[0, b]

            jacobian = torch.autograd.functional.jacobian(through, x[a])
            jacobian = jacobian - torch.eye(len(jacobian)) if a == b else jacobian
            s = torch.linalg.svdvals(jacobian)[:20].numpy()
            # float32 against float64: roundings of sums over 384 dimensions.
            np.testing.assert_allclose(ds["S"][0, pair, block], s, rtol=0, atol=1e-5 * s[0])
