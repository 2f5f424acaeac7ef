"""``run``: the daemon itself."""

from __future__ import annotations

from functools import partial

from daylily_daemon.cli import later, printing
from daylily_daemon.cli.options import ConfigOption, SetOption, reporting, sources


def run(config: ConfigOption = None, set_: SetOption = None) -> None:
    """Run the daemon in the foreground until SIGTERM; SIGHUP reloads the settings.

    Example: daylily-daemon run --config /etc/daylily-daemon/config.yaml
    """
    with reporting():
        where = partial(sources, config, set_, "control.bucket")
        printing.leave(later.service.life(where, printing.log_stream()))
