from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from daylily_daemon.domain.model import Category, Problem, RecordType
from daylily_daemon.settings.keys import LEAVES, changes, value_of, variable
from daylily_daemon.settings.sources import (
    BadSettings,
    Loaded,
    Shipped,
    Sources,
    load,
    shipped,
)

HUSH = "hush-1f3a"


def written(folder: Path, text: str) -> Path:
    path = folder / "lab.yaml"
    path.write_text(text)
    return path


def from_file(folder: Path, text: str) -> Loaded:
    return load(Sources(config=written(folder, text)))


def from_environment(**environment: str) -> Loaded:
    return load(Sources(environment=environment))


def problems(sources: Sources) -> list[str]:
    with pytest.raises(BadSettings) as caught:
        load(sources)
    return [str(problem) for problem in caught.value.problems]


def problem(sources: Sources) -> str:
    (only,) = problems(sources)
    return only


def test_without_any_source_the_defaults_count() -> None:
    loaded = load(Sources())
    assert {key for key in LEAVES if value_of(loaded.settings, key) != LEAVES[key].default} == set()
    assert set(loaded.origin.values()) == {"default"}


def test_every_source_is_stronger_than_the_one_before(tmp_path: Path) -> None:
    config = written(tmp_path, "daemon: {sweep_s: 1, reconcile_s: 1, max_worksets: 1}\n")
    loaded = load(
        Sources(
            config=config,
            environment={"DAYLILY_DAEMON__SWEEP_S": "2", "DAYLILY_DAEMON__RECONCILE_S": "2"},
            command_line={"daemon.sweep_s": "3"},
        )
    )
    daemon = loaded.settings.daemon
    assert (daemon.sweep_s, daemon.reconcile_s, daemon.max_worksets) == (3, 2, 1)
    assert loaded.origin["daemon.sweep_s"] == "command line"
    assert loaded.origin["daemon.reconcile_s"] == "environment DAYLILY_DAEMON__RECONCILE_S"
    assert loaded.origin["daemon.max_worksets"] == f"{config} line 1"
    assert loaded.origin["daemon.max_per_customer"] == "default"


def test_the_control_bucket_is_looked_for_in_the_documented_order() -> None:
    names = (
        "DAYLILY_CONTROL__BUCKET",
        "DAYLILY_CONTROL_BUCKET",
        "DAYLILY_MONITOR_BUCKET",
        "S3_BUCKET",
    )
    for strongest in range(len(names)):
        environment = {
            name: f"bucket-{name.lower()}".replace("_", "-") for name in names[strongest:]
        }
        loaded = load(Sources(environment=environment))
        assert loaded.settings.control.bucket == environment[names[strongest]]
        assert loaded.origin["control.bucket"] == f"environment {names[strongest]}"
    by_hand = Sources(environment=environment, command_line={"control.bucket": "by-hand"})
    assert load(by_hand).settings.control.bucket == "by-hand"


