"""How tests are dealt to the processes of ``pytest -n``: by file, and stories of the simulation one by one.

The tests of a file may share an emulator or a folder; so ``--dist loadfile``. The simulation shares nothing
and takes the longest, and all its seeds are in one file: dealt as a file, they would keep one core busy
alone.
"""

from __future__ import annotations

from typing import Final

from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

STORIES: Final = "tests/sim/"


class ByFileOrStory(LoadFileScheduling):  # type: ignore[misc]
    def _split_scope(self, nodeid: str) -> str:
        return nodeid if nodeid.startswith(STORIES) else str(super()._split_scope(nodeid))
