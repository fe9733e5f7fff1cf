"""Errors of the input, of measurements and of the system, and what to do about them."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

_FULL = "free some room, or write to another file system"
_ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: "your quota is used up: remove what is not needed, or write elsewhere",
    errno.EFBIG: "the file is too large (ulimit -f, or the file system): write elsewhere",
    errno.EROFS: "choose a writable directory",
    errno.EACCES: "permission denied: check the permissions, or choose another place",
    errno.EPERM: "permission denied: check the permissions, or choose another place",
    errno.ENOTDIR: "part of the path is a file: choose another path",
    errno.EEXIST: "a file is in place of a directory: remove it, or choose another path",
    errno.EISDIR: "it is a directory: name a file",
    errno.ENAMETOOLONG: "a name in it is too long: choose a shorter one",
    errno.ENOENT: "check the path",
    errno.EIO: "the file system has failed: check it, or use another one",
    errno.EMFILE: "too many files are open: raise ulimit -n",
}
WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
"""Error numbers of failed writes."""
# Libraries with their own I/O keep only the text of the system's error.
_WORDS = {
    "No space left on device": errno.ENOSPC,
    "Disk quota exceeded": errno.EDQUOT,
    "File too large": errno.EFBIG,
    "Read-only file system": errno.EROFS,
}


_MODULES = {
    "study": "datasets distributed fsspec intake jinja2 plotly pyarrow rich sklearn snakemake "
    "snakemake_interface_logger_plugins statsmodels threadpoolctl tornado",
    "train": "kornia tokenizers",
    "slurm": "dask_jobqueue snakemake_executor_plugin_slurm",
    "quantization": "accelerate bitsandbytes",
    "harness": "lm_eval",
    "sentencepiece": "google sentencepiece",
    "dashboard": "bokeh",
}
EXTRAS = {module: extra for extra, modules in _MODULES.items() for module in modules.split()}
"""The extra that installs a module that not everybody needs (pyproject.toml)."""


class UserError(Exception):
    """The input is wrong; the message says what is wrong and what to do.

    The command line prints the message alone (no traceback) and exits with status 2.
    """


class MeasurementError(Exception):
    """A measured quantity cannot be trusted (non-finite, exactly -I or 0, not converged).

    The message names the model, the block and the prompt if they are known.
    """


@contextmanager
def explained_imports() -> Iterator[None]:
    """Say which extra to install where the body imports a package that is not installed.

    Raises:
        UserError: A package of one of the `EXTRAS` is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRAS:
            raise
        raise UserError(
            f"the package {module} is not installed: pip install 'blockcoupling[{EXTRAS[module]}]'"
        ) from error


def importable(module: str) -> bool:
    """Whether a module is installed."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # its package is not
        return False


def system_error(error: BaseException) -> OSError | None:
    """The system error that an exception is, was raised from, or quotes; None otherwise.

    Args:
        error: The exception; libraries wrap system errors in their own types.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno is not None:
            return seen
        for words, number in _WORDS.items():
            if words in str(seen):
                return OSError(number, words)
        if code := re.search(r"\(os error (\d+)\)", str(seen)):
            return OSError(int(code[1]), str(seen))
        seen = seen.__cause__ or seen.__context__
    return None


def system_sentence(error: OSError, place: object = None) -> str:
    """One sentence: the path, the system's message, and what to do.

    Args:
        error: The system's error.
        place: The path, if the error does not name it.
    """
    path = error.filename if isinstance(error.filename, str) else place
    where = "" if path is None else f"{path}: "
    if error.errno == errno.ENOENT and "usable temporary directory" in str(error.strerror):
        return (
            f"{error.strerror}: they are full or may not be written to; set TMPDIR to a directory "
            "with room"
        )
    return f"{where}{error.strerror}; {_ADVICE.get(error.errno or 0, 'see --debug')}"
