"""A wire to an emulator that can be cut and joined again while programs use it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Thread
from urllib.parse import urlsplit


@dataclass(slots=True)
class Wire:
    """Hands every connection on, or resets it while it is cut."""

    listener: socket.socket
    target: tuple[str, int]
    is_cut: bool = False
    _open: list[socket.socket] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def cut(self) -> None:
        self.is_cut = True
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def join(self) -> None:
        self.is_cut = False

    def serve(self) -> None:
        """Until the listener is closed."""
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                if self.is_cut:
                    client.close()
                    continue
                server = socket.create_connection(self.target)
                self._open += [client, server]
                for one, other in ((client, server), (server, client)):
                    Thread(target=_pump, args=(one, other), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


@contextmanager
def wire_to(url: str) -> Iterator[Wire]:
    at = urlsplit(url)
    assert at.hostname is not None
    assert at.port is not None
    with socket.create_server(("127.0.0.1", 0)) as listener:
        wire = Wire(listener, (at.hostname, at.port))
        serving = Thread(target=wire.serve, daemon=True)
        serving.start()
        yield wire
        wire.cut()
        listener.shutdown(socket.SHUT_RDWR)
    serving.join()
