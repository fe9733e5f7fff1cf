"""Jacobians between all tokens of a prompt, and their comparisons, against float64 references."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from architectures import FAMILIES, prompt, small_model
from full_jacobian import full_jacobian
from safetensors.torch import load_file, save_file
from tiny_model import save_tiny_model
from torch import nn

from blockcoupling.cli import app
from blockcoupling.config.measurement import Settings, TokenSettings
from blockcoupling.config.variants import OF_BLOCKS
from blockcoupling.errors import UserError
from blockcoupling.jacobian.token_jacobians import jacobians_to_token, record_to_token
from blockcoupling.measurement.prepare import Prepared, prepare_prompts
from blockcoupling.measurement.token_cost import cost
from blockcoupling.measurement.tokenwise import (
    chosen_blocks,
    chosen_tokens,
    compare_tokens,
)
from blockcoupling.reduce.tokenwise import tabulate
from blockcoupling.sources.models import model_record
from blockcoupling.sources.records import spec_from_argument, write_record
from blockcoupling.store.comparisons import COMPARISONS
from blockcoupling.transformer.blocks import find_blocks
from blockcoupling.transformer.running import differentiable
from blockcoupling.transformer.tokens import TokenizedPrompt

# Models with float64 weights still take their softmax in float32: a few of its roundings (6e-8).
EXACT = 2e-6


def prepared_for(
    model: nn.Module, ids: torch.Tensor, tokens: Any
) -> tuple[Prepared, TokenizedPrompt]:
    one = TokenizedPrompt("p", ids, ("",) * ids.shape[1])
    prepared, (complete,) = prepare_prompts(model, [one], Settings(tokens=tokens))
    return prepared, complete


@pytest.mark.parametrize("family", FAMILIES)
def test_jacobians_to_a_token_are_the_full_sequence_ones(family: str) -> None:
    model, ids = small_model(family), prompt(7)
    blocks = find_blocks(model, ids[:, :4])
    with differentiable(model):
        for token, tokens in ((6, [0, 2, 6]), (5, [1, 3]), (0, [0])):
            calls = record_to_token(model, blocks, ids[:, : token + 1])
            for index, block in enumerate(blocks.modules):
                found, _ = jacobians_to_token(calls, index, tokens)
                for t, jacobian in zip(tokens, found, strict=True):
                    wanted = full_jacobian(model, block, ids, t, token)
                    assert (jacobian - wanted).norm() <= EXACT * wanted.norm()


def test_the_cache_is_used_where_there_is_one() -> None:
    ids = prompt(6)
    for family in ("llama", "gpt2", "gpt_neox", "mpt", "gemma2", "mistral"):
        model = small_model(family)
        with differentiable(model):
            calls = record_to_token(model, find_blocks(model, ids), ids)
            assert jacobians_to_token(calls, 1, [0, 5])[1]


def test_tokens_must_lead_to_the_last() -> None:
    model, ids = small_model("llama"), prompt(4)
    calls = record_to_token(model, find_blocks(model, ids), ids)
    for wrong in ([], [2, 1], [1, 4]):
        with pytest.raises(ValueError, match="need ascending ones, up to 3"):
            jacobians_to_token(calls, 0, wrong)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_comparisons_are_their_definition(dtype: torch.dtype) -> None:
    model, exact = small_model("gpt_neox", dtype), small_model("gpt_neox")
    ids, k, tokens = prompt(6), 4, [1, 3, 5]
    settings = TokenSettings(tokens=tokens, blocks=[(1, 1), (2, 3)], k=k, swapped=True)
    ds = compare_tokens(*prepared_for(model, ids, tokens), settings)
    modules = find_blocks(exact, ids).modules
    reference = {}
    for block, (a, b) in itertools.product((1, 2, 3), itertools.product(tokens, tokens)):
        if a <= b:
            j = full_jacobian(exact, modules[block - 1], ids, a, b).numpy()
            u, s, vt = np.linalg.svd(j)
            reference[block, a, b] = j, u[:, :k], s[:k], vt[:k].T
    wanted = []
    for kind in ("self", "input_fixed", "output_fixed"):
        for block, other in ((1, 1), (2, 3)):
            for (n, a, b), (m, c, d) in itertools.product(reference, reference):
                related = {
                    "self": a == b and c == d,
                    "input_fixed": a == c,
                    "output_fixed": b == d,
                }[kind]
                if (n, m) == (block, other) and related:
                    wanted.append((kind, n, m, a, b, c, d))
    names = ("block", "block_other", "token_in", "token_out", "token_in_other", "token_out_other")
    places = [ds[name].values.tolist() for name in ("kind", *names)]
    assert sorted(zip(*places, strict=True)) == sorted(wanted)
    # Softmax in float32 (1e-7), through singular vectors s_1 over a gap wide (some hundred).
    tolerance = 1e-4 if dtype == torch.float64 else 1e-2
    for n, (_, block, other, a, b, c, d) in enumerate(zip(*places, strict=True)):
        j, _, s, _ = reference[block, a, b]
        _, u, _, v = reference[other, c, d]
        np.testing.assert_allclose(ds["S"][n], s, rtol=0, atol=1e-4 * s[0])
        for name, product in (("A", u.T @ j @ v), ("A_swapped", v.T @ j @ u)):
            # Signs of singular vectors are free in the reference.
            np.testing.assert_allclose(
                abs(ds[name][n]), abs(product), rtol=0, atol=tolerance * s[0]
            )
    assert float(ds["svd_residual"].max()) < 1e-4


def test_a_jacobian_compared_with_itself_is_fully_coupled(tmp_path: Path) -> None:
    settings = TokenSettings(blocks=[(2, 2)], k=3)
    model = small_model("llama", torch.float32)
    ds = compare_tokens(*prepared_for(model, prompt(4), "all"), settings)
    ds.to_zarr(tmp_path / "s.zarr", zarr_format=3, consolidated=False)
    identity = {"model": "m", "checkpoint": "c", "dataset": "d"}
    tabulate(tmp_path / "s.zarr", tmp_path / "t.parquet", [1, 3, 9], ["frobenius"], identity)
    table = pd.read_parquet(tmp_path / "t.parquet")
    assert sorted(table["k"].unique()) == [1, 3]  # not more than there are
    same = (table["token_in"] == table["token_in_other"]) & (
        table["token_out"] == table["token_out_other"]
    )
    assert (table["miscoupling"][same] < 1e-3).all()  # the residual of the SVD
    assert (table["miscoupling"][~same] > 0.01).all()  # far above that
    # n² with themselves; 1² + … + n² each with a fixed token.
    counts = table[table["k"] == 3]["comparison"].value_counts().to_dict()
    assert counts == {"self": 16, "input_fixed": 30, "output_fixed": 30}
    assert sum(counts.values()) == cost(1, 32, 4, 1, 1, 3).comparisons


def test_which_blocks_and_tokens() -> None:
    assert chosen_blocks([[1, -1], [0.5, 0.75]], 12) == [(1, 12), (6, 9)]
    assert chosen_blocks([[0.01, 0.99]], 4) == [(1, 4)]
    for wrong in (0, 5, -5, 1.5):
        with pytest.raises(UserError, match="this model has blocks 1 … 4"):
            chosen_blocks([[1, wrong]], 4)
    model = small_model("llama", torch.float32)
    for tokens, length, chosen in (([-1, 0, 3], 4, [0, 3]), ({"every": 3}, 8, [1, 4, 7])):
        assert chosen_tokens(prepared_for(model, prompt(length), tokens)[1]) == chosen
    with pytest.raises(UserError, match="not pairs"):
        chosen_tokens(prepared_for(model, prompt(4), [(0, 1)])[1])
    with pytest.raises(UserError, match="prompt 'p' cannot be measured: token 4 is out of range"):
        prepared_for(model, prompt(4), [4])


def test_a_job_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from blockcoupling.measurement import tokenwise_job

    directory = save_tiny_model(tmp_path / "model")
    write_record(model_record(spec_from_argument(str(directory))), tmp_path / "m.json")
    texts = {"a": "one two three", "b": "four five"}
    lines = [json.dumps({"id": name, "text": text}) for name, text in texts.items()]
    (tmp_path / "p.jsonl").write_text("\n".join(lines) + "\n")
    command = [
        *("tokenwise", "--model", str(tmp_path / "m.json"), "--prompts", str(tmp_path / "p.jsonl")),
        *("--parts", str(tmp_path / "parts"), "--out", str(tmp_path / "t.zarr")),
        *("--table", str(tmp_path / "t.parquet"), "--blocks", "[[1, 2]]", "--k", "2"),
        *("--entries", str(tmp_path / "e"), "--facet", "model=tiny"),
        *("--facet", "checkpoint=main", "--facet", "dataset=mine"),
    ]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    ds = COMPARISONS.open(tmp_path / "t.zarr").load()
    assert set(ds["prompt"].values) == {"a", "b"}
    table = pd.read_parquet(tmp_path / "t.parquet")
    assert set(table["variant"]) == set(OF_BLOCKS)
    assert np.isfinite(table["miscoupling"]).all()
    assert {path.stem for path in (tmp_path / "e").iterdir()} == {"token_products", "tokenwise"}
    # A rerun finds what is done.
    monkeypatch.setattr(tokenwise_job, "compare_tokens", None)
    assert CliRunner().invoke(app, command).exit_code == 0
    xr.testing.assert_identical(COMPARISONS.open(tmp_path / "t.zarr").load(), ds.load())


def test_a_job_knows_its_model_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from blockcoupling.measurement import tokenwise_job as module

    measured: list[str] = []

    def noting(prepared: Prepared, prompt: TokenizedPrompt, *args):
        measured.append(prompt.id)
        return compare_tokens(prepared, prompt, *args)

    monkeypatch.setattr(module, "compare_tokens", noting)
    (tmp_path / "p.jsonl").write_text('{"id": "a", "text": "one two"}\n')

    def run(directory: Path, **settings) -> dict:
        measured.clear()
        record = model_record(spec_from_argument(str(directory)))
        write_record(record, tmp_path / "m.json")
        module.tokenwise(
            tmp_path / "m.json",
            tmp_path / "p.jsonl",
            tmp_path / "parts",
            tmp_path / "t.zarr",
            TokenSettings(blocks=[(1, 2)], k=2, **settings),
        )
        return COMPARISONS.open(tmp_path / "t.zarr").load()

    directory = save_tiny_model(tmp_path / "model", hidden_size=16)
    first = run(directory, swapped=True)
    assert measured == ["a"]
    less = run(directory.rename(tmp_path / "renamed"))
    assert measured == []
    assert "A_swapped" not in less
    assert np.array_equal(less["A"], first["A"])
    assert less.attrs["model"] == "renamed"
    directory = tmp_path / "renamed"
    weights = load_file(directory / "model.safetensors")
    other = {name: values * 1.5 for name, values in weights.items()}
    save_file(other, directory / "model.safetensors", metadata={"format": "pt"})
    assert not np.array_equal(run(directory)["A"], first["A"])
    assert measured == ["a"]
