"""One job of damage: a model, some prompts and passages → a store, resumable."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from blockcoupling.config.damage import DamageSettings
from blockcoupling.config.measurement import Settings
from blockcoupling.lab.ablation.measure import HELDOUT, PROMPT, Surgery, Text, by_length, shortened
from blockcoupling.lab.ablation.store import join_damage, write_damage
from blockcoupling.measurement.instrument import Instrument
from blockcoupling.measurement.job import Advance, Job, Plan, fingerprints
from blockcoupling.sources.corpus import corpus
from blockcoupling.sources.identity import origin
from blockcoupling.sources.models import load_model, load_streamed, with_identity
from blockcoupling.sources.prompts import read_prompts
from blockcoupling.sources.records import read_record
from blockcoupling.store.parts import fingerprint
from blockcoupling.transformer.tokens import TokenizedPrompt, tokenize_prompts

logger = logging.getLogger(__name__)


def cause_damage(
    model: Path,
    prompts: Path,
    parts: Path,
    out: Path,
    settings: DamageSettings,
    *,
    count: int | None = None,
    dtype: str = "float32",
    device: str = "auto",
    batch: int | None = None,
    stream: bool = False,
) -> None:
    """Make every change on each text that is not done yet, then join all into one store.

    Args:
        model: a model's record.
        prompts: JSON lines with id and text.
        parts: directory of finished texts; kept, so that a rerun finds them.
        out: the store to write.
        settings: what is done.
        count: how many prompts, from the first; None: all.
        dtype: of weights and products.
        device: where the model goes.
        batch: texts that go through the blocks together; None: as many as fit, at most 8.
        stream: have one block's weights in memory at a time.

    Raises:
        UserError: prompts, blocks or a head that are not there, before anything is measured.
        MeasurementError: naming model, text and change.
    """
    record = with_identity(read_record(model))
    load: Any = load_streamed if stream else load_model
    loaded, tokenizer = load(record, device, dtype)
    some = [(p.id, p.text) for p in read_prompts(prompts)[:count]]
    texts = [Text(PROMPT, p) for p in tokenize_prompts(tokenizer, some, loaded)]
    texts += passages(tokenizer, settings, record.get("context"))
    instrument = Instrument.of(loaded, Settings(), {})
    surgery = Surgery.of(instrument, [text.tokens for text in texts], settings)
    for reason in sorted(set(surgery.reasons.values())):
        logger.warning("left out: %s", reason)
    logger.info("%s", surgery.cost(texts))

    done = [list(change) for change in surgery.changes]
    made_from = {"changes": done, "model": record["identity"], "dtype": dtype}
    ordered = by_length(texts)
    longest = ordered[-1].tokens.input_ids.shape[1]
    plan = Plan(parts / "plan.json", fingerprint(**made_from, batch=batch, longest=longest))
    if plan.get("batch") is None:
        plan.decide(batch=batch or surgery.texts_together(ordered))
    together = plan.get("batch")
    by_name = {text.name: text for text in ordered}
    tokens = {name: text.tokens.input_ids[0].tolist() for name, text in by_name.items()}

    def measure(names: Sequence[str], advance: Advance) -> list[xr.Dataset]:
        measured = surgery.measure([by_name[name] for name in names], advance)
        if stream:
            with_identity(record)  # its files were read on the way: refuse what was written to
        return measured

    Job(
        model=f"{record.get('name')} at {record.get('checkpoint')}",
        parts=parts,
        expected=fingerprints(tokens, together, made_from),
        measure=measure,
        write=write_damage,
        join=lambda parts, out, expected: join_damage(
            parts,
            out,
            expected,
            [(text.kind, text.tokens.id) for text in texts],
            attributes=origin(record, dtype),
        ),
        what="changing",
        unit="change",
        together=together,
        steps=dict.fromkeys(tokens, len(surgery.changes)),
    ).run(out)


def passages(tokenizer: Any, settings: DamageSettings, context: int | None) -> list[Text]:
    """Passages of the built-in held-out text, spread over all of it, each from its beginning.

    They begin after the tokenizer's beginning (or end-of-text) mark, where it has one.
    """
    if not settings.passages:
        return []
    heldout = corpus().heldout
    chosen = np.unique(np.linspace(0, len(heldout) - 1, settings.passages).round().astype(int))
    window = min(settings.window, context or settings.window)
    found = []
    for number in chosen.tolist():
        passage = heldout[number]
        name = f"{passage.topic} {passage.number}"
        found.append(Text(HELDOUT, _marked(tokenizer, name, passage.text)))
    return [shortened(text, window) for text in found]


def _marked(tokenizer: Any, name: str, text: str) -> TokenizedPrompt:
    import torch

    mark = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    ids = ids if mark is None else [mark, *ids]
    return TokenizedPrompt(name, torch.tensor([ids]), ("",) * len(ids))
