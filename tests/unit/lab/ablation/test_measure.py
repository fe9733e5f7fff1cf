"""Blocks left out, exchanged, replaced and merged, against models rebuilt by hand in float64."""

import copy
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from architectures import FAMILIES, VOCABULARY, small_model
from tiny_model import save_tiny_model
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from blockcoupling.cli import app
from blockcoupling.config.damage import Change, DamageSettings, changes
from blockcoupling.errors import UserError
from blockcoupling.lab import damage
from blockcoupling.lab.ablation import job as damage_job
from blockcoupling.lab.ablation.course import course, passes
from blockcoupling.sources.models import model_record
from blockcoupling.sources.records import spec_from_argument, write_record
from blockcoupling.store import joining
from blockcoupling.transformer.blocks import find_blocks
from blockcoupling.transformer.streaming import stream_model

TEXTS = ["one text", "another text, which is longer", "no"]
# Models with float64 weights still take their softmax in float32: a few of its roundings (6e-8),
# in logits of a few units, summed over the words.
EXACT = 2e-6


def tokenizer(text: str, **_: object) -> list[int]:
    return [1 + ord(letter) % (VOCABULARY - 1) for letter in text]


def predictions(model: nn.Module, text: str) -> torch.Tensor:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokenizer(text)]), use_cache=False).logits[0]
    return torch.log_softmax(logits.double(), -1)


def rebuilt(model: nn.Module, change: Change) -> nn.Module:
    """The changed model, built by copying weights and rewriting whole blocks' outputs."""
    made = copy.deepcopy(model)
    ids = torch.tensor([[1, 2, 3]])
    old, new = find_blocks(model, ids).modules, find_blocks(made, ids).modules
    i, j = change.block - 1, change.block_other - 1
    match change.treatment:
        case "replace":
            new[j].load_state_dict(old[i].state_dict())
        case "swap":
            new[j].load_state_dict(old[i].state_dict())
            new[i].load_state_dict(old[j].state_dict())
        case "merge":
            both = zip(old[i].state_dict().items(), old[j].state_dict().values(), strict=True)
            mean = {name: (a + b) / 2 if a.is_floating_point() else a for (name, a), b in both}
            new[i].load_state_dict(mean)
            new[j].load_state_dict(mean)
        case "skip" | "exit":
            out = {i, j} if change.treatment == "skip" else set(range(i + 1, len(new)))
            for index in out:
                new[index].register_forward_hook(_pass_by, with_kwargs=True)
    return made


def _pass_by(module: nn.Module, args: tuple, kwargs: dict, output: object) -> object:
    hidden = args[0] if args else kwargs["hidden_states"]
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


@pytest.mark.parametrize("family", FAMILIES)
def test_damage_is_that_of_a_model_rebuilt_by_hand(family: str) -> None:
    model = small_model(family)
    ds = damage(model, tokenizer, TEXTS[:2], pairs="all")
    assert ds.sizes["change"] == 3 + 3 + 2 + 6 + 3 + 3
    made = 0
    for n, values in enumerate(zip(ds["treatment"], ds["block"], ds["block_other"], strict=True)):
        change = Change(*(value.item() for value in values))
        if ds["reason"].values[n]:
            assert np.isnan(ds["kl"].values[:, n]).all()
            continue
        made += 1
        changed = rebuilt(model, change)
        for row, text in enumerate(TEXTS[:2]):
            log_p, log_q = predictions(model, text), predictions(changed, text)
            kl = (log_p.exp() * (log_p - log_q)).sum(-1).mean()
            own = torch.tensor(tokenizer(text))[1:, None]
            loss = -(log_q - log_p)[:-1].gather(-1, own).mean()
            assert ds["kl"].values[row, n] == pytest.approx(kl.item(), abs=EXACT)
            assert ds["loss_change"].values[row, n] == pytest.approx(loss.item(), abs=EXACT)
    assert made >= 3 + 3 + 2 + 1  # whatever a model is, blocks can be left out


def test_blocks_that_are_not_alike_are_left_out_with_the_reason() -> None:
    ds = damage(small_model("gpt_neo"), tokenizer, TEXTS[0], treatments=["swap"], pairs="all")
    assert ds["block_other"].values.tolist() == [2, 3, 3]
    first, second, _ = ds["reason"].values
    assert first == "blocks 1 and 2 differ in attn.attention_type (global, local)"
    assert second == ""
    assert np.isnan(ds["kl"].values).tolist() == [[True, False, True]]


