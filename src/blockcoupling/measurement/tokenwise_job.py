"""One job of token-wise coupling: a model and some prompts → a store, resumable."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import xarray as xr

from blockcoupling.config.measurement import Settings, TokenSettings
from blockcoupling.measurement.instrument import Instrument, refuse_both_ways
from blockcoupling.measurement.job import Advance, Job
from blockcoupling.measurement.token_cost import cost
from blockcoupling.measurement.tokenwise import (
    chosen_blocks,
    chosen_tokens,
    compare_tokens,
)
from blockcoupling.sources.identity import origin
from blockcoupling.sources.models import load_model, with_identity
from blockcoupling.sources.prompts import read_prompts
from blockcoupling.sources.records import read_record
from blockcoupling.store.comparisons import join_comparisons, write_comparisons
from blockcoupling.store.parts import fingerprint
from blockcoupling.transformer.tokens import tokenize_prompts

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
        parts: directory of finished prompts; kept, so that a rerun finds them.
        out: the store to write.
        settings: what to compare.
        count: how many prompts, from the first; None: all.
        dtype: of weights and products.
        device: where the model goes.

    Raises:
        UserError: tokens or blocks that are not there, before anything is measured.
        MeasurementError: naming model, prompt, block and tokens.
    """
    record = with_identity(read_record(model))
    loaded, tokenizer = load_model(record, device, dtype)
    some = [(p.id, p.text) for p in read_prompts(prompts)[:count]]
    wanted = tokenize_prompts(tokenizer, some, loaded)
    instrument = Instrument.of(loaded, Settings(tolerance=settings.tolerance), {})
    instrument.check(wanted)
    refuse_both_ways(instrument, "tokens are compared with each other", "tokenwise")
    blocks = instrument.blocks(wanted[0])
    pairs = chosen_blocks(settings.blocks, len(blocks))
    chosen = [chosen_tokens(settings.tokens, p.input_ids.shape[1]) for p in wanted]
    weights = sum(p.numel() for p in blocks.modules[0].parameters())
    used = len({block for pair in pairs for block in pair})
    for prompt, tokens in zip(wanted, chosen, strict=True):
        price = cost(weights, blocks.dimension, len(tokens), len(pairs), used, settings.k)
        logger.info("prompt %s, %d tokens: %s", prompt.id, len(tokens), price)
    # Products the other way round are kept beside the rest: a part may hold more than is needed.
    decisive = {**settings.model_dump(), "blocks": [list(pair) for pair in pairs]}
    swapped = decisive.pop("swapped")
    expected = {
        p.id: fingerprint(
            settings=decisive,
            model=record["identity"],
            dtype=dtype,
            input_ids=p.input_ids[0].tolist(),
        )
        for p in wanted
    }
    by_id = {p.id: p for p in wanted}

    def measure(names: Sequence[str], advance: Advance) -> list[xr.Dataset]:
        return [compare_tokens(instrument, by_id[name], settings, advance) for name in names]

    Job(
        model=f"{record.get('name')} at {record.get('checkpoint')}",
        parts=parts,
        expected=expected,
        measure=measure,
        write=write_comparisons,
        join=lambda parts, out, expected: join_comparisons(
            parts, out, expected, attributes=origin(record, dtype), swapped=swapped
        ),
        what="comparing",
        unit="token",
        needed=["A_swapped"] if swapped else [],
        steps={p.id: used * len(tokens) for p, tokens in zip(wanted, chosen, strict=True)},
    ).run(out)