@pytest.mark.parametrize(
    ("name", "text", "key"),
    [
        ("AWS_PROFILE", "lab", "aws.profile"),
        ("AWS_REGION", "eu-central-1", "aws.region"),
        ("AWS_DEFAULT_REGION", "eu-central-1", "aws.region"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:5101", "aws.endpoint_url"),
        ("S3_PREFIX", "drops/", "control.prefix"),
        ("WORKSET_TABLE_NAME", "lab-worksets", "tables.worksets"),
        ("DAYLILY_DYNAMODB_TABLE", "lab-worksets", "tables.worksets"),
        ("SNS_TOPIC_ARN", "arn:aws:sns:us-west-2:012345678901:t", "topic.sns_topic_arn"),
        ("DAYLILY_SNS_TOPIC_ARN", "arn:aws:sns:us-west-2:012345678901:t", "topic.sns_topic_arn"),
    ],
)
def test_the_variables_of_the_old_system_still_count(name: str, text: str, key: str) -> None:
    loaded = from_environment(**{name: text})
    assert (value_of(loaded.settings, key), loaded.origin[key]) == (text, f"environment {name}")


def test_the_old_secrets_and_the_old_level_still_count() -> None:
    settings = from_environment(
        LINEAR_API_KEY=HUSH, LINEAR_TEAM_ID="team", DAYLILY_LOG_LEVEL="INFO"
    ).settings
    assert settings.notifications.linear.api_key.get_secret_value() == HUSH
    assert settings.notifications.linear.team_id.get_secret_value() == "team"
    assert settings.log.level == "info"


def test_an_empty_old_variable_counts_as_not_set() -> None:
    assert from_environment(AWS_REGION="").origin["aws.region"] == "default"


def test_only_the_environment_that_is_handed_in_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS", "REGION", "DAYLILY_AWS__REGION"):
        monkeypatch.setenv(name, "eu-central-1")
    assert load(Sources()).settings.aws.region == "us-west-2"


def test_the_state_directory_of_systemd_is_only_a_default(tmp_path: Path) -> None:
    environment = {"STATE_DIRECTORY": "/var/lib/one:/var/lib/two"}
    assert from_environment(**environment).settings.daemon.state_dir == Path("/var/lib/one")
    config = written(tmp_path, "daemon: {state_dir: /srv/state}\n")
    loaded = load(Sources(config=config, environment=environment))
    assert loaded.settings.daemon.state_dir == Path("/srv/state")


def test_lists_are_written_with_commas_or_in_brackets() -> None:
    settings = from_environment(
        DAYLILY_RUNNER__PASS_ENVIRONMENT="PATH, LC_*",
        DAYLILY_NOTIFICATIONS__SNS__EVENT_TYPES='["error"]',
        DAYLILY_NOTIFICATIONS__LINEAR__EVENT_TYPES="",
        DAYLILY_RETRY__PATTERNS="[{pattern: x, code: L-1, category: data, retry: false}]",
    ).settings
    assert settings.runner.pass_environment == ("PATH", "LC_*")
    assert settings.notifications.sns.event_types == (RecordType.ERROR,)
    assert settings.notifications.linear.event_types == ()
    assert settings.retry.patterns[0].category is Category.DATA


def test_of_the_shipped_file_only_what_somebody_changed_counts(tmp_path: Path) -> None:
    text = shipped("default.yaml").read_text()
    path = written(tmp_path, text.replace("  sweep_s: 15\n", "  sweep_s: 14\n"))
    source = Shipped(path)
    assert {key: given.value for key, given in source.given.items()} == {"daemon.sweep_s": 14}
    assert source() == {"daemon": {"sweep_s": 14}}


def test_a_key_without_a_value_counts_as_not_written(tmp_path: Path) -> None:
    loaded = from_file(tmp_path, "aws:\n  region:\n  profile: lab\nlog:\n")
    assert loaded.settings.aws.region == "us-west-2"
    assert loaded.settings.aws.profile == "lab"


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert from_file(tmp_path, "").settings == load(Sources()).settings


BAD_FILE = """\
daemon:
  sweeps_s: 5
  sweep_s: often
sweep_s: 3
lease:
  ttl_s: 30
  beat_s: 25
queues: 5
retry:
  patterns:
    - pattern: "(("
      code: LAB-1
"""


def test_every_problem_is_reported_at_once_with_its_place(tmp_path: Path) -> None:
    config = written(tmp_path, BAD_FILE)
    found = problems(
        Sources(
            config=config,
            environment={"DAYLILY_METRICS__PORT": "70000", "DAYLILY_DEAMON__SWEEP_S": "1"},
            command_line={"log.levle": "info"},
            required=("control.bucket",),
        )
    )
    expected = (
        f"{config}, line 2: There is no setting daemon.sweeps_s. Did you mean daemon.sweep_s?",
        f"{config}, line 4: There is no setting sweep_s. Did you mean daemon.sweep_s?",
        f"{config}, line 8: queues is not a mapping of settings.",
        "environment, DAYLILY_DEAMON__SWEEP_S: There is no setting deamon.sweep_s. "
        "Did you mean DAYLILY_DAEMON__SWEEP_S?",
        "command line: There is no setting log.levle. Did you mean log.level?",
        "settings, control.bucket: It has no value, and needs one.",
        f"{config}, line 3: daemon.sweep_s is 'often', but must be a valid number",
        f"{config}, line 7: lease: beat_s is 25 s, but must be below ttl_s - margin_s = 30 s - 10 s.",
        f"{config}, line 11: retry.patterns.0.pattern is '((', but must be a regular expression",
        f"{config}, line 11: retry.patterns.0.category is missing.",
        f"{config}, line 11: retry.patterns.0.retry is missing.",
        "environment, DAYLILY_METRICS__PORT: metrics.port is '70000', but must be less than",
    )
    assert len(found) == len(expected), found
    for beginning, sentence in zip(expected, found, strict=True):
        assert sentence.startswith(beginning), sentence


def test_a_problem_of_settings_that_clash_names_the_one_that_was_written() -> None:
    found = problem(Sources(environment={"DAYLILY_LEASE__TTL_S": "20"}))
    assert found.startswith("environment, DAYLILY_LEASE__TTL_S: lease: beat_s is 30 s, but must be")


def test_a_user_for_jobs_needs_units_and_folders_for_them_need_a_user() -> None:
    in_sessions = {"DAYLILY_RUNNER__USER": "jobs", "DAYLILY_RUNNER__ISOLATION": "session"}
    found = problem(Sources(environment=in_sessions))
    assert found.startswith(
        "environment, DAYLILY_RUNNER__USER: runner: jobs run as another user in"
    )
    found = problem(Sources(command_line={"runner.writable": "[/fsx]"}))
    assert "set runner.user too" in found


def test_a_weak_source_may_be_wrong_where_a_stronger_one_is_right(tmp_path: Path) -> None:
    config = written(tmp_path, "daemon: {sweep_s: often}\n")
    loaded = load(Sources(config=config, command_line={"daemon.sweep_s": "5"}))
    assert loaded.settings.daemon.sweep_s == 5


def test_a_variable_for_jobs_is_no_problem() -> None:
    from_environment(DAYLILY_PROJECT="clinic")


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("aws.region", "us west"),
        ("aws.endpoint_url", "ftp://here"),
        ("aws.endpoint_url", "http://["),
        ("control.bucket", "s3://bucket"),
        ("control.prefix", "no/slash"),
        ("control.prefix", "/absolute/"),
        ("control.prefix", ""),
        ("control.account_id", "12345"),
        ("tables.worksets", "a b"),
        ("queues.commands", "not-fifo"),
        ("queues.intake", "intake.fifo"),
        ("queues.wait_s", "21"),
        ("queues.wait_s", "1.5"),
        ("topic.sns_topic_arn", "arn:aws:sqs:us-west-2:012345678901:q"),
        ("daemon.state_dir", "relative"),
        ("daemon.name", "a/b"),
        ("daemon.sweep_s", "0"),
        ("daemon.sweep_s", "nan"),
        ("daemon.age_s", "inf"),
        ("daemon.max_worksets", "-1"),
        ("runner.kind", "docker"),
        ("runner.pass_environment", "A=B"),
        ("retry.base_s", "7200"),
        ("notifications.sns.event_types", "step"),
        ("notifications.sns.states", "done"),
        ("notifications.sns.enabled", "perhaps"),
        ("log.level", "loud"),
        ("metrics.port", "-1"),
    ],
)
def test_a_value_out_of_bounds_is_refused_where_it_was_written(key: str, text: str) -> None:
    found = problem(Sources(environment={variable(key): text}))
    assert found.startswith(f"environment, {variable(key)}: ")
    assert key.partition(".")[0] in found


