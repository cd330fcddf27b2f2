"""Fixtures that every folder of tests uses."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from backy.ground import failpoint
from testsite import Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A repository with one job on an empty image."""
    return Site(tmp_path)


@pytest.fixture(autouse=True)
def no_hook_left() -> Iterator[None]:
    """A test's failpoint hook ends with the test."""
    yield
    failpoint.install(None)


@pytest.fixture(scope="session")
def as_root() -> None:
    """Skip, with the reason in one line, where root is needed and missing."""
    if os.geteuid() != 0:
        pytest.skip("needs root: loop devices and mounts")
