"""`/etc/backy.conf` as a whole: old files load unchanged, and every mistake is told at once."""

from pathlib import Path

import pytest

from backy.domain.api_settings import API_KEYS, ApiConfig, PeerConfig
from backy.domain.chunkmap import NO_DISK
from backy.domain.config import (
    GLOBAL_KEYS,
    SourceConfig,
    SourcesConfig,
    TagPolicy,
    parse_job,
    render_job,
)
from backy.domain.settings import DEFAULT_FILE, Settings, parse_settings
from backy.ground.errors import ConfigError, ConfigFaults

EXAMPLE = Path(__file__).parents[2] / "backy.conf.example"
HOUR, DAY = 3600, 86_400

PRODUCTION = """\
# Managed by fc-backy, do not edit
global: {base-dir: /srv/backy, worker-limit: 3}
schedules:
  default: {daily: {interval: 1d, keep: 10}, weekly: {interval: 7d, keep: 4},
    monthly: {interval: 30d, keep: 4}}
  frequent: {hourly: {interval: 1h, keep: 25}, daily: {interval: 1d, keep: 10},
    weekly: {interval: 7d, keep: 4}, monthly: {interval: 30d, keep: 4}}
  reduced: {daily: {interval: 1d, keep: 8}, weekly: {interval: 7d, keep: 3},
    monthly: {interval: 30d, keep: 2}}
  longterm: {daily: {interval: 1d, keep: 30}, monthly: {interval: 30d, keep: 12}}
  frequent+longterm: {hourly: {interval: 1h, keep: 25}, daily: {interval: 1d, keep: 30},
    monthly: {interval: 30d, keep: 12}}
jobs:
  vm01: {schedule: default, source: {type: flyingcircus, consul_acl_token: 0c2a-11, image: vm01.root,
    pool: rbd.hdd, vm: vm01, full-always: false}}
  vm02: {schedule: frequent+longterm, source: {type: flyingcircus, consul_acl_token: 0c2a-11,
    image: vm02.root, pool: rbd.ssd, vm: vm02, full-always: true}}
"""

OLDER = """\
global: {base-dir: /srv/backy, status-file: /srv/status, status-interval: 30,
  telnet-addrs: "::1, 127.0.0.1", telnet-port: 6023, backup-completed-callback: /bin/true}
schedules: {default: {daily: {interval: 86400, keep: 10}, hourly: {interval: "3600", keep: 3}}}
jobs:
  a: {schedule: default, source: {type: file, filename: /srv/a.raw, cow: true, backend: cowfile}}
  b: {schedule: default, source: {type: ceph-rbd, pool: rbd, image: b, full-always: false}}
  c: {schedule: default, source: {type: ceph, pool: rbd, image: c, backend: chunked}}
"""

MAIN = """\
global: {base-dir: /srv/backy}
api: {addrs: "::1, 127.0.0.1", port: 6024, tokens: {the-servers-token: other},
  cli-default: {token: the-clients-token}}
peers: {other: {url: "http://other:6023", token: the-peers-token}}
schedules: {default: {daily: {interval: 1d, keep: 10}}}
jobs: {vm01: {schedule: default, source: {type: rbd, pool: rbd, image: vm01, vm: vm01}}}
"""

SOUND = """\
schedules: {default: {daily: {interval: 1d, keep: 10}}}
jobs: {vm01: {schedule: default, source: {type: file, filename: /srv/vm01.raw}}}
"""


def read(text: str) -> Settings:
    """What a text means."""
    return parse_settings(text, "backy.conf")


def faults(text: str) -> list[tuple[str, str]]:
    """Keys and reasons of all mistakes in a text."""
    return [(one.key, one.why) for one in read(text).faults]


def test_default_file_is_where_operators_have_it() -> None:
    """Nothing needs to be said for the file of 2.5."""
    assert "/etc/backy.conf" == DEFAULT_FILE


