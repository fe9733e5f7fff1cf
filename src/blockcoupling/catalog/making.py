"""Provenance of an artifact, kept in its entry.

The verb that makes an artifact writes it; `blockcoupling provenance` shows it. No number depends
on it.
"""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import blockcoupling
from blockcoupling.catalog.plain import relative
from blockcoupling.store.checksums import digest

LIBRARIES = (
    *("numpy", "torch", "transformers", "tokenizers", "safetensors", "bitsandbytes", "peft"),
    *("datasets", "lm_eval", "xarray", "zarr", "pandas", "pyarrow", "scipy", "scikit-learn"),
    *("statsmodels", "matplotlib", "intake", "snakemake"),
)
"""Libraries that numbers, tables and figures depend on."""

_OF_MODEL = (
    *("source", "id", "revision", "revision_requested", "path", "name", "checkpoint"),
    *("identity", "training"),
)


def making(
    words: Sequence[str],
    inputs: Mapping[str, Path],
    model: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Describe how this process makes something.

    Args:
        words: the command line after `blockcoupling`: configuration and seeds, as the job had them.
        inputs: files that were read, by their role (`model`, `prompts`, `catalog` …).
        model: the record of the model that was measured, where one was; of one trained here with
            the content of its `training.json`, as `training`.

    Returns:
        `command`, its words; `code` (`version`, and of a checkout `commit` and whether files in
        it `changed` since); `libraries` by name, Python's included; `machine`; `inputs`, each with
        `path` and `digest`; and `model`: where it came from, its revision, hashes of its content,
        and of one trained here how that was done. Paths are absolute:
        :func:`with_relative_paths` makes them relative to the artifact.
    """
    files = {name: Path(path) for name, path in inputs.items()}
    return {
        "command": ["blockcoupling", *words],
        "code": dict(_code()),
        "libraries": dict(_libraries()),
        "machine": _machine(),
        "inputs": {
            name: {"path": str(path.absolute()), "digest": digest(path)}
            for name, path in files.items()
        },
        **({"model": {key: model[key] for key in _OF_MODEL if model.get(key)}} if model else {}),
    }


def with_relative_paths(made: Mapping[str, Any], artifact: Path) -> dict[str, Any]:
    """Return the same with the paths of inputs seen from an artifact's directory.

    A study can be moved as a whole, and the paths lead to its own files again.
    """
    inputs = {
        name: {**each, "path": relative(Path(each["path"]), artifact.absolute().parent)}
        for name, each in made["inputs"].items()
    }
    return {**made, "inputs": inputs}


@cache
def _code() -> Mapping[str, Any]:
    own = Path(blockcoupling.__file__).parent
    found: dict[str, Any] = {"version": blockcoupling.__version__}
    checkout = own.parents[1]
    # Not the repository of an environment that the package is installed in.
    if own.parent.name == "src" and (checkout / ".git").exists():
        commit = _git(checkout, "rev-parse", "HEAD")
        changed = _git(checkout, "status", "--porcelain", "--", "src", "workflow", "Snakefile")
        if commit is not None and changed is not None:
            found |= {"commit": commit, "changed": bool(changed)}
    return found


def _git(checkout: Path, *words: str) -> str | None:
    """Return git's answer; None without git, or if it refuses (a checkout of another user)."""
    command = ["git", "--no-optional-locks", "-C", str(checkout), *words]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return ended.stdout.strip()


@cache
def _libraries() -> Mapping[str, str]:
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # an extra that is not installed
            continue
    return found


def _machine() -> str:
    """Return what decides the last bits of a number: system, processor, threads, device."""
    parts = [f"{platform.system()} {platform.machine()}"]
    torch = sys.modules.get("torch")
    if torch is not None:
        parts.append(f"torch on {torch.get_num_threads()} threads")
        if torch.cuda.is_initialized():
            parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)
