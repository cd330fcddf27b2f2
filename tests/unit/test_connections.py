"""Connections that never come to the point are closed."""

from backy.daemon.connections import MAX_SECONDS, Connection, close_old


class Client:
    """A connection that remembers whether it was closed."""

    closed = False

    def force_close(self) -> None:
        """See `Connection`."""
        self.closed = True


def test_an_old_connection_is_closed_and_a_young_one_is_not() -> None:
    """The time counts from when each was first seen."""
    old, young = Client(), Client()
    seen: dict[Connection, float] = close_old([old], {}, 100.0)
    seen = close_old([old, young], seen, 100.0 + MAX_SECONDS)
    assert (False, False) == (old.closed, young.closed)

    seen = close_old([old, young], seen, 101.0 + MAX_SECONDS)

    assert (True, False) == (old.closed, young.closed)
    assert {young: 100.0 + MAX_SECONDS} == seen


def test_what_was_closed_by_others_is_forgotten() -> None:
    """No list grows with the clients of a year."""
    assert {} == close_old([], {Client(): 1.0}, 2.0)
