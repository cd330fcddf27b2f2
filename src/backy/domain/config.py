"""Configuration: what operators write, as frozen records, or a ConfigError with file, key and reason.

Two files. `JOB/config` says where a job's image comes from and which tags its schedule has:

    source: {type: file, filename: /srv/vm01.raw}
    schedule:
      daily: {interval: 1d, keep: 10}

Several disks of one machine stand in `sources`, with what concerns all of them beside it:

    sources:
    - {disk: root, type: file, filename: /srv/vm01-root.raw}
    - {disk: data, type: file, filename: /srv/vm01-data.raw}
    pre-snapshot: virsh domfsfreeze vm01

`/etc/backy.conf` (option -c) holds `global` settings, and the scheduler's `schedules` and `jobs`,
which `settings` reads.

    >>> parse_global("global: {base-dir: /srv/backy, codec: zstd:3}", "backy.conf").codec
    Codec(number=2, level=3)

Limits: pure; unknown keys are refused with the nearest valid one. Keys that only older versions knew
are accepted and listed in `legacy`, so that existing files load unchanged.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import yaml

from backy.domain.chunk import Codec, parse_codec
from backy.domain.chunkmap import NO_DISK
from backy.domain.group_settings import GROUP_KEYS
from backy.domain.names import check_disk_name, check_tag_name
from backy.domain.strict_yaml import check_keys, load, mapping, shown
from backy.domain.strict_yaml import text as text_of
from backy.ground.errors import ConfigError, NameRefused
from backy.ground.units import parse_interval

_SAFE_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

DEFAULT_BASE = "/srv/backy"
DEFAULT_CODEC = "lz4"
MAX_WORKERS = 1000
MAX_KEEP = 1_000_000
_MAX_SLICE = 23 * 3600

SECTIONS = ("global", "api", "peers", "schedules", "jobs")
GLOBAL_KEYS = (
    "base-dir",
    "codec",
    "delta",
    "worker-limit",
    "backup-completed-callback",
    "backup-failed-callback",
    "gc-interval",
    "verify-slice",
)
GLOBAL_LEGACY = ("status-file", "status-interval", "telnet-addrs", "telnet-port")
SOURCE_LEGACY = ("cow", "backend")
SOURCE, SOURCES, SCHEDULE, DISK = "source", "sources", "schedule", "disk"
MISSING = "it is missing"
JOB_KEYS = (SOURCE, SOURCES, *GROUP_KEYS, SCHEDULE)
_JOB_LEGACY = ("path",)


class GlobalConfig(NamedTuple):
    """The `global` section; `legacy` lists keys that were accepted and mean nothing here."""

    base_dir: str = DEFAULT_BASE
    codec: Codec = parse_codec(DEFAULT_CODEC)
    delta: bool = True
    worker_limit: int = 1
    completed_callback: str | None = None
    failed_callback: str | None = None
    gc_interval: int = 86400
    verify_slice: int = 1800
    legacy: tuple[str, ...] = ()


class TagPolicy(NamedTuple):
    """How often a tag is due (seconds) and how many revisions keep it."""

    interval: int
    keep: int


class SourceConfig(NamedTuple):
    """A source's type and its own settings, which its type checks."""

    type: str
    settings: Mapping[str, str | int | bool]

    @property
    def disks(self) -> Mapping[str, "SourceConfig"]:
        """Itself, as the one disk that has no name."""
        return {NO_DISK: self}


class SourcesConfig(NamedTuple):
    """The sources of several disks, by name, and the settings that concern all of them."""

    disks: Mapping[str, SourceConfig]
    settings: Mapping[str, str | int | bool] = {}


class JobConfig(NamedTuple):
    """`JOB/config`; `legacy` lists keys that were accepted and mean nothing here."""

    source: SourceConfig | SourcesConfig
    schedule: Mapping[str, TagPolicy]
    legacy: tuple[str, ...] = ()


def parse_global(text: str, file: str) -> GlobalConfig:
    """The `global` section of a configuration file; other known sections are left to the scheduler."""
    document = mapping(load(text, file), file, "")
    check_keys(document, SECTIONS, file, "")
    section = mapping(document.get("global") or {}, file, "global")
    check_keys(section, GLOBAL_KEYS + GLOBAL_LEGACY, file, "global")
    return parse_global_section(section, file)


def parse_global_section(section: Mapping[str, object], file: str) -> GlobalConfig:
    """The values of `global`, whose keys were checked; the first that is wrong is a ConfigError."""
    legacy = tuple(f"global.{key}" for key in section if key in GLOBAL_LEGACY)
    return GlobalConfig(
        _base_dir(section.get("base-dir", DEFAULT_BASE), file),
        _codec(section.get("codec", DEFAULT_CODEC), file),
        _delta(section.get("delta", "auto"), file),
        _worker_limit(section.get("worker-limit", 1), file),
        _program(section, "backup-completed-callback", file),
        _program(section, "backup-failed-callback", file),
        _gc_interval(section.get("gc-interval", "1d"), file),
        _verify_slice(section.get("verify-slice", "30m"), file),
        legacy,
    )


