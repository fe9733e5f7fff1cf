"""Trainings with and without a watcher: are the weights bit-equal, and what does watching cost?

python -m benchmarks.watching            minutes; writes the table of docs/watching.md
torchrun --nproc-per-node 2 -m benchmarks.watching --one "two processes (DDP, gloo)" --out FILE
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

import blockcoupling as bc

PAGE = Path(__file__).parents[1] / "docs" / "watching.md"
VOCABULARY = 256
PROMPTS = ["The capital of France is", "Two roads diverged in a yellow wood"]


@dataclass(frozen=True)
class Size:
    """How large the model and its training are."""

    hidden: int
    blocks: int
    tokens: int
    batch: int
    steps: int


TINY = Size(hidden=16, blocks=2, tokens=12, batch=2, steps=4)
SMALL = Size(hidden=128, blocks=4, tokens=128, batch=8, steps=6)


@dataclass(frozen=True)
class Case:
    """A way to train.

    Attributes:
        arguments: of the Trainer.
        adapted: whether LoRA adapters are trained.
        resumed: whether the training is interrupted and resumed.
        processes: how many train together.
        loop: a loop of one's own instead of the Trainer.
    """

    arguments: Mapping[str, Any] = field(default_factory=dict)
    adapted: bool = False
    resumed: bool = False
    processes: int = 1
    loop: Callable[..., None] | None = None


@dataclass
class Trained:
    """What a training ended with.

    Attributes:
        weights: digest of all parameters and buffers.
        state: digest of the log without what the watcher adds, and of the random states.
        seconds: of a step, of processor time, the median.
        all_seconds: of the whole training, of processor time.
        history: what the watcher reported.
        graphs: how many graphs were compiled.
    """

    weights: str
    state: str
    seconds: float
    all_seconds: float
    history: list[dict[str, float]]
    graphs: int


class Texts(Dataset[dict[str, torch.Tensor]]):
    """Random tokens."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def __len__(self) -> int:
        return 256

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        draw = torch.Generator().manual_seed(index)
        ids = torch.randint(VOCABULARY, (self.tokens,), generator=draw)
        return {"input_ids": ids, "labels": ids}


def tokens_of(text: str) -> list[int]:
    """The bytes of a text."""
    return list(text.encode())


