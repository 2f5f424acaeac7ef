"""How a cost grows, as a ratio within one run: seconds say more of the machine than of the program."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

TRIES: Final = 3
LINEAR_WITHIN: Final = 3.0
"""What noise may add to a linear cost; a quadratic one exceeds it from four times the input on."""


def cost_s(work: Callable[[], object]) -> float:
    """Return the least CPU time of some tries, in seconds."""

    def once() -> float:
        began = time.thread_time()  # noqa: TID251 - this is the one place
        work()
        return time.thread_time() - began  # noqa: TID251

    return min(once() for _ in range(TRIES))


def assert_linear(work: Callable[[int], object], small: int, big: int) -> None:
    """Fail if ``work`` on ``big`` costs much more than its size against ``small`` would explain."""
    ratio = cost_s(lambda: work(big)) / max(cost_s(lambda: work(small)), 1e-6)
    assert ratio < LINEAR_WITHIN * big / small, (
        f"{big / small:.0f} times the input costs {ratio:.0f} times"
    )