def test_production_file_of_2_5_loads_unchanged() -> None:
    """The Flying Circus file has no mistakes, nothing unused, and means what it meant."""
    found = read(PRODUCTION).complete()

    assert ("/srv/backy", 3, ()) == (found.general.base_dir, found.general.worker_limit, found.legacy)
    assert ["default", "frequent", "reduced", "longterm", "frequent+longterm"] == list(found.schedules)
    assert {"daily": (DAY, 30), "monthly": (30 * DAY, 12)} == found.schedules["longterm"]
    assert found.schedules["frequent+longterm"] == found.jobs["vm02"].schedule
    settings = {"consul_acl_token": "0c2a-11", "image": "vm01.root", "pool": "rbd.hdd", "vm": "vm01"}
    assert SourceConfig("flyingcircus", {**settings, "full-always": False}) == found.jobs["vm01"].source


def test_older_file_loads_and_lists_what_means_nothing_here() -> None:
    """Sources of 2.5 and the stale `ceph` are read; settings without a meaning are listed."""
    found = read(OLDER).complete()

    assert ["file", "ceph-rbd", "ceph"] == [
        one.source.disks[NO_DISK].type for one in found.jobs.values()
    ]
    assert {"filename": "/srv/a.raw"} == found.jobs["a"].source.settings
    telnet = ("global.telnet-addrs", "global.telnet-port")
    legacy = ("global.status-file", "global.status-interval", *telnet)
    assert (*legacy, "source.cow", "source.backend") == found.legacy
    assert "/bin/true" == found.general.completed_callback


def test_file_of_unreleased_main_loads_unchanged() -> None:
    """The sections for API and peers are read."""
    found = read(MAIN).complete()

    assert ("::1", "127.0.0.1") == found.api.addresses
    assert {"the-servers-token": "other"} == found.api.tokens
    assert (6024, "the-clients-token") == (found.api.port, found.api.client_token)
    assert {"other": PeerConfig("http://other:6023", "the-peers-token")} == found.peers


def test_file_without_settings_has_the_defaults() -> None:
    """Empty sections are as good as none."""
    found = read("global:\napi:\npeers:\nschedules:\njobs:").complete()

    assert (ApiConfig(), {}, {}) == (found.api, found.jobs, found.schedules)
    assert ("/srv/backy", 1) == (found.general.base_dir, found.general.worker_limit)


def test_address_of_version_6_is_bracketed_in_the_url() -> None:
    """`::1` gives a URL that works; upstream's did not."""
    assert "http://[::1]:6024" == read(MAIN).api.url
    assert "http://127.0.0.1:6023" == ApiConfig().url
    assert "https://b" == read("api: {cli-default: {url: 'https://b/'}}").api.url


def test_integer_interval_is_seconds() -> None:
    """A YAML integer, which upstream crashed on, is as good as a text."""
    assert TagPolicy(DAY, 10) == read(OLDER).schedules["default"]["daily"]
    assert TagPolicy(HOUR, 3) == read(OLDER).schedules["default"]["hourly"]


