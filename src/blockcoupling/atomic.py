"""Files and directories that appear whole or not at all."""

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
    """Yield a path beside `target` to write to; put it in `target`'s place once the body succeeds.

    Works for a file and for a directory. A process killed on the way leaves `.tmp-` or `.old-`
    leftovers beside the target, never a half-written target; the next call clears them. An old
    directory is moved out of the way first, so that for an instant a reader may find nothing, but
    never a mixture of old and new. One writer a target is assumed.

    Raises:
        UserError: the file system is full or may not be written to; names the target.
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
    """Say of which file it is that the system does not let it be written."""
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
            raise  # of what was read for it
        sentence = system_sentence(OSError(found.errno, found.strerror), target)
        raise UserError(f"cannot write {sentence}") from error
