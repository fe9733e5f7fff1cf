"""The statistics of a whole study, through its catalog."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic_study import write_study

from blockcoupling.config.overlaps import OVERLAPS
from blockcoupling.errors import UserError
from blockcoupling.statistics.points import prompt_values
from blockcoupling.statistics.predictors import MEASURES, OPTIONAL
from blockcoupling.statistics.regression import jackknife
from blockcoupling.statistics.variance import components
from blockcoupling.statistics.write import write_statistics


@pytest.mark.slow
def test_statistics_of_a_study_with_checkpoints(study, tmp_path):
    files = write_statistics(study, tmp_path / "correlation.parquet", resamples=200)
    found = pd.read_parquet(files["correlation"]).query("metric == 'loss'")
    coupling = found[found["predictor"] == "coupling"].set_index("subset")
    assert coupling["n"].to_dict() == {
        "all checkpoints": 18,
        "trained": 15,
        "final": 3,
        "checkpoints of neox-64": 6,
        "checkpoints of neox-96": 6,
        "checkpoints of neox-128": 6,
    }
    assert np.isnan(coupling["pearson_p"]["final"])
    assert "n = 3: too few points" in coupling["note"]["final"]
    predictors = pd.read_parquet(files["predictors"])
    assert len(predictors) == 18
    expected = stats.linregress(predictors["coupling"], predictors["heldout.loss"])
    assert coupling["slope"]["all checkpoints"] == pytest.approx(expected.slope)
    value = predictors["heldout.loss"].to_numpy()
    units = predictors["model"].to_numpy()
    p = jackknife(predictors["coupling"].to_numpy(), value, units, expected.rvalue).p
    assert coupling["pearson_p"]["all checkpoints"] == pytest.approx(p)
    assert set(pd.read_parquet(files["variance"])["measure"]) == set(MEASURES)


@pytest.mark.slow
def test_a_study_without_overlaps_has_the_other_numbers(study, tmp_path):
    """As one measured by an older version: nothing but what came later is missing."""
    without = write_study(tmp_path / "without", overlaps=False)
    files = write_statistics(without, tmp_path / "without.parquet", resamples=20)
    whole = write_statistics(study, tmp_path / "with" / "correlation.parquet", resamples=20)
    for kind, name in (("correlation", "predictor"), ("variance", "measure")):
        found, wanted = (pd.read_parquet(each[kind]) for each in (files, whole))
        assert set(wanted[name]) - set(found[name]) == OPTIONAL
    points = pd.read_parquet(files["predictors"])
    assert points[[*OPTIONAL]].isna().all(axis=None)
    columns = ["coupling", "coupling_se", "s1", "heldout.loss"]
    pd.testing.assert_frame_equal(points[columns], pd.read_parquet(whole["predictors"])[columns])


def test_some_checkpoints_without_overlaps(study, tmp_path):
    """Statistics of overlaps are those of the checkpoints that have them."""
    values = prompt_values(study)
    missing = values["model"] == "neox-64"
    values.loc[missing, [*OVERLAPS]] = np.nan
    found = components(values, ["input_overlap", "coupling"])
    alone = components(values[~missing], ["input_overlap"])
    own = found[found["measure"] == "input_overlap"].reset_index(drop=True)
    pd.testing.assert_frame_equal(own, alone)


@pytest.mark.slow
def test_only_final_checkpoints_when_asked(study, tmp_path):
    files = write_statistics(study, tmp_path / "c.parquet", checkpoints="final", resamples=10)
    assert set(pd.read_parquet(files["correlation"])["subset"]) == {"final"}


@pytest.mark.slow
def test_the_score_that_a_study_is_about_is_marked(study, tmp_path):
    options = {"resamples": 10, "checkpoints": "final"}
    files = write_statistics(
        study, tmp_path / "c.parquet", score="heldout", metric="loss", **options
    )
    found = pd.read_parquet(files["correlation"])
    assert (found["headline"] == (found["metric"] == "loss")).all()
    with pytest.raises(UserError, match=r"no score 'arc' .*: heldout accuracy, heldout loss"):
        write_statistics(study, tmp_path / "c.parquet", score="arc", **options)
