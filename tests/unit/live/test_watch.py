"""A training with a watcher is the same training, and what the watcher reports is the coupling."""

import gc
import json
import logging
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.watching import (
    CASES,
    PROMPTS,
    TINY,
    in_own_process,
    prepared,
    small_model,
    tokens_of,
    train,
)
from transformers import TrainerCallback, ViTConfig, ViTModel

import blockcoupling as bc
from blockcoupling.catalog import join
from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.live import watcher as module

HERE = [name for name, case in CASES.items() if case.processes == 1 and "compile" not in name]


@pytest.mark.slow
@pytest.mark.parametrize("name", HERE)
def test_training_is_the_same_with_a_watcher(name, tmp_path):
    case = CASES[name]
    without = train(case, TINY, None, tmp_path / "without")
    every = 1 if case.loop else 2
    watched = train(case, TINY, every, tmp_path / "watched")
    assert watched.weights == without.weights
    assert watched.state == without.state
    steps = [4] if case.resumed else range(1 if case.loop else 0, 5, every)
    assert [line["step"] for line in watched.history] == list(steps)


@pytest.mark.slow
def test_compiled_training_is_the_same_and_compiles_nothing_again(tmp_path):
    case = CASES["torch_compile"]
    quick = replace(case, arguments={**case.arguments, "torch_compile_backend": "aot_eager"})
    without = train(quick, TINY, None, tmp_path / "without")
    watched = train(quick, TINY, 2, tmp_path / "watched")
    assert watched.weights == without.weights
    assert watched.state == without.state
    assert watched.graphs == without.graphs > 0


@pytest.mark.slow
def test_two_processes_train_the_same():
    name = "two processes (DDP, gloo)"
    without, watched = (in_own_process(name, "TINY", every) for every in (None, 2))
    assert (watched.weights, watched.state) == (without.weights, without.state)
    assert [line["step"] for line in watched.history] == [0, 2, 4]


def test_reports_what_a_measurement_of_the_same_weights_gives():
    model = small_model(TINY).train()
    found = bc.Watcher(model, PROMPTS, tokens_of, every=5, budget=None, k=4)(5)
    ds = bc.measure(model, tokens_of, PROMPTS, k=4)
    last = {"token": ds["tokens"] - 1}
    expected = {
        "coupling": bc.coupling(ds, 4),
        "excess": bc.excess(ds, 4).where(ds["block"] != ds["block_other"]),
        "adjacent": -bc.miscoupling(ds, 4).where(abs(ds["block"] - ds["block_other"]) == 1),
        "line_shape_score": bc.line_shape_score(ds).isel(last),
        "expodistance": bc.expodistance(ds).isel(last),
        "s_1": ds["S"].isel(k=0).median("block"),
    }
    for name, values in expected.items():
        assert found[name] == pytest.approx(float(values.mean()), rel=1e-12), name
    assert model.training


def test_logs_reach_every_callback_and_the_loss_is_still_logged(tmp_path):
    heard: list[dict[str, float]] = []

    class Listens(TrainerCallback):  # like those of `report_to`, which run before a user's
        def on_log(self, args: Any, state: Any, control: Any, logs: Any, **kwargs: Any) -> None:
            heard.append({"step": state.global_step, **logs})
            control.should_training_stop |= state.global_step == 2 and "coupling/excess" in logs

    trainer, _ = prepared(CASES["float32"], TINY, None, tmp_path)
    trainer.add_callback(Listens())
    watcher = bc.watch(trainer, PROMPTS, tokenizer=tokens_of, every=2, budget=None)
    trainer.train()
    assert trainer.state.global_step == 2  # a callback that reads the coupling stopped it
    lines = [line for line in heard if "coupling/coupling" in line]
    assert [line["step"] for line in lines] == [0, 2]
    assert lines[-1]["coupling/coupling"] == watcher.history[-1]["coupling"]
    assert {"coupling/adjacent", "coupling/s_1", "coupling/seconds"} < lines[0].keys()
    assert any("loss" in line and line["step"] == 2 for line in heard)
    logged = [line for line in trainer.state.log_history if "coupling/share" in line]
    assert [line["step"] for line in logged] == [0, 2]


def test_catalog_takes_up_every_step(tmp_path):
    model = small_model(TINY)
    watcher = bc.Watcher(
        model, PROMPTS, tokens_of, every=2, budget=None, k=4, store=tmp_path, name="mine"
    )
    for step in (2, 4, 4):  # the last one replaces a measurement
        watcher(step)
    catalog = join(sorted(tmp_path.glob("*/svd.yml")), tmp_path / "catalog.yml")
    assert sorted(catalog.entries) == ["svd/mine/step2/watched", "svd/mine/step4/watched"]
    ds = catalog["svd/mine/step4/watched"].read()
    assert float(bc.coupling(ds, 4).mean()) == watcher.history[-1]["coupling"]
    assert (ds.attrs["model"], ds.attrs["checkpoint"]) == ("mine", "step4")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """A clock that a test sets; a measurement takes one second of it."""
    now = [0.0]
    own = module.measured

    def measured(*args: Any) -> Any:
        now[0] += 1.0
        return own(*args)

    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(module, "measured", measured)
    return now