def test_a_password_in_an_address_is_not_repeated() -> None:
    found = problem(Sources(environment={"AWS_ENDPOINT_URL": f"https://me:{HUSH}@host"}))
    assert HUSH not in found


def test_an_account_keeps_its_leading_zero(tmp_path: Path) -> None:
    for text in ("012345678901", "123456789012"):
        loaded = from_file(tmp_path, f"control: {{account_id: {text}}}\n")
        assert loaded.settings.control.account_id == text


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere.yaml"
    assert problem(Sources(config=missing)).startswith(
        f"{missing}: The file cannot be read: No such"
    )
    assert "Is a directory" in problem(Sources(config=tmp_path))


@pytest.mark.parametrize("text", ["daemon: [", "a: 1\na: 2\n", "\tx: 1"])
def test_a_file_that_is_no_yaml_is_one_problem_with_its_line(tmp_path: Path, text: str) -> None:
    config = written(tmp_path, text)
    assert problem(Sources(config=config)).startswith(f"{config}, line ")


def test_a_file_that_is_no_mapping_is_one_problem(tmp_path: Path) -> None:
    assert "The file is not a mapping" in problem(Sources(config=written(tmp_path, "- a\n")))


def test_a_channel_that_is_switched_on_needs_its_secrets(tmp_path: Path) -> None:
    config = written(tmp_path, "notifications:\n  linear:\n    enabled: true\n")
    found = problem(Sources(config=config))
    assert found.startswith(f"{config}, line 3: notifications.linear: the channel is enabled, but ")
    assert "api_key (or api_key_file) and team_id (or team_id_file)" in found


