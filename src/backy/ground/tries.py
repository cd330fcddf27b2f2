"""Several things that are all tried, although some of them fail: the first failure is raised at the end.

    >>> tries = Tries(KeyError)
    >>> for text in ("a", "b"):
    ...     with tries.one():
    ...         raise KeyError(text)
    >>> tries.first
    KeyError('a')

Limits: one thread; other exceptions than those named end it at once.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class Tries:
    """The tries; `first` is the first failure, or None."""

    def __init__(self, *kinds: type[Exception]) -> None:
        self.first: Exception | None = None
        self._kinds = kinds

    @contextmanager
    def one(self) -> Iterator[None]:
        """One try, whose failure does not keep the next from being made."""
        try:
            yield
        except self._kinds as error:
            self.first = self.first or error

    def end(self) -> None:
        """Raise the first failure, if there was one."""
        if self.first is not None:
            raise self.first
