"""A newer version sets a requirement while this one has the store open: it looks again, and refuses."""

from collections.abc import Callable
from typing import Any

import pytest
from filetree import tree
from forged import sealed_as
from modelfaults import armed
from test_forged_formats import document

from backy.domain.chunk import parse_codec
from backy.ground.clock import SystemClock
from backy.ground.errors import FormatUnknown
from backy.operation.collect import collect
from backy.operation.progress import NoProgress
from backy.operation.repair import repair
from backy.repository.repository import Repository
from backy.source.registry import open_group
from collecting import back_up, forget, gc
from testsite import CHUNK, Site


@pytest.fixture
def used(site: Site) -> Site:
    """A store in which each command has something to do, and has been run before."""
    gc(site)
    kept = back_up(site, 1)
    forget(site, back_up(site, 2))
    name = min(site.chunks_of(kept))
    (site.chunks / name[:2] / name).unlink()
    site.concluded()
    site.image.write_bytes(b"new".ljust(CHUNK, b"."))
    return site


def require(site: Site) -> None:
    """As a newer version does that begins to use something which this one does not know."""
    path = site.chunks / "format"
    path.chmod(0o600)
    path.write_bytes(sealed_as(document(requires=["x"])))


def files(site: Site) -> dict[str, tuple[object, ...]]:
    """The repository, but for the file that says what it requires."""
    return {name: what for name, what in tree(site.base, times=False).items() if name != "chunks/format"}


def run_repair(site: Site) -> None:
    """Repair the job."""
    with Repository.open(str(site.base)) as repository, repository.job("vm") as job:
        group = open_group(job.config().source, job.config_path, None)
        repair(repository, job, group, parse_codec("lz4"), SystemClock(), NoProgress())


@pytest.mark.parametrize("run", [Site.backup, run_repair], ids=["backup", "repair"])
def test_a_requirement_is_seen_by_whoever_registers(used: Site, run: Callable[[Site], Any]) -> None:
    """It is set after the command has opened the store, and before anybody can know of the command."""
    (used.job / ".backup").touch()
    before = files(used)
    told: list[str] = []

    def newer(step: str) -> None:
        if step.startswith("link ") and "/users/" in step and not told:
            told.append(step)
            require(used)

    with armed(newer), pytest.raises(FormatUnknown):
        run(used)

    assert told
    assert before == files(used)


def test_a_requirement_is_seen_by_a_collection(used: Site) -> None:
    """It is set after the collection has opened the store; nothing goes."""
    before = files(used)

    with Repository.open(str(used.base)) as repository:
        require(used)
        with pytest.raises(FormatUnknown):
            collect(repository, SystemClock(), NoProgress(), waive_grace=True, force=True)

    assert before == files(used)
