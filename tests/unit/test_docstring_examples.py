"""What the docstrings of `bc.*` show is what happens."""

import doctest
from pathlib import Path
from typing import Any

import pytest
from benchmarks.watching import TINY, small_model, tokens_of
from transformers import Trainer, TrainingArguments

import blockcoupling as bc
from blockcoupling.catalog import join


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a reader of an example has at hand: a model, its tokenizer, a measurement."""
    directory = tmp_path_factory.mktemp("examples")
    model = small_model(TINY).eval()
    bc.Watcher(model, ["Two roads"], tokens_of, every=1, k=5, store=directory / "coupling")(1)
    entry = directory / "coupling" / "step1" / "svd.yml"
    join([entry], directory / "catalog.yml")
    ds = bc.measure(model, tokens_of, ["Two roads", "One"], k=5)
    trainer = Trainer(model, TrainingArguments(str(directory / "training"), report_to=[]))
    given = {"model": model, "tokenizer": tokens_of, "ds": ds, "trainer": trainer}
    return {"bc": bc, "directory": directory, **given}


@pytest.mark.slow
@pytest.mark.parametrize("name", bc.__all__)
def test_examples_show_what_happens(
    name: str, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(names["directory"])
    shown = getattr(bc, name)
    (example,) = [
        each
        for each in doctest.DocTestFinder(recurse=False).find(shown, name, globs=dict(names))
        if each.examples
    ]
    said: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=said.append)
    assert not said, "".join(said)


def test_no_other_docstring_has_an_example_that_nobody_runs() -> None:
    source = Path(bc.__file__).parent
    written = sum(file.read_text(encoding="utf-8").count(">>> ") for file in source.rglob("*.py"))
    assert written == sum(getattr(bc, name).__doc__.count(">>> ") for name in bc.__all__)
