"""One job of block ablation: a model, prompts and held-out passages → a store, resumable."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from blockcoupling.config.damage import DISPLACEMENTS, DamageSettings
from blockcoupling.errors import UserError
from blockcoupling.lab.ablation.measure import (
    ANSWER,
    CHOICE,
    HELDOUT,
    PROMPT,
    Ablation,
    Text,
    by_length,
    shortened,
)
from blockcoupling.measurement.job import Job, fingerprints
from blockcoupling.sources.corpus import corpus
from blockcoupling.sources.identity import origin
from blockcoupling.sources.models import load_model, load_streamed, with_identity
from blockcoupling.sources.prompts import Prompt, read_prompts
from blockcoupling.sources.records import read_record
from blockcoupling.store.damage import DAMAGE
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
    """Make every change on each text that is not measured yet, then join all into one store.

    Args:
        model: a model's record.
        prompts: JSON lines with id and text.
        parts: directory of finished texts, until they are joined.
        out: the store to write.
        settings: which changes are made.
        count: how many prompts, from the first; None: all.
        dtype: of weights and products.
        device: where the model goes.
        batch: texts that go through the blocks together; None: `Ablation.default_batch`.
        stream: have one block's weights in memory at a time.

    Raises:
        UserError: prompts, blocks or a head do not exist; nothing has been measured.
        MeasurementError: naming model, text and change.
    """
    record = with_identity(read_record(model))
    load: Any = load_streamed if stream else load_model
    loaded, tokenizer = load(record, device, dtype)
    some = read_prompts(prompts)[:count]
    named = [(prompt.id, prompt.text) for prompt in some]
    texts = [Text(PROMPT, p) for p in tokenize_prompts(tokenizer, named, loaded)]
    if settings.answers:
        texts += answered(tokenizer, some, loaded)
    texts += passages(tokenizer, settings, record.get("context"))
    ablation = Ablation.of(loaded, texts, settings)
    for reason in sorted(set(ablation.reasons.values())):
        logger.warning("omitted: %s", reason)
    logger.info("%s", ablation.cost(texts))

    ordered = by_length(texts)
    changes = [list(change) for change in ablation.changes]
    provenance = {"changes": changes, "model": record["identity"], "dtype": dtype}
    if set(DISPLACEMENTS) & set(settings.treatments):
        provenance |= {"push": settings.push}
    batch = batch or ablation.default_batch(ordered)
    by_name = {text.name: text for text in ordered}
    tokens = {name: text.tokens.input_ids[0].tolist() for name, text in by_name.items()}
    expected = fingerprints(tokens, batch, provenance)
    job = Job(f"{record.get('name')} at {record.get('checkpoint')}", parts, expected, batch)
    steps = dict.fromkeys(tokens, len(ablation.changes))
    with job.progress("ablating", "change", steps) as progress:
        for names in job.batches():
            measured = ablation.measure([by_name[name] for name in names], progress.advance)
            if stream:
                with_identity(record)  # refuse weights that were written to while they were read
            for name, ds, mark in job.new(names, measured):
                DAMAGE.write(parts, name, ds, mark)
    in_order = {text.name: expected[text.name] for text in texts}
    DAMAGE.join(parts, out, in_order, attributes=origin(record, dtype))


def answered(tokenizer: Any, prompts: Sequence[Prompt], model: Any) -> list[Text]:
    """Every question followed by each of its choices, as multiple choice is scored.

    Raises:
        UserError: a prompt has no choices.
    """
    if lack := [p.id for p in prompts if not _has_choices(p)]:
        raise UserError(
            f"damage.answers: {', '.join(map(repr, lack[:5]))} has no choices and no answer; name "
            "the datasets that do in damage.datasets (their templates: arc_challenge, hellaswag, "
            "mmlu, truthfulqa, winogrande)"
        )
    found: list[Text] = []
    for prompt in prompts:
        choices = prompt.facts["continuations"]
        whole = [(prompt.id, f"{prompt.text} {choice}") for choice in choices]
        (alone,) = tokenize_prompts(tokenizer, [(prompt.id, prompt.text)], model)
        for number, text in enumerate(tokenize_prompts(tokenizer, whole, model)):
            kind = ANSWER if number == prompt.facts["answer"] else CHOICE
            found.append(Text(kind, text, alone.length, number))
    return found


def _has_choices(prompt: Prompt) -> bool:
    choices, answer = prompt.facts.get("continuations"), prompt.facts.get("answer")
    return isinstance(choices, list) and answer in range(len(choices))


def passages(tokenizer: Any, settings: DamageSettings, context: int | None) -> list[Text]:
    """Passages spread over the built-in held-out text, each from its beginning.

    They begin after the tokenizer's BOS (or else EOS) token, where it has one.
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
        found.append(Text(HELDOUT, _with_bos(tokenizer, name, passage.text)))
    return [shortened(text, window) for text in found]


def _with_bos(tokenizer: Any, name: str, text: str) -> TokenizedPrompt:
    import torch

    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    ids = ids if first is None else [first, *ids]
    return TokenizedPrompt(name, torch.tensor([ids]), ("",) * len(ids))
