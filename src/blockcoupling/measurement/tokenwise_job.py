"""One job of token-wise coupling: a model and some prompts → a store, resumable."""

from __future__ import annotations

import logging
from pathlib import Path

from blockcoupling.config.measurement import Settings, TokenSettings
from blockcoupling.measurement.job import Job
from blockcoupling.measurement.prepare import prepare_texts
from blockcoupling.measurement.token_cost import cost
from blockcoupling.measurement.tokenwise import chosen_blocks, chosen_tokens, compare_tokens
from blockcoupling.sources.identity import origin
from blockcoupling.sources.models import load_model, with_identity
from blockcoupling.sources.prompts import read_prompts
from blockcoupling.sources.records import read_record
from blockcoupling.store.comparisons import COMPARISONS
from blockcoupling.store.parts import fingerprint
from blockcoupling.transformer.tokens import TokenizedPrompt

logger = logging.getLogger(__name__)


def tokenwise(
    model: Path,
    prompts: Path,
    parts: Path,
    out: Path,
    settings: TokenSettings,
    *,
    count: int | None = None,
    dtype: str = "float32",
    device: str = "auto",
) -> None:
    """Compare the tokens of each prompt that is not done yet, then join all into one store.

    Args:
        model: a model's record.
        prompts: JSON lines with id and text.
        parts: directory of finished prompts, until they are joined.
        out: the store to write.
        settings: what to compare.
        count: how many prompts, from the first; None: all.
        dtype: of weights and products.
        device: where the model goes.

    Raises:
        UserError: tokens or blocks do not exist; nothing has been measured.
        MeasurementError: naming model, prompt, block and tokens.
    """
    record = with_identity(read_record(model))
    loaded, tokenizer = load_model(record, device, dtype)
    texts = [(prompt.id, prompt.text) for prompt in read_prompts(prompts)[:count]]
    wanted = Settings(tokens=settings.tokens, tolerance=settings.tolerance, readout=0)
    prepared, read = prepare_texts(loaded, tokenizer, texts, wanted)
    prepared.refuse_bidirectional("tokens are compared with each other", "tokenwise")
    by_id = {prompt.id: prompt for prompt in read if isinstance(prompt, TokenizedPrompt)}
    blocks = prepared.blocks
    pairs = chosen_blocks(settings.blocks, len(blocks))
    weights = sum(p.numel() for p in blocks.modules[0].parameters())
    used = len({block for pair in pairs for block in pair})
    for name, prompt in by_id.items():
        tokens = len(chosen_tokens(prompt))
        price = cost(weights, blocks.dimension, tokens, len(pairs), used, settings.k)
        logger.info("prompt %s, %d tokens: %s", name, tokens, price)
    # The swapped products are added to the rest: a part may hold more than is needed.
    decisive = {**settings.model_dump(), "blocks": [list(pair) for pair in pairs]}
    needed = ["A_swapped"] if decisive.pop("swapped") else []
    provenance = {"settings": decisive, "model": record["identity"], "dtype": dtype}
    expected = {
        name: fingerprint(**provenance, input_ids=prompt.input_ids[0].tolist())
        for name, prompt in by_id.items()
    }
    name = f"{record.get('name')} at {record.get('checkpoint')}"
    job = Job(name, parts, expected, needed=needed)
    steps = {name: used * len(chosen_tokens(prompt)) for name, prompt in by_id.items()}
    with job.progress("comparing", "token", steps) as progress:
        for names in job.batches():
            compared = [
                compare_tokens(prepared, by_id[name], settings, progress.advance) for name in names
            ]
            for part, ds, mark in job.new(names, compared):
                COMPARISONS.write(parts, part, ds, mark)
    COMPARISONS.join(parts, out, expected, attributes=origin(record, dtype), optional=needed)
