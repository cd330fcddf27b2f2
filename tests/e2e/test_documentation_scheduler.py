"""What the documentation says of configuration, schedules, API and monitoring is what the code does."""

import configparser
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import MappingProxyType
from typing import NamedTuple

import yaml
from pages import DOC, ROOT, first_table, table_rows
from prometheus_client.core import Metric

from backy.daemon import workers
from backy.daemon.metrics import _Snapshot
from backy.daemon.openapi import DOCUMENT
from backy.daemon.scheduler import Pool, Waiting, order
from backy.domain import api_settings, config, handshake_settings, rbd_settings, settings
from backy.domain.chunk import parse_codec
from backy.domain.chunkmap import NO_DISK
from backy.domain.config import TagPolicy
from backy.domain.group_settings import COMMAND_KEYS
from backy.domain.health import assess
from backy.domain.names import MANUAL_PREFIX
from backy.domain.retention import plan_expiry
from backy.domain.revision import Origin, Revision, SourceIdentity, Stats, Trust
from backy.domain.schedule import backoff, job_spread, next_slot
from backy.domain.settings import SOURCE_KEYS, Settings, parse_settings
from backy.ground.clock import SystemClock
from backy.source.registry import open_group

EXAMPLE = ROOT / "backy.conf.example"
SCHEDULING = (DOC / "scheduling.md").read_text()
CONFIGURATION = (DOC / "configuration.md").read_text()
DAILY = {"daily": TagPolicy(86400, 1)}


# ..Configuration.............................................................................


def loaded(text: str) -> Settings:
    """A whole configuration file without a mistake."""
    return parse_settings(text, str(EXAMPLE)).complete()


def uncommented(text: str) -> str:
    """The example with all the keys that it offers as comments."""
    return re.sub(r"^( *)#(?=[a-z]|- )", r"\1", text, flags=re.MULTILINE)


def paths(found: object, prefix: str = "") -> set[str]:
    """All keys of a document, dotted."""
    if not isinstance(found, dict):
        return set()
    here = {f"{prefix}{key}" for key in found}
    return here.union(*(paths(value, f"{prefix}{key}.") for key, value in found.items()))


def test_the_example_configuration_loads() -> None:
    """What operators copy is accepted, and means what its comments say."""
    found = loaded(EXAMPLE.read_text())

    assert ((), config.DEFAULT_BASE) == (found.legacy, found.general.base_dir)
    assert parse_codec(config.DEFAULT_CODEC) == found.general.codec
    assert (api_settings.DEFAULT_ADDRESSES, api_settings.DEFAULT_PORT) == found.api[:2]


def test_the_example_configuration_loads_with_all_that_is_commented_out() -> None:
    """What operators take the '#' away from is accepted too."""
    found = loaded(uncommented(EXAMPLE.read_text()))

    assert "flyingcircus" == found.jobs["vm03"].source.disks[NO_DISK].type
    assert ["backup2"] == list(found.peers)
    assert found.general.failed_callback
    assert found.api.client_token in found.api.tokens


def test_the_example_configuration_shows_every_key() -> None:
    """Each key of each section is there, commented out or not."""
    shown = paths(yaml.safe_load(uncommented(EXAMPLE.read_text())))
    known = {
        *config.SECTIONS,
        *(f"global.{key}" for key in config.GLOBAL_KEYS),
        *(f"api.{key}" for key in api_settings.API_KEYS),
        *(f"api.cli-default.{key}" for key in api_settings.CLIENT_KEYS),
        *(f"peers.backup2.{key}" for key in api_settings.PEER_KEYS),
        *(f"jobs.vm03.source.{key}" for key in ("type", *handshake_settings.KEYS)),
        *(f"jobs.vm04.{key}" for key in (config.SOURCES, *COMMAND_KEYS)),
        *(f"jobs.vm05.source.{key}" for key in ("type", *rbd_settings.KEYS)),
    }

    assert set() == known - shown


