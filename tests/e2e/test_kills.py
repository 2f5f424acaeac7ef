"""Worksets run while the daemon is killed again and again, at random moments of its life.

``KILLS=200 WORKSETS=50`` makes the long form; ``SEED`` other moments, ``EMULATOR=ministack`` another AWS.
The figures of the last run are in ``.cache/figures/kills.json``.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from random import Random
from time import monotonic, sleep  # noqa: TID251 - the moments of the kills, and a figure

import pytest

from daylily_daemon.domain.model import State
from tests.e2e.conftest import MakeLab
from tests.e2e.harness import Lab
from tests.e2e.listeners import Told, mail_box, webhook
from tests.emulators import CACHE

STEPS = ("stage", "run", "export", "metrics")
NUMBER = "n=${1%% *}; n=${n#kill-}; "
"""The number in the name of the workset, which decides how long its jobs last and how one of them ends."""
LASTS = NUMBER + "sleep $((n % 3)).$((n % 7))"
ENDS = NUMBER + "exit $((n % 7))"
TOLD = [State.READY, State.IN_PROGRESS, State.COMPLETE]
AFTER_START_S = 1.6
"""Most of these kills hit a daemon that is not up yet."""
AFTER_UP_S = 1.5
SETTLED_WITHIN_S = 240.0
LONGEST_S = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    seed: int
    kills: int
    kills_with_jobs_running: int
    worksets: int
    jobs: int
    seconds: float
    repeated_notices: int


@dataclass(slots=True)
class Storm:
    """Drops of worksets, spread over the kills."""

    lab: Lab
    random: Random
    kills: int
    worksets: int
    dropped: int = 0
    struck: int = 0
    """Kills that left a job running."""

    def rage(self) -> None:
        for kill in range(1, self.kills + 1):
            while self.dropped * self.kills < kill * self.worksets:
                self.lab.drop_sample(f"kill-{self.dropped}")
                self.dropped += 1
            self._strike()

    def _strike(self) -> None:
        daemon = self.lab.start(wait=False)
        if self.random.random() < 0.75:
            daemon.wait_up()
            sleep(self.random.uniform(0, AFTER_UP_S))
        else:
            sleep(self.random.uniform(0, AFTER_START_S))
        assert daemon.process.poll() is None, daemon.log_text()
        daemon.kill()
        self.struck += bool(self.lab.running_jobs())

    @property
    def names(self) -> list[str]:
        return [f"kill-{n}" for n in range(self.worksets)]


def _asked(name: str, default: int) -> int:
    return int(os.environ.get(name) or default)


@pytest.mark.timeout(LONGEST_S)
def test_no_kill_loses_a_workset_runs_a_job_twice_or_tells_it_twice(make_lab: MakeLab) -> None:
    seed = _asked("SEED", 1)
    lab = make_lab(os.environ.get("EMULATOR") or "moto")
    lab.configure(queues={"visibility_s": 10}, daemon={"max_worksets": 6})
    lab.pipeline("noting", **dict.fromkeys(STEPS[:-1], LASTS), metrics=ENDS)
    storm = Storm(lab, Random(seed), _asked("KILLS", 20), _asked("WORKSETS", 8))
    mail, began = mail_box(lab), monotonic()
    with webhook(lab) as hook:
        storm.rage()
        lab.start()
        for name in storm.names:
            lab.wait_for(name, State.COMPLETE, SETTLED_WITHIN_S)
            lab.wait_paid(name)
        seconds = monotonic() - began
        assert lab.daemons[-1].terminate() == 0
    mailed = mail.empty()
    _assert_each_job_ran_once(lab, storm)
    for told in (hook, mailed):
        _assert_everybody_was_told_once(lab, storm, told)
    _note(
        Figures(
            seed=seed,
            kills=storm.kills,
            kills_with_jobs_running=storm.struck,
            worksets=storm.worksets,
            jobs=lab.evidence().total(),
            seconds=round(seconds, 1),
            repeated_notices=hook.repeats + mailed.repeats,
        )
    )


def _assert_each_job_ran_once(lab: Lab, storm: Storm) -> None:
    jobs = {f"{name} 1 {step}": 1 for name in storm.names for step in STEPS}
    assert lab.evidence() == jobs
    codes = {f"kill-{n} 1 metrics": n % 7 for n in range(storm.worksets)}
    assert lab.exit_codes() == dict.fromkeys(jobs, 0) | codes
    for n, name in enumerate(storm.names):
        ws = lab.load(name)
        assert ws is not None
        assert (ws.state, ws.attempt, ws.retry_count) == (State.COMPLETE, 1, 0)
        said = " ".join(record.message for record in lab.trail(name))
        assert ("step metrics failed and the run goes on" in said) is bool(n % 7)
        assert not n % 7 or f"exit code {n % 7}" in said
        assert lab.get(f"{ws.request.prefix}daylily.complete")


def _assert_everybody_was_told_once(lab: Lab, storm: Storm, told: Told) -> None:
    assert told.changed() == []
    expected = set()
    for name in storm.names:
        notices = [record for record in lab.trail(name) if record.notify]
        assert [record.state for record in notices] == TOLD
        assert [record.given_up for record in notices] == [frozenset()] * len(TOLD)
        assert told.of(name) == [record.id for record in notices]
        expected |= {record.id for record in notices}
    assert set(told.once) == expected


def _note(figures: Figures) -> None:
    folder = CACHE / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(figures), indent=1)
    (folder / "kills.json").write_text(text + "\n", encoding="utf-8")
