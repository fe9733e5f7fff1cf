"""Which prompts fit a model: those that it can be run on."""

import pytest
import torch
from bidirectional import TEXT
from transformers import AutoConfig, AutoModel

from blockcoupling.measurement.prompts import unfit
from blockcoupling.transformer.tokens import TokenizedPrompt


@pytest.mark.parametrize("family", ["roberta", "xlm-roberta", "camembert", "mpnet", "bert"])
def test_the_longest_prompt_that_fits_is_the_longest_that_runs(family: str) -> None:
    """RoBERTa's positions start after the padding's: two tokens fewer fit than it has positions."""
    config = AutoConfig.for_model(family, **{**TEXT, "pad_token_id": 1})
    model = AutoModel.from_config(config).eval()

    def runs(length: int) -> bool:
        try:
            model(input_ids=torch.full((1, length), 5))
        except (IndexError, RuntimeError):
            return False
        return True

    lengths = range(60, 67)
    fits = [unfit(model, TokenizedPrompt("p", torch.full((1, n), 5), ())) is None for n in lengths]
    assert fits == [runs(length) for length in lengths]