@pytest.mark.parametrize(
    ("text", "key", "why"),
    [
        ("globals: {}", "globals", "did you mean 'global'?"),
        ("'': 1", "''", "known are global"),
        ("global: {basedir: /x}", "global.basedir", "did you mean 'base-dir'?"),
        ("global: {worker-limit: 0}", "global.worker-limit", "not a number of 1"),
        ("global: {verify-slice: false}", "global.verify-slice", "not a number with"),
        ("global: {verify-slice: -1}", "global.verify-slice", "not a number with"),
        ("global: {verify-slice: 24h}", "global.verify-slice", "at most 23h"),
        ("global: {worker-limit: true}", "global.worker-limit", "not a number of 1"),
        ("global: {backup-failed-callback: 3}", "global.backup-failed-callback", "not a text"),
        ("global: []", "global", "must be a table"),
        ("api: {adrs: x}", "api.adrs", "did you mean 'addrs'?"),
        ("api: {addrs: localhost}", "api.addrs", "'localhost' is not an IP address"),
        ("api: {addrs: [x]}", "api.addrs", "not a text"),
        ("api: {port: 65536}", "api.port", "65536 is not a port"),
        ("api: {port: '6023'}", "api.port", "is not a port"),
        ("api: {tokens: [x]}", "api.tokens", "must be a table"),
        ("api: {cli-default: {urls: x}}", "api.cli-default.urls", "did you mean 'url'?"),
        ("api: {cli-default: {url: 'ftp://x'}}", "api.cli-default.url", "must be a URL"),
        ("api: {cli-default: {url: 'http://x:99999'}}", "api.cli-default.url", "must be a URL"),
        ("api: {cli-default: {url: 'http://[::1'}}", "api.cli-default.url", "must be a URL"),
        ("schedules: {a: {d: {interval: 366001d, keep: 1}}}", "schedules.a.d.interval", "at most 1000"),
        ("peers: {a: {token: x}}", "peers.a", "needs a url and a token"),
        ("peers: 3", "peers", "must be a table"),
        (
            "schedules: {a: {d: {interval: 1d, keep: 0}}}",
            "schedules.a.d.keep",
            "is not a number of 1 to",
        ),
        ("schedules: {a: {d: {interval: 1d12h, keep: 1}}}", "schedules.a.d.interval", "1d12h"),
        ("schedules: {a: {d: {intervall: 1d, keep: 1}}}", "schedules.a.d.intervall", "'interval'?"),
        ("schedules: {a: }", "schedules.a", "must be a table"),
        ("schedules: {1: {}}", "schedules", "put it into quotes"),
        ("jobs: {a: 3}", "jobs.a", "must be a table"),
        ("jobs: {../a: {}}", "jobs.../a", "is no job name"),
        ("jobs: {chunks: {}}", "jobs.chunks", "the chunk store's"),
    ],
)
def test_mistake_is_told_with_its_key(text: str, key: str, why: str) -> None:
    """Every mistake alone gives one fault, under its dotted key."""
    found = faults(text)

    assert [key] == [one for one, _ in found]
    assert why in found[0][1]


@pytest.mark.parametrize(
    ("old", "new", "key", "why"),
    [
        ("schedule: default, ", "", "schedule", "it is missing"),
        (", source: {type: file, filename: /srv/vm01.raw}", "", "source", "it is missing"),
        ("source:", "sources:", "sources", "'source' has a single image"),
        ("type: file", "type: s3", "source.type", "'s3' is not known; there are file, rbd"),
        ("type: file, ", "", "source.type", "it is missing"),
        ("type: file", "type: [file]", "source.type", "must be a text"),
        ("filename", "filenam", "source.filenam", "did you mean 'filename'?"),
        ("filename: /srv/vm01.raw", "filename: 2024-01-01", "source.filename", "must be a text"),
        (", filename: /srv/vm01.raw", "", "source.filename", "it is missing"),
        ("type: file, filename: /x", "type: flyingcircus, pool: a, image: b", "source.vm", "missing"),
        (
            "type: file, filename: /x",
            "type: rbd, pool: a, image: b, consul-prefix: /snapshot",
            "source.consul-prefix",
            "'/snapshot' is no key",
        ),
        ("schedule: default", "schedule: [default]", "schedule", "is not a text"),
    ],
)
def test_mistake_in_a_job_is_told_with_its_key(old: str, new: str, key: str, why: str) -> None:
    """The key begins with the job, and the job is not among the usable ones."""
    text = SOUND.replace("/srv/vm01.raw", "/x") if "/x" in old else SOUND
    found = read(text.replace(old, new))

    assert f"jobs.vm01.{key}" in [one.key for one in found.faults]
    assert any(why in one.why for one in found.faults)
    assert {} == found.jobs


