"""How the daemon starts: what it waits for, what ends it, and what it makes of its own process."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from daylily_daemon.adapters.own_process import MOST_FILES
from daylily_daemon.domain.model import State
from tests.disks import fill_up, small_disk
from tests.e2e.harness import PROGRAM, Daemon, Lab, until

NOBODY_LISTENS = "http://127.0.0.1:9"
HUSH = "hush-1f3a"


def waits_for(daemon: Daemon, words: str) -> None:
    """Wait until its log says that it waits, and why."""
    until(
        lambda: any(words in line["error"] for line in daemon.said("start_waits")),
        why=daemon.log_text,
    )


def shielded(pid: int) -> bool:
    """Tell whether the process has come so far that signals wait."""
    found = re.search(r"^SigBlk:\t(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return found is not None and bool(int(found[1], 16) >> (signal.SIGHUP - 1) & 1)


def started_by(shell: str) -> tuple[str, ...]:
    """Return the program as a shell starts it after some preparation."""
    return ("sh", "-c", f'{shell}; exec "$@"', "sh", *PROGRAM)


# What it waits for


def test_before_init_it_says_what_to_run_and_starts_once_that_was_done(empty_lab: Lab) -> None:
    daemon = empty_lab.start(wait=False)
    waits_for(daemon, "Run `daylily-daemon init`")
    until(lambda: "daylily-daemon init" in daemon.status().get("trouble", ""), why=daemon.log_text)
    assert empty_lab.run_cli("status").code != 0
    empty_lab.provision()
    daemon.send(signal.SIGHUP)  # it would look by itself within half a minute
    daemon.wait_up()
    empty_lab.wait_for(empty_lab.drop_sample("late"), State.COMPLETE)
    assert daemon.terminate() == 0


@pytest.mark.parametrize("gone", ["worksets", "events"])
def test_a_missing_table_is_named_and_waited_for(lab: Lab, gone: str) -> None:
    tables = {**lab.settings["tables"]}
    lab.configure(tables={gone: "nobodys-table"})
    daemon = lab.start(wait=False)
    waits_for(daemon, "nobodys-table")
    lab.configure(tables=tables)
    daemon.send(signal.SIGHUP)
    daemon.wait_up()
    assert daemon.terminate() == 0


def test_without_aws_it_says_so_once_waits_and_ends_when_told(lab: Lab) -> None:
    daemon = lab.start("--set", f"aws.endpoint_url={NOBODY_LISTENS}", wait=False)
    waits_for(daemon, f"The AWS endpoint {NOBODY_LISTENS} cannot be reached")
    daemon.send(signal.SIGHUP)
    daemon.wait_said("reloaded")
    assert len(daemon.said("start_waits")) == 1
    assert daemon.terminate() == 0
    assert not daemon.said("started")


def test_a_missing_topic_keeps_notices_waiting_and_nothing_else(lab: Lab) -> None:
    sns, topic = lab.aws("sns"), f"arn:aws:sns:us-west-2:123456789012:{lab.topic}"
    sns.delete_topic(TopicArn=topic)
    daemon = lab.start()
    lab.wait_for(lab.drop_sample("untold"), State.COMPLETE)
    assert "The topic" in daemon.wait_said("notice_delayed")["reason"]
    lab.provision()
    lab.wait_paid("untold")
    assert daemon.terminate() == 0


def test_settings_that_are_broken_while_it_waits_are_refused(lab: Lab) -> None:
    daemon = lab.start("--set", f"aws.endpoint_url={NOBODY_LISTENS}", wait=False)
    waits_for(daemon, NOBODY_LISTENS)
    for section, key, words in (("daemon", "sweep_s", "sweep_s"), ("daemon", "name", "holds it")):
        lab.configure(**{section: {key: "elsewhere" if key == "name" else "never"}})
        daemon.send(signal.SIGHUP)
        until(lambda w=words: w in str(daemon.said("reload_refused")), why=daemon.log_text)  # type: ignore[misc]
        lab.configure(daemon={"sweep_s": 2, "name": "lab"})
    assert daemon.terminate() == 0


@pytest.mark.reported(
    "G", "a full disk at start: an empty pid file or a loop of crashes (wazuh#821, mikopbx#1051)"
)
def test_a_full_disk_of_the_state_is_waited_for(lab: Lab, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        fill_up(disk / "rubbish")
        lab.configure(daemon={"state_dir": str(disk / "state")})
        daemon = lab.start(wait=False)
        waits_for(daemon, "No space left on device")
        (disk / "rubbish").unlink()
        daemon.wait_said("started")
        assert daemon.terminate() == 0


def test_a_stalled_folder_of_jobs_holds_up_no_stop(lab: Lab) -> None:
    """Its identity is a pipe that is opened and never written to: whoever reads it waits."""
    pipe = lab.state.path / "jobs" / "identity.json"
    pipe.parent.mkdir(parents=True)
    os.mkfifo(pipe)
    daemon = lab.start(wait=False)
    writers: list[int] = []
    until(lambda: _reader_came(pipe, writers), why=daemon.log_text)
    assert daemon.terminate() == 0
    os.close(writers.pop())


def _reader_came(pipe: Path, writers: list[int]) -> bool:
    """Try to open the pipe, which succeeds as soon as somebody reads; the descriptor is kept then."""
    with suppress(OSError):
        writers.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    return bool(writers)


def test_another_state_directory_is_taken_while_it_waits_for_one(lab: Lab, tmp_path: Path) -> None:
    good = lab.settings["daemon"]["state_dir"]
    with small_disk(tmp_path / "disk") as disk:
        fill_up(disk / "rubbish")
        lab.configure(daemon={"state_dir": str(disk / "state")})
        daemon = lab.start(wait=False)
        waits_for(daemon, "No space left on device")
        lab.configure(daemon={"state_dir": good})
        daemon.send(signal.SIGHUP)
        daemon.wait_up()
        assert daemon.terminate() == 0


def test_credentials_that_make_no_sense_are_waited_for(lab: Lab) -> None:
    told = lab.folder / "credentials.json"
    told.write_text("Session expired. Log in at https://sso.example/")
    config = lab.folder / "aws.ini"
    config.write_text(f"[default]\ncredential_process = cat {told}\n")
    kept = {name: value for name, value in os.environ.items() if "KEY" not in name}
    lab.outside = {**kept, "AWS_CONFIG_FILE": str(config)}
    daemon = lab.start(wait=False)
    waits_for(daemon, "no usable AWS credentials")
    keys = {"Version": 1, "AccessKeyId": "testing", "SecretAccessKey": "testing"}
    told.write_text(json.dumps(keys))
    daemon.send(signal.SIGHUP)
    daemon.wait_up()
    assert daemon.terminate() == 0


def test_a_state_directory_that_is_a_file_is_no_use_to_wait_for(lab: Lab) -> None:
    (lab.folder / "file").write_text("")
    answer = lab.run_cli("run", "--set", f"daemon.state_dir={lab.folder}/file/state")
    assert answer.code == 1
    assert "Set daemon.state_dir to a folder" in answer.words


def test_a_taken_port_for_metrics_keeps_no_workset_from_running(lab: Lab) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        lab.configure(metrics={"port": taken.getsockname()[1]})
        daemon = lab.start()
        assert "metrics.port" in daemon.wait_said("metrics_not_served")["error"]
        lab.wait_for(lab.drop_sample("unseen"), State.COMPLETE)
        assert daemon.terminate() == 0


# What ends it


def test_a_second_daemon_on_the_same_state_directory_names_the_first(lab: Lab) -> None:
    first = lab.start()
    second = lab.run_cli("run", "--config", str(lab.config))
    assert second.code == 1
    assert f"is in use by lab (process {first.process.pid}). Stop that daemon" in second.words
    assert first.terminate() == 0


def test_bad_settings_end_it_with_2_and_every_problem(lab: Lab) -> None:
    answer = lab.run_cli("run", "--set", "daemon.sweep_s=never", "--set", "control.bucket=")
    assert answer.code == 2
    assert "daemon.sweep_s is 'never'" in answer.words
    assert "control.bucket" in answer.words


# Signals


def test_sigterm_while_aws_does_not_answer_ends_it(lab: Lab) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        daemon = lab.start("--set", f"aws.endpoint_url={url}", wait=False)
        server.settimeout(60)
        with server.accept()[0]:  # which never gets an answer
            daemon.send(signal.SIGTERM)
            assert daemon.ended() == 0
    assert daemon.said("stopping")
    assert not daemon.said("started")


@pytest.mark.reported(
    "G", "SIGHUP before there is a handler ends the daemon (avahi#73, Spawning#33)"
)
def test_sighup_at_the_very_start_reads_the_settings_again_and_ends_nothing(lab: Lab) -> None:
    daemon = lab.start(wait=False)
    until(lambda: shielded(daemon.process.pid), why=daemon.log_text)
    for _ in range(20):
        daemon.send(signal.SIGHUP)
    daemon.wait_up()
    assert len(daemon.said("reloaded")) == 1
    assert daemon.terminate() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_at_the_very_start_is_an_orderly_end(lab: Lab, number: signal.Signals) -> None:
    daemon = lab.start(wait=False)
    until(lambda: shielded(daemon.process.pid), why=daemon.log_text)
    daemon.send(number)
    assert daemon.ended() == 0
    assert daemon.said("stopping")


@pytest.mark.reported("G", "a daemon started with SIGINT ignored obeys none (rag-rat#839)")
def test_signals_that_were_ignored_before_it_are_obeyed(lab: Lab) -> None:
    lab.program = started_by("trap '' INT HUP TERM")
    daemon = lab.start()
    daemon.send(signal.SIGHUP)
    daemon.wait_said("reloaded")
    daemon.send(signal.SIGINT)
    assert daemon.ended() == 0


# Its own process


def test_secrets_from_variables_are_in_nobodys_environment_and_outlive_a_reload(lab: Lab) -> None:
    lab.configure(notifications={"linear": {"enabled": True}})
    lab.pipeline("noting", run='tr "\\0" "\\n" < /proc/self/environ > "$gate.environ"')
    names = ("LINEAR_API_KEY", "DAYLILY_NOTIFICATIONS__LINEAR__TEAM_ID")
    lab.outside = {**os.environ, **dict.fromkeys(names, HUSH)}
    daemon = lab.start()
    daemon.send(signal.SIGHUP)
    assert daemon.wait_said("reloaded")["changed"] == []
    lab.wait_for(lab.drop_sample("curious"), State.COMPLETE)
    jobs = (lab.folder / "gates" / "curious.environ").read_text()
    own = environment_of(daemon)
    assert "PATH=" in jobs
    for name in (*names, HUSH, "DAYLILY_SECRETS_FD"):
        assert name not in jobs
    for name in (*names, HUSH):
        assert name not in own
    assert HUSH not in daemon.log_text()
    assert daemon.terminate() == 0


def environment_of(daemon: Daemon) -> str:
    """Return the environment it was started with; empty if that may not be read, as it should be."""
    try:
        return Path(f"/proc/{daemon.process.pid}/environ").read_text()
    except PermissionError:
        assert os.geteuid() != 0
        return ""


def test_it_takes_more_open_files_than_it_was_given_and_so_do_its_jobs(lab: Lab) -> None:
    lab.pipeline("noting", run='ulimit -n > "$gate.files"')
    lab.program = started_by("ulimit -Sn 256")
    daemon = lab.start()
    hard = int(open_files(daemon)[1])
    assert int(open_files(daemon)[0]) == min(hard, MOST_FILES)
    lab.wait_for(lab.drop_sample("wide"), State.COMPLETE)
    assert (lab.folder / "gates" / "wide.files").read_text().strip() == open_files(daemon)[0]
    assert daemon.terminate() == 0


def open_files(daemon: Daemon) -> tuple[str, str]:
    """Return the soft and the hard limit."""
    text = Path(f"/proc/{daemon.process.pid}/limits").read_text()
    found = re.search(r"^Max open files +(\d+) +(\d+)", text, re.MULTILINE)
    assert found is not None
    return found[1], found[2]


def test_idle_connections_to_the_metrics_keep_it_from_nothing(lab: Lab) -> None:
    """As 1,100 would with the limit that systemd gives: more of them than it may have files."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    lab.configure(metrics={"port": port})
    lab.program = started_by("ulimit -n 200")
    daemon = lab.start()
    with ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
        lab.wait_for(lab.drop_sample("busy"), State.COMPLETE)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as page:
            assert b'daylily_transitions_total{state="complete"} 1.0' in page.read()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=30) as page:
            assert (page.status, page.read()) == (200, b"ok\n")
    assert daemon.terminate() == 0


# Reading the settings again


def test_a_stalled_disk_of_the_settings_holds_nothing_up(lab: Lab) -> None:
    """The file becomes a pipe that nobody writes to: whoever reads it waits."""
    daemon = lab.start()
    lab.config.unlink()
    os.mkfifo(lab.config)
    for _ in range(5):
        daemon.send(signal.SIGHUP)
    passes = daemon.status()["passes"]
    until(lambda: daemon.status()["passes"] > passes + 1, why=daemon.log_text)
    assert daemon.terminate() == 0
