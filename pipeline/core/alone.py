"""One process at a time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from pipeline.core.params import UserError


@contextmanager
def alone(file: Path, is_held: Callable[[], str], what: str = "") -> Iterator[None]:
    """Holds the lock ``file``, whose folder is made. The lock of a dead process holds nobody up.

    Raises ``UserError`` at once: with the line ``is_held()`` where another process holds it, and, begun by ``what``,
    where it cannot be written.
    """
    lock = filelock.FileLock(file, timeout=0)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout:
        raise UserError(is_held()) from None
    except OSError as error:
        raise UserError(f"{what}cannot write to {error.filename or file.parent}: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()
