"""What every target offers a restore.

    with open_target(path) as target:
        target.begin(size)
        target.write(buffer, offset, length)   any number of threads, any order unless `in_order`
        target.zero(offset, length)
        target.finish()

Limits: `begin` refuses before anything is changed; without `finish` a new file does not appear.
"""

from typing import Protocol

from backy.ground.linux import Buffer


class Target(Protocol):
    """Where an image is restored to."""

    path: str
    in_order: bool
    """Whether writes must come in ascending order without gaps (a stream)."""
    in_place: bool
    """Whether a restore that fails leaves a part of the image behind."""

    @property
    def taken_up(self) -> int:
        """Bytes from the beginning that an earlier restore of the same content has left, it seems.

        They are to be read back and compared; what is different is to be written again.
        """
        ...

    def begin(self, size: int, content: str = "") -> None:
        """Get ready for an image of that many bytes; TargetRefused.

        `content` names its bytes: images of the same content are equal. A target that keeps what an
        interrupted restore has written goes by it.
        """
        ...

    def write(self, buffer: Buffer, offset: int, length: int) -> None:
        """Write the buffer's first `length` bytes at `offset`. TargetFailed."""
        ...

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeros, whatever it held before. TargetFailed."""
        ...

    def finish(self) -> None:
        """Bring everything to the disk and make the target visible. TargetFailed."""
        ...

    def read_back(self, buffer: Buffer, offset: int, length: int) -> int:
        """Read what was written, past the page cache; returns the bytes read.

        After `finish`, and before it for what was taken up.
        """
        ...

    def is_hole(self, offset: int, length: int) -> bool:
        """Whether a range is known to read as zeros, without reading it. After `finish`."""
        ...

    def close(self) -> None:
        """Release it; one that was not finished leaves nothing behind where that is possible."""
        ...