def test_the_configuration_page_has_every_key() -> None:
    """Each key stands in a table of the page, legacy ones in the text."""
    known = {
        *(f"global.{key}" for key in config.GLOBAL_KEYS),
        *(f"api.{key}" for key in api_settings.API_KEYS if key != "cli-default"),
        *(f"api.cli-default.{key}" for key in api_settings.CLIENT_KEYS),
        *(f"peers.NAME.{key}" for key in api_settings.PEER_KEYS),
        *(f"schedules.NAME.TAG.{key}" for key in TagPolicy._fields),
        *(f"jobs.NAME.{key}" for key in ("schedule", "source.type")),
    }
    legacy = {*config.GLOBAL_LEGACY, *config._JOB_LEGACY}
    legacy |= {f"source.{key}" for key in config.SOURCE_LEGACY}

    assert set() == known - {row[0] for row in table_rows(CONFIGURATION)}
    assert set() == {key for key in legacy if f"`{key}`" not in CONFIGURATION}


def test_the_configuration_page_has_every_source_type_with_its_keys() -> None:
    """What a type must have and may have is in the table."""
    rows = first_table(CONFIGURATION, "source types")

    assert {name: set(keys) for name, keys in SOURCE_KEYS.items()} == {
        row[0]: set(re.findall(r"[\w-]+", f"{row[1]} {row[2]}")) for row in rows
    }
    assert dict(settings._REQUIRED) == {row[0]: tuple(re.findall(r"[\w-]+", row[1])) for row in rows}


def test_jobs_of_the_example_configuration_are_valid() -> None:
    """Each job that is not commented out has a source that this version opens."""
    jobs = loaded(EXAMPLE.read_text()).jobs

    assert jobs
    for name, job in jobs.items():
        open_group(job.source, name, None)


def test_the_job_configuration_that_is_shown_is_what_init_writes() -> None:
    """The page shows the default schedule."""
    match = re.search(r"```yaml\n(.*?)```", CONFIGURATION, re.DOTALL)
    assert match is not None

    assert config.default_schedule() == config.parse_job(match[1], "config").schedule


# ..Scheduling................................................................................


def test_slots_that_are_shown_are_those_of_the_jobs() -> None:
    """The table of slots is computed again, so it also pins backy 2.5's spread."""
    midnight = datetime(2026, 11, 24, tzinfo=UTC)

    def slot(job: str) -> list[str]:
        moved = job_spread(job, DAILY)
        return [job, str(moved), next_slot(midnight, 86400, moved).strftime("%H:%M:%S")]

    rows = first_table(SCHEDULING, "slots")

    assert [slot(row[0]) for row in rows] == rows


def test_the_order_that_is_shown_is_that_of_the_scheduler() -> None:
    """The example of Moore and Hodgson's rule."""
    rows = first_table(SCHEDULING, "order")
    now = datetime(2026, 11, 24, tzinfo=UTC)
    jobs = [
        Waiting(name, Pool.FAST, now, int(slack) * 60, 86400, int(takes) * 60)
        for name, slack, takes, _ in rows
    ]

    assert sorted(rows, key=lambda row: row[3]) == [
        rows[[row[0] for row in rows].index(one.job)] for one in order(jobs, 1)
    ]


