"""Variance components against REML, against known truth, and where they cannot be separated."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from blockcoupling.statistics.variance import components


def crossed(models: int, datasets: int, prompts: int, sd: dict[str, float], seed: int):
    """Draw from the model itself: sd of m(odel), d(ataset), p(rompt), i(nterplay), e(rror)."""
    random = np.random.default_rng(seed)
    index = pd.MultiIndex.from_product(
        [range(models), range(datasets), range(prompts)], names=["model", "dataset", "prompt"]
    )
    table = index.to_frame(index=False)
    m, d, p = (table[name].to_numpy() for name in index.names)
    y = sd["m"] * random.normal(size=models)[m] + sd["d"] * random.normal(size=datasets)[d]
    y += sd["p"] * random.normal(size=(datasets, prompts))[d, p]
    y += sd["i"] * random.normal(size=(models, datasets))[m, d]
    y += sd["e"] * random.normal(size=len(table))
    return table.assign(checkpoint="main", y=5 + y)


def test_equals_reml_on_balanced_data():
    values = crossed(6, 3, 4, {"m": 2, "d": 1.5, "p": 1, "i": 1, "e": 0.5}, seed=5)
    found = components(values, ["y"]).set_index("component")["variance"]
    assert (found > 0).all()  # REML equals the analysis of variance only then
    values["p"] = values["dataset"].astype(str) + "-" + values["prompt"].astype(str)
    values["i"] = values["dataset"].astype(str) + "-" + values["model"].astype(str)
    parts = {"m": "0 + C(model)", "d": "0 + C(dataset)", "p": "0 + C(p)", "i": "0 + C(i)"}
    fit = smf.mixedlm("y ~ 1", values, groups=np.ones(len(values)), vc_formula=parts).fit(
        method=["lbfgs", "powell"]
    )
    reml = dict(zip(fit.model.exog_vc.names, fit.vcomp, strict=True)) | {"e": fit.scale}
    names = ["models", "datasets", "prompts", "models × datasets", "residual"]
    # REML is found by iteration, here to a few parts in a thousand.
    np.testing.assert_allclose(found[names], [reml[n] for n in "mdpie"], rtol=0.02)


def test_unbalanced_data_give_the_truth_on_average():
    sd = {"m": 2.0, "d": 1.0, "p": 1.0, "i": 0.5, "e": 0.5}
    random = np.random.default_rng(0)
    draws = []
    for seed in range(40):
        values = crossed(10, 12, 4, sd, seed)
        kept = values[random.random(len(values)) < 0.8]
        draws.append(components(kept, ["y"]).set_index("component")["variance"])
    found = pd.DataFrame(draws)
    names = ["models", "datasets", "prompts", "models × datasets", "residual"]
    expected = np.array([sd[n] ** 2 for n in "mdpie"])
    # Four standard errors of the mean over the draws.
    error = found[names].std() / np.sqrt(len(found))
    assert (np.abs(found[names].mean() - expected) < 4 * error).all()


def test_one_dataset_leaves_models_prompts_and_the_residual():
    values = crossed(5, 1, 6, {"m": 1, "d": 0, "p": 1, "i": 0, "e": 0.1}, seed=2)
    found = components(values, ["y"])
    assert found["component"].tolist() == ["models", "prompts", "residual"]
    assert found["levels"].tolist() == [5, 6, 30]
    assert found["share"].sum() == pytest.approx(1)


def test_one_model_leaves_the_spread_of_prompts_and_datasets():
    values = crossed(1, 3, 8, {"m": 0, "d": 1, "p": 1, "i": 0, "e": 0}, seed=2)
    found = components(values, ["y"]).set_index("component")
    assert found.index.tolist() == ["datasets", "residual"]
    # One-way analysis of variance by hand.
    groups = values.groupby("dataset")["y"]
    within = groups.var().mean()
    between = (8 * groups.mean().var() - within) / 8
    assert found["variance"]["residual"] == pytest.approx(within)
    assert found["variance"]["datasets"] == pytest.approx(between)


def test_a_shift_changes_nothing():
    values = crossed(5, 3, 6, {"m": 1, "d": 1, "p": 1, "i": 1, "e": 1}, seed=3)
    one, other = (components(values.assign(y=values["y"] + shift), ["y"]) for shift in (0, 1e6))
    # 1e6 in float64 leaves ten digits of the spread.
    np.testing.assert_allclose(one["variance"], other["variance"], rtol=1e-7, atol=1e-9)


def test_a_negative_estimate_is_said():
    # Models that differ less than the residual lets expect.
    values = crossed(4, 1, 4, {"m": 0, "d": 0, "p": 0, "i": 0, "e": 1}, seed=1)
    values["y"] -= values.groupby("model")["y"].transform("mean")
    found = components(values, ["y"]).set_index("component").loc["models"]
    assert found["variance"] == 0
    assert "below 0" in found["note"]