def test_all_mistakes_are_told_at_once() -> None:
    """No section and no entry hides the mistakes of another."""
    text = "globl: {}\nglobal: {base-dir: x, codec: 3, worker-limit: 0}\napi: {port: x, addrs: y}\n"
    text += "peers: {p: {}}\nschedules: {s: {a: {interval: x, keep: 1}, b: {interval: 1d, keep: 0}}}\n"
    text += "jobs: {j: {}, k: {schedule: s, source: {type: file}}}"

    expected = ["globl", "global.base-dir", "global.codec", "global.worker-limit"]
    expected += ["schedules.s.a.interval", "schedules.s.b.keep", "jobs.j.source", "jobs.j.schedule"]
    expected += ["jobs.k.schedule", "jobs.k.source.filename", "api.addrs", "api.port", "peers.p"]
    assert expected == [key for key, _ in faults(text)]


def test_one_bad_job_leaves_the_others() -> None:
    """A mistaken job stops neither the rest nor those who ask for what is usable only."""
    found = read(SOUND.replace("jobs: {", "jobs: {bad: {schedule: x}, '../b': {}, 7: {}, "))

    assert ["vm01"] == list(found.usable().jobs)
    assert {"jobs", "jobs.bad.source", "jobs.bad.schedule", "jobs.../b"} == {
        one.key for one in found.faults
    }


def test_undefined_schedule_is_told_by_job() -> None:
    """Upstream's own example had such a job, and died of a KeyError."""
    expected = ("jobs.vm01.schedule", "there is no usable schedule 'defualt'; did you mean 'default'?")

    assert [expected] == faults(SOUND.replace("schedule: default,", "schedule: defualt,"))


def test_bad_schedule_takes_its_jobs_with_it_and_no_others() -> None:
    """A schedule with a mistake is not used in part."""
    text = SOUND.replace("{default:", "{s: {d: {interval: 1d, keep: 0}}, default:")
    found = read(
        text.replace("jobs: {", "jobs: {a: {schedule: s, source: {type: file, filename: /a}}, ")
    )

    assert (["default"], ["vm01"]) == (list(found.schedules), list(found.usable().jobs))
    assert ["schedules.s.d.keep", "jobs.a.schedule"] == [one.key for one in found.faults]


def test_all_mistakes_of_a_schedule_are_told_at_once() -> None:
    """Each setting of each tag, once; a key that is not known may be the one that seems missing."""
    tags = "{a: {interval: 1d12h, keep: 0, x: 1}, b: {}, c: {keeep: 1, interval: 1d}, d: 3, 'e e': {}}"
    schedule = "schedules.s."

    assert sorted(
        [
            *(schedule + one for one in ("a.interval", "a.keep", "a.x", "b.interval", "b.keep")),
            *(schedule + one for one in ("c.keeep", "d", "e e.interval", "e e.keep", "e e")),
        ]
    ) == sorted(key for key, _ in faults(f"schedules: {{s: {tags}}}"))


def test_lenient_holds_for_schedules_too() -> None:
    """A key of a later version in a tag's policy does not take the schedule away."""
    text = SOUND.replace("keep: 10", "keep: 10, colour: red")
    found = parse_settings(text, "backy.conf", lenient=True).complete()

    assert SOUND != text
    assert ["schedules.default.daily.colour"] == [one for one in found.legacy if "colour" in one]
    assert found.jobs["vm01"].schedule["daily"].keep == 10
    assert parse_settings(text, "backy.conf").faults


def test_lenient_passes_over_unknown_keys_and_lists_them() -> None:
    """What a newer or foreign file says on top is no mistake then; wrong values still are."""
    text = "new: 1\nglobal: {shiny: 1}\n" + SOUND.replace("type: file", "type: file, extra: 1")
    found = parse_settings(text, "backy.conf", lenient=True).complete()

    assert ("new", "global.shiny", "jobs.vm01.source.extra") == found.legacy
    assert {"filename": "/srv/vm01.raw"} == found.jobs["vm01"].source.settings
    assert parse_settings("global: {base-dir: x}", "backy.conf", lenient=True).faults


