"""Downloads against a hub played here: what is fetched, what is tried again, what is said."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

from blockcoupling.errors import UserError
from blockcoupling.scores.scores import evaluate
from blockcoupling.sources import hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def answer(status: int) -> Any:
    return SimpleNamespace(status_code=status, headers={}, request=None)


class PlayedHub:
    """Answers what a hub would, and remembers what it was asked."""

    def __init__(self, files: list[str], failures: list[Exception], directory: Path) -> None:
        self.files, self.failures, self.directory = files, failures, directory
        self.infos = 0
        self.downloads: list[dict[str, Any]] = []

    def model_info(self, repository: str, revision: str) -> Any:
        self.infos += 1
        if self.failures:
            raise self.failures.pop(0)
        return SimpleNamespace(
            sha=COMMIT, siblings=[SimpleNamespace(rfilename=name) for name in self.files]
        )

    def snapshot_download(self, repository: str, **options: Any) -> str:
        if options.get("local_files_only"):
            if not (self.directory / "config.json").exists():
                raise errors.LocalEntryNotFoundError("not in the cache")
            return str(self.directory)
        self.downloads.append(options)
        return str(self.directory)


@pytest.fixture
def play(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[list[str], list[Exception]], PlayedHub]:
    def start(files: list[str], failures: list[Exception]) -> PlayedHub:
        played = PlayedHub(files, failures, tmp_path / COMMIT)
        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", played.model_info)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", played.snapshot_download)
        monkeypatch.setattr(huggingface_hub, "is_offline_mode", lambda: False)
        monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=lambda _: None))
        return played

    return start


def selected(patterns: list[str], files: list[str]) -> set[str]:
    wanted = huggingface_hub.utils.filter_repo_objects(
        files, allow_patterns=patterns, ignore_patterns=["*/*"]
    )
    return set(wanted)


REPOSITORY = [
    "config.json",
    "tokenizer.json",
    "tokenizer.model",
    "modeling.py",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "consolidated.safetensors",
    "model.fp16.safetensors",
    "pytorch_model.bin",
    "onnx/model.safetensors",
    "onnx/config.json",
    "README.md",
]


def test_one_copy_of_the_weights_is_fetched_at_the_resolved_commit(play) -> None:
    played = play(REPOSITORY, [])
    snapshot = hub.download_model("a/b", "main", allow_pickle=True)
    assert snapshot.commit == COMMIT
    (download,) = played.downloads
    assert download["revision"] == COMMIT
    assert selected(download["allow_patterns"], REPOSITORY) == {
        "config.json",
        "tokenizer.json",
        "tokenizer.model",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    }


def test_reinitialised_models_need_no_weights_and_trusted_ones_their_code(play) -> None:
    played = play(REPOSITORY, [])
    hub.download_model("a/b", weights=False, trust_remote_code=True)
    names = selected(played.downloads[0]["allow_patterns"], REPOSITORY)
    assert "modeling.py" in names
    assert not [n for n in names if n.endswith((".safetensors", ".bin"))]


def test_pickles_only_where_allowed(play) -> None:
    files = ["config.json", "pytorch_model.bin"]
    played = play(files, [])
    with pytest.raises(UserError, match=r"pickles .* only.*allow_pickle: true"):
        hub.download_model("a/b")
    hub.download_model("a/b", allow_pickle=True)
    assert selected(played.downloads[0]["allow_patterns"], files) == set(files)


def test_a_repository_without_weights(play) -> None:
    play(["config.json", "model.gguf"], [])
    with pytest.raises(UserError, match="no weights that transformers reads"):
        hub.download_model("a/b")


@pytest.mark.parametrize(
    "failure",
    [
        errors.HfHubHTTPError("overloaded", response=answer(503)),
        errors.HfHubHTTPError("slow down", response=answer(429)),
        ConnectionError("reset"),
        errors.LocalEntryNotFoundError("cannot connect"),
    ],
)
def test_what_passes_is_tried_again(play, failure: Exception, capsys) -> None:
    played = play(REPOSITORY, [failure, failure])
    assert hub.download_model("a/b").commit == COMMIT
    assert played.infos == 3
    assert "attempt 3 of 5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (errors.GatedRepoError("gated", response=answer(403)), "accept its licence at https://"),
        (errors.RepositoryNotFoundError("no", response=answer(404)), "is not on the hub"),
        (errors.RevisionNotFoundError("no", response=answer(404)), "there is no such revision"),
        (errors.HfHubHTTPError("no", response=answer(403)), "the hub answers 403"),
        (errors.HFValidationError("bad id"), "bad id"),
    ],
)
def test_what_stays_wrong_is_said_at_once(play, failure: Exception, words: str) -> None:
    played = play(REPOSITORY, [failure])
    with pytest.raises(UserError) as caught:
        hub.download_model("a/b", "v1")
    assert words in str(caught.value)
    assert "the model a/b, revision v1" in str(caught.value)
    assert played.infos == 1


def test_no_network_at_all(play) -> None:
    played = play(REPOSITORY, [ConnectionError("no route")] * 9)
    with pytest.raises(UserError, match=r"cannot be reached after 5 attempts.*HF_HUB_OFFLINE=1"):
        hub.download_model("a/b")
    assert played.infos == 5


def test_errors_of_this_program_are_not_the_hubs(play) -> None:
    play(REPOSITORY, [AttributeError("a bug")])
    with pytest.raises(AttributeError):
        hub.download_model("a/b")


def fill_cache(directory: Path) -> None:
    directory.mkdir()
    (directory / "config.json").touch()
    (directory / "model.safetensors").touch()


def test_a_cached_commit_asks_nobody(play) -> None:
    played = play(REPOSITORY, [])
    hub.download_model("a/b", COMMIT)
    assert played.infos == 1
    fill_cache(played.directory)
    assert hub.download_model("a/b", COMMIT) == hub.Snapshot(played.directory, COMMIT)
    assert played.infos == 1
    # A branch may have moved on.
    hub.download_model("a/b", "main")
    assert played.infos == 2


def test_a_cached_commit_without_weights_is_completed(play) -> None:
    played = play(REPOSITORY, [])
    played.directory.mkdir()
    (played.directory / "config.json").touch()
    hub.download_model("a/b", COMMIT)
    assert len(played.downloads) == 1


def test_offline(play, monkeypatch: pytest.MonkeyPatch) -> None:
    played = play(REPOSITORY, [])
    monkeypatch.setattr(huggingface_hub, "is_offline_mode", lambda: True)
    with pytest.raises(UserError, match="not in the cache, and HF_HUB_OFFLINE"):
        hub.download_model("a/b")
    fill_cache(played.directory)
    assert hub.download_model("a/b").commit == COMMIT
    assert played.infos == 0


def test_a_dataset_offline(play, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    import datasets

    def load(*_: object, **__: object) -> None:
        raise ConnectionError("OfflineModeIsEnabled")

    play([], [])
    monkeypatch.setattr(huggingface_hub, "is_offline_mode", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(UserError, match=r"the dataset a/b, revision main is not in the cache"):
        hub.dataset_rows("a/b", None, "test", "main")
    assert "attempt" not in capsys.readouterr().err


def put(cache: Path, kind: str, *names: str) -> Path:
    """A commit of the repository a/b in the hub's cache."""
    place = cache / f"{kind}s--a--b" / "snapshots" / COMMIT
    place.mkdir(parents=True)
    for name in names:
        (place / name).write_text("{}")
    return place


