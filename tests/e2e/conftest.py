"""Labs for the end-to-end tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.e2e.harness import Lab, opened

MakeLab = Callable[[str], Lab]


@pytest.fixture
def make_lab(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MakeLab]:
    """Make labs on the emulator of that name, with tables, queues and bucket; they end with the test."""
    with ExitStack() as stack:

        def make(emulator: str) -> Lab:
            url = request.getfixturevalue(f"{emulator}_url")
            lab = stack.enter_context(opened(tmp_path_factory.mktemp("lab"), url))
            lab.provision()
            return lab

        yield make


@pytest.fixture
def lab(make_lab: MakeLab) -> Lab:
    return make_lab("moto")


@pytest.fixture
def empty_lab(moto_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab before ``init``: nothing of it exists in AWS."""
    with opened(tmp_path_factory.mktemp("lab"), moto_url) as found:
        yield found
