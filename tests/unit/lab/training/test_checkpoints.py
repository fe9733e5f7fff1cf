"""A training goes on from its states, to the bits of one that was never interrupted."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from blockcoupling.lab.training import checkpoints, keep_states, train
from blockcoupling.lab.training.run import Run

SPEC = {
    "name": "tiny",
    "hidden_size": 32,
    "blocks": 2,
    "heads": 4,
    "context": 32,
    "batch": 8,
    "steps": 12,
    "learning_rate": 1.0e-2,
    "dropout": 0.2,  # what is dropped goes on, too
    "text": 0.5,
    "seed": 0,
    "checkpoints": [0, 4, 12],
}


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


def equal(first: Path, second: Path) -> bool:
    a, b = weights(first), weights(second)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Every checkpoint that a test asks for, of a training without states."""
    spec = SPEC | {"checkpoints": [0, 4, 6, 7, 12]}
    return train(spec, tmp_path_factory.mktemp("straight"), threads=1)


@pytest.fixture(scope="module")
def _states(tmp_path_factory: pytest.TempPathFactory) -> Path:
    states = tmp_path_factory.mktemp("states")
    keep_states(SPEC, states, threads=1)
    return states


@pytest.fixture
def states(_states: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(_states, tmp_path / "states"))


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Steps whose update was made."""
    made: list[int] = []
    update = Run.update

    def counted(run: Run) -> None:
        update(run)
        made.append(run.step)

    monkeypatch.setattr(Run, "update", counted)
    return made


def test_states_are_kept_at_the_checkpoints_without_pickle(states: Path) -> None:
    assert sorted(path.name for path in states.iterdir()) == [
        "step0",
        "step12",
        "step4",
        "trained.json",
    ]
    endings = {path.suffix for path in states.rglob("*") if path.is_file()}
    assert endings == {".safetensors", ".json"}


def test_a_checkpoint_whose_state_is_there_costs_no_update(
    states: Path, straight: dict[int, Path], updates: list[int], tmp_path: Path
) -> None:
    saved = train(SPEC, tmp_path / "out", threads=1, states=states)
    assert updates == []
    for step, path in saved.items():
        assert equal(path, straight[step])
        assert (path / "training.json").read_text() == (
            straight[step] / "training.json"
        ).read_text()


def test_and_does_not_load_torch(states: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from blockcoupling.lab.training import train;"
        f"train({SPEC!r}, {str(tmp_path / 'out')!r}, states={str(states)!r});"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_added_checkpoint_is_made_from_the_state_before_it(
    states: Path, straight: dict[int, Path], updates: list[int], tmp_path: Path
) -> None:
    added = train(SPEC | {"checkpoints": [6]}, tmp_path / "out", threads=1, states=states)
    assert updates == [5, 6]
    assert list(added) == [6]
    assert equal(added[6], straight[6])
    train(SPEC | {"checkpoints": [7]}, tmp_path / "out", threads=1, states=states)
    assert updates == [5, 6, 7]
    assert equal(tmp_path / "out" / "step7", straight[7])


def test_a_later_checkpoint_goes_on_from_the_last(
    straight: dict[int, Path], updates: list[int], tmp_path: Path
) -> None:
    keep_states(SPEC | {"checkpoints": [4]}, tmp_path / "states", threads=1)
    assert updates == [1, 2, 3, 4]
    more = train(SPEC, tmp_path / "out", threads=1, states=tmp_path / "states")
    assert updates == list(range(1, 13))
    assert all(equal(more[step], straight[step]) for step in more)


def test_a_training_that_was_killed_goes_on_to_the_same_bits(
    straight: dict[int, Path],
    updates: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN_STATES", -1.0)
    counted = Run.update

    def killed(run: Run) -> None:
        counted(run)
        if run.step == 9:
            raise KeyboardInterrupt

    with monkeypatch.context() as only_now:
        only_now.setattr(Run, "update", killed)
        with pytest.raises(KeyboardInterrupt):
            train(SPEC, tmp_path / "out", threads=1, states=tmp_path / "states")
    assert not (tmp_path / "out").exists()
    saved = train(SPEC, tmp_path / "out", threads=1, states=tmp_path / "states")
    assert updates == [*range(1, 10), *range(9, 13)]  # 8 was kept, 9 was not yet
    assert all(equal(saved[step], straight[step]) for step in saved)
    assert not list((tmp_path / "states").glob("towards*"))


@pytest.mark.parametrize(
    "arm",
    [
        {"penalty": {"weight": 0.5, "k": 4, "every": 2}},
        {"penalty": {"weight": 0.5, "k": 4, "kind": "sham"}},
        {"stochastic_depth": 0.5},
        {"tied": True},
        {"penalty": {"weight": 0.5, "k": 4}, "stochastic_depth": 0.5, "tied": True},
    ],
    ids=str,
)
def test_every_kind_of_training_goes_on_to_the_same_bits(
    arm: dict[str, object], updates: list[int], tmp_path: Path
) -> None:
    spec = SPEC | arm | {"steps": 6}
    straight = train(spec | {"checkpoints": [0, 3, 6]}, tmp_path / "straight", threads=1)
    assert updates == [1, 2, 3, 4, 5, 6]
    states = tmp_path / "states"
    keep_states(spec | {"checkpoints": [3]}, states, threads=1)
    resumed = train(spec | {"checkpoints": [6]}, tmp_path / "out", threads=1, states=states)
    assert updates[6:] == [1, 2, 3, 4, 5, 6]
    assert equal(resumed[6], straight[6])
    assert not equal(straight[3], straight[6])
    plain = train(SPEC | {"steps": 6, "checkpoints": [0, 6]}, tmp_path / "plain", threads=1)
    # The same start, but for blocks that follow the first, and another end.
    assert equal(straight[0], plain[0]) != ("tied" in arm)
    assert not equal(straight[6], plain[6])


@pytest.mark.parametrize("file", ["model/model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["flipped", "missing", "truncated"])
def test_a_damaged_state_is_not_gone_on_from(
    states: Path, straight: dict[int, Path], tmp_path: Path, file: str, damage: str
) -> None:
    victim = states / "step4" / file
    content = bytearray(victim.read_bytes())
    if damage == "missing":
        victim.unlink()
    else:
        content[len(content) // 2] ^= 1
        victim.write_bytes(content if damage == "flipped" else content[: len(content) // 2])
    saved = train(SPEC | {"checkpoints": [6]}, tmp_path / "out", threads=1, states=states)
    assert equal(saved[6], straight[6])


def test_states_of_another_training_are_as_good_as_absent(
    states: Path, updates: list[int], tmp_path: Path
) -> None:
    other = SPEC | {"seed": 1, "checkpoints": [4]}
    from_states = train(other, tmp_path / "out", threads=1, states=states)
    assert updates == [1, 2, 3, 4]
    assert equal(from_states[4], train(other, tmp_path / "straight", threads=1)[4])


def test_the_small_file_differs_wherever_the_weights_do(tmp_path: Path) -> None:
    told = []
    for seed in (0, 1):
        out = train(SPEC | {"seed": seed, "checkpoints": [0]}, tmp_path / str(seed), threads=1)
        told.append((out[0] / "training.json").read_text().replace(f'"seed": {seed}', ""))
    assert told[0] != told[1]


def test_states_are_of_a_text_whatever_python_it_comes_with(
    states: Path, updates: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = checkpoints.corpus()
    monkeypatch.setattr(checkpoints, "corpus", lambda: replace(there, source="of another Python"))
    keep_states(SPEC, states, threads=1)
    assert not updates
    monkeypatch.setattr(checkpoints, "corpus", lambda: replace(there, digest="another text"))
    keep_states(SPEC | {"checkpoints": [0, 1]}, states, threads=1)
    assert updates
