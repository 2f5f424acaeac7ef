"""Small files that a job or a careless hand may have replaced: read without waiting, and only so much."""

from __future__ import annotations

import errno
import os
import stat


def contents(path: str | os.PathLike[str], most_bytes: int) -> bytes:
    """Return a whole file. Raises OSError, for a pipe, a device or more than ``most_bytes`` too.

    Opening a pipe that nobody writes to would wait for ever.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {most_bytes:,} bytes", os.fspath(path))
    return data
