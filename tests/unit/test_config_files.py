"""Configuration that operators write: what is read, what is refused, and what the refusal says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.domain.chunk import ZSTD, Codec, parse_codec
from backy.domain.config import (
    GlobalConfig,
    JobConfig,
    SourceConfig,
    TagPolicy,
    default_schedule,
    parse_global,
    parse_job,
    render_job,
)
from backy.ground.errors import ConfigError
from strategies import repeatable, tag_names

JOB = """\
source: {type: file, filename: /srv/vm01.raw}
schedule:
  daily: {interval: 1d, keep: 10}
  weekly: {interval: 7d, keep: 4}
"""

PRODUCTION = """\
# Managed by fc-backy, do not edit
global: {base-dir: /srv/backy, worker-limit: 3, status-file: /srv/backy/status, status-interval: 30,
  telnet-addrs: "::1, 127.0.0.1", telnet-port: 6023, backup-completed-callback: /bin/true}
schedules:
  default: {daily: {interval: 1d, keep: 10}, weekly: {interval: 7d, keep: 4}}
  frequent+longterm: {hourly: {interval: 1h, keep: 25}}
jobs:
  vm01: {schedule: default, source: {type: flyingcircus, consul_acl_token: x, image: vm01.root,
    pool: rbd.hdd, vm: vm01, full-always: false}}
"""

PEERS = """\
global: {base-dir: /srv/backy}
api: {addrs: "::1, 127.0.0.1", port: 6023, tokens: {secret: client}, cli-default: {token: secret}}
peers: {other: {url: "http://other:6023", token: secret}}
"""


def test_job_configuration_is_read() -> None:
    """A job's file gives its source and its schedule in seconds."""
    source = SourceConfig("file", {"filename": "/srv/vm01.raw"})
    schedule = {"daily": TagPolicy(86_400, 10), "weekly": TagPolicy(604_800, 4)}

    assert JobConfig(source, schedule) == parse_job(JOB, "config")


def test_global_configuration_is_read() -> None:
    """Base directory and codec are the settings of this version."""
    text = "global: {base-dir: /mnt/backups, codec: 'zstd:9'}"

    assert GlobalConfig("/mnt/backups", Codec(ZSTD, 9)) == parse_global(text, "backy.conf")


@pytest.mark.parametrize("text", ["{}", "global: {}", "global:", "jobs: {}", "schedules: {}\njobs: {}"])
def test_missing_settings_have_their_defaults(text: str) -> None:
    """What is not said is /srv/backy, lz4, one worker and no callbacks."""
    expected = GlobalConfig("/srv/backy", parse_codec("lz4"), True, 1, None, None, 86400, 1800, ())

    assert expected == parse_global(text, "backy.conf")


def test_file_of_version_2_5_loads_unchanged() -> None:
    """A production file of 2.5 is read; the settings that mean nothing here are listed."""
    found = parse_global(PRODUCTION, "backy.conf")

    assert "/srv/backy" == found.base_dir
    assert ("status-file", "status-interval", "telnet-addrs", "telnet-port") == tuple(
        key.removeprefix("global.") for key in found.legacy
    )


def test_file_of_the_unreleased_main_loads_unchanged() -> None:
    """The sections for API and peers are left to those that use them."""
    assert GlobalConfig() == parse_global(PEERS, "backy.conf")


def test_job_file_of_older_versions_loads_unchanged() -> None:
    """Keys of a job's file that mean nothing here are accepted."""
    older = (
        "path: /srv/backy/vm01\nsource: {type: file, filename: /x, cow: true, backend: chunked}\n"
        "schedule: {daily: {interval: 86400, keep: 3}}"
    )

    found = parse_job(older, "config")
    assert SourceConfig("file", {"filename": "/x"}) == found.source
    assert {"daily": TagPolicy(86_400, 3)} == found.schedule


@pytest.mark.parametrize(
    ("text", "key", "why"),
    [
        ("globals: {}", "globals", "did you mean 'global'?"),
        ("global: {basedir: /x}", "global.basedir", "did you mean 'base-dir'?"),
        ("global: {base_dir: /x}", "global.base_dir", "did you mean 'base-dir'?"),
        ("global: {codecs: lz4}", "global.codecs", "did you mean 'codec'?"),
        ("global: {zzz: 1}", "global.zzz", "known are base-dir, codec"),
        ("global: {base-dir: srv/backy}", "global.base-dir", "not an absolute path"),
        ("global: {base-dir: 7}", "global.base-dir", "7 is not a text"),
        ("global: {base-dir: ''}", "global.base-dir", "is not a text"),
        ("global: {base-dir: }", "global.base-dir", "is not a text"),
        ("global: {base-dir: [/srv]}", "global.base-dir", "is not a text"),
        ("global: {codec: gzip}", "global.codec", "is none of lz4"),
        ("global: {codec: 3}", "global.codec", "is not a text"),
        ("global: 3", "global", "must be a table"),
        ("global: [base-dir]", "global", "must be a table"),
        ("global: {3: x}", "global", "put it into quotes"),
        ("- global", "", "must be a table"),
        ("text", "", "must be a table"),
        ("", "", "must be a table"),
        ("global: {", "", "it is not YAML"),
        ("\tglobal: {}", "", "in line 1"),
        ("a: b: c", "", "in line 1"),
    ],
)
def test_wrong_global_setting_is_told_with_its_key(text: str, key: str, why: str) -> None:
    """The refusal names file, key and reason, and the nearest key that would have been right."""
    with pytest.raises(ConfigError) as caught:
        parse_global(text, "backy.conf")

    assert ("backy.conf", key) == (caught.value.file, caught.value.key)
    assert why in caught.value.why


