"""Files and directories that appear whole or not at all."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
    """
    target = Path(target)
    fresh = target.with_name(UNFINISHED + target.name)
    old = target.with_name(REPLACED + target.name)
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
