"""No change in Ceph is ever missed: random changes of every kind to images, snapshot after snapshot.

A client has the image open all along, as a running machine has. Each round it changes the image in some
of the ways in which machines and administrators do; then a snapshot is made and compared, byte by byte,
with a model, and with what it says has changed since the last one.

Images of all kinds: plain ones, clones, those with small objects, in a namespace, or with their data in
another pool.
"""

import random
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from msgspec import structs

from backy.ground.linux import PAGE
from backy.ground.rbd import Image
from backy.ground.units import format_size
from backy.source.base import Base, Confidence
from backy.source.rbd import RbdSource
from cephcluster import CephCluster
from cloning import revision, whole
from rbdsite import OBJECT, RbdSite
from tally import Tally

pytestmark = pytest.mark.proof("T16")

SIZE = 4 * OBJECT + 3 * PAGE


class Client:
    """A client that has an image open, and the bytes that it must hold."""

    def __init__(self, site: RbdSite, image: Image, seed: int) -> None:
        self._site = site
        self._image = image
        self._strangers: dict[str, bytes] = {}
        self.draw = random.Random(seed)
        self.was_resized = False

    def change(self) -> None:
        """Change something."""
        self.draw.choice([
            self._blocks,
            self._blocks,
            self._large,
            self._unaligned,
            self._discard,
            self._discard_objects,
            self._zeros,
            self._same_again,
            self._snapshot,
            self._snapshot,
            self._unsnapshot,
            self._roll_back,
            self._cut_and_grow,
        ])()  # fmt: skip

    def resize(self) -> None:
        """To another size for good."""
        self._resize(self.draw.randrange(SIZE // 2, SIZE * 2))

    def _resize(self, size: int) -> None:
        self._image.resize(size)
        content = self._site.content
        self._site.content = content[:size] + bytes(max(size - len(content), 0))
        self.was_resized = True

    def _range(self, most: int) -> tuple[int, int]:
        size = len(self._site.content)
        offset = self.draw.randrange(size)
        return offset, min(self.draw.randint(1, most), size - offset)

    def _write(self, offset: int, content: bytes) -> None:
        self._image.write(content, offset)
        self._site.content[offset : offset + len(content)] = content

    def _blocks(self) -> None:
        for _ in range(self.draw.randint(1, 10)):
            offset = self._range(1)[0] // PAGE * PAGE
            self._write(offset, self.draw.randbytes(min(PAGE, len(self._site.content) - offset)))

    def _large(self) -> None:
        offset, length = self._range(OBJECT)
        self._write(offset, self.draw.randbytes(length))

    def _unaligned(self) -> None:
        offset, length = self._range(9000)
        self._write(offset, self.draw.randbytes(length))

    def _discard(self) -> None:
        self._discarded(*self._range(OBJECT))

    def _discard_objects(self) -> None:
        offset = self._range(1)[0] // OBJECT * OBJECT
        self._discarded(offset, min(OBJECT, len(self._site.content) - offset))

    def _discarded(self, offset: int, length: int) -> None:
        # Of what is not aligned, librbd leaves the edges alone.
        granularity = 64 << 10
        start = -(-offset // granularity) * granularity
        stop = (offset + length) // granularity * granularity
        if start < stop:
            self._image.discard(start, stop - start)
            self._site.content[start:stop] = bytes(stop - start)

    def _zeros(self) -> None:
        offset, length = self._range(3 * PAGE)
        self._write(offset, bytes(length))

    def _same_again(self) -> None:
        offset, length = self._range(9000)
        self._write(offset, bytes(self._site.content[offset : offset + length]))

    def _snapshot(self) -> None:
        name = f"backy-{revision(self.draw.randrange(1 << 20, 1 << 30))}"
        self._image.create_snapshot(name)
        self._strangers[name] = bytes(self._site.content)

    def _unsnapshot(self) -> None:
        if self._strangers:
            name = self.draw.choice(list(self._strangers))
            self._image.remove_snapshot(name)
            del self._strangers[name]

    def _roll_back(self) -> None:
        if self._strangers:
            name, content = self.draw.choice(list(self._strangers.items()))
            self._image.flush()
            self._image._raw.rollback_to_snap(name)
            self.was_resized = self.was_resized or len(content) != len(self._site.content)
            self._site.content = bytearray(content)

    def _cut_and_grow(self) -> None:
        size = len(self._site.content)
        self._resize(size - self.draw.randrange(size // 2))
        self._resize(size)

    def strangers(self) -> set[str]:
        """Names of the snapshots that are none of ours."""
        return set(self._strangers)


def plain(ceph: CephCluster) -> RbdSite:
    """An image as `rbd create` makes it."""
    return RbdSite(ceph, size=SIZE)


def small_objects(ceph: CephCluster) -> RbdSite:
    """Objects of 64 KiB."""
    return RbdSite(ceph, size=SIZE, create=["--object-size", "64K"])


def other_data_pool(ceph: CephCluster) -> RbdSite:
    """Its objects in another pool than its header."""
    return RbdSite(ceph, size=SIZE, create=["--data-pool", ceph.new_pool()])


def in_namespace(ceph: CephCluster) -> RbdSite:
    """In a namespace of its pool."""
    return RbdSite(ceph, size=SIZE, namespace="tenant")


def clone(ceph: CephCluster) -> RbdSite:
    """A child of a longer image, of which it has what it has not written itself."""
    parent = RbdSite(ceph, size=SIZE + OBJECT)
    parent.write(PAGE, b"p" * (2 * OBJECT))
    parent.write(3 * OBJECT, b"q" * PAGE)
    with parent.pool.image(parent.name, read_only=False) as image:
        image.create_snapshot("golden")
    parent.rbd("snap", "protect", f"{parent.pool.spec(parent.name)}@golden")
    site = RbdSite(ceph, parent=parent)
    parent.close()
    site.resize(SIZE)
    return site


def run_rounds(site: RbdSite, rounds: int, seed: int) -> tuple[int, int]:
    """Blocks that changed, and blocks that would be read, where changes were told."""
    with ExitStack() as stack:
        image = stack.enter_context(site.pool.image(site.name, read_only=False))
        client = Client(site, image, seed)
        old = bytes(site.content)
        base = site.kept(0)
        changed = told = 0
        for number in range(1, rounds + 1):
            client.was_resized = False
            for _ in range(client.draw.randint(0, 5)):
                client.change()
            if number % 10 == 0:
                client.resize()
            image.flush()
            counts, base = one_round(site, base, number, old, was_resized=client.was_resized)
            old = bytes(site.content)
            changed += counts[0]
            told += counts[1]
        assert {f"backy-{revision(rounds)}", *client.strangers()} == set(site.snapshots())
        return changed, told


def one_round(
    site: RbdSite, base: Base, number: int, old: bytes, *, was_resized: bool
) -> tuple[tuple[int, int], Base]:
    """Make a snapshot, check it, keep it instead of the base's; what changed and what was told."""
    with site.source.snapshot(revision(number)) as snapshot:
        new = whole(snapshot)
        changes = snapshot.extents_since(base)
        used = list(snapshot.extents())
        snapshot.keep()
    assert bytes(site.content) == new
    covered = bytearray(len(new))
    for extent in used:
        covered[extent.offset : extent.offset + extent.length] = new[
            extent.offset : extent.offset + extent.length
        ]
    assert new == covered  # what lies in no extent is zero
    site.prune(number - 1)
    counts = (0, 0)
    if changes.confidence is Confidence.HINT:
        assert len(old) == len(new)
        stitched = bytearray(old)
        for extent in changes.extents:
            stop = extent.offset + extent.length
            stitched[extent.offset : stop] = new[extent.offset : stop]
        assert new == stitched, number
        told = sum(-(-extent.length // PAGE) for extent in changes.extents)
        differing = sum(old[at : at + PAGE] != new[at : at + PAGE] for at in range(0, len(new), PAGE))
        counts = (differing, told)
    else:
        assert was_resized, changes.why
    return counts, Base(revision(number), snapshot.identity)


@pytest.mark.parametrize(
    ("make", "rounds"),
    [(plain, 20), (clone, 12), (small_objects, 8), (other_data_pool, 3), (in_namespace, 3)],
)
def test_every_changed_byte_lies_in_an_extent(
    ceph: CephCluster, tally: Tally, make: Callable[[CephCluster], RbdSite], rounds: int
) -> None:
    """What is outside the extents has the same bytes as before, and what no object has is zero."""
    site = make(ceph)
    changed, told = run_rounds(site, rounds, seed=rounds)
    site.close()
    tally.tell(
        rounds,
        f"rbd, {make.__name__.replace('_', ' ')}, {rounds} rounds: none missed, "
        f"{format_size(changed * PAGE)} changed, {format_size(told * PAGE)} to be read",
    )
    assert changed > rounds


def test_a_clone_that_loses_its_parent_keeps_its_bytes(ceph: CephCluster) -> None:
    """Flattened between two backups, with changes before and after, and a snapshot of a stranger."""
    site = clone(ceph)
    with site.pool.image(site.name, read_only=False) as image:
        client = Client(site, image, seed=8)
        base, old = site.kept(0), bytes(site.content)
        for number in range(1, 5):
            client.was_resized = False
            client.change()
            if number == 2:
                client._snapshot()
                image._raw.flatten()
            client._blocks()
            image.flush()
            _, base = one_round(site, base, number, old, was_resized=client.was_resized)
            old = bytes(site.content)
    site.close()


@pytest.mark.torture(weight=1)
@pytest.mark.parametrize("make", [plain, clone, small_objects, other_data_pool, in_namespace])
def test_every_changed_byte_of_many_images_lies_in_an_extent(
    ceph: CephCluster, tally: Tally, make: Callable[[CephCluster], RbdSite]
) -> None:
    """The same with other seeds, thirty rounds each."""
    for seed in tally.seeds(range(100, 120)):
        site = make(ceph)
        changed, _ = run_rounds(site, 30, seed)
        site.close()
        assert changed > 0


def test_a_change_of_a_block_is_told_as_a_block(ceph: CephCluster) -> None:
    """Changes are told to the page, not to the object, so that little is read."""
    site = RbdSite(ceph)
    site.write(0, b"a" * (2 * OBJECT))
    base = site.kept(1)
    site.write(OBJECT + 5 * PAGE + 1, b"b")
    changes = site.changes(2, base)
    site.close()
    assert (Confidence.HINT, [(OBJECT + 5 * PAGE, PAGE)]) == (changes.confidence, changes.extents)


def test_no_change_is_told_as_none(ceph: CephCluster) -> None:
    """Of an image that rested there is nothing to be read."""
    site = RbdSite(ceph)
    site.write(0, b"a" * OBJECT)
    base = site.kept(1)
    changes = site.changes(2, base)
    site.close()
    assert (Confidence.HINT, []) == (changes.confidence, changes.extents)


def test_another_user_of_the_snapshots_name_is_not_believed(ceph: CephCluster) -> None:
    """A snapshot that was made anew under the name of the kept one is another one."""
    site = RbdSite(ceph)
    base = site.kept(1)
    name = f"backy-{revision(1)}"
    with site.pool.image(site.name, read_only=False) as image:
        image.remove_snapshot(name)
        image.write(b"a", 0)
        image.create_snapshot(name)
    changes = site.changes(2, base)
    site.close()
    assert (Confidence.NONE, "the parent's snapshot is gone") == (changes.confidence, changes.why)


def test_another_image_of_the_name_is_not_believed(ceph: CephCluster) -> None:
    """An image that was removed and made anew, or one in another pool, has nothing to do with it."""
    site = RbdSite(ceph)
    base = site.kept(1)
    site.prune(1)
    site.rbd("rm", site.pool.spec(site.name))
    site.pool.create(site.name, len(site.content))
    site.source = RbdSource(site.settings)
    changes = site.changes(2, base)
    other = RbdSite(ceph, pool=ceph.new_pool())
    elsewhere = other.changes(2, base)
    site.close()
    other.close()
    assert "the image is another one than the parent's, under whatever name" == changes.why
    assert "the image lies in another pool or cluster than the parent's" == elsewhere.why


def test_a_renamed_image_is_the_same(ceph: CephCluster) -> None:
    """A name may change between runs; changes are told as before, and the old snapshot goes."""
    site = RbdSite(ceph)
    base = site.kept(1)
    renamed = ceph.new_image()
    site.rbd("mv", site.pool.spec(site.name), site.pool.spec(renamed))
    site.name = renamed
    site.source = RbdSource(site.settings_of())
    site.write(0, b"a")
    changes = site.changes(2, base)
    gone = site.prune(1)
    left = site.snapshots()
    site.close()
    assert (Confidence.HINT, [(0, PAGE)]) == (changes.confidence, changes.extents)
    assert (1, []) == (len(gone), left)


@pytest.mark.parametrize("which", ["image", "parent's snapshot"])
def test_an_invalid_object_map_is_not_believed(ceph: CephCluster, which: str) -> None:
    """A map that Ceph itself has marked as wrong, of the image or of a snapshot, tells nothing."""
    site = RbdSite(ceph)
    base = site.kept(1)
    assert base.source.kept is not None
    site.mark_map_invalid(None if which == "image" else base.source.kept.number)
    changes = site.changes(2, base)
    site.close()
    assert Confidence.NONE is changes.confidence
    assert changes.why.endswith("is invalid: 'rbd object-map rebuild' mends it")


def test_an_image_without_object_map_is_read_as_a_whole(ceph: CephCluster) -> None:
    """Old images have no such map; the reason says how they get one, and with one it is believed."""
    site = RbdSite(ceph, create=["--image-feature", "layering,exclusive-lock"])
    site.write(OBJECT, b"a" * PAGE)
    base = site.kept(1)
    with site.source.snapshot(revision(2)) as snapshot:
        changes, extents = snapshot.extents_since(base), list(snapshot.extents())
        assert bytes(site.content) == whole(snapshot)
    spec = site.pool.spec(site.name)
    site.rbd("feature", "enable", spec, "object-map", "fast-diff")
    site.rbd("object-map", "rebuild", spec)
    site.rbd("object-map", "rebuild", f"{spec}@backy-{revision(1)}")
    site.write(0, b"a")
    believed = site.changes(3, base)
    site.close()
    assert "'rbd feature enable IMAGE object-map fast-diff'" in changes.why
    assert [(OBJECT, OBJECT)] == extents
    assert (Confidence.HINT, [(0, PAGE)]) == (believed.confidence, believed.extents)


@pytest.mark.parametrize(
    ("older", "stay", "known"),
    [(1, True, True), (1, False, True), (2, True, True), (2, False, True), (3, False, True),
     (2, False, False)],
)  # fmt: skip
def test_what_a_rollback_undid_is_told(
    ceph: CephCluster, older: int, *, stay: bool, known: bool
) -> None:
    """Back to a snapshot that is older than the base's, which may be gone by now, with all others.

    Also where the base's record is of a version that did not count them.
    """
    site = RbdSite(ceph)
    site.write(0, b"a" * (2 * OBJECT))
    before = bytes(site.content)
    with site.pool.image(site.name, read_only=False) as image:
        for number in range(older):
            image.create_snapshot(f"{number}")
        site.write(OBJECT + 3 * PAGE, b"b" * PAGE)
        base = site.kept(1)
        image._raw.rollback_to_snap(f"{older - 1}")
        for number in range(0 if stay else older):
            image.remove_snapshot(f"{number}")
    if not known:
        assert base.source.kept is not None
        forgetful = structs.replace(base.source.kept, older=None)
        base = base._replace(source=structs.replace(base.source, kept=forgetful))
    with site.source.snapshot(revision(2)) as snapshot:
        changes, new = snapshot.extents_since(base), whole(snapshot)
    site.close()
    assert before == new
    assert Confidence.HINT is changes.confidence
    assert any(one.offset <= OBJECT + 3 * PAGE < one.offset + one.length for one in changes.extents)


def test_full_always_keeps_nothing(ceph: CephCluster) -> None:
    """Who wants everything read each time has no snapshot left on the image."""
    site = RbdSite(ceph)
    base = site.kept(1)
    source = RbdSource(site.settings_of(**{"full-always": True}))
    with source.snapshot(revision(2)) as snapshot:
        changes, kept = snapshot.extents_since(base), snapshot.identity.kept
    left = site.snapshots()
    site.close()
    assert (Confidence.NONE, "full-always is set", None) == (changes.confidence, changes.why, kept)
    assert [f"backy-{revision(1)}"] == left
