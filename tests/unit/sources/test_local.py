"""Facts read from files agree with the model that the files hold."""

import json
from pathlib import Path

import pytest
from architectures import FAMILIES
from transformers import AutoConfig, AutoModelForCausalLM

from blockcoupling.sources.local import checkpoint_facts, count_parameters


@pytest.mark.parametrize("family", ["gpt2", "gpt_neo", "gpt_neox", "llama", "falcon_old", "mpt"])
def test_facts_and_parameters_without_loading(tmp_path: Path, family: str) -> None:
    kind, options, _ = FAMILIES[family]
    config = AutoConfig.for_model(kind, vocab_size=61, **options)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    facts = checkpoint_facts(tmp_path)
    assert facts["blocks"] == config.num_hidden_layers
    assert facts["dimension"] == config.hidden_size
    assert facts["vocabulary"] == 61
    assert facts["architecture"] == type(model).__name__
    assert count_parameters(tmp_path) == sum(p.numel() for p in model.parameters())


def test_the_language_model_of_several_is_meant(tmp_path: Path) -> None:
    config = {"hidden_size": 7, "text_config": {"hidden_size": 64, "num_hidden_layers": 3}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert checkpoint_facts(tmp_path)["dimension"] == 64
    assert checkpoint_facts(tmp_path)["blocks"] == 3
    assert checkpoint_facts(tmp_path)["context"] is None