def test_blocks_that_share_weights_are_left_out_with_the_reason() -> None:
    model = small_model("llama")
    layers = find_blocks(model, torch.tensor([[1, 2]])).modules
    layers[2].mlp = layers[0].mlp
    ds = damage(model, tokenizer, TEXTS[0], treatments=["skip", "replace"], pairs="all")
    replaced = ds.isel(change=ds["treatment"].values == "replace")
    assert all("shares a part with block" in reason for reason in replaced["reason"].values)
    assert not np.isnan(ds["kl"].values[:, ds["treatment"].values == "skip"]).any()


def test_a_model_is_as_it_was_afterwards() -> None:
    model = small_model("gpt_neox")
    before = copy.deepcopy(model.state_dict())
    parameters = [id(p) for p in model.parameters()]
    damage(model, tokenizer, TEXTS[0], pairs="all")
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())
    assert parameters == [id(p) for p in model.parameters()]
    assert not any("forward" in vars(module) for module in model.modules())


def test_texts_together_are_texts_one_by_one() -> None:
    model = small_model("llama").float()
    together, alone = (damage(model, tokenizer, TEXTS, batch=batch) for batch in (8, 1))
    assert together["prompt"].values.tolist() == ["p0", "p1", "p2"]
    for name in ("kl", "loss_change", "loss"):
        # Sums of a few dozen float32 products in another order: some roundings of 6e-8.
        np.testing.assert_allclose(together[name], alone[name], rtol=2e-5, atol=2e-6)


def test_what_does_nothing_costs_nothing() -> None:
    model = small_model("gpt2")
    one, two, _ = find_blocks(model, torch.tensor([[1, 2]])).modules
    two.load_state_dict(one.state_dict())
    ds = damage(model, tokenizer, TEXTS[0], treatments=["replace", "swap", "merge"])
    same = (ds["block"].values + ds["block_other"].values) == 3
    assert np.abs(ds["kl"].values[:, same]).max() < 1e-12
    assert ds["kl"].values[:, ~same].min() > 1e-4


def test_leaving_out_the_last_block_is_leaving_a_block_earlier() -> None:
    ds = damage(small_model("opt"), tokenizer, TEXTS, treatments=["skip", "exit"])
    last = (ds["treatment"] == "skip") & (ds["block"] == 3) & (ds["block_other"] == 3)
    early = (ds["treatment"] == "exit") & (ds["block"] == 2)
    np.testing.assert_allclose(ds["kl"].values[:, last], ds["kl"].values[:, early], atol=1e-12)


def test_changes_are_counted_and_so_are_passes() -> None:
    found = changes(DamageSettings(pairs={"within": 1}), 3)
    assert [c[1:] for c in found if c.treatment == "skip"] == [
        (1, 1),
        (2, 2),
        (3, 3),
        (1, 2),
        (2, 3),
    ]
    assert [c[1:] for c in found if c.treatment == "exit"] == [(1, 1), (2, 2)]
    assert [c[1:] for c in found if c.treatment == "replace"] == [(1, 2), (2, 1), (2, 3), (3, 2)]
    assert [c[1:] for c in found if c.treatment == "swap"] == [(1, 2), (2, 3)]
    # The pass as it is, 3; then block 2 or 3 gets other weights: from there to the end.
    assert passes([Change("replace", 1, 3), Change("swap", 2, 3)], 3) == (3 + 1 + 2, 3)
    assert course(Change("skip", 1, 3), 4).places == [1, 3]
    assert changes(DamageSettings(treatments=["swap"], pairs=[[-1, 1]]), 5) == [
        Change("swap", 1, 5)
    ]


def test_a_model_without_a_head_is_refused() -> None:
    with pytest.raises(UserError, match="returns no logits for every token"):
        damage(small_model("llama").model, tokenizer, TEXTS[0])


def test_a_block_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match="block 9: this model has blocks 1 … 3"):
        damage(small_model("llama"), tokenizer, TEXTS[0], pairs=[[1, 9]])
    with pytest.raises(UserError, match="should be all, "):
        damage(small_model("llama"), tokenizer, TEXTS[0], pairs={"within": 0})


