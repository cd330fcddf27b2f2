"""Fixtures that every folder of tests uses, and the figures that tests tell."""

import math
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from crashsite import Runner
from loopdisk import Disk, mounted

import cephcluster
from backy.ground import failpoint
from cephcluster import CephCluster
from cloning import ImageSite
from consulsite import ConsulSite, consul_site
from tally import Budget, Figures, Need, Tally, marked, need, sentence
from testsite import Site

# Runs within nbdkit, whose module nobody else can import.
collect_ignore = ["crash/faulty_plugin.py"]

_TALLY = pytest.StashKey[Tally]()
_NEEDS = pytest.StashKey[dict[str, Need]]()


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, for what would wait for a disk thousands of times; without any, on disk."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="backy-", dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.fixture
def site(request: pytest.FixtureRequest) -> Site:
    """A repository with one job on an empty image; what crashes lies in memory.

    kill -9 leaves the page cache as it is, so a disk would only add waiting; power cuts and full disks
    bring file systems of their own.
    """
    crashes = request.path.parent.name == "crash"
    return Site(request.getfixturevalue("memory" if crashes else "tmp_path"))


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    """A fork server for the tests of one file, whose commands may be killed at any step."""
    with Runner() as one:
        yield one


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


# ..Figures: see tally.py.......................................................................


@pytest.fixture(autouse=True)
def tally(request: pytest.FixtureRequest) -> Tally:
    """Counts what the test tries; in a torture run, for its share of the time."""
    item = request.node
    figures = Figures(item.nodeid, marked(item), sentence(item))
    budget = Budget.of_environment()
    ends = math.inf
    if budget is not None:
        now = time.monotonic()
        share = budget.share(item.nodeid, item.config.stash[_NEEDS], now)
        figures.ends = now + share
        if item.get_closest_marker("torture"):
            ends = budget.ends if need(item).whole else figures.ends
        budget.write(figures)
        if share <= 0:
            pytest.skip("no time was left")
    item.stash[_TALLY] = one = Tally(figures, ends)
    return one


def pytest_configure() -> None:
    """Commands can be interrupted, also where the tests run in the background of a shell.

    That has SIGINT ignored, which processes pass on to their children.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What takes longest comes first in a torture run; and each long sweep says what it proves."""
    nameless = [item.nodeid for item in items if item.get_closest_marker("torture") and not marked(item)]
    if nameless:
        raise pytest.UsageError(f"torture without a proof mark: {nameless}")
    if Budget.of_environment() is not None:
        items.sort(key=_turn)


def _turn(item: pytest.Item) -> tuple[bool, bool, float]:
    """The longest first of all, then those that cannot be cut, then the rest by what they need."""
    minutes, whole = need(item)
    return minutes < 20, not whole, -minutes if whole else minutes


def pytest_collection_finish(session: pytest.Session) -> None:
    """What all tests of this run need, by which its time is shared."""
    session.config.stash[_NEEDS] = {item.nodeid: need(item) for item in session.items}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: "pytest.CallInfo[None]"
) -> Generator[None, Any, Any]:
    """Write a proof's figures down once it has run, or could not."""
    report: Any = yield
    if report.when == "call" or (report.when == "setup" and not report.passed):
        figures = _figures(item, report)
        report.user_properties += [("figure", line) for line in _told(item)]
        budget = Budget.of_environment()
        if budget is not None:
            budget.write(figures)
    return report


def _told(item: pytest.Item) -> list[str]:
    one = item.stash.get(_TALLY, None)
    return one.told if one else []


def _figures(item: pytest.Item, report: pytest.TestReport) -> Figures:
    """What the test counted; one that counted nothing is a single case."""
    one = item.stash.get(_TALLY, None)
    figures = one.figures if one else Figures(item.nodeid, marked(item), sentence(item))
    figures.seconds = report.duration
    if report.passed:
        figures.state = "cut" if figures.state == "cut" else "passed"
        figures.tried = figures.tried or int(figures.state == "passed")
    elif report.skipped:
        figures.state = "skipped"
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        figures.why = reason.removeprefix("Skipped: ")
    else:
        figures.state = "failed"
        figures.lost = max(figures.lost, 1)
        figures.why = report.longreprtext.strip().splitlines()[-1]
    return figures


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The lines that tests told."""
    told = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == "figure"
    ]
    if told:
        terminalreporter.section("figures")
        for line in told:
            terminalreporter.line(str(line))


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


@pytest.fixture
def consul() -> Iterator[ConsulSite]:
    """Keys of its own in a Consul: a stand-in, or the agent that BACKY_TEST_CONSUL names."""
    with consul_site() as found:
        yield found


@pytest.fixture(scope="session")
def ceph_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CephCluster]:
    """A real cluster, started when it is first asked for; tests use `ceph`."""
    with cephcluster.running(tmp_path_factory.mktemp("ceph")) as cluster:
        yield cluster


@pytest.fixture
def ceph(ceph_cluster: CephCluster) -> Iterator[CephCluster]:
    """The cluster, running again after a test that has killed a part of it."""
    yield ceph_cluster
    ceph_cluster.restart_dead()