def _base_dir(found: object, file: str) -> str:
    base_dir = text_of(found, file, "global.base-dir")
    if not base_dir.startswith("/") or "\0" in base_dir:
        raise ConfigError(file, "global.base-dir", f"{shown(base_dir)} is not an absolute path")
    return base_dir


def _codec(found: object, file: str) -> Codec:
    try:
        return parse_codec(text_of(found, file, "global.codec"))
    except ValueError as error:
        raise ConfigError(file, "global.codec", str(error)) from error


def _delta(found: object, file: str) -> bool:
    if found == "auto":
        return True
    # YAML 1.1 reads a bare `off` as false.
    if found == "off" or found is False:
        return False
    raise ConfigError(file, "global.delta", f"{shown(found)} is neither auto nor off")


def _worker_limit(found: object, file: str) -> int:
    if isinstance(found, bool) or not isinstance(found, int) or not 1 <= found <= MAX_WORKERS:
        why = f"{shown(found)} is not a number of 1 to {MAX_WORKERS}"
        raise ConfigError(file, "global.worker-limit", why)
    return found


def _gc_interval(found: object, file: str) -> int:
    try:
        return _interval(found)
    except ValueError as error:
        raise ConfigError(file, "global.gc-interval", str(error)) from error


def _verify_slice(found: object, file: str) -> int:
    """Seconds; 0 for none."""
    if found == 0 and not isinstance(found, bool):
        return 0
    try:
        seconds = _interval(found)
    except ValueError as error:
        raise ConfigError(file, "global.verify-slice", str(error)) from error
    if seconds > _MAX_SLICE:
        why = "a slice takes at most 23h of each day"
        raise ConfigError(file, "global.verify-slice", why)
    return seconds


def _program(section: Mapping[str, object], name: str, file: str) -> str | None:
    found = section.get(name)
    if found is None:
        return None
    path = text_of(found, file, f"global.{name}")
    if "\0" in path:
        raise ConfigError(file, f"global.{name}", "it must be the path of a program")
    return path


def parse_job(text: str, file: str) -> JobConfig:
    """A job's own configuration file."""
    document = mapping(load(text, file), file, "")
    check_keys(document, JOB_KEYS + _JOB_LEGACY, file, "")
    for key, why in misplaced(document):
        raise ConfigError(file, key, why)
    source = parse_job_source(document, file, "")
    schedule = parse_schedule(document[SCHEDULE], file, SCHEDULE)
    legacy = [key for key in document if key in _JOB_LEGACY]
    return JobConfig(source, schedule, (*legacy, *legacy_of(document)))


