"""T8: files of a store cut, extended, zeroed, removed, swapped or replaced are found, and blamed right.

What no look into the store can find: a revision whose record and map are both gone, and a record
put back to an older, whole state of itself. Quick verify finds all of the damage here.
"""

import os
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pytest
from small_store import SmallStore, damaged, remove

from tally import Tally

pytestmark = pytest.mark.proof("T8")

HEADERS = {".map": 160, ".rev": 64}
CHUNK_HEADER = 64


@pytest.fixture
def store(tmp_path: Path) -> SmallStore:
    """A store with every form of chunk."""
    return SmallStore(tmp_path)


def cut_to(length: Callable[[int, int], int]) -> Callable[[Path], None]:
    """Truncate to a length that depends on the file's and on its header's."""

    def cut(path: Path) -> None:
        size = path.stat().st_size
        os.truncate(path, length(size, HEADERS.get(path.suffix, CHUNK_HEADER)))

    return cut


def append(content: bytes) -> Callable[[Path], None]:
    """Bytes behind the end."""

    def extend(path: Path) -> None:
        with path.open("ab") as file:
            file.write(content)

    return extend


def zero(path: Path) -> None:
    """As long as before, all zeros: what a crashed file system may leave."""
    path.write_bytes(bytes(path.stat().st_size))


def link_to_a_good_copy(path: Path) -> None:
    """The right bytes, but somewhere else."""
    copy = path.with_name("copy.of.it")
    copy.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(copy)


def link_to_endless_zeros(path: Path) -> None:
    """A link to a device that never ends."""
    path.unlink()
    path.symlink_to("/dev/zero")


def link_to_itself(path: Path) -> None:
    """A link that leads nowhere."""
    path.unlink()
    path.symlink_to(path.name)


def fifo(path: Path) -> None:
    """A pipe that nobody writes to: opening it plainly would wait for ever."""
    path.unlink()
    os.mkfifo(path)


def directory(path: Path) -> None:
    """A directory with something in it."""
    path.unlink()
    path.mkdir()
    (path / "file").touch()


DAMAGES: dict[str, Callable[[Path], None]] = {
    "cut to nothing": cut_to(lambda _, __: 0),
    "cut to one byte": cut_to(lambda _, __: 1),
    "cut inside the header": cut_to(lambda size, header: min(header, size) - 1),
    "cut behind the header": cut_to(lambda size, header: min(header, size - 1)),
    "cut in half": cut_to(lambda size, _: size // 2),
    "one byte short": cut_to(lambda size, _: size - 1),
    "one byte long": append(b"\n"),
    "one zero long": append(b"\0"),
    "a block of zeros long": append(bytes(4096)),
    "a megabyte of zeros long": append(bytes(1 << 20)),
    "zeroed": zero,
    "removed": remove,
    "a link to a good copy": link_to_a_good_copy,
    "a link to endless zeros": link_to_endless_zeros,
    "a link to itself": link_to_itself,
    "a pipe": fifo,
    "a directory": directory,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
@pytest.mark.parametrize("quick", [False, True], ids=["whole", "quick"])
def test_a_damaged_file_is_found(
    store: SmallStore, damage: Callable[[Path], None], *, quick: bool
) -> None:
    """Whichever file it is, verify names the revisions that need it, and they do not restore."""
    files = store.files()
    tried = 0

    for path in files:
        with damaged(path):
            damage(path)
            store.check(path, quick=quick)
            tried += 1
        path.with_name("copy.of.it").unlink(missing_ok=True)

    assert len(files) == tried
    assert set() == store.verified()


@pytest.mark.parametrize("suffix", [".rev", ".map", ""], ids=["records", "maps", "chunks"])
@pytest.mark.parametrize("quick", [False, True], ids=["whole", "quick"])
def test_two_swapped_files_are_found(
    store: SmallStore, suffix: str, tally: Tally, *, quick: bool
) -> None:
    """Whole files under each other's names, of the same kind, hurt the revisions of both."""
    chunks = [
        path for path in store.files() if store.site.chunks in path.parents and path.name != "format"
    ]
    pairs = list(combinations(store.files(suffix) if suffix else chunks, 2))

    for one, other in pairs:
        with damaged(one, other):
            first, second = one.read_bytes(), other.read_bytes()
            one.write_bytes(second)
            other.write_bytes(first)

            hurt = store.hurt_by(one) | store.hurt_by(other)
            assert hurt == store.verified(quick=quick)
            for uuid in store.uuids:
                assert (None if uuid in hurt else store.images[uuid]) == store.image_of(uuid)
            assert store.image_of("latest") in (None, store.images[store.uuids[-1]])

    tally.tell(len(pairs), f"{len(pairs)} swapped pairs: all found")
    assert len(pairs) >= 3


@pytest.mark.parametrize("quick", [False, True], ids=["whole", "quick"])
def test_a_revision_under_another_ones_name_is_found(store: SmallStore, *, quick: bool) -> None:
    """The first revision's record and map in place of the last one's are not taken for its own."""
    first, last = store.uuids[0], store.uuids[-1]
    places = [store.site.job / f"{last}{suffix}" for suffix in (".rev", ".map")]

    with damaged(*places):
        for place in places:
            place.write_bytes((store.site.job / f"{first}{place.suffix}").read_bytes())

        assert {last} == store.verified(quick=quick)
        assert [None, None] == [store.image_of(last), store.image_of("latest")]


@pytest.mark.parametrize("suffix", [".rev", ".map"])
def test_the_day_before_is_never_restored_as_the_latest(store: SmallStore, suffix: str) -> None:
    """With the newest record or map gone, every relative spec fails, and a full UUID still works."""
    last = store.site.job / f"{store.uuids[-1]}{suffix}"

    with damaged(last):
        last.unlink()

        relative = ["latest", "last", "0", "tag:daily", "last(tag:daily)", "last(all)", "daily"]
        assert [None] * len(relative) == [store.image_of(spec) for spec in relative]
        assert store.images[store.uuids[0]] == store.image_of(store.uuids[0])
