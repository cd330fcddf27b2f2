"""Every store that a released version wrote can be read by this one."""

import hashlib
import json
from pathlib import Path

import pytest

from backy.domain.revision import Distrust, SnapshotName
from backy.ground.directory import Directory
from backy.repository import history as histories
from backy.repository import snapshots
from goldenstore import STORES, held_by, unpack
from testsite import run_backy


@pytest.fixture(params=STORES)
def unpacked(
    request: pytest.FixtureRequest, tmp_path: Path
) -> tuple[Path, dict[str, dict[str, object]]]:
    """A golden store, and what its revisions hold."""
    name = request.param
    unpack(name, tmp_path / "base")
    return tmp_path / "base", held_by(name)


def test_golden_stores_exist() -> None:
    """The tests below run on at least one store."""
    assert {"store-1", "store-2"} <= set(STORES)


def test_golden_store_verifies(unpacked: tuple[Path, dict[str, dict[str, object]]]) -> None:
    """Verify proves every revision of an old store."""
    base, expected = unpacked

    done = run_backy("-b", str(base), "verify", "--json")

    assert (0, []) == (done.returncode, json.loads(done.stdout)["findings"])
    assert len(expected) == json.loads(done.stdout)["revisions"]


def test_golden_store_restores_every_revision(
    unpacked: tuple[Path, dict[str, dict[str, object]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Each revision of an old store restores to the very bytes that were backed up then."""
    base, expected = unpacked
    target = tmp_path_factory.mktemp("restored") / "restored.raw"
    found = {}

    for uuid in expected:
        assert 0 == run_backy("-b", str(base), "-j", "vm", "restore", "-r", uuid, str(target)).returncode
        content = target.read_bytes()
        found[uuid] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    assert expected == found


def test_a_golden_store_has_what_backups_from_snapshots_leave(tmp_path: Path) -> None:
    """Deltas, inherited maps, the list of snapshots, and records of what was read and what was found."""
    unpack("store-2", tmp_path)
    deltas = [path for path in tmp_path.glob("chunks/[0-9a-f][0-9a-f]/*") if "." in path.name]
    with Directory.open(str(tmp_path / "vm")) as job:
        revisions = histories.load(job).revisions
        listed = snapshots.listed(job)
    readings = [one.reading for one in revisions if one.reading is not None]

    assert len(revisions) == len(readings) == 9
    assert 4 < len(deltas) == sum(one.stats.chunks_delta for one in revisions)
    assert 0 < sum(one.stats.chunks_inherited for one in revisions)
    assert [SnapshotName(revisions[-1].uuid)] == list(listed)
    assert all(one.source and one.source.kept and one.stats.seconds for one in revisions)
    assert [False] * 6 + [True] + [False] * 2 == [one.audit_failed for one in readings]
    assert {Distrust.SOURCE, None} == {one.distrust for one in revisions}
    assert {None, *(one.uuid for one in revisions)} > {one.since for one in readings} > {None}
