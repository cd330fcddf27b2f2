"""T6: a system that writes less than it is told, at every call: all is written, or the run says why."""

import os
import random
from contextlib import suppress
from typing import Any

import pytest
from crashsite import varied_image

from backy.ground import durable
from backy.ground.errors import StorageFailed
from tally import Tally
from testsite import Site

pytestmark = pytest.mark.proof("T6")


class ShortWrites:
    """Stands for `os` in `durable`: of what a call is to write, it writes a part."""

    def __init__(self, seed: int, chance: float) -> None:
        self._random = random.Random(seed)
        self._chance = chance
        self.cut = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _part(self, content: Any) -> memoryview:
        view = memoryview(content).cast("B")
        if len(view) < 2 or self._random.random() >= self._chance:
            return view
        self.cut += 1
        return view[: self._random.randrange(1, len(view))]

    def write(self, fd: int, content: Any) -> int:
        """See os.write; direct writes take whole pages, so those are cut at one."""
        part = self._part(content)
        if len(content) % 4096 == 0 and len(content) >= 4096:
            part = part[: len(part) // 4096 * 4096] or memoryview(content)
        return os.write(fd, part)

    def writev(self, fd: int, parts: Any) -> int:
        """See os.writev."""
        return os.write(fd, self._part(b"".join(parts)))

    def pwrite(self, fd: int, content: Any, offset: int) -> int:
        """See os.pwrite."""
        return os.pwrite(fd, self._part(content), offset)


@pytest.mark.parametrize("chance", [0.05, 0.5])
def test_short_writes_lose_no_byte(
    site: Site, monkeypatch: pytest.MonkeyPatch, tally: Tally, chance: float
) -> None:
    """Twenty backups each; what one says is done restores bit for bit, and what not leaves nothing."""
    images: dict[str, bytes] = {}
    cut = 0
    for seed in range(20):
        site.image.write_bytes(varied_image(seed))
        short = ShortWrites(seed, chance)
        with monkeypatch.context() as patch:
            patch.setattr(durable, "os", short)
            with suppress(StorageFailed):
                images[site.backup().uuid] = varied_image(seed)
        cut += short.cut
        history = site.history()
        assert list(images) == [one.uuid for one in history.revisions]
        assert ((), ()) == (history.unreadable, history.lost)
    assert images == {one.uuid: site.restored(one) for one in site.history().revisions}
    assert [] == site.verify().findings
    tally.count(cut)
    assert images
    assert cut
