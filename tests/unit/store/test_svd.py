import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from example_store import example

from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.store.schema import SchemaError
from blockcoupling.store.svd import ATTRIBUTES, COORDINATES, SVD, VARIABLES, check_values

DOCUMENT = Path(__file__).parents[3] / "docs" / "schema.md"


def without_attribute(name):
    def remove(ds):
        return ds.drop_attrs().assign_attrs({k: v for k, v in ds.attrs.items() if k != name})

    return remove


# What is done to a valid dataset, and what the message must then name.
VIOLATIONS = {
    "missing variable": (lambda ds: ds.drop_vars("gram"), ["gram: missing", "prompt, token"]),
    "missing coordinate": (lambda ds: ds.drop_vars("token_in"), ["token_in: missing"]),
    "foreign variable": (lambda ds: ds.assign(extra=1.0), ["extra: not in the schema"]),
    "data type": (
        lambda ds: ds.assign(S=ds["S"].astype("float64")),
        ["S: data type float64, expected float32"],
    ),
    "two data types allowed": (
        lambda ds: ds.assign(U=ds["U"].astype("float64")),
        ["U: data type float64, expected float32 or float16"],
    ),
    "axes": (
        lambda ds: ds.assign(S=ds["S"].transpose("prompt", "pair", "k", "block")),
        ["S: axes (prompt, pair, k, block), expected (prompt, pair, block, k)"],
    ),
    "counting from 0": (
        lambda ds: ds.assign_coords(block=ds["block"] - 1),
        ["block: expected to count 1, 2"],
    ),
    "gap in a count": (lambda ds: ds.isel(k=[0, 2], k_other=[0, 2]), ["k: expected to count"]),
    "half of the vectors": (lambda ds: ds.drop_vars("V"), ["U, V: only one"]),
    "not square": (lambda ds: ds.isel(k_other=slice(2)), ["k_other: 2 entries, expected 4"]),
    "a state too few": (lambda ds: ds.isel(state=slice(3)), ["state: 3 entries, expected 4"]),
    "one block": (
        lambda ds: ds.isel(block=[0], block_other=[0], state=[0, 1], state_other=[0, 1]),
        ["at least 2 blocks"],
    ),
    "same id twice": (lambda ds: ds.isel(prompt=[0, 0]), ["prompt: ids must differ"]),
    "an overlap": (
        lambda ds: ds.drop_vars("composition"),
        ["output_overlap, input_overlap, composition: only some of them", "all or none"],
    ),
    "attribute": (without_attribute("revision"), ["attribute revision: missing"]),
    "other version": (
        lambda ds: ds.assign_attrs(schema_version=99),
        ["schema_version 99", "run the extraction again"],
    ),
    "no version": (without_attribute("schema_version"), ["schema_version None"]),
}


@pytest.fixture
def ds():
    return example(2, vectors=True, swapped=True, overlaps=True)


def test_the_example_follows_the_schema(ds):
    SVD.validate(ds)
    SVD.validate(example(3, tokens=[2, 5, 3], all_tokens=True))


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_violation_is_named(ds, name):
    violate, messages = VIOLATIONS[name]
    with pytest.raises(SchemaError) as error:
        SVD.validate(violate(ds))
    for message in messages:
        assert message in str(error.value)


def test_all_violations_are_named_at_once(ds):
    with pytest.raises(SchemaError, match=r"(?s)S: data type.*gram: missing"):
        SVD.validate(ds.drop_vars("gram").assign(S=ds["S"].astype("float64")))


def test_what_is_optional_may_be_missing(ds):
    optional = [name for name, variable in (VARIABLES | COORDINATES).items() if variable.optional]
    SVD.validate(ds.drop_vars(optional, errors="ignore"))


def with_value(ds, name, value, **at):
    changed = ds.copy(deep=True)
    changed[name][at] = value
    return changed


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "name", ["S", "A", "gram", "jacobian_norm", "svd_residual", "U", "input_overlap"]
)
def test_a_number_that_is_not_finite_is_refused(ds, name, value):
    one = ds.isel(prompt=[1])
    check_values(one)
    axis = "block" if "block" in one[name].dims else "token"
    bad = with_value(one, name, value, **{axis: 1})
    label = int(one[axis].values[1])
    with pytest.raises(
        MeasurementError, match=rf"{name} is not finite at prompt p1, {axis} {label}"
    ):
        check_values(bad)


def test_singular_values_that_cannot_be_are_refused(ds):
    one = ds.isel(prompt=[0])
    with pytest.raises(MeasurementError, match=r"exactly zero .* prompt p0, block 2"):
        check_values(with_value(one, "S", 0.0, block=1))
    with pytest.raises(MeasurementError, match="do not descend at prompt p0, block 3"):
        check_values(with_value(one, "S", 1e3, block=2, k=3))


def test_a_jacobian_of_zero_is_zero_in_all_its_numbers(ds):
    one = ds.isel(prompt=[0])
    for name in ("S", "A", "A_swapped", "jacobian_norm", "svd_residual"):
        one = with_value(one, name, 0.0, block=1)
    check_values(one)
    for name in ("jacobian_norm", "svd_residual"):
        with pytest.raises(MeasurementError, match=r"exactly zero .* prompt p0, block 2"):
            check_values(with_value(one, name, 1e-9, block=1))


def test_shorter_prompts_are_padded():
    whole = example(2, tokens=[3, 5], all_tokens=True)
    assert whole["tokens"].values.tolist() == [3, 5]
    assert whole["token_in"].values.tolist() == [[0, 1, 2, -1, -1], [0, 1, 2, 3, 4]]
    assert whole["token_text"].values[0].tolist() == ["t0", "t1", "t2", "", ""]
    for name, axis in (("gram", "token"), ("A", "pair"), ("jacobian_norm", "pair")):
        padded = whole[name].isel(prompt=0).isnull().any(set(whole[name].dims) - {"prompt", axis})
        assert padded.values.tolist() == [False, False, False, True, True]
        assert whole[name].isel(prompt=1).notnull().all()


def test_combining_keeps_order_and_numbers():
    alone = [example(1, seed=seed).assign_coords(prompt=[f"id {seed}"]) for seed in (2, 0, 1)]
    whole = SVD.combine(alone)
    assert whole["prompt"].values.tolist() == ["id 2", "id 0", "id 1"]
    for index, part in enumerate(alone):
        xr.testing.assert_equal(whole.isel(prompt=[index]), part)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"k": 3}, "`k` has 4 and 3 entries"),
        ({"blocks": 4}, "`block` has 3 and 4 entries"),
        ({"vectors": True}, "only one of them has U, V"),
    ],
)
def test_what_does_not_belong_together_is_not_combined(other, message):
    second = example(1, **other).assign_coords(prompt=["q"])
    with pytest.raises(UserError, match="prompts p0 and q") as error:
        SVD.combine([example(1), second])
    assert message in str(error.value)


def test_the_document_and_the_table_agree():
    store, _ = DOCUMENT.read_text().split("\n## Tables\n")  # what follows has other arrays
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*)$", store, flags=re.MULTILINE))
    for name, variable in (VARIABLES | COORDINATES).items():
        axes, dtypes, presence, _ = [cell.strip() for cell in rows[name].split("|")][:4]
        assert axes == ", ".join(variable.dims), name
        assert dtypes == " or ".join(variable.dtypes), name
        assert presence == ("optional" if variable.optional else "always"), name
    assert set(ATTRIBUTES) <= set(rows)
