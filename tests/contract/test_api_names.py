"""Two hundred hostile names through every route: none gets out, each gets a 4xx in JSON (T20).

Limits: a name that does not fit into a request's line is refused before it is one, as text.
"""

import json
import re
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from filetree import tree
from hostile_names import NAMES, is_fine_tag

from daemonsite import Daemon, DaemonSite, Route, routes

pytestmark = pytest.mark.proof("T20")

LINE = 8190
NOTHING = b'{"old_tags": ["none of these"], "new_tags": []}'
PRINTABLE = re.compile(r"[!-~]+")
NAMED = [one for one in routes() if "{name}" in one.path]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A scheduler beside something that names must not reach, also not by a link in the repository."""
    folder = tmp_path_factory.mktemp("names")
    site = DaemonSite(folder)
    (folder / "outside").mkdir()
    (folder / "outside/config").write_text("what makes a directory look like a job")
    (site.site.base / "link").symlink_to(folder / "outside")
    with site.running() as running:
        yield running


def encoded(name: str) -> str:
    """As a client would send it."""
    return quote(name, safe="", errors="surrogatepass")


def refused(daemon: Daemon, method: str, path: str, body: bytes = NOTHING) -> bool:
    """Whether the answer is a 4xx, with a sentence in JSON where the request can be read at all."""
    answer = daemon.ask(method, path, body)
    if len(path) > LINE - 20:
        return answer.status in (400, 404)
    return 400 <= answer.status < 500 and bool(answer.error)


@pytest.mark.parametrize("route", NAMED, ids=" ".join)
def test_no_job_name_gets_out(daemon: Daemon, route: Route) -> None:
    """Encoded, doubly encoded and raw; nothing changes in the repository or beside it."""
    before = tree(daemon.on.site.folder)
    known = ("vm", "fresh", "sick", "left", "spare")
    strange = [one for one in (*NAMES, "link", "link/vm", "../backups/vm") if one not in known]
    raw = [one for one in strange if PRINTABLE.fullmatch(one) and "?" not in one and "#" not in one]
    paths = [
        *(route.at(encoded(one)) for one in strange),
        *(route.at(encoded(encoded(one))) for one in strange if len(one) < 300),
        *(route.at(one) for one in raw),
    ]

    assert len(NAMES) > 200
    assert [] == [path[:100] for path in paths if not refused(daemon, route.method, path)]
    assert before == tree(daemon.on.site.folder)


def test_no_spec_gets_out(daemon: Daemon) -> None:
    """Neither as a revision nor as a file."""
    before = tree(daemon.on.site.folder)
    paths = [f"/v1/backups/left/revs/{encoded(one)}/tags" for one in NAMES]

    assert [] == [path[:100] for path in paths if not refused(daemon, "PUT", path)]
    assert before == tree(daemon.on.site.folder)


def test_tags_are_held_to_their_letters(daemon: Daemon) -> None:
    """400 for one that is not allowed, 412 for one that is, since the old tags differ."""
    before = tree(daemon.on.site.folder)
    expected = {one: 412 if is_fine_tag(one) else 400 for one in NAMES if len(one) < 10_000}
    found = {}
    for name in expected:
        body = json.dumps({"old_tags": ["none of these"], "new_tags": [name]}).encode()
        found[name] = daemon.ask("PUT", "/v1/backups/left/revs/last/tags", body).status

    assert expected == found
    assert before == tree(daemon.on.site.folder)


def test_patterns_match_names_or_are_refused(daemon: Daemon) -> None:
    """200 or 400, in JSON; a log line never has what could steer a terminal."""
    for name in NAMES:
        path = f"/v1/status?filter={encoded(name)}"
        if len(path) < LINE:
            answer = daemon.ask("GET", path)
            assert answer.status in (200, 400), name
            assert answer.document is not None
    assert [] == [line for line in daemon.lines if not line[:-1].isprintable()]