def test_steps_over_the_budget_are_skipped(clock):
    watcher = bc.Watcher(small_model(TINY), PROMPTS, tokens_of, every=1, budget=0.1)
    done = []
    for step in range(100):
        if watcher(step) is not None:
            done.append(step)
        clock[0] += 1.0
    shares = [line["share"] for line in watcher.history]
    # Step s starts at s + n seconds; measurement n + 1 is made when (n + 1) / (s + n + 1) <= 0.1.
    assert done == [0, *range(18, 100, 9)]
    assert all(share <= 0.1 for share in shares[1:])
    assert watcher.skipped == 100 - len(done)


def test_whatever_happens_everything_is_as_it_was():
    model = small_model(TINY).train()
    model.gpt_neox.layers[0].eval()
    model.gradient_checkpointing_enable()
    model(
        torch.ones(1, 4, dtype=torch.long), labels=torch.ones(1, 4, dtype=torch.long)
    ).loss.backward()
    broken = [False]

    def hook(layer: Any, inputs: Any, output: Any) -> None:
        if broken[0]:
            raise RuntimeError("broken hook")

    model.gpt_neox.layers[1].register_forward_hook(hook)
    watcher = bc.Watcher(model, PROMPTS, tokens_of, every=1, budget=None)

    def everything() -> str:
        layers = [(m.training, sorted(vars(m)), len(m._forward_hooks)) for m in model.modules()]
        grads = [p.grad.double().sum().item() for p in model.parameters()]
        draws = torch.get_rng_state().sum().item(), random.getstate(), np.random.get_state()[2]  # noqa: NPY002
        how = model.config._attn_implementation, model.config.use_cache
        flags = torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")
        return json.dumps([layers, grads, draws, how, flags])

    before = everything()
    assert watcher(1)
    assert everything() == before
    broken[0] = True
    with pytest.raises((RuntimeError, UserError), match="broken hook"):
        watcher(2)
    assert everything() == before


def test_failed_measurement_is_a_warning_and_training_goes_on(monkeypatch, caplog):
    def measured(*args: Any) -> Any:
        raise MeasurementError("prompt 'p0', block 2: the hidden state is not finite")

    watcher = bc.Watcher(small_model(TINY), PROMPTS, tokens_of, every=1, budget=None)
    monkeypatch.setattr(module, "measured", measured)
    with caplog.at_level(logging.WARNING):
        assert watcher(7) is None
    assert "step 7" in caplog.text
    assert "block 2: the hidden state is not finite" in caplog.text
    assert watcher.history == []


def test_memory_does_not_grow():
    model = small_model(TINY)
    watcher = bc.Watcher(model, PROMPTS, tokens_of, every=1, budget=None, k=2)

    def tensors() -> int:
        gc.collect()
        return sum(isinstance(each, torch.Tensor) for each in gc.get_objects())

    watcher(1)
    before = tensors()
    for step in range(2, 8):
        watcher(step)
    assert tensors() == before


def test_image_model():
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    vit = ViTModel(ViTConfig(**size, intermediate_size=32, image_size=8, patch_size=4))
    images = torch.rand(2, 3, 8, 8)
    found = bc.Watcher(vit, images=images, every=1, budget=None, k=3)(1)
    assert found["coupling"] == pytest.approx(
        float(bc.coupling(bc.measure(vit, images=images, k=3), 3).mean()), rel=1e-12
    )


def test_sharded_weights_are_refused(tmp_path):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

    options = {"backend": "gloo", "rank": 0, "world_size": 1}
    torch.distributed.init_process_group(store=torch.distributed.HashStore(), **options)
    try:
        mesh = init_device_mesh("cpu", (1,))
        wrapped = [
            fully_shard(small_model(TINY), mesh=mesh),
            FullyShardedDataParallel(small_model(TINY), device_id=torch.device("cpu")),
        ]
        zero = small_model(TINY)
        next(zero.parameters()).ds_id = 0  # what DeepSpeed's ZeRO-3 gives each weight
        for model in (*wrapped, zero):
            with pytest.raises(UserError, match=r"saved checkpoints") as refused:
                bc.Watcher(model, PROMPTS, tokens_of)
            assert "\n" not in str(refused.value)
    finally:
        torch.distributed.destroy_process_group()
    trainer, _ = prepared(CASES["float32"], TINY, None, tmp_path)
    trainer.is_fsdp_enabled = True
    with pytest.raises(UserError, match="saved checkpoints"):
        bc.watch(trainer, PROMPTS, tokenizer=tokens_of)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"every": 0}, "every = 0"),
        ({"budget": 2}, "budget = 2"),
        ({"prompts": ["x" * 100]}, "the model's context holds 64"),
        ({"variant": "frobenus"}, "unknown variant"),
        ({"name": "a/b"}, "not a name"),
        ({"kk": 3}, "kk"),
    ],
)
def test_what_is_wrong_is_said_before_the_training(wrong, message):
    given: dict[str, Any] = {"prompts": PROMPTS, "tokenizer": tokens_of, **wrong}
    with pytest.raises(UserError, match=message):
        bc.Watcher(small_model(TINY), **given)


def test_name_in_the_catalog_is_that_of_the_output_directory(tmp_path):
    trainer, _ = prepared(CASES["float32"], TINY, None, tmp_path / "a run, 2")
    watcher = bc.watch(trainer, PROMPTS, tokenizer=tokens_of)
    assert watcher._facets["model"] == "a-run-2"
    assert watcher.store == Path(trainer.args.output_dir) / "coupling"