def small_model(size: Size, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A random GPT-NeoX with dropout, so that every random number of a training counts."""
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=size.hidden,
        num_hidden_layers=size.blocks,
        num_attention_heads=2,
        intermediate_size=4 * size.hidden,
        max_position_embeddings=max(64, size.tokens),
        attention_dropout=0.1,
        hidden_dropout=0.1,
    )
    return GPTNeoXForCausalLM(config).to(dtype)


def own_loop(
    model: PreTrainedModel, size: Size, watcher: bc.Watcher | None, mixed: bool = False
) -> None:
    """Train without the Trainer; the watcher is called within autocast and under no_grad, too."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    texts, order = Texts(size.tokens), np.random.default_rng(0)
    model.train()
    for step in range(1, size.steps + 1):
        batch = torch.stack([texts[int(i)]["input_ids"] for i in order.integers(256, size=2)])
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            model(batch, labels=batch).loss.backward()
            if watcher is not None and step % 2:  # with gradients that wait for the update
                with torch.no_grad():
                    watcher(step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        if watcher is not None and step % 2 == 0:
            watcher(step)


def mixed_loop(model: PreTrainedModel, size: Size, watcher: bc.Watcher | None) -> None:
    """The same with bfloat16 autocast."""
    own_loop(model, size, watcher, mixed=True)


def low_precision_loop(model: PreTrainedModel, size: Size, watcher: bc.Watcher | None) -> None:
    """The same with weights in bfloat16, which are measured on a float32 copy."""
    own_loop(model, size, watcher)


def checkpointing(reentrant: bool) -> dict[str, Any]:
    """Arguments for gradient checkpointing."""
    kind = {"use_reentrant": reentrant}
    return {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": kind}


CASES: dict[str, Case] = {
    "float32": Case(),
    "bf16 autocast": Case({"bf16": True}),
    "gradient checkpointing, reentrant": Case(checkpointing(True)),
    "gradient checkpointing, non-reentrant": Case(checkpointing(False)),
    "gradient accumulation": Case({"gradient_accumulation_steps": 2}),
    "LoRA": Case(adapted=True),
    "torch_compile": Case({"torch_compile": True}),
    "resumed from a checkpoint": Case(resumed=True),
    "two processes (DDP, gloo)": Case({"ddp_backend": "gloo"}, processes=2),
    "own loop": Case(loop=own_loop),
    "own loop, bf16 autocast": Case(loop=mixed_loop),
    "own loop, bf16 weights": Case(loop=low_precision_loop),
}


class StopAt(TrainerCallback):
    """End the training after an update, as a kill after its checkpoint would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop |= state.global_step == self.step


class Clock(TrainerCallback):
    """The seconds of each step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.begun = time.process_time()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seconds.append(time.process_time() - self.begun)


def train(case: Case, size: Size, every: int | None, directory: Path) -> Trained:
    """Train a model, and evaluate it after that.

    Args:
        case: how.
        size: of model and training.
        every: steps between measurements; None: without a watcher.
        directory: for checkpoints and stores.
    """
    set_seed(0)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    clock, begun = Clock(), time.process_time()
    if case.loop is not None:
        low = case.loop is low_precision_loop
        model = small_model(size, torch.bfloat16 if low else torch.float32)
        watcher = None
        if every is not None:
            watcher = bc.Watcher(
                model, PROMPTS, tokens_of, every=every, budget=None, store=directory / "coupling"
            )
        started = time.process_time()
        case.loop(model, size, watcher)
        clock.seconds = [(time.process_time() - started) / size.steps]
        log: list[dict[str, float]] = []
    else:
        half = size.steps // 2
        trainer, watcher = prepared(case, size, every, directory)
        if case.resumed:
            trainer.add_callback(StopAt(half))
            trainer.train()
            trainer, watcher = prepared(case, size, every, directory)
        trainer.add_callback(clock)
        trainer.train(resume_from_checkpoint=case.resumed or None)
        trainer.evaluate()
        model, log = trainer.model, trainer.state.log_history
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.float().cpu().numpy().tobytes())
    return Trained(
        digest.hexdigest(),
        json.dumps([_without_times(log), torch.rand(()).item(), np.random.random()]),  # noqa: NPY002
        float(np.median(clock.seconds)),
        time.process_time() - begun,
        [] if watcher is None else watcher.history,
        torch._dynamo.utils.counters["stats"]["unique_graphs"],
    )


def prepared(
    case: Case, size: Size, every: int | None, directory: Path
) -> tuple[Trainer, bc.Watcher | None]:
    """A Trainer, with a watcher or without."""
    model: Any = small_model(size)
    if case.adapted:
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(r=4, lora_dropout=0.1, target_modules=["query_key_value"])
        model = get_peft_model(model, lora)
    arguments = TrainingArguments(
        output_dir=str(directory),
        max_steps=size.steps,
        per_device_train_batch_size=size.batch,
        per_device_eval_batch_size=size.batch,
        learning_rate=1e-3,
        logging_steps=2,
        save_strategy="steps" if case.resumed else "no",
        save_steps=size.steps // 2,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        **case.arguments,
    )
    texts = Texts(size.tokens)
    few = torch.utils.data.Subset(texts, range(2 * size.batch))
    trainer = Trainer(model, arguments, train_dataset=texts, eval_dataset=few)
    if every is None:
        return trainer, None
    return trainer, bc.watch(trainer, PROMPTS, tokenizer=tokens_of, every=every, budget=None)


def _without_times(log: list[dict[str, float]]) -> list[dict[str, float]]:
    """The log of a training without what the watcher adds and what a clock decides."""
    kept = [
        {
            name: value
            for name, value in line.items()
            if not name.startswith("coupling/") and not name.endswith(("runtime", "second"))
        }
        for line in log
    ]
    return [line for line in kept if line.keys() - {"epoch", "step"}]


def in_own_process(name: str, size: str, every: int | None) -> Trained:
    """Train a case in a process of its own, or in several."""
    case = CASES[name]
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "trained.json"
        command = [sys.executable, "-m"]
        if case.processes > 1:
            command += ["torch.distributed.run", "--standalone"]
            command += ["--nproc-per-node", str(case.processes), "-m"]
        command += ["benchmarks.watching", "--one", name, "--out", str(out), "--size", size]
        command += [] if every is None else ["--every", str(every)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        if ended.returncode:
            raise RuntimeError(f"{name}: {ended.stderr[-3000:]}")
        return Trained(**json.loads(out.read_text()))


def page(rows: Mapping[str, tuple[Trained, Trained]]) -> str:
    """The table as Markdown."""
    lines = [
        "| training | weights bit-equal | losses and random numbers equal | s per step | "
        "s per measurement | share at `every=100` |",
        "|---|---|---|---:|---:|---:|",
    ]
    for name, (without, watched) in rows.items():
        each = (watched.all_seconds - without.all_seconds) / len(watched.history)
        step = without.seconds
        cells = [
            name,
            *("yes" if same else "NO" for same in equal(without, watched)),
            f"{step:.2f}",
            f"{each:.2f}",
            f"{each / (100 * step + each):.1%}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def equal(without: Trained, watched: Trained) -> tuple[bool, bool]:
    """Whether the weights are equal, and whether losses, random states and graphs are."""
    same = (without.state, without.graphs) == (watched.state, watched.graphs)
    return without.weights == watched.weights, same


def main() -> None:
    """Write the table, or train one case."""
    options = argparse.ArgumentParser()
    options.add_argument("--one")
    options.add_argument("--out", type=Path)
    options.add_argument("--every", type=int)
    options.add_argument("--size", choices=["TINY", "SMALL"], default="SMALL")
    given = options.parse_args()
    if given.one:
        size = {"TINY": TINY, "SMALL": SMALL}[given.size]
        with tempfile.TemporaryDirectory() as directory:
            trained = train(CASES[given.one], size, given.every, Path(directory))
        if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
            given.out.write_text(json.dumps(asdict(trained)))
        return
    rows = {}
    for name in CASES:
        rows[name] = (measured(name, None), measured(name, 2))
        print(page({name: rows[name]}).splitlines()[-1], flush=True)
    first, _, last = PAGE.read_text().partition("| training |")
    rest = last.partition("\n\n")[2]
    PAGE.write_text(f"{first}{page(rows)}{rest and chr(10)}{rest}")


def measured(name: str, every: int | None) -> Trained:
    """Train a case of the table."""
    if CASES[name].processes > 1:
        return in_own_process(name, "SMALL", every)
    with tempfile.TemporaryDirectory() as directory:
        return train(CASES[name], SMALL, every, Path(directory))


if __name__ == "__main__":
    main()
