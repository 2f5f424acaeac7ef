"""``run``: the daemon itself."""

from __future__ import annotations

import sys
from functools import partial

from daylily_daemon.cli import later, printing
from daylily_daemon.cli.options import ConfigOption, SetOption, reporting, sources


def run(config: ConfigOption = None, set_: SetOption = None) -> None:
    """Run the daemon in the foreground until SIGTERM; SIGHUP reloads the settings.

    Example: daylily-daemon run --config /etc/daylily-daemon/config.yaml
    """
    with reporting():
        _import_structlog_alone()
        where = partial(sources, config, set_, "control.bucket")
        printing.leave(later.service.life(where, printing.log_stream()))


def _import_structlog_alone() -> None:
    """Import it without rich: megabytes that it would bring to draw tracebacks which we write ourselves."""
    if "rich" not in sys.modules:
        sys.modules["rich"] = None  # type: ignore[assignment]
        import structlog  # noqa: F401, PLC0415

        del sys.modules["rich"]
