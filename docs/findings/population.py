"""Rows of the page on 48 language models that differ by design, from sweep_predictors.csv."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from docs.findings.estimates import Correlation, Estimate, mean_of, p_text

from blockcoupling.statistics.correlate import correlate
from blockcoupling.statistics.factors import covariates
from blockcoupling.statistics.partial import partial_correlation
from blockcoupling.statistics.prediction import predict
from blockcoupling.statistics.regression import jackknife
from blockcoupling.statistics.within import within_groups

HERE = Path(__file__).parent
SCORES = {"heldout": "heldout.nats_per_byte", "gap": "gap.nats_per_byte"}
TRAINING = "training.nats_per_byte"


@cache
def points() -> pd.DataFrame:
    """The checkpoints of the population."""
    return pd.read_csv(HERE / "sweep_predictors.csv")


@cache
def statistics() -> dict[str, pd.DataFrame]:
    """The corrected statistics of both scores, final checkpoints, by the name of their table."""
    table = points()
    parts = [
        table[["model", "checkpoint"]].assign(
            score=name, metric="nats_per_byte", value=table[column], higher_is_better=False
        )
        for name, column in SCORES.items()
    ]
    scores = pd.concat(parts, ignore_index=True)
    scored = [name for name in table if name.split(".")[0] in ("gap", "heldout", "training")]
    return {
        "correlation": correlate(table.drop(columns=scored), scores, checkpoints="final"),
        "prediction": predict(table.drop(columns=scored), scores, checkpoints="final"),
        "within": within_groups(table.drop(columns=scored), scores, checkpoints="final"),
    }


def row_of(table: str, **which: Any) -> Any:
    """One row of a table of `statistics`."""
    found = statistics()[table]
    for column, value in ({"subset": "final"} | which).items():
        found = found[found[column] == value]
    (row,) = found.to_dict("records")
    return row


def _interval(row: Any, name: str, kind: type[Estimate] = Estimate) -> Estimate:
    ends = (row[f"{name}_low"], row[f"{name}_high"])
    return kind(float(row[name]), *(float(end) for end in ends))


def gain(column: str) -> pd.Series:
    """Trained minus untrained, by model."""
    table = points().set_index("model")
    return table.loc[table["final"], column] - table.loc[table["untrained"], column]


def emergence_by_width() -> dict[int, Estimate]:
    """How much coupling training adds, by the width of the model."""
    width = points()[points()["final"]].set_index("model")["dimension"]
    return {int(w): mean_of(own) for w, own in gain("coupling").groupby(width)}


def rankme_given_training_loss() -> tuple[Correlation, float]:
    """Partial correlation of RankMe and held-out loss given hyperparameters and training loss."""
    final = points()[points()["final"]].reset_index(drop=True)
    held = covariates(final, "rankme", {}).assign(training=final[TRAINING]).to_numpy(float)
    x, y = final["rankme"].to_numpy(float), final[SCORES["heldout"]].to_numpy(float)
    r = partial_correlation(x, y, held)
    found = jackknife(x, y, final["model"].to_numpy(), r.r, held)
    return Correlation(r.r, found.low, found.high), r.p


def rows() -> list[list[str]]:
    """Question, answer, effect, what would have refuted the answer, smallest detectable effect."""
    emerged, overlap = mean_of(gain("coupling")), mean_of(gain("output_overlap"))
    widths = emergence_by_width()
    near = mean_of((points()["adjacent_coupling"] - points()["coupling"])[deep("final")])
    before = mean_of((points()["adjacent_coupling"] - points()["coupling"])[deep("untrained")])
    coupled = row_of("correlation", predictor="coupling", score="heldout")
    r = _interval(coupled, "pearson", Correlation)
    partial = _interval(coupled, "partial", Correlation)
    inside = {
        alike: _interval(
            row_of("within", predictor="coupling", score="heldout", alike=alike), "within"
        )
        for alike in ("width", "depth")
    }
    both = {"score": "heldout", "left_out": "model", "predictors": "hyperparameters + coupling"}
    added = row_of("prediction", **both)
    gains = Estimate(added["added_q2"], added["added_low"], added["added_high"])
    more = {
        name: _interval(row_of("correlation", predictor=name, score="heldout"), "r2_over_coupling")
        for name in ("log_parameters", "dimension", "rankme")
    }
    gap = row_of("correlation", predictor="coupling", score="gap")
    gap_partial = _interval(gap, "partial", Correlation)
    rank = row_of("correlation", predictor="rankme", score="heldout")
    given, given_p = rankme_given_training_loss()
    shape = row_of("correlation", predictor="line_shape_score", score="heldout")
    shaped = _interval(shape, "partial", Correlation)
    return [
        [
            "Does coupling emerge with training?",
            "yes on average; at the end of 500 updates hardly any is left at width 128",
            f"trained minus untrained {emerged}, up in {(gain('coupling') > 0).sum()} of 48; "
            + ", ".join(f"width {w}: {each}" for w, each in widths.items()),
            "a mean of 0",
            emerged.smallest,
        ],
        [
            "Do blocks learn to write into the same directions?",
            "yes, nearly always",
            f"output overlap above chance {overlap} higher, up in "
            f"{(gain('output_overlap') > 0).sum()} of 48",
            "a mean of 0",
            overlap.smallest,
        ],
        [
            "Are neighbouring blocks better coupled than others?",
            "yes, after training",
            f"coupling of neighbours minus that of all pairs {near}; untrained {before}",
            "a mean of 0",
            near.smallest,
        ],
        [
            "Does better coupling correlate with lower held-out loss?",
            "**no: with higher loss**",
            f"r = {r}; standardized slope at one width {inside['width']}, at one depth "
            f"{inside['depth']}",
            "r < 0",
            f"r = {r.smallest}",
        ],
        [
            "… controlling for size and hyperparameters?",
            "**no relation found**; a moderate one in either direction is not excluded",
            f"partial r = {partial} ({p_text(coupled['partial_p'])})",
            "an interval below 0",
            f"r = {partial.smallest}",
        ],
        [
            "Does coupling help to predict the loss of an unseen model?",
            "not shown, and at most by little",
            f"Q² with coupling minus Q² of hyperparameters alone {gains}",
            "an interval above 0",
            gains.smallest,
        ],
        [
            "Is it a stronger predictor than size?",
            "no: weaker than width; compared with parameters, undecided",
            f"R² of width minus R² of coupling {more['dimension']}; of log parameters "
            f"{more['log_parameters']}",
            "intervals below 0",
            f"{more['dimension'].smallest}; {more['log_parameters'].smallest}",
        ],
        [
            "Does it correlate with the generalization gap?",
            "not shown",
            f"r = {_interval(gap, 'pearson', Correlation)} (Holm "
            f"{p_text(gap['pearson_p_adjusted'])}); partial {gap_partial}",
            "a partial interval without 0",
            f"r = {gap_partial.smallest}",
        ],
        [
            "Is RankMe of the last states a better predictor?",
            "yes, because it follows the training loss; beyond that nothing is shown",
            f"R² minus that of coupling {more['rankme']}; partial r = "
            f"{_interval(rank, 'partial')}; with the training loss held as well {given} "
            f"({p_text(given_p)})",
            "nothing left over size; an interval without 0 over training loss",
            f"r = {given.smallest}",
        ],
        [
            "Does a measure related to coupling keep its relation with the loss?",
            "the line-shape score: the less straight the paths, the lower the loss",
            f"partial r = {shaped} (Holm over {int(shape['comparisons'])}: "
            f"{p_text(shape['partial_p_adjusted'])}); the other measures "
            f"{_others()}",
            "an adjusted p above 0.05",
            f"r = {shaped.smallest}",
        ],
    ]


def deep(stage: str, blocks: int = 3) -> pd.Series:
    """Checkpoints, untrained or final, with enough blocks to compare distances."""
    return points()[stage] & (points()["depth"] >= blocks)


def _others() -> str:
    names = (
        "output_overlap",
        "composition",
        "equidistance",
        "block_influence",
        "jacobian_norm",
        "cka",
    )
    found = [row_of("correlation", predictor=name, score="heldout") for name in names]
    least = min(row["partial_p_adjusted"] for row in found)
    return f"have {p_text(least)} or more"
