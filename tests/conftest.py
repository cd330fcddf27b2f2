"""Fixtures that every folder of tests uses."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from loopdisk import Disk, mounted

from backy.ground import failpoint
from cloning import ImageSite
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


@pytest.fixture(scope="session")
def file_systems(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Disk]]:
    """Mounted file systems by kind, of 512 MiB, made when they are first asked for and then shared."""
    folder = tmp_path_factory.mktemp("file-systems")
    found: dict[str, Disk] = {}
    with ExitStack() as stack:

        def disk(kind: str) -> Disk:
            if kind not in found:
                found[kind] = stack.enter_context(mounted(folder, kind, 512 << 20))
            return found[kind]

        yield disk


@pytest.fixture(params=["xfs", "btrfs"])
def cloning_folder(
    request: pytest.FixtureRequest, file_systems: Callable[[str], Disk], tmp_path: Path
) -> Iterator[Path]:
    """A folder on a file system that makes clones."""
    path = file_systems(request.param).folder / tmp_path.name
    path.mkdir()
    yield path
    shutil.rmtree(path)


@pytest.fixture
def image_site(cloning_folder: Path) -> ImageSite:
    """An image there."""
    return ImageSite(cloning_folder)
