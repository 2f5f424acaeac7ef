"""What ``init`` makes in AWS."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from daylily_daemon.adapters.patience import Patience
from daylily_daemon.adapters.provision import Provisioner
from daylily_daemon.bootstrap import open_clients, wanted_of
from daylily_daemon.settings.model import Settings


class MissingParts(Protocol):
    """A part that is not there, or not as it should be."""

    @property
    def what(self) -> str:
        """What making it does, to follow ``would``."""
        ...

    @property
    def do(self) -> Callable[[], Awaitable[None]]: ...


@asynccontextmanager
async def provisioning(
    settings: Settings,
    *,
    create_bucket: bool,
    drop_old_indexes: bool = False,
    tell: Callable[[str], None],
) -> AsyncIterator[AsyncIterator[MissingParts]]:
    """Yield what is missing, one part after another; ``tell`` is given sentences about waits."""
    async with open_clients(settings) as clients:
        wanted = wanted_of(settings, create_bucket=create_bucket, drop_old_indexes=drop_old_indexes)
        yield Provisioner(clients.aws, wanted, Patience(tell=tell)).missing()