def test_the_backoff_that_is_shown_is_that_of_the_scheduler() -> None:
    """Minutes after each failure in a row."""
    (minutes,) = (row[1:] for row in first_table(SCHEDULING, "backoff") if row[0] == "minutes")

    assert [str(backoff(failures) // 60) for failures in range(1, 10)] == minutes
    assert backoff(9) == backoff(1000)


class _Row(NamedTuple):
    """A row of the example of retention."""

    taken: str
    tags: str
    trust: str
    fate: str
    loses: str
    why: str

    def revision(self, schedule: dict[str, TagPolicy]) -> Revision:
        """What it describes."""

        def origin(tag: str) -> Origin:
            if tag.startswith(MANUAL_PREFIX):
                return Origin.MANUAL
            return Origin.SCHEDULE if tag in (*schedule, "monthly") else Origin.FORCED

        return Revision(
            uuid=self.taken,
            taken_at=datetime.fromisoformat(self.taken).replace(tzinfo=UTC),
            tags={tag: origin(tag) for tag in self.tags.split(",")},
            trust=Trust(self.trust),
            maps=(),
            source=SourceIdentity(type="file"),
            stats=Stats(),
        )


def test_the_example_of_retention_is_what_expire_would_do() -> None:
    """Fate, lost tags and reasons of every row are computed again."""
    schedule = {"daily": TagPolicy(86400, 3), "weekly": TagPolicy(7 * 86400, 2)}
    rows = [_Row(*row) for row in first_table(SCHEDULING, "retention")]
    now = datetime(2026, 11, 24, 4, tzinfo=UTC)
    plan = plan_expiry([row.revision(schedule) for row in rows], schedule, now)

    assert all(one.taken < following.taken for one, following in pairwise(rows))
    assert [(row.fate, row.loses, row.why) for row in rows] == [
        (one.fate.value, ",".join(one.lost), "; ".join(one.reasons)) for one in plan
    ]


# ..API and monitoring........................................................................


def test_the_table_of_routes_is_that_of_the_description() -> None:
    """Methods, routes, and what each refuses beyond a missing token and a timeout."""
    described = {
        (method.upper(), path): (
            {code for code in route["responses"] if code.startswith("2")},
            {code for code in route["responses"] if code not in ("401", "408") and code >= "3"},
        )
        for path, methods in DOCUMENT["paths"].items()
        for method, route in methods.items()
    }
    rows = first_table((DOC / "api.md").read_text(), "routes")

    assert described == {
        (row[0], row[1]): (set(re.findall(r"\d+", row[2])), set(re.findall(r"\d+", row[3])))
        for row in rows
    }


class _NoJobs:
    """A service without jobs, which names all metrics all the same."""

    jobs: Mapping[str, object] = MappingProxyType({})
    limit = 1
    counters: Mapping[str, int] = MappingProxyType({"succeeded": 0, "failed": 0})
    started_at = datetime(2026, 11, 24, tzinfo=UTC)

    def running(self) -> dict[Pool, int]:
        """No worker is busy."""
        return dict.fromkeys(Pool, 0)

    def queue(self) -> int:
        """Nobody waits."""
        return 0


def exposed_name(metric: Metric) -> str:
    """A metric's name as Prometheus sees it."""
    return f"{metric.name}_total" if metric.type == "counter" else metric.name


def test_the_table_of_metrics_has_every_metric() -> None:
    """Dashboards are made from this table."""
    # Of a scheduler it asks for nothing but what _NoJobs has.
    found = _Snapshot(_NoJobs(), SystemClock().now(), (0, 0)).collect()  # type: ignore[arg-type]
    rows = first_table((DOC / "monitoring.md").read_text(), "metrics")

    assert {exposed_name(one) for one in found} == {row[0] for row in rows}


def test_performance_data_is_documented() -> None:
    """Each figure behind the bar has its row."""
    data = assess([], [], daemon_alive=True).line.partition("|")[2]
    rows = table_rows((DOC / "monitoring.md").read_text())

    assert set(re.findall(r"(\w+)=", data)) <= {row[0] for row in rows}


# ..Packaging.................................................................................


def unit(section: str) -> dict[str, str]:
    """A section of the unit file."""
    parser = configparser.ConfigParser(interpolation=None)
    # As configparser's own documentation has it, to keep the case of the keys.
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(ROOT / "packaging" / "systemd" / "backy.service")
    return dict(parser[section])


def test_the_unit_file_leaves_children_the_time_that_they_have() -> None:
    """Systemd kills no child while the scheduler waits for it, and backy writes where it has to."""
    service = unit("Service")

    assert "/usr/bin/backy -c /etc/backy.conf -l /var/log/backy.log scheduler" == service["ExecStart"]
    # No younger type: Debian 12 has systemd 252, which takes what it does not know for `simple`.
    assert ("notify", "mixed") == (service["Type"], service["KillMode"])
    assert "/usr/bin/backy -c /etc/backy.conf reload" == service["ExecReload"]
    stop = timedelta(seconds=int(service["TimeoutStopSec"]))
    assert stop > timedelta(seconds=workers.TERMINATION_SECONDS)
    assert {config.DEFAULT_BASE, "/var/log"} == set(service["ReadWritePaths"].split())
