"""What the start waits for, and that only the hopeless ends it."""

from __future__ import annotations

import errno

HOPELESS = {errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EINVAL}