def test_a_required_setting_is_satisfied_by_any_source() -> None:
    environment = {"S3_BUCKET": "lab-drops"}
    load(Sources(environment=environment, required=("control.bucket",)))


def test_a_reload_knows_what_it_may_change() -> None:
    old = load(Sources()).settings
    new = from_environment(
        DAYLILY_DAEMON__SWEEP_S="5",
        DAYLILY_DAEMON__STATE_DIR="/srv/state",
        DAYLILY_LEASE__TTL_S="90",
        DAYLILY_NOTIFICATIONS__LINEAR__API_KEY=HUSH,
    ).settings
    found = changes(old, new)
    assert found.live == ("daemon.sweep_s", "notifications.linear.api_key")
    assert found.needs_restart == ("daemon.state_dir", "lease.ttl_s")
    assert changes(old, old).live == changes(old, old).needs_restart == ()


def test_what_names_things_outside_needs_a_restart() -> None:
    sections = ("aws.", "control.", "tables.", "queues.", "topic.", "lease.", "metrics.")
    keys = {key for key in LEAVES if key.startswith(sections)}
    keys |= {"daemon.state_dir", "daemon.data_dir", "daemon.name", "runner.kind"}
    assert {key for key in keys if not LEAVES[key].restart} == set()
    assert not LEAVES["log.level"].restart


def test_the_example_of_a_lab_is_accepted_beside_its_secrets(tmp_path: Path) -> None:
    example = shipped("examples/lab.yaml")
    config = written(tmp_path, example.read_text())
    for name in ("slack_webhook_url", "webhook_url"):
        (tmp_path / name).write_text("https://hooks.example/a")
    for name in (
        *("linear_api_key", "linear_team_id", "webhook_secret"),
        *("smtp_password", "pagerduty_routing_key"),
    ):
        (tmp_path / name).write_text(HUSH)
    loaded = load(Sources(config=config, required=("control.bucket",)))
    codes = [pattern.code for pattern in loaded.settings.retry.patterns]
    assert codes == ["LAB-LIC-001", "LAB-DAT-001"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


def nested(values: Mapping[str, object]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in values.items():
        inner = found
        *sections, name = key.split(".")
        for section in sections:
            step = inner.setdefault(section, {})
            assert isinstance(step, dict)
            inner = step
        inner[name] = value
    return found


def complaints(sources: Sources) -> tuple[Problem, ...]:
    try:
        load(sources)
    except BadSettings as bad:
        return bad.problems
    return ()


@given(st.dictionaries(st.sampled_from(list(LEAVES)), VALUES, max_size=4))
@examples(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_file_says_the_answer_is_settings_or_problems(
    tmp_path: Path, values: dict[str, object]
) -> None:
    config = written(tmp_path, json.dumps(nested(values)))
    for problem in complaints(Sources(config=config)):
        assert problem.file
        assert problem.what
        assert problem.todo


@given(st.dictionaries(st.sampled_from([variable(key) for key in LEAVES]), st.text(max_size=30)))
@examples(max_examples=60)
def test_whatever_a_variable_says_the_answer_is_settings_or_problems(
    environment: dict[str, str],
) -> None:
    for problem in complaints(Sources(environment=environment)):
        assert problem.where