@pytest.mark.parametrize("addresses", ["0.0.0.0", "::", "127.0.0.1, 192.0.2.1"])
def test_listening_beyond_this_host_needs_a_token(addresses: str) -> None:
    """Without tokens nobody but this host is listened to."""
    expected = [("api.tokens", "listening beyond this host needs at least one token")]

    assert expected == faults(f"api: {{addrs: '{addresses}'}}")
    assert [] == faults(f"api: {{addrs: '{addresses}', tokens: {{long-enough-token: a}}}}")


@pytest.mark.parametrize(
    "text",
    [
        "api: {tokens: {s3cr3t: a}}",
        "api: {tokens: {s3cr3t-s3cr3t: }}",
        "api: {tokens: {s3cr3t-s3cr3t: [a]}}",
        'api: {tokens: {"s3cr3t\\0s3cr3t": a}}',
        "api: {tokens: {s3cr3t-\xe4\xf6\xfc: a}}",
        "api: {tokens: s3cr3t}",
        "api: {tokens: [s3cr3t]}",
        'api: {cli-default: {token: "s3cr3t\\n"}}',
        "api: {cli-default: {token: [s3cr3t]}}",
        'peers: {a: {url: "http://a", token: "s3cr3t\\n"}}',
        "peers: {a: {url: 'ftp://user:s3cr3t@a', token: s3cr3t}}",
        "jobs: {a: {schedule: b, source: {type: rbd, consul_acl_token: [s3cr3t]}}}",
        "jobs: {a: {schedule: b, source: {type: rbd, consul_acl_token: 's3cr3t s3cr3t'}}}",
        "api: {tokens: {5332853328: a}}",
        "api: {cli-default: {token: 5332853328}}",
    ],
)
def test_no_message_holds_a_token(text: str) -> None:
    """Messages go to logs, so a mistake in a secret is told without the secret."""
    told = "".join(one.message + repr(one.key) for one in read(text).faults)

    assert told
    assert "s3cr3t" not in told
    assert "53328" not in told


def test_complete_refuses_any_mistake_with_all_of_them() -> None:
    """All or nothing: the one error holds each fault, and its sentence each key."""
    with pytest.raises(ConfigFaults) as caught:
        read("jobs: {a: 3, b: 3}").complete()

    assert ["jobs.a", "jobs.b"] == [one.key for one in caught.value.faults]
    assert "backy.conf has 2 mistakes: (1) jobs.a: " in caught.value.message


def test_usable_refuses_what_is_more_than_single_jobs() -> None:
    """A scheduler must not guess its base directory or its addresses."""
    with pytest.raises(ConfigFaults) as caught:
        read("global: {base-dir: x}\njobs: {a: 3}").usable()

    assert ["global.base-dir"] == [one.key for one in caught.value.faults]


@pytest.mark.parametrize("text", ["", "- a", "a", "a: {", "a: 1\na: 2", "1: 2"])
def test_file_that_is_no_table_is_refused_as_a_whole(text: str) -> None:
    """There is nothing to go on with then."""
    with pytest.raises(ConfigError) as caught:
        read(text)

    assert ("backy.conf", "") == (caught.value.file, caught.value.key)


def test_example_has_no_mistakes() -> None:
    """An operator who copies the example gets a file that works."""
    assert read(EXAMPLE.read_text(encoding="utf-8")).complete().jobs


def test_example_mentions_every_key() -> None:
    """Nobody needs to look into the program for what may be set."""
    text = EXAMPLE.read_text(encoding="utf-8")

    assert [] == [key for key in (*GLOBAL_KEYS, "api", *API_KEYS) if f"{key}:" not in text]


DISKS = """
schedules: {default: {daily: {interval: 1d, keep: 10}}}
jobs:
  vm01:
    schedule: default
    sources:
    - {disk: root, type: file, filename: /srv/root.raw}
    - {disk: data, type: file, filename: /srv/data.raw, clone: off, cow: true}
    pre-snapshot: freeze
    snapshot-timeout: 2m
"""


