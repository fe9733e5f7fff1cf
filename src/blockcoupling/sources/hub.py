"""The Hugging Face hub: downloads that are tried again, and failures that say what to do."""

import logging
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import tenacity

from blockcoupling.errors import UserError
from blockcoupling.transformer.weight_files import weight_files

logger = logging.getLogger(__name__)

T = TypeVar("T")

ATTEMPTS = 5
LONGEST_WAIT = 30.0
"""Seconds between two attempts, at most."""

_OFFLINE = (
    "is not in the cache, and HF_HUB_OFFLINE forbids to download it; unset HF_HUB_OFFLINE, or run "
    "once where there is a network"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_CONFIG = ["*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja"]
_SAFETENSORS = ["model.safetensors", "model-*.safetensors"]
_IGNORED = ["*/*"]  # folders hold exports to other formats
_PICKLES = ["pytorch_model.bin", "pytorch_model-*.bin"]


@dataclass(frozen=True)
class Snapshot:
    """A downloaded revision: its directory, and the commit that the revision stood for."""

    path: Path
    commit: str


def download_model(
    repository: str,
    revision: str = "main",
    *,
    weights: bool = True,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
) -> Snapshot:
    """Bring a model's configuration, tokenizer and weights into the hub's cache.

    A commit that is in the cache already is taken from there, without a question to the hub; with
    HF_HUB_OFFLINE=1 so is any revision, as it was when it was downloaded last.

    Args:
        repository: The model's id, such as `EleutherAI/pythia-70m`.
        revision: Branch, tag or commit.
        weights: False leaves the weights where they are (re-initialised models need none).
        allow_pickle: Take `.bin` weights where there are no safetensors.
        trust_remote_code: Also take the repository's Python files.

    Raises:
        UserError: the model, the revision or the network is not there, a licence has not been
            accepted, or the weights are pickles and `allow_pickle` is false.
    """
    import huggingface_hub

    what = f"the model {repository}, revision {revision}"
    page = f"https://huggingface.co/{repository}"
    base = _CONFIG + (["*.py"] if trust_remote_code else [])

    if huggingface_hub.is_offline_mode() or _COMMIT.fullmatch(revision):
        for kind in ([_SAFETENSORS] + [_PICKLES] * allow_pickle) if weights else [[]]:
            try:
                found = huggingface_hub.snapshot_download(
                    repository,
                    revision=revision,
                    allow_patterns=base + kind,
                    ignore_patterns=_IGNORED,
                    local_files_only=True,
                )
            except huggingface_hub.errors.LocalEntryNotFoundError:
                continue
            path = Path(found)
            suffix = ".bin" if kind is _PICKLES else ".safetensors"
            files = weight_files(path, suffix) if weights else []
            complete = all(file.is_file() for file in files) and (files or not weights)
            if complete and (path / "config.json").is_file():
                return Snapshot(path, path.name)
        if huggingface_hub.is_offline_mode():
            raise UserError(f"{what} {_OFFLINE}")

    info = _attempt(
        lambda: huggingface_hub.HfApi().model_info(repository, revision=revision), what, page
    )
    names = {file.rfilename for file in info.siblings or []}
    kind = _weights_of(what, names, allow_pickle) if weights else []
    found = _attempt(
        lambda: huggingface_hub.snapshot_download(
            repository, revision=info.sha, allow_patterns=base + kind, ignore_patterns=_IGNORED
        ),
        what,
        page,
    )
    _name_commit(Path(found).parents[1], revision, str(info.sha))
    return Snapshot(Path(found), str(info.sha))


def download_results(repository: str, revision: str) -> Path:
    """Bring the evaluation results of a model's repository into the hub's cache.

    Returns:
        A directory; it has no `.eval_results` where the repository has none.

    Raises:
        UserError: as `download_model`.
    """
    import huggingface_hub

    offline = huggingface_hub.is_offline_mode()
    found = _attempt(
        lambda: huggingface_hub.snapshot_download(
            repository,
            revision=revision,
            allow_patterns=[".eval_results/*"],
            local_files_only=offline,
        ),
        f"the results of {repository}, revision {revision}",
        f"https://huggingface.co/{repository}",
    )
    return Path(found)


def _name_commit(repository: Path, revision: str, commit: str) -> None:
    """Note in the hub's cache which commit a revision stands for, so that it is found offline.

    The hub's client does so only for what is downloaded under the revision's own name.

    Args:
        repository: directory of a repository in the cache.
        revision: branch, tag or commit.
        commit: that it stood for.
    """
    if revision != commit:
        named = repository / "refs" / revision
        try:
            named.parent.mkdir(parents=True, exist_ok=True)
            named.write_text(commit)
        except OSError as error:
            logger.warning("%s cannot be written (%s): offline, name the commit", named, error)


def _dataset_in_cache(repository: str) -> Path:
    """Directory of a dataset in the hub's cache."""
    from huggingface_hub import constants, file_download

    name = file_download.repo_folder_name(repo_id=repository, repo_type="dataset")
    return Path(constants.HF_HUB_CACHE) / name


def dataset_table(
    repository: str, config: str | None, split: str, revision: str
) -> tuple[Any, str]:
    """A dataset's split (of `datasets`), and the commit that the revision stood for.

    Raises:
        UserError: the dataset, its configuration, split or revision, or the network is not there.
    """
    import datasets
    import huggingface_hub

    what = f"the dataset {repository}, revision {revision}"
    page = f"https://huggingface.co/datasets/{repository}"
    commit, cached = revision, _dataset_in_cache(repository)
    if huggingface_hub.is_offline_mode():
        named = cached / "refs" / revision
        commit = named.read_text().strip() if named.is_file() else revision
    elif not _COMMIT.fullmatch(revision):
        api = huggingface_hub.HfApi()
        info = _attempt(lambda: api.dataset_info(repository, revision=revision), what, page)
        commit = str(info.sha)
    try:
        table = _attempt(
            lambda: datasets.load_dataset(repository, name=config, split=split, revision=commit),
            what,
            page,
        )
    except datasets.exceptions.DatasetNotFoundError as error:
        raise UserError(f"{what} cannot be had: {error}; see {page}") from error
    except (ValueError, RuntimeError) as error:  # no such configuration or split; a script
        raise UserError(f"{what}, configuration {config}, split {split}: {error}") from error
    if huggingface_hub.is_offline_mode():
        # `datasets` takes what it prepared last, whatever the revision is.
        held = {Path(file["filename"]).parent.name for file in table.cache_files}
        if commit not in held and _COMMIT.fullmatch(commit):
            raise UserError(f"{what} {_OFFLINE} (the cache has {', '.join(sorted(held))})")
        commit = next(iter(held), commit)
    elif cached.is_dir():
        _name_commit(cached, revision, commit)
    return table, commit


def dataset_rows(
    repository: str, config: str | None, split: str, revision: str
) -> tuple[list[dict[str, Any]], str]:
    """All rows of a dataset's split, and the commit; see `dataset_table`."""
    table, commit = dataset_table(repository, config, split, revision)
    return list(table), commit


def _weights_of(what: str, names: set[str], allow_pickle: bool) -> list[str]:
    """The patterns that select one copy of a repository's weights."""

    def among(stem: str, suffix: str) -> bool:
        return any(re.fullmatch(rf"{stem}(-[^/]*)?\.{suffix}", name) for name in names)

    if among("model", "safetensors"):
        return _SAFETENSORS
    if not among("pytorch_model", "bin"):
        raise UserError(f"{what} has no weights that transformers reads (model*.safetensors)")
    if not allow_pickle:
        raise UserError(
            f"{what} has its weights as pickles (.bin) only, which can run code when loaded; "
            "choose a revision with safetensors, or set allow_pickle: true if you trust them"
        )
    return _PICKLES


def _attempt(action: Callable[[], T], what: str, page: str) -> T:
    """Run `action`, again where the network or the hub's servers fail; explain what stays wrong."""
    from huggingface_hub import errors, is_offline_mode

    def passing(error: BaseException) -> bool:
        if is_offline_mode():
            return False
        if isinstance(error, errors.HfHubHTTPError):
            return error.response.status_code in (408, 429) or error.response.status_code >= 500
        lost = (errors.HTTPError, errors.LocalEntryNotFoundError, ConnectionError, TimeoutError)
        return isinstance(error, lost)

    def say(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        wait = state.upcoming_sleep
        print(
            f"{what}: {_first_line(error)}; attempt {state.attempt_number + 1} of {ATTEMPTS} in "
            f"{wait:.0f} s",
            file=sys.stderr,
            flush=True,
        )

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(passing),
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=tenacity.wait_exponential_jitter(initial=1.0, max=LONGEST_WAIT),
        before_sleep=say,
        reraise=True,
    )
    try:
        return retrying(action)
    except errors.GatedRepoError as error:
        raise UserError(
            f"{what} is gated: accept its licence at {page}, then log in with `hf auth login`, or "
            "set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(
            f"{what}: there is no such revision; its branches and tags are listed at "
            f"{page}/tree/main"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"{what} is not on the hub ({page}), or is private; check the spelling, and for a "
            "private one log in with `hf auth login`"
        ) from error
    except errors.HFValidationError as error:
        raise UserError(f"{what}: {_first_line(error)}") from error
    except errors.HfHubHTTPError as error:
        raise UserError(
            f"{what}: the hub answers {error.response.status_code} ({_first_line(error)}); see "
            f"{page}"
        ) from error
    except Exception as error:
        if is_offline_mode() and isinstance(error, ConnectionError | FileNotFoundError):
            raise UserError(f"{what} {_OFFLINE}") from error
        if not passing(error):
            raise
        raise UserError(
            f"{what}: the hub cannot be reached after {ATTEMPTS} attempts ({_first_line(error)}); "
            "check the network, or set HF_HUB_OFFLINE=1 where the files are in the cache"
        ) from error


def _first_line(error: BaseException | None) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
