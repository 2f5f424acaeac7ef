"""No test can reach real AWS, whatever the environment of the person who runs it holds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from botocore.session import Session
from botocore.utils import get_environ_proxies

from tests.conftest import NOBODY_LISTENS


def test_credentials_are_not_those_of_the_person() -> None:
    credentials = Session().get_credentials()
    assert credentials is not None
    assert credentials.access_key == "testing"


def test_the_home_folder_is_a_new_one(outside_environ: Mapping[str, str]) -> None:
    assert str(Path.home()) != outside_environ.get("HOME")
    known = {".aws", ".netrc", ".config", ".gitconfig", ".bashrc", ".profile"}
    assert {path.name for path in Path.home().iterdir()} & known == set()


def test_the_settings_of_a_real_daemon_are_not_seen() -> None:
    assert not [name for name in os.environ if name.startswith("DAYLILY_")]
    assert "AWS_PROFILE" not in os.environ
    assert "PYTHONUNBUFFERED" not in os.environ


def test_a_request_to_the_real_endpoint_ends_at_a_proxy_that_does_not_exist() -> None:
    assert get_environ_proxies("https://sqs.us-west-2.amazonaws.com")["https"] == NOBODY_LISTENS
