"""Target: an image in Ceph, written by several threads, and taken up again after an interruption.

    target = RbdTarget(RbdSettings("rbd", "vm01"), overwrite=False)
    target.begin(size, content)

While it is written the image is called `IMAGE.partial`, a new one and one that is overwritten alike; so
nothing that is incomplete has the name that a machine or a backup looks for. At the end it is renamed,
while it is still locked, and a restore that has waited for it looks again before it writes.
An image stays what it is when it is renamed: its snapshots, features and clones stay too.

The partial image says in its metadata (`backy.restore`) which content it is to have, and up to where it
has been flushed. A restore of the same content that finds one compares what is there with what should
be, and writes the rest. It takes nothing on trust: the figure only says how far it pays to look.

Zeros are left out of a new image. In an old one they are made by `write_zeros`, since `discard` rounds
to whole blocks of 64 KiB and leaves the rest as it was. The exclusive lock is held to the end, and no
image is touched that another client has open for writing.

Limits: a client that was killed counts as having an image open until its watch runs out, 30 s by
default; for `IMAGE.partial` that is waited for. A new image has the features and the data pool that the
cluster's configuration says; to have others, make it first and overwrite it.
"""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple

import msgspec

from backy.domain.rbd_settings import RbdSettings
from backy.ground import failpoint
from backy.ground.ceph import Access, CephFailed, connected
from backy.ground.errors import TargetFailed, TargetRefused
from backy.ground.linux import Buffer
from backy.ground.rbd import Image, Pool, open_pool
from backy.target.sparse import BLOCK, used_blocks

PREFIX = "rbd:"
SUFFIX = ".partial"
KEY = "backy.restore"

_STEP = 256 << 20
_ZEROS = 64 << 20
# Shorter gaps are written: each operation costs as much as this many bytes.
_GAP_BLOCKS = 16
_RUN = re.compile(rb"\x01(?:\x00{0,%d}\x01)*" % (_GAP_BLOCKS - 1))
_WATCH_SECONDS = 45.0
_POLL_SECONDS = 0.5


class Mark(msgspec.Struct, frozen=True):
    """What the metadata of a partial image says: its content, and the bytes that were flushed."""

    content: str
    done: int


class Found(NamedTuple):
    """What there is under both names; `mark` is the partial image's."""

    image: bool
    partial: bool
    mark: Mark | None = None


def data_runs(buffer: Buffer, length: int) -> Iterator[tuple[int, int]]:
    """(start, length) of what to write; between them are zeros, at least 64 KiB of them.

    >>> buffer = Buffer(1 << 20); buffer.fill(b"x", 4096); buffer.fill(b"x", 500_000)
    >>> list(data_runs(buffer, 1 << 20))
    [(4096, 4096), (499712, 4096)]
    """
    for match in _RUN.finditer(used_blocks(buffer, length)):
        start, stop = match.start() * BLOCK, min(match.end() * BLOCK, length)
        yield start, stop - start


def refusal(found: Found, spec: str, *, overwrite: bool) -> str:
    """Why nothing can be restored to `spec` (POOL/IMAGE), or ""."""
    partial = f"{spec}{SUFFIX}"
    if found.partial and found.mark is None:
        return f"{partial} is in the way, and no restore has made it: rename or remove it"
    if found.partial and found.image:
        why = f"{partial} is left from an interrupted restore, and {spec} is there too"
        return f"{why}: rename or remove one of them"
    if found.image and not overwrite:
        return "it exists: --overwrite writes over it, or choose another name"
    return ""


class _Progress:
    """Up to where everything has been written; thread-safe."""

    def __init__(self, done: int) -> None:
        self.done = done
        self._ahead: dict[int, int] = {}
        self._lock = threading.Lock()

    def add(self, offset: int, length: int) -> int:
        """Note a range; returns the bytes from the beginning without a gap."""
        with self._lock:
            if offset >= self.done:
                self._ahead[offset] = offset + length
            while self.done in self._ahead:
                self.done = self._ahead.pop(self.done)
            return self.done