def test_job_may_have_several_disks() -> None:
    """In the order of the list, with what concerns all of them once."""
    job = read(DISKS).complete().jobs["vm01"]

    disks = {
        "root": SourceConfig("file", {"filename": "/srv/root.raw"}),
        "data": SourceConfig("file", {"filename": "/srv/data.raw", "clone": False}),
    }
    assert SourcesConfig(disks, {"pre-snapshot": "freeze", "snapshot-timeout": "2m"}) == job.source
    assert ["root", "data"] == list(job.source.disks)
    assert ("sources[data].cow",) == job.legacy
    assert job._replace(legacy=()) == parse_job(render_job(job), "config")


@pytest.mark.parametrize(
    ("sources", "faults"),
    [
        ("{sources: []}", {"sources": "at least one"}),
        ("{sources: }", {"sources": "at least one"}),
        ("{sources: {disk: a, type: file, filename: /a}}", {"sources": "at least one"}),
        ("{sources: [7]}", {"sources[1]": "table"}),
        ("{sources: [{type: file, filename: /a}]}", {"sources[1].disk": "missing"}),
        ("{sources: [{disk: a.b, type: file, filename: /a}]}", {"sources[1].disk": "no disk name"}),
        ("{sources: [{disk: 7, type: file, filename: /a}]}", {"sources[1].disk": "text"}),
        (
            "{sources: [{disk: a, type: file, filename: /a}, {disk: a, type: file, filename: /b}]}",
            {"sources[a].disk": "another disk"},
        ),
        (
            "{sources: [{disk: a, type: file, filename: /a}, {disk: b, type: file, filename: /a}]}",
            {"sources[b]": "the image of sources[a] too"},
        ),
        (
            "{sources: [{disk: a, type: file, filename: /a, pre-snapshot: x}]}",
            {"sources[a].pre-snapshot": "beside 'sources'"},
        ),
        (
            "{sources: [{disk: a, type: file}, {disk: b, type: floppy}], snapshot-timeout: soon}",
            {
                "sources[a].filename": "missing",
                "sources[b].type": "not known",
                "snapshot-timeout": "soon",
            },
        ),
        (
            "{sources: [{disk: a, type: file, filename: /a}], source: {type: file, filename: /a}}",
            {"sources": "there is 'source' too"},
        ),
        (
            "{source: {type: file, filename: /a}, pre-snapshot: x}",
            {"pre-snapshot": "belongs into 'source'"},
        ),
        ("{sources: [{disk: a, type: file, filename: /a, sise: 1}]}", {"sources[a].sise": "sise"}),
    ],
)
def test_every_mistake_about_disks_is_told(sources: str, faults: dict[str, str]) -> None:
    """By the disk's name where it has one that may be shown, otherwise by its number."""
    text = "schedules: {default: {}}\njobs: {vm01: {schedule: default, " + sources[1:-1] + "}}"
    found = {fault.key: fault.message for fault in read(text).faults}

    assert {f"jobs.vm01.{key}" for key in faults} == set(found)
    for key, word in faults.items():
        assert word in found[f"jobs.vm01.{key}"]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("sources: []", "sources"),
        ("sources: [{disk: a, type: file, filename: /a}]\nsource: {type: file}", "sources"),
        ("sources: [{type: file, filename: /a}]", "sources[1].disk"),
        ("sources: [{disk: a, type: file}, {disk: a, type: file}]", "sources[a].disk"),
        ("sources: [{disk: a, type: file, snapshot-timeout: 1}]", "sources[a].snapshot-timeout"),
        ("source: {type: file}\nsnapshot-timeout: 1", "snapshot-timeout"),
        ("post-snapshot: thaw", "source"),
    ],
)
def test_mistake_about_disks_in_the_job_s_own_file(text: str, key: str) -> None:
    """The first one ends it."""
    with pytest.raises(ConfigError) as caught:
        parse_job(f"schedule: {{}}\n{text}\n", "config")

    assert key == caught.value.key