@pytest.mark.parametrize(
    ("old", "new", "key", "why"),
    [
        ("source:", "sources:", "sources", "'source' has a single image"),
        ("schedule:", "shedule:", "shedule", "did you mean 'schedule'?"),
        ("keep: 10", "kep: 10", "schedule.daily.kep", "did you mean 'keep'?"),
        (", keep: 10", "", "schedule.daily.keep", "it is missing"),
        ("interval: 1d, ", "", "schedule.daily.interval", "it is missing"),
        ("type: file, ", "", "source.type", "it is missing"),
        ("type: file", "type: 3", "source.type", "3 is not a text"),
        ("filename: /srv/vm01.raw", "filename: [a]", "source.filename", "a text, a number"),
        ("filename: /srv/vm01.raw", "filename: {a: b}", "source.filename", "a text, a number"),
        ("filename: /srv/vm01.raw", "filename: 2024-01-01", "source.filename", "a text, a number"),
        ("1d", "1d12h", "schedule.daily.interval", "'1d12h' is not a number"),
        ("1d", "0d", "schedule.daily.interval", "longer than 0"),
        ("1d", "[1d]", "schedule.daily.interval", "is not a number"),
        ("1d", "1.5", "schedule.daily.interval", "'1.5' is not a number"),
        ("1d", "true", "schedule.daily.interval", "'True' is not a number"),
        ("10", "0", "schedule.daily.keep", "0 is not a number of 1 to 1000000"),
        ("10", "-1", "schedule.daily.keep", "-1 is not a number of 1 to 1000000"),
        ("10", "true", "schedule.daily.keep", "True is not a number of 1 to 1000000"),
        ("10", "'10'", "schedule.daily.keep", "'10' is not a number of 1 to 1000000"),
        ("10", "1.5", "schedule.daily.keep", "1.5 is not a number of 1 to 1000000"),
        ("daily", "'da/ily'", "schedule.da/ily", "use letters, digits"),
        ("daily", "''", "schedule.", "use letters, digits"),
        ("daily", "1", "schedule", "put it into quotes"),
    ],
)
def test_wrong_job_setting_is_told_with_its_key(old: str, new: str, key: str, why: str) -> None:
    """Each mistake in a job's file has its own dotted key and reason."""
    with pytest.raises(ConfigError) as caught:
        parse_job(JOB.replace(old, new), "JOB/config")

    assert ("JOB/config", key) == (caught.value.file, caught.value.key)
    assert why in caught.value.why
    assert 1 == caught.value.exit_code


@pytest.mark.parametrize("missing", ["source", "schedule"])
def test_job_without_a_part_is_refused(missing: str) -> None:
    """Source and schedule are both needed."""
    lines = JOB.splitlines(keepends=True)
    text = "".join(lines[1:] if missing == "source" else lines[:1])

    with pytest.raises(ConfigError, match=f"config: {missing}: it is missing"):
        parse_job(text, "config")


def test_message_says_file_key_and_reason() -> None:
    """The operator reads one sentence that begins with where to look."""
    with pytest.raises(ConfigError) as caught:
        parse_global("global: {basedir: /x}", "/etc/backy.conf")

    expected = "/etc/backy.conf: global.basedir: this key is not known; did you mean 'base-dir'?"
    assert expected == caught.value.message.removesuffix(".")


@repeatable(100)
@given(
    kind=st.sampled_from(["file", "rbd", "yes", "null", "1"]),
    settings=st.dictionaries(
        st.sampled_from(["filename", "pool", "full-always"]),
        st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12)
        | st.integers(0, 10**6)
        | st.booleans(),
        max_size=3,
    ),
    schedule=st.dictionaries(
        tag_names(), st.builds(TagPolicy, st.integers(1, 10**9), st.integers(1, 10**6)), max_size=3
    ),
)
def test_rendered_job_is_read_back(
    kind: str, settings: dict[str, str | int | bool], schedule: dict[str, TagPolicy]
) -> None:
    """What `init` and the scheduler write means the same when it is read."""
    job = JobConfig(SourceConfig(kind, settings), schedule)

    assert job == parse_job(render_job(job), "config")


def test_default_schedule_is_daily_weekly_monthly() -> None:
    """`init` writes 10 days, 4 weeks, 4 times 30 days."""
    day = 86_400
    expected = {"daily": (day, 10), "weekly": (7 * day, 4), "monthly": (30 * day, 4)}

    assert expected == {tag: tuple(policy) for tag, policy in default_schedule().items()}
