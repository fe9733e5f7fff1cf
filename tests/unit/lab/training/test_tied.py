"""Tied blocks are one set of weights while training, and an ordinary model on disk."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import blockcoupling as bc
from blockcoupling.config.models import Training
from blockcoupling.lab.training.neox import NeoxRun

SHAPE = Training(hidden_size=32, blocks=3, heads=4, context=16, batch=2, steps=3, tied=True)


def test_blocks_stay_one_and_are_written_out(tmp_path: Path) -> None:
    run = NeoxRun(SHAPE, "tied")
    for _ in run.until(3):
        pass
    plain = NeoxRun(SHAPE.model_copy(update={"tied": False}), "plain")
    block = sum(p.numel() for p in plain.model.gpt_neox.layers[0].parameters())
    count = sum(p.numel() for p in plain.model.parameters())
    assert sum(p.numel() for p in run.model.parameters()) == count - 2 * block
    run.save_model(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    layers = [layer.state_dict() for layer in model.gpt_neox.layers]
    assert layers[0].keys() == layers[2].keys()
    assert all(torch.equal(layers[0][name], layers[2][name]) for name in layers[0])
    ids = torch.arange(10)[None]
    assert torch.equal(model(ids).logits, run.model.eval()(ids).logits)
    # It can be measured; blocks with the same weights differ by what they are given only.
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    coupled = bc.coupling(bc.measure(model, tokenizer, ["a b c"], k=4), k=4)
    assert float(coupled.mean()) > -0.8
