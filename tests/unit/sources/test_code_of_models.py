"""A directory of somebody else's model runs nothing of theirs, unless its entry allows it."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_model import save_tiny_model

from blockcoupling.errors import UserError
from blockcoupling.sources.models import load_model, load_streamed, model_record
from blockcoupling.transformer.streaming import stream_model

CODE = "open({mark!r}, 'w').close()\nclass Theirs: pass\n"


class Command:
    """What a pickle runs when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.mark), "w"))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model") / "tiny", hidden_size=8)


@pytest.fixture
def theirs(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "theirs")


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "mark"


def spec(directory: Path, **more: Any) -> dict[str, Any]:
    return {
        **{"name": "theirs", "checkpoint": "main", "source": "local", "path": str(directory)},
        **more,
    }


def change(file: Path, **settings: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def a_class_of_the_configuration(theirs: Path, mark: Path) -> None:
    (theirs / "theirs.py").write_text(CODE.format(mark=str(mark)))
    change(
        theirs / "config.json",
        model_type="theirs",
        auto_map={"AutoConfig": "theirs.Theirs", "AutoModelForCausalLM": "theirs.Theirs"},
    )


def a_class_beside_a_known_kind(theirs: Path, mark: Path) -> None:
    (theirs / "theirs.py").write_text(CODE.format(mark=str(mark)))
    names = {"AutoConfig": "theirs.Theirs", "AutoModelForCausalLM": "theirs.Theirs"}
    change(theirs / "config.json", auto_map=names)


def a_class_of_the_tokenizer(theirs: Path, mark: Path) -> None:
    (theirs / "theirs.py").write_text(CODE.format(mark=str(mark)))
    names = {"AutoTokenizer": ["theirs.Theirs", "theirs.Theirs"]}
    change(theirs / "tokenizer_config.json", auto_map=names, tokenizer_class="Theirs")


def a_pickle_in_the_index(theirs: Path, mark: Path) -> None:
    (theirs / "model.safetensors").unlink()
    (theirs / "model-1.bin").write_bytes(pickle.dumps(Command(mark)))
    index = {"metadata": {}, "weight_map": {"gpt_neox.embed_in.weight": "model-1.bin"}}
    (theirs / "model.safetensors.index.json").write_text(json.dumps(index))


def a_pickle_under_the_name_of_weights(theirs: Path, mark: Path) -> None:
    (theirs / "model.safetensors").write_bytes(pickle.dumps(Command(mark)))


def a_pickle_that_the_configuration_names(theirs: Path, mark: Path) -> None:
    (theirs / "evil.bin").write_bytes(pickle.dumps(Command(mark)))
    change(theirs / "config.json", transformers_weights="evil.bin")


def pickled_weights(theirs: Path, mark: Path) -> None:
    (theirs / "model.safetensors").unlink()
    (theirs / "pytorch_model.bin").write_bytes(pickle.dumps(Command(mark)))


def a_pickled_adapter(theirs: Path, mark: Path) -> None:
    (theirs / "adapter_model.bin").write_bytes(pickle.dumps(Command(mark)))
    adapter = {"peft_type": "LORA", "base_model_name_or_path": str(theirs), "r": 1}
    (theirs / "adapter_config.json").write_text(json.dumps(adapter))


def a_pickled_adapter_of_another_directory(theirs: Path, mark: Path) -> None:
    base = shutil.copytree(theirs, theirs.parent / "base")
    for file in theirs.glob("*model*"):
        file.unlink()
    (theirs / "config.json").unlink()
    a_pickled_adapter(theirs, mark)
    change(theirs / "adapter_config.json", base_model_name_or_path=str(base))


def an_attention_from_elsewhere(theirs: Path, mark: Path) -> None:
    """transformers takes kernels from the hub where a configuration names them."""
    change(theirs / "config.json", attn_implementation="somebody/kernels")
    change(theirs / "config.json", _attn_implementation="somebody/kernels")


WAYS_IN = [
    a_class_of_the_configuration,
    a_class_beside_a_known_kind,
    a_class_of_the_tokenizer,
    a_pickle_in_the_index,
    a_pickle_under_the_name_of_weights,
    a_pickle_that_the_configuration_names,
    pickled_weights,
    a_pickled_adapter,
    a_pickled_adapter_of_another_directory,
    an_attention_from_elsewhere,
]
HARMLESS = (a_class_beside_a_known_kind, a_class_of_the_tokenizer, an_attention_from_elsewhere)
"""What is left aside, where transformers has what it needs of its own."""


@pytest.fixture(autouse=True)
def nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(_: str = "") -> str:
        raise AssertionError("the user was asked whether to run it")

    monkeypatch.setattr("builtins.input", asked)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("put", WAYS_IN)
def test_nothing_of_theirs_runs(put, stream: bool, theirs: Path, mark: Path) -> None:
    put(theirs, mark)
    try:
        record = model_record(spec(theirs))
        loaded = load_streamed(record, "cpu") if stream else load_model(record, "cpu")
    except UserError as error:
        said = str(error)
        assert put not in HARMLESS or "trust" in said
        assert any(
            word in said for word in ("trust", "pickle", "safetensors", "adapter", "weights")
        )
    else:
        assert put in HARMLESS
        assert type(loaded[0]).__module__.startswith(("transformers.", "blockcoupling."))
    assert not mark.exists()


def test_streaming_runs_nothing_where_an_entry_allows_it(theirs: Path, mark: Path) -> None:
    a_class_of_the_configuration(theirs, mark)
    with pytest.raises(ValueError, match="trust_remote_code"):
        stream_model(theirs)
    assert not mark.exists()


def test_it_runs_where_the_entry_allows_it(theirs: Path, mark: Path) -> None:
    """The guard above is what keeps it from running, not chance."""
    a_class_of_the_configuration(theirs, mark)
    with pytest.raises(UserError, match="cannot be loaded"):  # what it defines is no model
        model_record(spec(theirs, trust_remote_code=True))
    assert mark.exists()