@pytest.mark.parametrize("tied", [False, True])
def test_streamed_is_in_memory(tmp_path: Path, tied: bool) -> None:
    model = small_model("llama").float()
    if tied:
        model.config.tie_word_embeddings = True
        model.tie_weights()
    model.save_pretrained(tmp_path)
    streamed = stream_model(tmp_path)
    whole, parts = (damage(each, tokenizer, TEXTS) for each in (model, streamed))
    for name in ("kl", "loss_change", "loss"):
        np.testing.assert_array_equal(whole[name], parts[name])


@pytest.fixture
def job(tmp_path: Path) -> list[str]:
    save_tiny_model(tmp_path / "model", context=64)
    write_record(model_record(spec_from_argument(str(tmp_path / "model"))), tmp_path / "model.json")
    lines = [json.dumps({"id": name, "text": name * 5}) for name in ("ab", "c", "def")]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    paths = {"model": "model.json", "prompts": "prompts.jsonl", "parts": "parts"}
    paths |= {"out": "damage.zarr", "table": "damage.parquet"}
    words = [w for key, name in paths.items() for w in (f"--{key}", str(tmp_path / name))]
    facets = [f"--facet={key}=tiny" for key in ("model", "checkpoint", "dataset")]
    return ["damage", *words, *facets, "--passages", "2", "--batch", "2"]


def test_a_job_goes_on_where_it_was_killed(
    job: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*more: str) -> int:
        with pytest.raises(SystemExit) as ended:
            app([*job, *more])
        return int(ended.value.code or 0)

    monkeypatch.setattr(joining, "remove_joined", lambda *args: None)  # as if killed before
    assert run() == 0
    table = pd.read_parquet(tmp_path / "damage.parquet")
    assert table.groupby("kind")["prompt"].nunique().to_dict() == {"heldout": 2, "prompt": 3}
    assert table["prompt"].unique().tolist()[:3] == ["ab", "c", "def"]
    assert (table.loc[table["kind"] == "heldout", "tokens"] == 64).all()
    assert np.isfinite(table[["kl", "loss", "loss_change"]]).all(axis=None)

    measured = []
    measure = damage_job.Ablation.measure
    monkeypatch.setattr(
        damage_job.Ablation,
        "measure",
        lambda self, texts, advance: measured.append(len(texts)) or measure(self, texts, advance),
    )
    lost = next((tmp_path / "parts").glob("def*"))
    lost.rename(tmp_path / "elsewhere")
    assert run() == 0
    assert measured == [2]  # it and its neighbour, as before
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "damage.parquet"), table)
    assert run("--treatments", '["skip"]') == 0
    assert measured == [2, 2, 2, 1]


def test_questions_are_asked_with_each_of_their_choices(job: list[str], tmp_path: Path) -> None:
    question = {"id": "q", "text": "What?", "continuations": ["no", "yes", "so"], "answer": 1}
    (tmp_path / "prompts.jsonl").write_text(json.dumps(question))
    with pytest.raises(SystemExit) as ended:
        app([*job, "--passages", "0", "--answers", "--treatments", '["skip"]'])
    assert not ended.value.code
    table = pd.read_parquet(tmp_path / "damage.parquet")
    asked = table[table["kind"].isin(("answer", "choice")) & (table["block"] == 1)]
    asked = asked[asked["block_other"] == 1]
    assert asked["kind"].tolist() == ["choice", "answer", "choice"]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").double()
    read = AutoTokenizer.from_pretrained(tmp_path / "model")
    for changed, column in ((False, 0.0), (True, asked["loss_change"])):
        if changed:
            first = find_blocks(model, torch.tensor([[1, 2]])).modules[0]
            first.register_forward_hook(_pass_by, with_kwargs=True)
        for choice, loss in zip(question["continuations"], asked["loss"] + column, strict=True):
            ids = read(f"What? {choice}", return_tensors="pt")["input_ids"]
            start = len(read("What?")["input_ids"])
            with torch.no_grad():
                log_p = torch.log_softmax(model(input_ids=ids).logits[0], -1)
            each = log_p[start - 1 : -1].gather(-1, ids[0, start:, None])
            # The job's weights are float32: a few roundings of 6e-8 in logits of a few units.
            assert loss == pytest.approx(-each.sum().item(), abs=1e-5)


def test_a_prompt_without_choices_cannot_be_answered(
    job: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        app([*job, "--answers"])
    assert ended.value.code
    assert "no choices and no answer" in capsys.readouterr().err.replace("\n", " ")
