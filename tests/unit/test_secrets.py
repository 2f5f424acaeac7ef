from __future__ import annotations

import logging
from pathlib import Path

import pytest

from daylily_daemon.settings.keys import LEAVES, value_of, variable
from daylily_daemon.settings.sources import BadSettings, Loaded, Sources, describe, load, shipped
from tests.unit.test_settings import HUSH, from_environment, from_file, problem, written

SECRETS = tuple(key for key, leaf in LEAVES.items() if leaf.secret)


@pytest.mark.parametrize("url", ["http://example.com/x", "example.com", "https://"])
def test_a_secret_address_must_be_encrypted_unless_it_is_this_machine(url: str) -> None:
    name = "DAYLILY_NOTIFICATIONS__SLACK__WEBHOOK_URL"
    assert "must be a URL that begins with https://" in problem(Sources(environment={name: url}))
    from_environment(**{name: "http://127.0.0.1:8080/x"})


def everything_shown(loaded: Loaded) -> str:
    return f"{loaded!r} {loaded.settings!s} {describe(loaded)} {loaded.settings.model_dump_json()}"


@pytest.mark.parametrize("key", SECRETS)
def test_a_secret_is_never_shown(key: str) -> None:
    text = f"https://{HUSH}" if "url" in key else HUSH
    loaded = from_environment(**{variable(key): text})
    assert value_of(loaded.settings, key).get_secret_value() == text
    assert HUSH not in everything_shown(loaded)
    shown = {row.key: row.value_shown for row in describe(loaded)}
    assert shown[key] == "set"
    assert {shown[other] for other in SECRETS if other != key} == {"not set"}


@pytest.mark.parametrize("key", SECRETS)
@pytest.mark.parametrize("wrong", [f"[{HUSH}]", f"{{a: {HUSH}}}"])
def test_a_problem_never_shows_a_secret(tmp_path: Path, key: str, wrong: str) -> None:
    _, section, name = key.split(".")
    config = written(tmp_path, f"notifications: {{{section}: {{{name}: {wrong}}}}}\n")
    with pytest.raises(BadSettings) as caught:
        load(Sources(config=config))
    assert HUSH not in f"{caught.value} {caught.value!r}"
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_secret_is_in_no_log_of_the_library_that_merges_the_sources(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PYDANTIC_SETTINGS_DEBUG", "1")
    # import-linter, run by another test of this process, switches off the loggers that there are.
    monkeypatch.setattr(logging.getLogger("pydantic_settings"), "disabled", False)
    with caplog.at_level(logging.DEBUG, "pydantic_settings"):
        from_environment(LINEAR_API_KEY=HUSH, AWS_PROFILE="lab")
    assert "lab" in caplog.text
    assert HUSH not in caplog.text


def test_a_secret_is_refused_on_the_command_line() -> None:
    found = problem(Sources(command_line={"notifications.linear.api_key": HUSH}))
    assert HUSH not in found
    assert "notifications.linear.api_key_file" in found


SLACK_FILE = "notifications: {slack: {enabled: true, webhook_url_file: hook}}\n"


def slack_url(loaded: Loaded) -> str:
    return loaded.settings.notifications.slack.webhook_url.get_secret_value()


def test_a_secret_file_is_found_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "hook").write_text("https://hooks.example/a\n")
    loaded = from_file(tmp_path, SLACK_FILE)
    assert slack_url(loaded) == "https://hooks.example/a"
    assert loaded.origin["notifications.slack.webhook_url"] == f"file {tmp_path / 'hook'}"


def test_a_secret_file_counts_in_a_copy_of_all_defaults_too(tmp_path: Path) -> None:
    (tmp_path / "hook").write_text("https://hooks.example/a\n")
    text = shipped("default.yaml").read_text()
    loaded = from_file(tmp_path, text.replace('webhook_url_file: ""', "webhook_url_file: hook"))
    assert slack_url(loaded) == "https://hooks.example/a"


def test_an_empty_variable_takes_the_secret_of_a_file_away(tmp_path: Path) -> None:
    config = written(tmp_path, "notifications: {slack: {webhook_url: https://hooks.example/a}}\n")
    environment = {"DAYLILY_NOTIFICATIONS__SLACK__WEBHOOK_URL": ""}
    assert slack_url(load(Sources(config=config, environment=environment))) == ""


def test_a_credential_of_systemd_is_taken_first(tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (tmp_path / "hook").write_text("https://hooks.example/beside")
    (credentials / "hook").write_text("https://hooks.example/credential")
    sources = Sources(
        config=written(tmp_path, SLACK_FILE),
        environment={"CREDENTIALS_DIRECTORY": str(credentials)},
    )
    assert slack_url(load(sources)) == "https://hooks.example/credential"
    (credentials / "hook").unlink()
    assert slack_url(load(sources)) == "https://hooks.example/beside"


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "cannot be read"), (b"", "is empty"), (b"\xff", "is not UTF-8")],
)
def test_a_secret_file_without_a_secret_is_a_problem(
    tmp_path: Path, content: bytes | None, why: str
) -> None:
    if content is not None:
        (tmp_path / "hook").write_bytes(content)
    config = written(tmp_path, SLACK_FILE.replace("enabled: true, ", ""))
    found = problem(Sources(config=config))
    assert found.startswith(f"{config}, line 1: The file ")
    assert why in found


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000])
def test_a_secret_file_of_an_impossible_name_is_a_problem(name: str) -> None:
    key = "notifications.slack.webhook_url_file"
    assert "cannot be read" in problem(Sources(command_line={key: name}))


def test_a_secret_and_its_file_may_not_both_be_set(tmp_path: Path) -> None:
    name = "DAYLILY_NOTIFICATIONS__SLACK__WEBHOOK_URL"
    config = written(tmp_path, SLACK_FILE)
    found = problem(Sources(config=config, environment={name: "https://hooks.example/a"}))
    assert f"(environment {name}) are both set. Keep one of them." in found