@pytest.mark.parametrize("revision", ["main", "refs/pr/1"])
def test_a_name_that_was_downloaded_is_found_offline(
    play, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, revision: str
) -> None:
    """Online the client is played here; offline it is the hub's own."""
    own = huggingface_hub.snapshot_download
    played = play(REPOSITORY, [])
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    played.directory = put(tmp_path, "model", "config.json", "model.safetensors")
    assert hub.download_model("a/b", revision).commit == COMMIT
    monkeypatch.setattr(huggingface_hub, "is_offline_mode", lambda: True)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", own)
    assert hub.download_model("a/b", revision) == hub.Snapshot(played.directory, COMMIT)
    with pytest.raises(UserError, match="revision another is not in the cache"):
        hub.download_model("a/b", "another")


def test_a_dataset_that_was_downloaded_by_name_is_found_offline(
    play, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import datasets

    prepared = tmp_path / "a___b" / "default" / "0.0.0" / COMMIT / "b-test.arrow"
    table = SimpleNamespace(cache_files=[{"filename": str(prepared)}])
    play([], [])
    info = SimpleNamespace(sha=COMMIT)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: info)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: table)
    put(tmp_path, "dataset")
    assert hub.dataset_table("a/b", None, "test", "main") == (table, COMMIT)
    monkeypatch.setattr(huggingface_hub, "is_offline_mode", lambda: True)
    assert hub.dataset_table("a/b", None, "test", "main") == (table, COMMIT)
    assert hub.dataset_table("a/b", None, "test", COMMIT) == (table, COMMIT)
    # `datasets` gives what it has of that name, whichever commit is asked for.
    with pytest.raises(UserError, match=f"not in the cache.*{COMMIT}"):
        hub.dataset_table("a/b", None, "test", "f" * 40)
    (tmp_path / "datasets--a--b" / "refs" / "main").write_text("f" * 40)
    with pytest.raises(UserError, match="not in the cache"):
        hub.dataset_table("a/b", None, "test", "main")


def test_results_of_a_repository_are_read(play) -> None:
    hub = play([".eval_results/gsm8k.yaml", "config.json"], [])
    folder = hub.directory / ".eval_results"
    folder.mkdir(parents=True)
    (folder / "gsm8k.yaml").write_text(
        "- dataset: {id: openai/gsm8k, task_id: gsm8k}\n  value: 41.5\n  date: 2026-02-03\n"
    )
    record = {"name": "a", "checkpoint": "main", "id": "lab/a", "revision": COMMIT, "identity": {}}
    (row,) = evaluate(record, {"repository": "refuse"}).to_dict("records")
    assert (row["score"], row["metric"], row["value"]) == ("gsm8k", "score", 41.5)
    assert row["date"] == "2026-02-03"
    (asked,) = hub.downloads
    assert asked["revision"] == COMMIT
    assert selected_by(asked["allow_patterns"], hub.files) == [".eval_results/gsm8k.yaml"]


def selected_by(patterns: list[str], files: list[str]) -> list[str]:
    return list(huggingface_hub.utils.filter_repo_objects(files, allow_patterns=patterns))
