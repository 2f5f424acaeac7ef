"""A secret that is planted wherever one may be is in no support bundle, and in nothing that is printed."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from daylily_daemon.cli.sampledata import SampleWorkset
from daylily_daemon.domain.model import State
from daylily_daemon.settings.keys import LEAVES
from tests.e2e.harness import PREFIX, Lab, opened, until

HUSH: Final = "Zx9hush"
"""Begins every secret; what follows says where it was planted."""
KEYS: Final = [key for key, leaf in LEAVES.items() if leaf.secret]
LOOKS: Final = (
    ("status",),
    ("status", "--json"),
    ("list", "-o", "wide"),
    ("show", "planted"),
    ("explain", "planted"),
    ("events", "planted", "--json"),
    ("logs", "planted"),
    ("check-config",),
    ("check-config", "--json"),
    ("doctor",),
    ("doctor", "--json"),
    ("notify", "status"),
    ("dlq", "list", "--json"),
    ("reload", "--wait"),
    ("prune", "--older", "0s", "--dry-run"),
    ("version",),
    ("init", "--dry-run"),
)


def hush(place: str) -> str:
    return f"{HUSH}-{place}"


def _secrets() -> dict[str, dict[str, Any]]:
    """Return sections of settings with a secret in every setting that is one; two channels are on."""
    found: dict[str, dict[str, Any]] = {}
    for key in KEYS:
        _, channel, name = key.split(".")
        value = hush(key)
        found.setdefault(channel, {})[name] = (
            f"http://127.0.0.1:9/{value}?token={value}" if "url" in name else value
        )
    for channel in ("slack", "webhook"):
        found[channel]["enabled"] = True
    return found


@pytest.fixture(scope="module")
def planted(moto_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A daemon, a workset that is complete and one that failed, and secrets in all that they are made of."""
    folder = tmp_path_factory.mktemp("planted") / hush("path")
    folder.mkdir()
    with opened(folder, moto_url) as lab:
        lab.configure(
            notifications=_secrets(),
            daemon={"name": hush("name"), "urgent_customers": [hush("customer")]},
            queues={"intake": f"intake-{hush('queue')}"},
            retry={"patterns": [_pattern()]},
        )
        lab.outside = {**os.environ, **_environment()}
        lab.pipeline("noting", stage=f"echo {hush('log')}", run="", export="")
        file = lab.pipelines / "noting.yaml"
        pipeline = yaml.safe_load(file.read_text())
        pipeline["description"] = hush("pipeline")
        pipeline["steps"][0]["environment"] = {"TOKEN": hush("step")}
        file.write_text(yaml.safe_dump(pipeline))
        lab.pipeline("broken", run=f"echo 'fatal: {hush('failure')}' >&2; exit 3")
        lab.provision()
        lab.start()
        lab.drop_sample("planted")
        _drop_with_a_secret(lab)
        lab.wait_for("planted", State.COMPLETE)
        lab.wait_for("broken", State.FAILED)
        _plant_in_the_item(lab)
        _plant_in_the_records(lab)
        yield lab


def _pattern() -> Mapping[str, Any]:
    return {
        "pattern": hush("pattern"),
        "code": "WS-LAB-001",
        "category": "data",
        "retry": False,
        "meaning": hush("meaning"),
    }


def _environment() -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": hush("key-id"),
        "AWS_SECRET_ACCESS_KEY": hush("secret-key"),
        "AWS_SESSION_TOKEN": hush("session"),
        "LAB_TOKEN": hush("token"),
        "LAB_URL": f"https://user:{hush('password')}@lab.example/",
        "HTTPS_PROXY": f"http://user:{hush('proxy')}@127.0.0.1:9",
        "NO_PROXY": "127.0.0.1",
    }


def _drop_with_a_secret(lab: Lab) -> None:
    folder = lab.sample(
        "broken", SampleWorkset(samples=1, reads=10, read_length=20, pipeline="broken")
    )
    recipe = folder / "daylily_work.yaml"
    recipe.write_text(f"{recipe.read_text()}# {hush('recipe')}\n")
    sheet = folder / "stage_samples.tsv"
    sheet.write_text(sheet.read_text().replace("sample-1", hush("sample")))
    lab.drop(folder)


def _plant_in_the_item(lab: Lab) -> None:
    for workset in ("planted", "broken"):
        lab.aws("dynamodb").update_item(
            TableName=lab.settings["tables"]["worksets"],
            Key={"workset_id": {"S": workset}},
            UpdateExpression="SET #m = :m, metadata = :m, customer_id = :c, foreign_field = :c",
            ExpressionAttributeNames={"#m": "metrics"},
            ExpressionAttributeValues={
                ":c": {"S": hush("item")},
                ":m": {"M": {hush("key"): {"S": hush("value")}}},
            },
        )


def _plant_in_the_records(lab: Lab) -> None:
    for folder in lab.job_folders():
        record = json.loads((folder / "exit.json").read_text())
        (folder / "exit.json").write_text(json.dumps({**record, "note": hush("exit-record")}))


def _log(lab: Lab) -> Path:
    """Return the daemon's log with lines as somebody might slip in, each with a secret."""
    path = lab.folder / "log-for-support"
    slipped = [
        hush("line"),
        json.dumps({"event": hush("event"), "level": hush("level"), "timestamp": hush("time")}),
        json.dumps({"event": "left", hush("name"): hush("value"), "error": f"of {hush('error')}"}),
        json.dumps(
            {"event": "left", "url": f"https://x/?token={hush('url')}", "workset": hush("w")}
        ),
        json.dumps({"event": "left", "attempt": hush("attempt"), "state": [hush("state")]}),
        f"Traceback (most recent call last): {hush('traceback')}",
    ]
    path.write_text(lab.daemons[-1].log.read_text() + "\n".join(slipped) + "\n")
    return path


