"""What `backy doctor` judges without a disk: space, inodes, modes, clocks, and Ceph's modules."""

import sys
from datetime import UTC, datetime, timedelta

import pytest

from backy.domain.diagnosis import (
    Finding,
    Verdict,
    judge_clock,
    judge_inodes,
    judge_mode,
    judge_space,
)
from backy.operation.doctor_ceph import Installed, judge_modules

FINE, NOTE, WRONG = Verdict
GIB = 1 << 30
NOW = datetime(2026, 1, 1, tzinfo=UTC)
TAG = f"cpython-{sys.version_info.major}{sys.version_info.minor}"
PLACE = "/usr/lib/python3/dist-packages"
HERE = [f"{PLACE}/{name}.{TAG}-x86_64-linux-gnu.so" for name in ("rados", "rbd")]
ABSENT = "ModuleNotFoundError: No module named 'rados'"


@pytest.mark.parametrize(
    ("free", "total", "verdict"),
    [
        (500 * GIB, 1000 * GIB, FINE),
        (99 * GIB, 1000 * GIB, NOTE),
        (19 * GIB, 1000 * GIB, WRONG),
        (0, 1000 * GIB, WRONG),
        (1 * GIB, 20 * GIB, WRONG),
        (3 * GIB, 20 * GIB, FINE),
        (GIB // 2, GIB, FINE),
        (0, 0, FINE),
    ],
)
def test_space_is_wrong_before_it_is_gone(free: int, total: int, verdict: Verdict) -> None:
    """A share of the disk, and on small ones an amount that a backup needs."""
    assert verdict is judge_space("/b", free=free, total=total).verdict


@pytest.mark.parametrize(
    ("free", "total", "verdict"),
    [(0, 0, FINE), (900, 1000, FINE), (99, 1000, NOTE), (19, 1000, WRONG), (0, 1000, WRONG)],
)
def test_inodes_are_wrong_before_they_are_gone(free: int, total: int, verdict: Verdict) -> None:
    """XFS and btrfs have as many as they like, and say 0 of 0."""
    assert verdict is judge_inodes("/b", free=free, total=total).verdict


@pytest.mark.parametrize(
    ("mode", "verdict"),
    [(0o700, FINE), (0o2700, FINE), (0o750, NOTE), (0o755, NOTE), (0o770, WRONG), (0o1777, WRONG)],
)
def test_others_may_not_change_backups(mode: int, verdict: Verdict) -> None:
    """That they may look may be meant."""
    assert verdict is judge_mode("/b", mode).verdict


@pytest.mark.parametrize(
    ("written", "is_synchronised", "verdict"),
    [
        (None, True, FINE),
        (NOW, True, FINE),
        (NOW + timedelta(minutes=4), True, FINE),
        (NOW + timedelta(minutes=6), True, WRONG),
        (NOW - timedelta(days=900), False, NOTE),
        (NOW + timedelta(days=9), False, WRONG),
    ],
)
def test_clock_is_not_before_what_was_written(
    written: datetime | None, is_synchronised: bool, verdict: Verdict
) -> None:
    """A clock that went back is wrong, one that nobody keeps right is to be known."""
    assert verdict is judge_clock(NOW, written, is_synchronised=is_synchronised).verdict


def cure(finding: Finding) -> str:
    """What a finding says to do."""
    return finding.text.split(": ", 1)[1]


def test_modules_are_wrong_only_where_a_job_needs_them() -> None:
    """Most hosts have no Ceph and shall not be told that they are ill."""
    found = Installed(ABSENT)

    assert NOTE is judge_modules(found, []).verdict
    assert "no configured job needs" in judge_modules(found, []).text
    assert WRONG is judge_modules(found, ["rbd"]).verdict


def test_missing_modules_are_to_be_installed() -> None:
    """By their package's name."""
    assert cure(judge_modules(Installed(ABSENT), ["rbd"])).startswith("install python3-rbd")


def test_modules_of_another_python_are_told_as_such() -> None:
    """No installation helps, only that Python."""
    files = [f"{PLACE}/rbd.cpython-39-x86_64-linux-gnu.so"]

    assert "python3-rbd is for Python 3.9: have backy run by that one" == cure(
        judge_modules(Installed(ABSENT, files=files), ["rbd"])
    )


def test_invisible_modules_are_to_be_linked() -> None:
    """Both of them and nothing else, by a command that can be pasted."""
    text = cure(judge_modules(Installed(ABSENT, files=HERE), ["rbd"]))

    assert text.startswith("'mkdir -p ")
    assert f"ln -s {PLACE}/rados.{TAG}*.so {PLACE}/rbd.{TAG}*.so " in text
    assert "/ceph.pth'" in text


def test_modules_that_do_not_load_are_told_with_the_reason() -> None:
    """As when librbd is of another version."""
    why = "ImportError: librbd.so.1: undefined symbol: rbd_what"

    assert cure(judge_modules(Installed(why, files=HERE), ["rbd"])).startswith(why)


@pytest.mark.parametrize(
    ("packages", "verdict"),
    [
        ({"python3-rbd": "17.1", "librbd1": "17.1"}, FINE),
        ({"python3-rbd": "17.1", "librbd1": "18.0"}, WRONG),
        ({"python3-rados": "17.1", "librados2": "18.0"}, WRONG),
        ({"librbd1": "18.0"}, FINE),
        ({}, FINE),
    ],
)
def test_modules_have_the_version_of_their_library(packages: dict[str, str], verdict: Verdict) -> None:
    """They load with another one, and then fail somewhere; what no package says is not judged."""
    found = Installed(version="1.16.0", files=HERE, packages=packages)

    assert verdict is judge_modules(found, ["rbd"]).verdict


def test_shadowed_packages_are_told() -> None:
    """dist-packages on PYTHONPATH hides newer packages of the environment."""
    found = Installed(version="1.16.0", files=HERE, shadows=PLACE)

    assert (WRONG, True) == (
        judge_modules(found, ["rbd"]).verdict,
        "take it off PYTHONPATH" in judge_modules(found, ["rbd"]).text,
    )