class RbdTarget:
    """See `Target`."""

    in_order = False
    in_place = True

    def __init__(self, settings: RbdSettings, *, overwrite: bool) -> None:
        self.path = f"{PREFIX}{settings.spec}"
        self.taken_up = 0
        self._settings = settings
        self._overwrite = overwrite
        self._stack = ExitStack()
        self._open = ExitStack()
        self._pool: Pool | None = None
        self._image: Image | None = None
        self._is_zero = False
        self._content = ""
        self._size = 0
        self._progress = _Progress(0)
        self._saved = 0
        self._saving = threading.Lock()

    @property
    def _partial(self) -> str:
        return f"{self._settings.image}{SUFFIX}"

    def begin(self, size: int, content: str = "") -> None:
        """See `Target.begin`."""
        settings = self._settings
        self._content, self._size = content, size
        access = Access(settings.conf, settings.user, settings.cluster)
        try:
            cluster = self._stack.enter_context(connected(access))
            pool = self._stack.enter_context(open_pool(cluster, settings.pool, settings.namespace))
            self._pool = pool
            found = self._look(pool)
            if why := refusal(found, settings.spec, overwrite=self._overwrite):
                raise TargetRefused(self.path, why)
            if found.partial:
                self._image = self._alone(pool, self._partial, _WATCH_SECONDS)
                mark = self._unchanged(pool, found, self._image).mark
                if mark is not None and mark.content == content:
                    self.taken_up = min(mark.done, size)
            elif found.image:
                self._image = self._alone(pool, settings.image, 0)
                self._unchanged(pool, found, self._image)
            else:
                failpoint.reached(f"create {self._partial}")
                pool.create(self._partial, size)
                self._image = self._alone(pool, self._partial, 0)
                self._is_zero = True
            self._take(pool, self._image, rename=found.image)
        except CephFailed as error:
            raise TargetRefused(self.path, error.why) from error

    def _look(self, pool: Pool) -> Found:
        """What is there; CephFailed for an image in the trash that was to be overwritten."""
        names = pool.names()
        image, partial = self._settings.image in names, self._partial in names
        if self._overwrite and not image and not partial:
            pool.check_trash(self._settings.image)
        if not partial:
            return Found(image, partial)
        with pool.image(self._partial) as opened:
            return Found(image, partial, _parse_mark(opened.metadata(KEY)))

    def _alone(self, pool: Pool, name: str, patience: float) -> Image:
        """The image, open and locked; TargetRefused while another client has it open for writing."""
        image = self._open.enter_context(pool.image(name, read_only=False))
        ends = time.monotonic() + patience
        while others := [one for one in image.watchers() if one.name != pool.cluster.instance]:
            if time.monotonic() >= ends:
                who = f"{others[0].name} at {others[0].address}"
                cure = "stop its machine or unmap it (one that was killed still counts for 30 s)"
                raise TargetRefused(self.path, f"{image.spec} is open in {who}: {cure}")
            time.sleep(_POLL_SECONDS)
        image.lock()
        return image

    def _unchanged(self, pool: Pool, before: Found, image: Image) -> Found:
        """What there is now that `image` is ours; TargetRefused if it is not what was found any more.

        Whoever was waited for may have finished: then it is whole, under its own name.
        """
        found = self._look(pool)
        if (found.image, found.partial) == (before.image, before.partial):
            with pool.image(self._partial if found.partial else self._settings.image) as named:
                is_same = named.ident == image.ident
            if is_same and (found.mark is None) == (before.mark is None):
                return found
        why = f"{image.spec}: another restore has finished or replaced it meanwhile"
        raise TargetRefused(self.path, f"{why}, so nothing was written")

    def _take(self, pool: Pool, image: Image, *, rename: bool) -> None:
        """Mark it as incomplete, also by its name, before a byte of it is changed."""
        self._progress = _Progress(self.taken_up)
        self._saved = self.taken_up
        self._save(image)
        if rename:
            failpoint.reached(f"rename {self._settings.image}")
            pool.rename(self._settings.image, self._partial)
        if image.size != self._size:
            image.resize(self._size)

    def _save(self, image: Image) -> None:
        """Note how far everything is written and flushed."""
        done = self._progress.done
        image.flush()
        failpoint.reached(f"mark {self._partial}")
        mark = Mark(content=self._content, done=done)
        image.set_metadata(KEY, msgspec.json.encode(mark).decode())
        self._saved = done

    def write(self, buffer: Buffer, offset: int, length: int) -> None:
        """See `Target.write`; zeros are left out or made."""
        image = self._begun()
        with self._failing(offset):
            at = 0
            for start, count in data_runs(buffer, length):
                self._make_zeros(image, offset + at, start - at)
                failpoint.reached(f"write {self.path}")
                image.write(bytes(buffer.view[start : start + count]), offset + start)
                at = start + count
            self._make_zeros(image, offset + at, length - at)
            self._note(image, offset, length)

    def zero(self, offset: int, length: int) -> None:
        """See `Target.zero`."""
        image = self._begun()
        with self._failing(offset):
            self._make_zeros(image, offset, length)
            self._note(image, offset, length)

    def _make_zeros(self, image: Image, offset: int, length: int) -> None:
        if self._is_zero:
            return
        for at in range(0, length, _ZEROS):
            failpoint.reached(f"zero {self.path}")
            image.write_zeros(offset + at, min(_ZEROS, length - at))

    def _note(self, image: Image, offset: int, length: int) -> None:
        done = self._progress.add(offset, length)
        if done - self._saved >= _STEP and self._saving.acquire(blocking=False):
            try:
                self._save(image)
            finally:
                self._saving.release()

    def finish(self) -> None:
        """See `Target.finish`."""
        image, name = self._begun(), self._settings.image
        with self._failing(self._size):
            assert self._pool is not None
            self._save(image)
            with self._pool.image(self._partial) as named:
                if named.ident != image.ident:
                    raise TargetFailed(self.path, self._size, f"{named.spec} is another image by now")
            failpoint.reached(f"rename {self._partial}")
            # Before the lock goes: whoever waits for it finds that this is partial no more.
            self._pool.rename(self._partial, name)
        # It is whole. What is left of the mark means nothing under this name.
        with suppress(CephFailed):
            image.remove_metadata(KEY)
        self._image = None
        self._open.close()
        with self._failing(self._size):
            self._image = self._open.enter_context(self._pool.image_of(image.ident, name=name))

    def read_back(self, buffer: Buffer, offset: int, length: int) -> int:
        """See `Target.read_back`; nothing is cached on our side."""
        with self._failing(offset):
            self._begun().read(buffer, offset, length)
        return length

    def is_hole(self, offset: int, length: int) -> bool:
        """See `Target.is_hole`; objects that do not exist."""
        with self._failing(offset):
            return not self._begun().pieces(offset, length, whole_objects=True)

    def close(self) -> None:
        """See `Target.close`; an image that was not finished keeps its marks."""
        self._image = None
        self._open.close()
        self._stack.close()

    def _begun(self) -> Image:
        if self._image is None:
            raise TargetFailed(self.path, 0, "it has not been begun")
        return self._image

    @contextmanager
    def _failing(self, offset: int) -> Iterator[None]:
        """CephFailed is TargetFailed, with what can be done."""
        try:
            yield
        except CephFailed as error:
            why = error.why
            if error.is_outage and self._pool is not None and self._pool.is_full:
                why = f"pool {self._pool.name!r} is full: make space or raise its quota"
            again = f"the same restore goes on from what {self._settings.spec}{SUFFIX} has"
            raise TargetFailed(self.path, offset, f"{why}; {again}") from error


def _parse_mark(found: str | None) -> Mark | None:
    """The mark; one that makes no sense is somebody's, and none of ours."""
    if found is None:
        return None
    try:
        return msgspec.json.decode(found, type=Mark)
    except msgspec.DecodeError:
        return None
