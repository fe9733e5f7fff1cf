"""Power laws of weights, against data drawn from known ones and against SciPy."""

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import LlamaConfig, LlamaForCausalLM

from blockcoupling.measurement.power_law import fit
from blockcoupling.measurement.weight_spectra import COLUMNS, eigenvalues, weight_spectra


@pytest.mark.parametrize("exponent", [1.8, 2.5, 4.0])
def test_a_known_power_law_is_found(exponent: float) -> None:
    """All numbers are of the law: the standard error of α is (α − 1)/√n."""
    drawn = stats.pareto(exponent - 1, scale=3).rvs(3000, random_state=1)
    found = fit(drawn)
    assert found.tail > 300
    error = (exponent - 1) / np.sqrt(found.tail)
    assert abs(found.exponent - exponent) < 4 * error


def test_where_the_tail_begins_is_found() -> None:
    """Below 5 the numbers are even, above it of a law with α = 3."""
    random = np.random.default_rng(2)
    tail = stats.pareto(2, scale=5).rvs(1500, random_state=random)
    found = fit(np.concatenate([random.uniform(0.1, 5, 1500), tail]))
    # The tail may begin later by chance (Clauset et al. 2009, section 3.3), hardly before.
    assert 4.5 < found.smallest < 12
    assert abs(found.exponent - 3) < 4 * 2 / np.sqrt(found.tail)


def test_likelihood_and_distance_are_scipys() -> None:
    drawn = np.random.default_rng(3).lognormal(1, 1.2, 80)
    found = fit(drawn)
    at = []
    for smallest in np.sort(drawn)[:-1]:
        above = drawn[drawn >= smallest]
        b, _, _ = stats.pareto.fit(above, floc=0, fscale=smallest)
        law = stats.pareto(b, scale=smallest)
        at.append((stats.kstest(above, law.cdf).statistic, 1 + b, smallest, len(above)))
    distance, exponent, smallest, tail = min(at)
    # SciPy's fit has this closed form, too: roundings.
    assert found.distance == pytest.approx(distance, rel=1e-9)
    assert found.exponent == pytest.approx(exponent, rel=1e-9)
    assert (found.smallest, found.tail) == (smallest, tail)


def test_law_scale_does_not_matter() -> None:
    drawn = np.random.default_rng(4).lognormal(size=100)
    once, scaled = fit(drawn), fit(1e6 * drawn[::-1])
    assert scaled.exponent == pytest.approx(once.exponent, rel=1e-9)
    assert scaled.tail == once.tail


def test_numbers_that_are_all_the_same_have_no_law() -> None:
    for values in ([], [2.0], [2.0, 2.0, 2.0]):
        assert np.isnan(fit(np.array(values)).exponent)


@pytest.mark.parametrize("shape", [(60, 80), (80, 60)])
def test_eigenvalues_are_squared_singular_values(shape: tuple[int, int]) -> None:
    weight = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    wanted = np.linalg.svd(weight.double().numpy(), compute_uv=False)[::-1] ** 2
    np.testing.assert_allclose(eigenvalues(weight), wanted, atol=1e-12 * wanted[-1])


def test_matrices_of_the_blocks_and_no_others(monkeypatch, tmp_path) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=100,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path)
    place = "blockcoupling.measurement.weight_spectra"
    monkeypatch.setattr(f"{place}.stored_in", lambda record: tmp_path)
    record = {"name": "m", "checkpoint": "c"}
    table = weight_spectra(record)
    assert list(table.columns) == list(COLUMNS)
    # q, o, gate, up, down of each block; k and v have 32 rows.
    assert table.groupby("block").size().to_dict() == {1: 5, 2: 5}
    assert not table["weight"].str.contains("embed|lm_head|k_proj|v_proj").any()
    assert np.isfinite(table["exponent"]).all()
    # The same weights in memory, as for randomly re-initialised or quantized models.
    loaded = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    monkeypatch.setattr(f"{place}.load_model", lambda record, device: (loaded, None))
    again = weight_spectra({**record, "quantization": "nf4"})
    np.testing.assert_array_equal(again["exponent"], table["exponent"])


def test_a_model_too_small_has_none_and_is_reported(monkeypatch, tmp_path, caplog) -> None:
    config = LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2
    )
    config.vocab_size = 50
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    monkeypatch.setattr(
        "blockcoupling.measurement.weight_spectra.stored_in", lambda record: tmp_path
    )
    assert weight_spectra({"name": "m", "checkpoint": "c"}).empty
    assert (
        "model m: no weight matrix of its blocks has the 50 eigenvalues that a fit needs"
        in caplog.text
    )
