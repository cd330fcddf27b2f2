"""T15: whatever its size and holes, and however it grows and shrinks, an image restores bit for bit."""

import os
import tempfile
from pathlib import Path
from typing import NamedTuple

from hypothesis import example, given, settings
from hypothesis import strategies as st
from small_store import MemoryTarget, restore_to

from backy.domain.chunkmap import PAGE_ENTRIES
from backy.ground.linux import punch_hole
from testsite import CHUNK, Site

SIZES = sorted(
    {
        0,
        1,
        511,
        512,
        513,
        *(k * CHUNK + more for k in (1, 2, 3, 7) for more in (-1, 0, 1)),
        5 * CHUNK + 2048,
    }
)
PAGE = PAGE_ENTRIES * CHUNK


class Edit(NamedTuple):
    """Bytes from `start` on (a share of the image) become data, written zeros, or a hole."""

    kind: str
    start: float
    length: int
    seed: int


class Step(NamedTuple):
    """One day: the image gets this size, then these edits."""

    size: int
    edits: tuple[Edit, ...]


edits = st.builds(
    Edit,
    st.sampled_from(["random", "text", "zeros", "hole"]),
    st.floats(0, 1),
    st.sampled_from([1, 511, 512, 513, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK]),
    st.integers(0, 3),
)
steps = st.builds(Step, st.sampled_from(SIZES), st.lists(edits, max_size=4).map(tuple))
histories = st.lists(steps, min_size=1, max_size=5)


def live_through(image: Path, step: Step) -> None:
    """Change the image file as a step says."""
    image.touch()
    os.truncate(image, step.size)
    with image.open("r+b") as file:
        for edit in step.edits:
            start = int(edit.start * step.size)
            length = min(edit.length, step.size - start)
            if length == 0:
                continue
            if edit.kind == "hole":
                punch_hole(file.fileno(), start, length)
            else:
                file.seek(start)
                file.write(contents(edit, length))
                file.flush()


def contents(edit: Edit, length: int) -> bytes:
    """Few different contents, so that chunks are met again."""
    if edit.kind == "zeros":
        return bytes(length)
    if edit.kind == "text":
        return (b"%d-" % edit.seed * length)[:length]
    return bytes((edit.seed * 7 + at * at * 31 + at) % 251 for at in range(length))


def check_history(site: Site, images: dict[str, bytes]) -> None:
    """Every revision of the model restores to its bytes, and verify finds nothing."""
    for uuid, content in images.items():
        target = MemoryTarget()
        restore_to(site, uuid, target, read_back=True)
        assert content == bytes(target.content)
    assert list(images) == [one.uuid for one in site.history().revisions]
    assert [] == site.verify().findings


@settings(max_examples=25, deadline=None, derandomize=True)
@given(histories)
@example([Step(size, (Edit("random", 0, size, 1),)) for size in SIZES])
@example([Step(size, (Edit("hole", 0, 1, 1),)) for size in reversed(SIZES)])
@example([Step(PAGE + more, (Edit("text", 1 - 1e-9, 1, 1),)) for more in (-1, 0, 1, 1 - PAGE)])
def test_every_revision_of_a_changing_image_restores(history: list[Step]) -> None:
    """Grown, shrunk, punched and rewritten between backups: all days are as they were."""
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder))
        images: dict[str, bytes] = {}
        for step in history:
            live_through(site.image, step)
            images[site.backup().uuid] = site.image.read_bytes()

        check_history(site, images)
        newest = site.history().revisions[-1]
        assert images[newest.uuid] == site.restored(newest)


def test_every_boundary_size_restores_over_a_larger_and_a_smaller_file(site: Site) -> None:
    """No stale byte of the file that was there stays, and none is missing."""
    target = site.folder / "old.raw"
    for size in SIZES:
        site.image.write_bytes(contents(Edit("random", 0, size, size), size))
        revision = site.backup()
        for old_size in (0, max(size - 1, 0), size + 1, size + 3 * CHUNK):
            target.write_bytes(b"\xff" * old_size)
            site.restore(revision, target)
            assert site.image.read_bytes() == target.read_bytes(), (size, old_size)


def test_shrinking_and_growing_again_brings_no_old_bytes_back(site: Site) -> None:
    """What was cut off and grew again as a hole is zeros in every later revision."""
    images: dict[str, bytes] = {}
    for size in (3 * CHUNK, 100, 3 * CHUNK, 0, 2 * CHUNK + 1, CHUNK, 3 * CHUNK - 1):
        os.truncate(site.image, size)
        if not images:
            site.image.write_bytes(b"old" * CHUNK)
        images[site.backup().uuid] = site.image.read_bytes()

    check_history(site, images)
    assert {0} == set(list(images.values())[-1][100:])