def misplaced(document: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Keys of a job that are missing, or that do not go with others; each with the reason."""
    if SOURCE in document and SOURCES in document:
        yield SOURCES, f"there is {SOURCE!r} too: a job has one of them"
    if SOURCE not in document and SOURCES not in document:
        yield SOURCE, MISSING
    if SCHEDULE not in document:
        yield SCHEDULE, MISSING
    if SOURCES not in document:
        for key in GROUP_KEYS:
            if key in document:
                yield key, f"it belongs into {SOURCE!r}"


def legacy_of(document: Mapping[str, object]) -> tuple[str, ...]:
    """Keys of a job's sources, which were parsed, that only older versions knew."""
    found = document.get(SOURCE)
    if isinstance(found, dict):
        return tuple(f"{SOURCE}.{key}" for key in found if key in SOURCE_LEGACY)
    return tuple(
        f"{key}.{name}"
        for key, one in listed_sources(document.get(SOURCES))
        if isinstance(one, dict)
        for name in one
        if name in SOURCE_LEGACY
    )


def render_job(config: JobConfig) -> str:
    """The text of a job's configuration file, which `parse_job` reads back."""
    document: dict[str, object] = {}
    if isinstance(config.source, SourcesConfig):
        document[SOURCES] = [
            {DISK: disk, "type": one.type, **one.settings} for disk, one in config.source.disks.items()
        ]
        document.update(config.source.settings)
    else:
        document[SOURCE] = {"type": config.source.type, **config.source.settings}
    document[SCHEDULE] = {
        tag: {"interval": policy.interval, "keep": policy.keep}
        for tag, policy in config.schedule.items()
    }
    return str(yaml.dump(document, Dumper=_SAFE_DUMPER, sort_keys=False, allow_unicode=True))


def default_schedule() -> Mapping[str, TagPolicy]:
    """What `backy init` writes: daily, weekly and monthly."""
    day = 86400
    return {
        "daily": TagPolicy(day, 10),
        "weekly": TagPolicy(7 * day, 4),
        "monthly": TagPolicy(30 * day, 4),
    }


def parse_source(found: object, file: str, key: str) -> SourceConfig:
    """A `source` table; ConfigError below `key`."""
    section = mapping(found, file, key)
    if "type" not in section:
        raise ConfigError(file, f"{key}.type", "it is missing")
    settings = {name: _scalar(value, file, f"{key}.{name}") for name, value in section.items()}
    for name in ("type", *SOURCE_LEGACY):
        settings.pop(name, None)
    return SourceConfig(text_of(section["type"], file, f"{key}.type"), settings)


def parse_job_source(
    document: Mapping[str, object], file: str, prefix: str
) -> SourceConfig | SourcesConfig:
    """`source` of a job, or `sources` with what stands beside it; ConfigError below `prefix`."""
    if SOURCES not in document:
        return parse_source(document[SOURCE], file, f"{prefix}{SOURCE}")
    disks: dict[str, SourceConfig] = {}
    for key, found in listed_sources(document[SOURCES]):
        where = f"{prefix}{key}"
        section = dict(mapping(found, file, where))
        disk = parse_disk(section.pop(DISK, None), file, f"{where}.{DISK}")
        if disk in disks:
            raise ConfigError(file, f"{where}.{DISK}", "another disk of this job has that name")
        for name in section:
            if name in GROUP_KEYS:
                why = f"it concerns all disks, so it belongs beside {SOURCES!r}"
                raise ConfigError(file, f"{where}.{name}", why)
        disks[disk] = parse_source(section, file, where)
    if not disks:
        raise ConfigError(
            file,
            f"{prefix}{SOURCES}",
            "it must be a list of at least one disk; 'source' has a single image",
        )
    settings = {
        name: _scalar(value, file, f"{prefix}{name}")
        for name, value in document.items()
        if name in GROUP_KEYS
    }
    return SourcesConfig(disks, settings)


def listed_sources(found: object) -> list[tuple[str, object]]:
    """The entries of `sources`, each with its key: by the disk's name where it has one."""
    entries = found if isinstance(found, list) else []
    return [(source_key(_name_in(one) or str(at)), one) for at, one in enumerate(entries, start=1)]


def source_key(disk: str) -> str:
    """The key of a disk's source in messages: `source`, or `sources[root]`."""
    return SOURCE if disk == NO_DISK else f"{SOURCES}[{disk}]"


def parse_disk(found: object, file: str, key: str) -> str:
    """A disk's name; ConfigError."""
    if found is None:
        raise ConfigError(file, key, "it is missing")
    try:
        return check_disk_name(text_of(found, file, key))
    except NameRefused as error:
        raise ConfigError(file, key, f"{error.name!r} is no disk name: {error.rule}") from error


def _name_in(found: object) -> str | None:
    """The name of a disk, if it has one that may be shown."""
    name = found.get(DISK) if isinstance(found, dict) else None
    try:
        return check_disk_name(name) if isinstance(name, str) else None
    except NameRefused:
        return None


def _scalar(found: object, file: str, key: str) -> str | int | bool:
    if not isinstance(found, str | int | bool):
        raise ConfigError(file, key, "it must be a text, a number or true/false")
    return found


def parse_schedule(found: object, file: str, key: str) -> Mapping[str, TagPolicy]:
    """A table of tags; ConfigError below `key`."""
    policies = {}
    for tag, value in mapping(found, file, key).items():
        where = f"{key}.{tag}"
        policy = mapping(value, file, where)
        check_keys(policy, TagPolicy._fields, file, where)
        for field in TagPolicy._fields:
            if field not in policy:
                raise ConfigError(file, f"{where}.{field}", "it is missing")
        try:
            check_tag_name(tag)
            interval = _interval(policy["interval"])
        except NameRefused as error:
            raise ConfigError(file, where, error.rule) from error
        except ValueError as error:
            raise ConfigError(file, f"{where}.interval", str(error)) from error
        keep = policy["keep"]
        if isinstance(keep, bool) or not isinstance(keep, int) or not 1 <= keep <= MAX_KEEP:
            raise ConfigError(file, f"{where}.keep", f"{shown(keep)} is not a number of 1 to {MAX_KEEP}")
        policies[tag] = TagPolicy(interval, keep)
    return policies


def _interval(found: object) -> int:
    """Seconds; ValueError. A YAML integer is as good as a text."""
    if isinstance(found, list | dict | set) or (isinstance(found, int) and found.bit_length() > 64):
        raise ValueError(f"{shown(found)} is not a number with a unit, such as 1d")
    return parse_interval(str(found))
