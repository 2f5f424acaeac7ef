"""Advice that only a head node of AWS ParallelCluster needs."""

from __future__ import annotations

import getpass
from pathlib import Path

import pytest

from daylily_daemon.adapters.headnode import SCRIPT, credentials_advice


@pytest.mark.reported(
    "G", "a user of the head node whom IMDS does not answer (aws-parallelcluster-cookbook#1051)"
)
@pytest.mark.parametrize("sign", [SCRIPT, "/etc/parallelcluster/cfnconfig"])
def test_a_head_node_is_known_and_told_how_its_user_gets_credentials(
    tmp_path: Path, sign: str
) -> None:
    (tmp_path / sign.lstrip("/")).mkdir(parents=True)
    said = credentials_advice(tmp_path)
    assert f"`{SCRIPT} --allow {getpass.getuser()}` as root" in said
    assert "Secured" not in said


def test_other_machines_are_told_nothing_of_it(tmp_path: Path) -> None:
    assert credentials_advice(tmp_path) == ""
