"""Fuzzed `/etc/backy.conf` (T18): a configuration with faults that say where, or one refusal.

The long sweep: pytest -m torture tests/unit/test_settings_fuzz.py
"""

import copy
import ipaddress
import random
from pathlib import Path

import pytest
import yaml

from backy.domain.config import SourceConfig, SourcesConfig, parse_job, render_job
from backy.domain.group_settings import GROUP_KEYS
from backy.domain.names import check_disk_name
from backy.domain.settings import SOURCE_KEYS, Settings, parse_settings
from backy.ground.errors import ConfigError, ConfigFaults
from tally import Tally

EXAMPLE = (Path(__file__).parents[2] / "backy.conf.example").read_bytes()
FILE = "backy.conf"
DOCUMENT: dict[object, object] = {
    "global": {"base-dir": "/srv/backy", "codec": "zstd:3", "worker-limit": 3, "telnet-port": 6023},
    "api": {
        "addrs": "::1, 127.0.0.1",
        "port": 6023,
        "tokens": {"0123456789abcdef": "client"},
        "cli-default": {"url": "http://[::1]:6023", "token": "0123456789abcdef"},
    },
    "peers": {"other": {"url": "http://other:6023", "token": "fedcba9876543210"}},
    "schedules": {
        "default": {"daily": {"interval": "1d", "keep": 10}, "weekly": {"interval": 604800, "keep": 4}},
        "frequent": {"hourly": {"interval": "1h", "keep": 25}},
    },
    "jobs": {
        "vm01": {"schedule": "default", "source": {"type": "file", "filename": "/srv/vm01.raw"}},
        "vm02": {
            "schedule": "frequent",
            "source": {"type": "rbd", "pool": "rbd", "image": "vm02", "full-always": False},
        },
        "vm03": {
            "schedule": "default",
            "sources": [
                {"disk": "root", "type": "file", "filename": "/srv/vm03-root.raw"},
                {"disk": "data", "type": "rbd", "pool": "rbd", "image": "vm03"},
            ],
            "pre-snapshot": "freeze",
            "post-snapshot": "thaw",
            "snapshot-timeout": "1m",
        },
    },
}
VALUES: list[object] = [None, True, False, 0, -1, 1, 65536, 10**30, 1.5, float("inf"), float("nan")]
VALUES += ["", " ", "0", "1d12h", "-1d", "999999999999w", "../x", "/", "\0", "\n", "\x1b[2J", "\u202e"]
VALUES += ["default", "file", "rbd", "http://", "http://[", "http://x:y", "0.0.0.0", "::1%", "1" * 400]
VALUES += [[], {}, [1], {"a": 1}, {1: 2}, {None: None}, [[]], "zstd:99", "\xe4", "\U0001f600"]
KEYS: list[object] = ["", "x", 1, None, True, 1.5, "..", "a/b", "chunks", "base_dir", "\n", "k" * 300]
KEYS += [
    "tokens",
    "schedule",
    "source",
    "sources",
    "disk",
    "type",
    "jobs",
    "interval",
    "manual:x",
    "\x1b[2J",
    "<<",
    "=",
]

Table = dict[object, object]


def tables(found: object) -> list[Table]:
    """All tables of a document, itself first."""
    if isinstance(found, list):
        return [one for value in found for one in tables(value)]
    if not isinstance(found, dict):
        return []
    return [found, *(one for value in found.values() for one in tables(value))]


def mutate_document(dice: random.Random) -> str:
    """A valid document with a few keys and values renamed, dropped, moved or replaced."""
    document = copy.deepcopy(DOCUMENT)
    for _ in range(dice.randint(1, 4)):
        table = dice.choice(tables(document))
        key = dice.choice([*table, "x"])
        kind = dice.randrange(5)
        if kind == 0:
            table.pop(key, None)
        elif kind == 1:
            table[dice.choice(KEYS)] = table.pop(key, None)
        elif kind == 2:
            table[key] = copy.deepcopy(dice.choice(tables(DOCUMENT)))
        elif kind == 3:
            name = str(key)
            at = dice.randint(0, len(name))
            table[name[:at] + dice.choice("aZ-_. ") + name[at + 1 :]] = table.pop(key, None)
        else:
            table[key] = copy.deepcopy(dice.choice(VALUES))
    return str(yaml.safe_dump(document, default_flow_style=dice.choice([True, False, None])))


