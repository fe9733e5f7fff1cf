"""docs/findings.md says what the committed tables say, and its answers follow from its numbers."""

import numpy as np
import pytest
from docs.findings import (
    ablation,
    by_k,
    course,
    displaced,
    gap,
    halves,
    population,
    setting,
    vision,
)
from docs.findings.__main__ import BLOCKS, PAGE, filled
from docs.findings.estimates import Correlation, Estimate, mean_of

from blockcoupling.statistics.partial import partial_correlation


@pytest.mark.slow
def test_the_page_has_the_numbers_of_the_tables() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page) == page  # `make findings` writes it


def test_every_answer_has_what_would_have_refuted_it_and_the_power_it_had() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in BLOCKS:
        between = page.split(f"<!-- {name} -->\n\n")[1].split(f"\n\n<!-- /{name} -->")[0]
        table = between.splitlines()
        widths = {len(line.split(" | ")) for line in table}
        assert len(widths) == 1 and len(table) > 2
        if table[0].startswith("| question"):
            assert all(cell.strip() for line in table[2:] for cell in line.strip("|").split(" | "))


@pytest.mark.slow
def test_answers_on_the_population_follow_from_its_numbers() -> None:
    """Each assertion is what the page claims in words."""

    def estimate(table: str, name: str, **which: str) -> Estimate:
        row = population.row_of(table, score="heldout", **which)
        return Estimate(row[name], row[f"{name}_low"], row[f"{name}_high"])

    widths = population.emergence_by_width()
    assert widths[32].low > 0 and widths[64].low > 0 and widths[128].low < 0 < widths[128].high
    assert estimate("correlation", "pearson", predictor="coupling").low > 0
    final = population.points()[population.points()["final"]]
    size = final[["log_parameters", "depth", "dimension"]]
    only_size = partial_correlation(final["coupling"], final["heldout.nats_per_byte"], size)
    assert only_size.r == pytest.approx(0.64, abs=0.005) and only_size.p < 1e-5
    partial = estimate("correlation", "partial", predictor="coupling")
    assert partial.low < 0 < partial.high
    assert estimate("correlation", "r2_over_coupling", predictor="dimension").low > 0
    parameters = estimate("correlation", "r2_over_coupling", predictor="log_parameters")
    assert parameters.low < 0 < parameters.high
    both = {"left_out": "model", "predictors": "hyperparameters + coupling"}
    added = population.row_of("prediction", score="heldout", **both)
    assert added["added_low"] < 0 < added["added_high"] < 0.05
    gap = population.row_of("correlation", score="gap", predictor="coupling")
    assert gap["pearson_p_adjusted"] > 0.05 and gap["partial_low"] < 0 < gap["partial_high"]
    assert course.late_change().high < 0
    by_step = course.ladder()
    assert (by_step[64] > by_step[0] + 0.2).all() and (by_step[512] < by_step[64] - 0.05).all()
    assert max(course.within_widths()["factor.learning_rate"]) < 0
    given, p = population.rankme_given_training_loss()
    assert given.low < 0 < given.high and p > 0.05
    line = population.row_of("correlation", score="heldout", predictor="line_shape_score")
    assert line["partial"] < 0 and line["partial_p_adjusted"] < 0.05


def test_answers_on_chance_and_k_follow_from_their_numbers() -> None:
    for k in by_k.every_k():
        assert by_k.excess_gained(k).low > 0
        assert by_k.by_distance(k, "final")[0].high < 0 < by_k.by_distance(k, "final")[1].low
        for column in ("coupling", "excess"):
            r, partial = by_k.with_loss(column, k)
            assert r.low > 0 and partial.low < 0 < partial.high
    assert by_k.excess_gained(1, by_k.WIDE).low > 0 > by_k.excess_gained(20, by_k.WIDE).high
    wide = by_k.coupling().query("final and k == 20 and dimension == @by_k.WIDE")
    assert wide["excess"].mean() < 0
    untrained = by_k.by_distance(by_k.MAIN, "untrained")
    assert all(each.low < 0 < each.high for each in untrained)


