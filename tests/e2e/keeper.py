"""What systemd is to a daemon: whoever starts the next one when one has ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

from tests.e2e.harness import Daemon, Lab


@contextmanager
def kept_running(lab: Lab) -> Iterator[None]:
    """Start the next daemon when one has ended, as systemd does."""
    over = Event()

    def keep(daemon: Daemon) -> None:
        while not over.wait(0.2):
            if daemon.process.poll() is not None:
                daemon = lab.start(wait=False)

    keeper = Thread(target=keep, args=(lab.start(),))
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()