def mutate_bytes(dice: random.Random) -> str:
    """The example with a few bytes flipped, dropped, doubled or cut."""
    content = bytearray(EXAMPLE)
    for _ in range(dice.randint(1, 8)):
        at = dice.randrange(len(content))
        kind = dice.randrange(5)
        if kind == 0:
            content[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            content[at] = dice.choice(b"\0\t\n :{}[],&*!|>'\"%@`#-?<=~\xff")
        elif kind == 2:
            del content[at : at + dice.randint(1, 20)]
        elif kind == 3:
            content[at:at] = content[dice.randrange(len(content)) :][: dice.randint(1, 40)]
        elif dice.random() < 0.1:
            del content[at + 1 :]
        content = content or bytearray(b"\n")
    return content.decode(errors="surrogateescape")


def read(text: str, *, lenient: bool) -> Settings | ConfigError:
    """What a text gives, and nothing else may leave the parser."""
    try:
        return parse_settings(text, FILE, lenient=lenient)
    except ConfigError as error:
        return error


def check(text: str, *, lenient: bool) -> None:
    """Whatever the text says: settings whose faults say where, or one ConfigError."""
    found = read(text, lenient=lenient)
    if isinstance(found, ConfigError):
        assert FILE == found.file
        assert len(found.message) < 1000
        return
    for fault in found.faults:
        assert type(fault) is ConfigError
        assert (FILE, True) == (fault.file, bool(fault.key))
        assert fault.why
    if found.faults:
        with pytest.raises(ConfigFaults, match=FILE):
            found.complete()
    check_records(found)


def check_disks(source: SourceConfig | SourcesConfig) -> None:
    """Disks have names that files can have, and what concerns all of them stands once."""
    if isinstance(source, SourceConfig):
        return
    assert source.disks
    assert set(source.settings) <= set(GROUP_KEYS)
    for disk, one in source.disks.items():
        assert check_disk_name(disk)
        assert set() == set(one.settings) & set(GROUP_KEYS)


def check_records(found: Settings) -> None:
    """What is not refused holds what its readers rely on, and only that."""
    assert all(job.schedule in found.schedules.values() for job in found.jobs.values())
    for job in found.jobs.values():
        assert all(one.interval > 0 and one.keep > 0 for one in job.schedule.values())
        for source in job.source.disks.values():
            assert source.type in SOURCE_KEYS
            assert set(source.settings) <= set(SOURCE_KEYS[source.type])
        check_disks(job.source)
        assert job == parse_job(render_job(job), FILE)._replace(legacy=job.legacy)
    assert 1 <= found.general.worker_limit <= 1000
    assert found.general.base_dir.startswith("/")
    assert 0 <= found.api.port <= 65535
    assert found.api.url.startswith("http")
    beyond = not all(ipaddress.ip_address(one).is_loopback for one in found.api.addresses)
    assert not beyond or found.api.tokens or found.faults


def sweep(first: int, last: int) -> None:
    """Fuzz with each seed: every other case is a mutated document, the rest mutated bytes."""
    for seed in range(first, last):
        dice = random.Random(seed)
        text = mutate_bytes(dice) if seed % 2 else mutate_document(dice)
        try:
            check(text, lenient=seed % 3 == 0)
        except Exception as error:
            error.add_note(f"seed {seed}: {text!r}")
            raise


@pytest.mark.parametrize("first", range(0, 500, 100))
def test_fuzzed_file_is_settings_or_a_refusal(first: int) -> None:
    """500 cases: nothing but a ConfigError ever leaves the parser."""
    sweep(first, first + 100)


@pytest.mark.proof("T18")
@pytest.mark.torture(weight=0.2)
@pytest.mark.parametrize("first", range(500, 10_500, 1000))
def test_fuzzed_file_is_settings_or_a_refusal_10000_times(tally: Tally, first: int) -> None:
    """10,000 further cases."""
    for seed in tally.seeds(range(first, first + 1000)):
        sweep(seed, seed + 1)


def test_document_that_is_fuzzed_is_sound() -> None:
    """The fuzz starts from files without a mistake, or it would not reach what comes after the first."""
    assert parse_settings(yaml.safe_dump(DOCUMENT), FILE).complete().jobs
    assert parse_settings(EXAMPLE.decode(), FILE).complete().jobs