def test_answers_on_vision_and_on_setting_follow_from_their_numbers() -> None:
    signs = [effect.split(" [")[0] for effect in vision.rows()[2][2].split("slope ")[1].split(", ")]
    assert signs[0].startswith("0.") and "−0." in vision.rows()[2][2]
    assert setting.difference(setting.LOSS, "couple 0.1").low > 0
    assert setting.difference(setting.LOSS, "couple -0.03").low > 0
    assert setting.difference("coupling", "sham").high < 0  # a sham that is not free of coupling
    assert setting.difference("damage.skip", "stochastic-depth", "couple 0.1").high < 0


@pytest.mark.slow
def test_answers_on_ablation_follow_from_their_numbers() -> None:
    for outcome in ("kl", "interaction"):
        assert all(test.p > 0.05 for test in ablation.each(outcome, "miscoupling", ablation.HELD))
    assert all(test.p > 0.05 for test in ablation.held_at_any_k())
    for k, m in ablation.BY_K.items():
        assert all(
            test.rho > 0.4 and (test.p <= 0.05 or k == 20) for test in ablation.each("kl", m)
        )
    for mine, other in zip(
        ablation.each("kl", "miscoupling"), ablation.each("kl", "block_influence"), strict=True
    ):
        assert 0 < mine.rho < other.rho and mine.p <= 0.05 + 1e-9
    skip, positive, count = ablation.over_models("skip", "interaction", "miscoupling")
    assert skip.high < 0 and positive <= 1 and count == 7
    assert ablation.over_models("replace", "interaction", "miscoupling")[0].low > 0
    assert ablation.over_models("skip", "interaction", "distance")[0].high < 0  # as distance does
    assert (displaced.own_over_random() > 1).all()
    told = ablation.related(
        displaced.FILE, "smollm2", "main", "displace", "interaction", "miscoupling"
    )
    assert told.p > 0.05


def test_the_smallest_effect_is_found_four_times_in_five() -> None:
    random = np.random.default_rng(0)
    sizes = [float(mean_of(random.normal(size=60)).smallest) for _ in range(100)]
    effect = np.mean(sizes)
    found = [mean_of(random.normal(effect, size=60)).excludes_zero for _ in range(1000)]
    # 1000 draws: a standard error of 0.013; Student's t of 59 is not quite normal.
    assert np.mean(found) == pytest.approx(0.8, abs=0.045)
    assert Correlation(0.1, -0.186, 0.371).smallest == "0.39"  # n = 48: tanh(2.80 / sqrt(45))


@pytest.mark.slow
def test_answers_on_interventions_follow_from_their_numbers() -> None:
    for arm in ("couple -0.01", "couple 0.1"):
        assert "equivalent" in gap.of(arm)["verdict"].split(", ")
        assert gap.difference(arm, gap.GAP, gap.TOKENS).high < 0  # slower training
    assert gap.of("less-text")["verdict"] == "different"
    assert gap.of("less-text")["estimate"] > gap.section().smallest_effect[gap.GAP]
    assert gap.difference("dropout").high < 0
    for arm in ("couple -0.01", "couple 0.1"):
        assert gap.difference(arm).low > gap.difference("dropout").value
    dearer = gap.difference("couple 0.1", gap.HELDOUT, gap.TOKENS, against="sham")
    free = gap.difference("sham", gap.HELDOUT, gap.TOKENS)
    assert dearer.low > 0 > free.low and free.high > 0
    assert gap.difference("sham", gap.GAP, gap.TOKENS).high < 0
    sham, dose = (setting.difference(gap.HELDOUT, arm) for arm in ("sham", "couple 0.1"))
    assert sham.value < 0.5 * dose.value
    assert setting.difference("coupling", "sham").high < 0


def test_answers_on_halves_follow_from_their_numbers() -> None:
    assert halves.difference("mlp", "attention").low > 0
    assert halves.difference("detached", "frobenius").low > 0
    assert (halves.prompts("main")["uv_cosine"] < 0).all()
    assert abs(halves.prompts("init")["uv_cosine"]).max() < 0.05
    change = halves.trained_minus_untrained("departure_from_normality")
    assert max(abs(change.low), abs(change.high)) < 0.1
    untrained = halves.prompts("init").filter(like="excess_")
    assert abs(untrained.mean()).max() < 0.001