def _inside(bundle: Path) -> dict[str, str]:
    with tarfile.open(bundle) as tar:
        found = {}
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            found[member.name.removeprefix("daylily-support/")] = file.read().decode()
        return found


@pytest.mark.reported(
    "C", "a bundle redacts by names of keys, and misses user and e-mail (ODS#1846)"
)
@pytest.mark.reported("C", "keys in query strings and in addresses (kapitan-ai/orchard#8)")
@pytest.mark.reported("C", "a bundle tells paths (015-Weggeefkastje.nl-automation#75)")
def test_nothing_that_was_planted_is_in_the_bundle_and_what_helps_is(planted: Lab) -> None:
    lab, bundle = planted, planted.folder / "bundle.tar.gz"
    assert HUSH in json.dumps([lab.settings, lab.run_cli("show", "broken", "--json").stdout])
    options = ("--workset", "planted", "--workset", "broken", "--log", str(_log(lab)))
    preview = lab.run_cli("support-bundle", str(bundle), *options, "--dry-run")
    assert (preview.code, bundle.exists()) == (0, False), preview
    done = lab.run_cli("support-bundle", str(bundle), *options, "--json")
    assert done.code == 0, done
    files = _inside(bundle)
    assert [one["name"] for one in done.json["files"]] == list(files)
    assert bundle.stat().st_mode & 0o777 == 0o600
    for name, text in files.items():
        assert HUSH not in text, f"{name}: {_around(text)}"
        assert name in preview.stdout
    assert HUSH.encode() not in bundle.read_bytes()

    assert json.loads(files["manifest.json"])["missing"] == []
    states = [json.loads(files[f"worksets/{n}.json"])["state"] for n in (1, 2)]
    assert states == ["complete", "failed"]
    failed = json.loads(files["worksets/2.json"])
    assert [step["end"] for step in failed["run"]["steps"]] == ["failed"]
    status = json.loads(files["status.json"])
    assert (status["life"], status["status"]["version"]) == ("running", "0.1.0")
    events = [json.loads(line) for line in files["log.jsonl"].splitlines()]
    assert {"started", "command_taken", "claimed", "left"} <= {e.get("event") for e in events}
    assert {e["workset"] for e in events if e.get("event") == "claimed"} == {"planted", "broken"}
    settings = json.loads(files["settings.json"])
    assert settings["daemon.sweep_s"] == {"is_default": False, "value": 2}
    assert settings["notifications.slack.webhook_url"] == {"is_default": False}
    checks = {one["name"]: one["grade"] for one in json.loads(files["doctor.json"])}
    assert {"settings", "tables", "queues"} <= checks.keys()


def _around(text: str) -> str:
    at = text.index(HUSH)
    return text[max(0, at - 200) : at + 100]


@pytest.mark.parametrize("command", LOOKS, ids=" ".join)
def test_no_command_prints_a_secret_of_settings_or_environment(
    planted: Lab, command: tuple[str, ...]
) -> None:
    answer = planted.run_cli(*command)
    assert answer.code in (0, 1, 3, 4), answer
    secret = {hush(key) for key in KEYS} | {
        hush(name) for name in ("secret-key", "session", "token", "password", "proxy", "step")
    }
    printed = answer.stdout + answer.stderr
    assert {one for one in secret if one in printed} == set()


def test_no_log_of_the_daemon_holds_a_secret_of_settings_or_environment(planted: Lab) -> None:
    until(lambda: "notice_delayed" in planted.daemons[-1].log_text())
    log = planted.daemons[-1].log.read_text()
    assert {key for key in KEYS if hush(key) in log} == set()
    assert hush("secret-key") not in log


def test_a_bundle_without_settings_aws_or_log_says_what_is_missing(planted: Lab) -> None:
    bundle = planted.folder / "poor.tar.gz"
    bad = planted.folder / "bad.yaml"
    bad.write_text(f"daemon: {{sweep_s: {hush('bad')}}}\n")
    poor = planted.run_cli(
        "support-bundle", str(bundle), "--config", str(bad), "--log", str(planted.folder / "none")
    )
    assert poor.code == 0, poor
    files = _inside(bundle)
    assert HUSH not in "".join(files.values())
    assert HUSH not in poor.stderr
    missing = json.loads(files["manifest.json"])["missing"]
    assert any("There is no log" in sentence for sentence in missing)
    assert any("settings cannot be read" in sentence for sentence in missing)
    assert "versions.json" in files
    again = planted.run_cli("support-bundle", str(bundle))
    assert (again.code, "exists already" in again.stderr) == (1, True)


def test_a_workset_that_cannot_be_read_is_missing_by_its_number(planted: Lab) -> None:
    bundle = planted.folder / "unknown.tar.gz"
    answer = planted.run_cli("support-bundle", str(bundle), "--workset", hush("unknown"))
    assert answer.code == 0
    files = _inside(bundle)
    assert HUSH not in "".join(files.values())
    assert "Workset 1 of those asked for could not be read." in files["manifest.json"]
    assert PREFIX not in "".join(files.values())
