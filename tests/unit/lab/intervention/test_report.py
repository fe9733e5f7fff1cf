"""Arms read through a catalog: paired, tabulated, drawn and reported; errors name the problem."""

from pathlib import Path

import pytest
from synthetic_study import analyse, write_study

from blockcoupling.catalog import Catalog, join, write_entry
from blockcoupling.config.intervention import Intervention
from blockcoupling.errors import UserError
from blockcoupling.figures import draw
from blockcoupling.lab.intervention.arms import members
from blockcoupling.lab.intervention.report import section
from blockcoupling.lab.intervention.statistics import write_intervention
from blockcoupling.report.part import Part, part_of

SIZE = {"blocks": 3, "dimension": 32, "parameters": 90_000}
SECTION = Intervention(control="plain", doses=["couple"], smallest_effect={"heldout.loss": 1e-6})
ASKED = {"k": 10, "variant": "frobenius"}


def _facts(population: str, **factors: object) -> dict[str, object]:
    return {**SIZE, "facts": {"population": population, "factors": factors}}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("arms")


@pytest.fixture(scope="module")
def measured(root: Path) -> Catalog:
    models = {f"plain-{seed}": _facts("plain", seed=seed) for seed in range(3)}
    for weight in (-0.1, 1):
        for seed in range(3):
            factors = {"penalty.weight": weight, "seed": seed}
            models[f"couple{weight}-{seed}"] = _facts("couple", **factors)
    models["alone"] = dict(SIZE)
    return write_study(root, models, steps=(0, 600), prompts=2)


@pytest.fixture(scope="module")
def compared(root: Path, measured: Catalog) -> Catalog:
    analyse(root, measured, arms=False)
    out = root / "statistics" / "intervention.parquet"
    for kind, path in write_intervention(measured, out, SECTION, metric="loss", **ASKED).items():
        write_entry(root / "entries" / f"{kind}.yml", kind, path)
    return join((root / "entries").glob("*.yml"), root / "catalog" / "all.yml")


@pytest.mark.slow
def test_members_are_paired_by_what_the_control_was_given(measured: Catalog) -> None:
    table = members(measured, ["plain", "couple"], **ASKED)
    assert list(table["arm"].unique()) == ["plain", "couple -0.1", "couple 1"]
    assert set(table["pair"]) == {"seed 0", "seed 1", "seed 2"}
    assert set(table["stratum"]) == {""}
    assert "alone" not in set(table["model"])
    scores = measured.search(kind="score", model="plain-1", checkpoint="step600").frame()
    mine = table[(table["model"] == "plain-1") & table["final"]].iloc[0]
    assert mine["heldout.loss"] == scores.set_index("metric").loc["loss", "value"]
    coupling = measured.search(kind="coupling", model="plain-1", checkpoint="step600")
    one = coupling.frame(filters=[("k", "==", 10), ("variant", "==", "frobenius")])
    assert mine["coupling"] == pytest.approx(one.groupby("dataset")["coupling"].mean().mean())


def test_arms_without_distinct_pairs_are_refused(tmp_path: Path) -> None:
    models = {f"plain-{n}": _facts("plain", hidden_size=32) for n in range(2)}
    models["couple-0"] = _facts("couple", hidden_size=32)
    study = write_study(tmp_path, models, steps=(0, 600), prompts=1)
    with pytest.raises(UserError, match="two members"):
        members(study, ["plain", "couple"], **ASKED)


def test_what_the_catalog_lacks_is_named(measured: Catalog, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="population 'tied'"):
        members(measured, ["plain", "tied"], **ASKED)
    wrong = SECTION.model_copy(update={"smallest_effect": {"heldout.los": 0.1}})
    with pytest.raises(UserError, match=r"heldout\.loss"):
        write_intervention(measured, tmp_path / "i.parquet", wrong, metric="loss", **ASKED)


@pytest.mark.slow
def test_the_table_has_every_arm_against_the_control(compared: Catalog) -> None:
    table = compared.one(kind="intervention").read()
    own = table[(table["analysis"] == "difference") & (table["outcome"] == "heldout.loss")]
    assert list(own["arm"]) == ["couple -0.1", "couple 1"]
    assert (own["pairs"] == 3).all()
    arms = (
        compared.one(kind="arms").read().query("final").set_index(["arm", "pair"])["heldout.loss"]
    )
    expected = (arms["couple 1"] - arms["plain"]).mean()
    assert own.iloc[1]["estimate"] == pytest.approx(expected)


def test_it_is_drawn_and_reported(compared: Catalog) -> None:
    for name in ("intervention_doses", "intervention_arms"):
        figure = draw(name, compared)
        assert any("heldout" in axes.get_title() for axes in figure.axes)
    found = section(_part(compared))
    assert found is not None
    assert any("couple 1" in sentence for sentence in found.sentences)
    assert found.headline.startswith("Heldout, accuracy per unit of coupling")
    assert len(found.tables[0].rows) == len(compared.one(kind="intervention").read())


@pytest.mark.slow
def test_a_study_without_arms_has_no_such_section(tmp_path: Path) -> None:
    plain = analyse(tmp_path, write_study(tmp_path, steps=(0, 600), prompts=2), arms=False)
    assert section(_part(plain)) is None
    assert draw("intervention_doses", plain).axes == []


def _part(catalog: Catalog) -> Part:
    return part_of(catalog, "text")
