"""Which region counts where only the files of the AWS tools name one."""

from __future__ import annotations

from pathlib import Path

import pytest

from daylily_daemon.settings.sources import BadSettings, Loaded, Sources, load

PROFILES = "[default]\nregion = eu-west-2\n[profile other]\nregion = eu-west-3\n"


def with_profiles(folder: Path, text: str = PROFILES, **environment: str) -> Loaded:
    path = folder / "aws-config"
    path.write_text(text)
    return load(Sources(environment={"AWS_CONFIG_FILE": str(path), **environment}))


@pytest.mark.parametrize(
    ("environment", "region"),
    [
        ({}, "eu-west-2"),
        ({"AWS_PROFILE": "other"}, "eu-west-3"),
        ({"AWS_PROFILE": "nobody"}, "us-west-2"),
        ({"AWS_REGION": "us-west-2", "AWS_PROFILE": "other"}, "us-west-2"),
        ({"AWS_DEFAULT_REGION": "us-east-1"}, "us-east-1"),
    ],
)
def test_the_region_of_the_aws_profile_outweighs_the_default_and_nothing_else(
    tmp_path: Path, environment: dict[str, str], region: str
) -> None:
    assert with_profiles(tmp_path, **environment).settings.aws.region == region


def test_a_region_of_a_profile_says_where_it_comes_from(tmp_path: Path) -> None:
    loaded = with_profiles(tmp_path)
    assert loaded.origin["aws.region"] == f"{tmp_path}/aws-config (profile default)"
    with pytest.raises(BadSettings, match=r"aws-config, \(profile default\)"):
        with_profiles(tmp_path, "[default]\nregion = nowhere at all\n")


@pytest.mark.parametrize("text", ["no [ini", "\x00", "[default]\n", "[default]\nregion =\n"])
def test_an_aws_configuration_that_gives_no_region_leaves_the_default(
    tmp_path: Path, text: str
) -> None:
    assert with_profiles(tmp_path, text).settings.aws.region == "us-west-2"
