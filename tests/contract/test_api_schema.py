"""The API keeps to the description that it serves: routes, statuses, schemas, refusals of all else.

schemathesis makes the requests, right and wrong ones, from the served document; without a seed of
chance, so that it makes the same ones each time.

    python -m schemathesis.cli run openapi.json --url http://127.0.0.1:6023 -H "Authorization: Bearer …"

Limits: some hundreds of requests; the statuses that depend on what is on disk are `test_api_routes`'s.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from daemonsite import TOKEN, Daemon, DaemonSite, routes

SECONDS = 120
# A filter or spec is any text, and says only itself whether it can be read; old tags may differ.
CONFIGURATION = """
[[operations]]
include-path = "/v1/status"
checks.positive_data_acceptance.expected-statuses = [200, 400]

[[operations]]
include-path = "/v1/backups/{name}/revs/{spec}/tags"
checks.positive_data_acceptance.expected-statuses = [204, 400, 403, 404, 412]
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A scheduler whose repository may become anything that requests make of it."""
    with DaemonSite(tmp_path_factory.mktemp("schema")).running() as running:
        yield running


class Tried(NamedTuple):
    """What schemathesis found."""

    code: int
    said: str
    report: Any


def schemathesis(daemon: Daemon, document: object, folder: Path, *options: str) -> Tried:
    """Try the API by a description, with all checks."""
    (folder / "openapi.json").write_text(json.dumps(document))
    (folder / "schemathesis.toml").write_text(CONFIGURATION)
    words = ["openapi.json", "--url", daemon.url, "-H", f"Authorization: Bearer {TOKEN}"]
    words += ["--checks", "all", "--generation-deterministic", "--continue-on-failure", *options]
    words += ["--report", "json", "--report-json-path", "report.json", "--no-color"]
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        cwd=folder,
    )
    report = folder / "report.json"
    assert report.exists(), done.stdout + done.stderr
    return Tried(done.returncode, done.stdout + done.stderr, json.loads(report.read_text()))


def test_the_description_has_every_route_and_no_other(daemon: Daemon) -> None:
    """By the application's own table."""
    document = daemon.ask("GET", "/v1/openapi.json").document
    described = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }

    assert sorted(described) == sorted(routes())


def test_every_answer_is_as_described(daemon: Daemon, tmp_path: Path) -> None:
    """Of every operation, for what keeps to its schema and for what does not; never a server's error."""
    document = daemon.ask("GET", "/v1/openapi.json").document

    tried = schemathesis(daemon, document, tmp_path, "-n", "25")

    assert 0 == tried.code, tried.said
    assert (True, [], []) == (
        *(tried.report["complete"], tried.report["failures"]),
        tried.report["errors"],
    )
    assert len(routes()) == tried.report["operations"]["tested"]
    assert tried.report["test_cases"]["generated"] > 300
    assert not [line for line in daemon.lines if "internal error" in line or "Traceback" in line]


@pytest.mark.parametrize("lie", ["status", "schema"])
def test_description_that_is_not_kept_is_found(daemon: Daemon, tmp_path: Path, lie: str) -> None:
    """The test above can fail: a status that is left out, a member that is not there."""
    document = daemon.ask("GET", "/v1/openapi.json").document
    if lie == "status":
        del document["paths"]["/v1/jobs/{name}/run"]["post"]["responses"]["404"]
        path, expected = "/v1/jobs/{name}/run", "UndefinedStatusCode"
    else:
        answer = document["paths"]["/v1/jobs"]["get"]["responses"]["200"]
        answer["content"]["application/json"]["schema"]["items"]["required"].append("colour")
        path, expected = "/v1/jobs", "JsonSchemaError"

    tried = schemathesis(
        daemon, document, tmp_path, "--include-path", path, "--phases", "coverage", "-n", "1"
    )

    assert 1 == tried.code
    assert expected in [one["type"] for one in tried.report["failures"]]
