"""Alerts fired by what a daemon really shows: scraped once, and held in promtool for as long as a rule asks.

What counts time goes on as the clock does; counters rise once, from 0 to what was scraped. A scrape that is
not answered is ``up == 0``, as Prometheus has it.
"""

from __future__ import annotations

import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import yaml

from tests.arch.repository import ROOT
from tests.promtool import promtool

RULES: Final = ROOT / "deploy" / "prometheus" / "daylily.rules.yml"
JOB: Final = "daylily-daemon"
GROWS: Final = re.compile(r"_(failing|age|quietest|overdue)_seconds$|_age_seconds$")
LINE: Final = re.compile(r"(?P<name>\w+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
LOOKS_MIN: Final = (2, 20, 75)
"""After the time for which a rule waits: some look at the last minutes, some at an hour."""


def scraped(port: int) -> str | None:
    """Return what a daemon shows, None where it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
            body: bytes = page.read()
    except (OSError, urllib.error.URLError):
        return None
    return body.decode()


def fires(
    alert: str, scrapes: Sequence[str | None], now: float, folder: Path, *, rising: bool = False
) -> bool:
    """Tell whether ``alert`` fires if all stays as in ``scrapes``; ``rising`` lets counters rise on."""
    waits = _for_minutes(alert)
    minutes = waits + LOOKS_MIN[-1]
    series = [
        {"series": name, "values": values}
        for n, text in enumerate(scrapes)
        for name, values in _series(text, f"head{n}", now, minutes, rising=rising)
    ]
    test = {
        "interval": "1m",
        "input_series": series,
        "alert_rule_test": [
            {"eval_time": f"{waits + n}m", "alertname": f"Daylily{alert}", "exp_alerts": []}
            for n in LOOKS_MIN
        ],
    }
    file = folder / f"{alert}.test.yml"
    whole = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]}
    file.write_text(yaml.safe_dump(whole))
    done = subprocess.run(
        [promtool(), "test", "rules", file], capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0 or "got:[" in said.replace("\n", "").replace(" ", ""), said
    return done.returncode != 0


def _for_minutes(alert: str) -> int:
    (rule,) = [
        rule
        for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
        if rule["alert"] == f"Daylily{alert}"
    ]
    found = re.fullmatch(r"(\d+)([mhd])", rule.get("for", "0m"))
    assert found is not None
    return int(found[1]) * {"m": 1, "h": 60, "d": 1440}[found[2]]


def _series(
    text: str | None, instance: str, now: float, minutes: int, *, rising: bool
) -> Iterator[tuple[str, str]]:
    yield f'up{{instance="{instance}",job="{JOB}"}}', f"{int(text is not None)}x{minutes}"
    for line in (text or "").splitlines():
        found = LINE.fullmatch(line)
        if line.startswith("#") or found is None or found["name"].endswith("_bucket"):
            continue
        labels = ",".join(filter(None, (found["labels"], f'instance="{instance}"')))
        yield (
            f"{found['name']}{{{labels}}}",
            _values(found["name"], found["value"], now, minutes, rising),
        )


def _values(name: str, told: str, now: float, minutes: int, rising: bool) -> str:
    value = float(told)
    if name.endswith("_timestamp_seconds"):
        return f"{value - now:.3f}x{minutes}"
    if GROWS.search(name) and value > 0:
        return f"{value:.3f}+60x{minutes}"
    if name.endswith("_total"):
        return f"0+{value:.3f}x{minutes}" if rising else f"0 {value:.3f}x{minutes}"
    return f"{value}x{minutes}"
