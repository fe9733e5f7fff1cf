"""Training a small GPT-NeoX from scratch and keeping its checkpoints."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

import blockcoupling
from blockcoupling.atomic import replacing
from blockcoupling.config.models import TrainedModel, Training
from blockcoupling.config.section import parse
from blockcoupling.errors import MeasurementError
from blockcoupling.progress import Progress, plain_libraries
from blockcoupling.sources.corpus import corpus
from blockcoupling.train.tokenizer import END_OF_TEXT_ID, VOCABULARY, byte_tokenizer

WARMUP = 0.05
FINAL_LEARNING_RATE = 0.1
BETAS = (0.9, 0.95)
WEIGHT_DECAY = 0.1
GRADIENT_NORM = 1.0


def train(
    spec: Mapping[str, Any], out_dir: Path | str, threads: int | None = None
) -> dict[int, Path]:
    """Train a model on the corpus and save its checkpoints as Hugging Face directories.

    AdamW; the learning rate rises linearly over the first 5 % of the steps and falls to a tenth
    along a cosine. The same seed on the same machine, with the same number of threads, gives the
    same weights to the last bit.

    Args:
        spec: `Study.train_spec(model)`: `name`, the keys of `Training`, and `checkpoints`, the
            steps to keep; checkpoint n is the model after n updates, 0 the untrained one.
        out_dir: Checkpoints go to `out_dir/step{n}`, each appearing whole or not at all: the
            weights in safetensors, the tokenizer, and `training.json` with how it was made.
        threads: Threads that torch uses; None leaves torch's own choice (OMP_NUM_THREADS).

    Returns:
        The directory of each checkpoint.

    Raises:
        UserError: the description does not hold together; every mistake is listed.
        MeasurementError: the loss is not finite any more.
    """
    about = dict(spec)
    name, checkpoints = about.pop("name", "model"), about.pop("checkpoints", [])
    section: TrainedModel = parse(
        TrainedModel, {"train": about, "checkpoints": checkpoints}, f"the training of {name}"
    )
    plain_libraries()
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    saved = {}
    try:
        for step, loss, model in _steps(section.train, name):
            if step in section.checkpoints:
                saved[step] = Path(out_dir) / f"step{step}"
                _save(model, saved[step], section.train, step, loss)
            if step == section.checkpoints[-1]:
                break
    finally:
        torch.set_num_threads(before)
    return saved


def new_model(shape: Training) -> GPTNeoXForCausalLM:
    """The untrained model, in transformers' own initialisation for the seed."""
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.blocks,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.hidden_size,
        max_position_embeddings=shape.context,
        bos_token_id=END_OF_TEXT_ID,
        eos_token_id=END_OF_TEXT_ID,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(shape.seed)
        return GPTNeoXForCausalLM._from_config(config, attn_implementation="eager")


def training_bytes() -> np.ndarray:
    """Training passages as token ids, each after an end-of-text mark; shape (bytes,), int64."""
    pieces: list[Any] = []
    for passage in corpus().training:
        pieces += [[END_OF_TEXT_ID], np.frombuffer(passage.text.encode(), np.uint8)]
    return np.concatenate(pieces).astype(np.int64)


def _steps(shape: Training, name: str) -> Iterator[tuple[int, float | None, GPTNeoXForCausalLM]]:
    """Yield (step, loss of its batch in nats a byte, model) after every update, from step 0 on."""
    model = new_model(shape).train()
    yield 0, None, model
    tokens = torch.from_numpy(training_bytes())
    window = torch.arange(shape.context + 1)
    draw = torch.Generator().manual_seed(shape.seed)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=shape.learning_rate,
        betas=BETAS,
        weight_decay=WEIGHT_DECAY,
        fused=True,
    )
    total = shape.steps
    with Progress(total, f"training {name}", "step") as progress:
        for step in range(1, total + 1):
            for group in optimizer.param_groups:
                group["lr"] = shape.learning_rate * learning_rate_factor(step, total)
            last = len(tokens) - len(window)
            starts = torch.randint(last + 1, (shape.batch, 1), generator=draw)
            batch = tokens[starts + window]
            logits = model(input_ids=batch[:, :-1], use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
            value = loss.item()
            if not math.isfinite(value):
                raise MeasurementError(
                    f"training {name}: the loss is {value} at step {step}; a smaller "
                    "learning_rate may help"
                )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
            optimizer.step()
            progress.advance(f"loss {value:.3f}")
            yield step, value, model


def learning_rate_factor(step: int, total: int) -> float:
    """Share of the full learning rate at an update, numbered from 1: warm-up, then a cosine."""
    warmup = math.ceil(WARMUP * total)
    if step <= warmup:
        return step / warmup
    way = (step - warmup) / max(1, total - warmup)
    return FINAL_LEARNING_RATE + (1 - FINAL_LEARNING_RATE) * (1 + math.cos(math.pi * way)) / 2


def _save(
    model: GPTNeoXForCausalLM,
    directory: Path,
    shape: Training,
    step: int,
    loss: float | None,
) -> None:
    facts = {
        "step": step,
        "tokens": step * shape.batch * shape.context,
        "parameters": sum(p.numel() for p in model.parameters()),
        "training_loss": loss,
        "corpus": corpus().source,
        "training": shape.model_dump(),
        "blockcoupling": blockcoupling.__version__,
        "torch": torch.__version__,
    }
    with replacing(directory) as unfinished:
        model.save_pretrained(unfinished)
        byte_tokenizer(shape.context).save_pretrained(unfinished)
        (unfinished / "training.json").write_text(json.dumps(facts, indent=1) + "\n")
