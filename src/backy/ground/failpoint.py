"""Numbered places where a test may make backy die, stop or fail.

Every call that changes a lasting file, a target or a snapshot is preceded by `reached(step)`. A test
process installs a hook that counts the calls and, at the N-th, kills the process or raises an
OSError; running N = 1, 2, … until nothing happens visits every place (tests/crash). Nothing in a
normal installation installs a hook: there is no environment variable for it.

    >>> seen = []
    >>> install(seen.append)
    >>> reached("link chunks/ab/…")
    >>> seen
    ['link chunks/ab/…']
    >>> install(None)
"""

from collections.abc import Callable

_hook: Callable[[str], None] | None = None


def install(hook: Callable[[str], None] | None) -> None:
    """Call `hook` at every step from now on; None takes it away."""
    global _hook  # noqa: PLW0603 - the one hook, which only tests set
    _hook = hook


def reached(step: str) -> None:
    """Say that the step is about to happen; the hook may raise or never return."""
    if _hook is not None:
        _hook(step)
