"""Files and directories that appear complete or not at all."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blockcoupling.errors import (
    WRITING,
    MeasurementError,
    UserError,
    system_error,
    system_sentence,
)

UNFINISHED = ".tmp-"
REPLACED = ".old-"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def replacing(target: Path | str) -> Iterator[Path]:
    """Yield a path next to `target` to write to; it replaces `target` once the body succeeds.

    Works for a file and for a directory. A killed process leaves `.tmp-` or `.old-` files next to
    the target, never a half-written target; the next call removes them. An old directory is moved
    away first: a reader may briefly find nothing, but never a mixture of old and new. Only one
    process may write a target at a time.

    Raises:
        UserError: The file system is full or read-only; the message names the target.
    """
    target = Path(target)
    fresh = target.with_name(UNFINISHED + target.name)
    old = target.with_name(REPLACED + target.name)
    with _naming(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove(fresh)
        try:
            yield fresh
        except BaseException:
            _remove(fresh)
            raise
        _remove(old)
        if target.is_dir():
            target.rename(old)
        fresh.replace(target)
        _remove(old)


@contextmanager
def _naming(target: Path) -> Iterator[None]:
    """Name the target in errors of the system about writing it."""
    try:
        yield
    except (UserError, MeasurementError):
        raise
    except Exception as error:
        found = system_error(error)
        if found is None:
            raise
        near = str(target.parent)
        about_it = isinstance(found.filename, str) and found.filename.startswith(near)
        if found.errno not in WRITING and not about_it:
            raise  # about a file that was read
        sentence = system_sentence(OSError(found.errno, found.strerror), target)
        raise UserError(f"cannot write {sentence}") from error
