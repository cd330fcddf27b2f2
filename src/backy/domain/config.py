"""Configuration: what operators write, as frozen records, or a ConfigError with file, key and reason.

Two files. `JOB/config` says where a job's image comes from and which tags its schedule has:

    source: {type: file, filename: /srv/vm01.raw}
    schedule:
      daily: {interval: 1d, keep: 10}

`/etc/backy.conf` (option -c) holds `global` settings; its `schedules` and `jobs` are the
scheduler's.

    >>> parse_global("global: {base-dir: /srv/backy, codec: zstd:3}", "backy.conf").codec
    Codec(number=2, level=3)

Limits: pure; unknown keys are refused with the nearest valid one. Keys that only older versions knew
are accepted and listed in `legacy`, so that existing files load unchanged.
"""

import difflib
from collections.abc import Collection, Mapping
from typing import NamedTuple

import yaml

from backy.domain.chunk import Codec, parse_codec
from backy.domain.names import check_tag_name
from backy.ground.errors import ConfigError, NameRefused
from backy.ground.units import parse_interval

DEFAULT_BASE = "/srv/backy"
DEFAULT_CODEC = "lz4"

_SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_DEPTH = 50
_SECTIONS = ("global", "api", "peers", "schedules", "jobs")
_GLOBAL = ("base-dir", "codec", "worker-limit", "backup-completed-callback")
_GLOBAL_LEGACY = ("status-file", "status-interval", "telnet-addrs", "telnet-port")
_SOURCE_LEGACY = ("cow", "backend")
_JOB = ("source", "schedule")
_JOB_LEGACY = ("path",)


class GlobalConfig(NamedTuple):
    """The `global` section; `legacy` lists keys that were accepted and mean nothing here."""

    base_dir: str = DEFAULT_BASE
    codec: Codec = parse_codec(DEFAULT_CODEC)
    legacy: tuple[str, ...] = ()


class TagPolicy(NamedTuple):
    """How often a tag is due (seconds) and how many revisions keep it."""

    interval: int
    keep: int


class SourceConfig(NamedTuple):
    """A source's type and its own settings, which its type checks."""

    type: str
    settings: Mapping[str, str | int | bool]


class JobConfig(NamedTuple):
    """`JOB/config`; `legacy` lists keys that were accepted and mean nothing here."""

    source: SourceConfig
    schedule: Mapping[str, TagPolicy]
    legacy: tuple[str, ...] = ()


def parse_global(text: str, file: str) -> GlobalConfig:
    """The `global` section of a configuration file; other known sections are left to the scheduler."""
    document = _mapping(_load(text, file), file, "")
    _check_keys(document, _SECTIONS, file, "")
    section = _mapping(document.get("global") or {}, file, "global")
    _check_keys(section, _GLOBAL + _GLOBAL_LEGACY, file, "global")
    base_dir = _text(section.get("base-dir", DEFAULT_BASE), file, "global.base-dir")
    if not base_dir.startswith("/") or "\0" in base_dir:
        raise ConfigError(file, "global.base-dir", f"{_shown(base_dir)} is not an absolute path")
    codec = _text(section.get("codec", DEFAULT_CODEC), file, "global.codec")
    try:
        parsed = parse_codec(codec)
    except ValueError as error:
        raise ConfigError(file, "global.codec", str(error)) from error
    legacy = tuple(f"global.{key}" for key in section if key in _GLOBAL_LEGACY)
    return GlobalConfig(base_dir, parsed, legacy)


def parse_job(text: str, file: str) -> JobConfig:
    """A job's own configuration file."""
    document = _mapping(_load(text, file), file, "")
    _check_keys(document, _JOB + _JOB_LEGACY, file, "")
    for key in _JOB:
        if key not in document:
            raise ConfigError(file, key, "it is missing")
    source = _source(document["source"], file, "source")
    schedule = _schedule(document["schedule"], file, "schedule")
    legacy = [key for key in document if key in _JOB_LEGACY]
    legacy += [
        f"source.{key}" for key in _mapping(document["source"], file, "") if key in _SOURCE_LEGACY
    ]
    return JobConfig(source, schedule, tuple(legacy))


def render_job(config: JobConfig) -> str:
    """The text of a job's configuration file, which `parse_job` reads back."""
    document = {
        "source": {"type": config.source.type, **config.source.settings},
        "schedule": {
            tag: {"interval": policy.interval, "keep": policy.keep}
            for tag, policy in config.schedule.items()
        },
    }
    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))


def default_schedule() -> Mapping[str, TagPolicy]:
    """What `backy init` writes: daily, weekly and monthly."""
    day = 86400
    return {
        "daily": TagPolicy(day, 10),
        "weekly": TagPolicy(7 * day, 4),
        "monthly": TagPolicy(30 * day, 4),
    }


def _source(found: object, file: str, key: str) -> SourceConfig:
    section = _mapping(found, file, key)
    if "type" not in section:
        raise ConfigError(file, f"{key}.type", "it is missing")
    settings: dict[str, str | int | bool] = {}
    for name, value in section.items():
        if not isinstance(value, str | int | bool):
            raise ConfigError(file, f"{key}.{name}", "it must be a text, a number or true/false")
        if name not in ("type", *_SOURCE_LEGACY):
            settings[name] = value
    return SourceConfig(_text(section["type"], file, f"{key}.type"), settings)


def _schedule(found: object, file: str, key: str) -> Mapping[str, TagPolicy]:
    policies = {}
    for tag, value in _mapping(found, file, key).items():
        where = f"{key}.{tag}"
        policy = _mapping(value, file, where)
        _check_keys(policy, TagPolicy._fields, file, where)
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
        if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
            raise ConfigError(file, f"{where}.keep", f"{_shown(keep)} is not a number of at least 1")
        policies[tag] = TagPolicy(interval, keep)
    return policies


def _interval(found: object) -> int:
    """Seconds; ValueError. A YAML integer is as good as a text."""
    if isinstance(found, list | dict | set) or (isinstance(found, int) and found.bit_length() > 64):
        raise ValueError(f"{_shown(found)} is not a number with a unit, such as 1d")
    return parse_interval(str(found))


def _load(text: str, file: str) -> object:
    try:
        _check_depth(text)
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - derived from a safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" in line {mark.line + 1}" if mark else ""
        raise ConfigError(file, "", f"it is not YAML: {error.problem}{where}") from error
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:
        raise ConfigError(file, "", f"it is not YAML: {str(error).splitlines()[0]}") from error


class _Loader(_SAFE_LOADER):  # type: ignore[misc, valid-type]  # chosen at run time
    """A safe loader that refuses a key that stands twice: dropping one silently loses a setting."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> object:  # noqa: FBT002 - PyYAML's signature
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"the key {_shown(key.value)} stands twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _check_depth(text: str) -> None:
    """ValueError for a nesting that would exhaust the C loader's stack, which kills the process."""
    depth = 0
    for event in yaml.parse(text, Loader=_SAFE_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                raise ValueError(f"it is nested more than {_MAX_DEPTH} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _shown(found: object) -> str:
    """A value for a message: short, and never expanded."""
    if isinstance(found, dict):
        return "a table"
    if isinstance(found, list | tuple | set):
        return "a list"
    if isinstance(found, int) and found.bit_length() > 64:
        return "a huge number"
    shown = repr(found)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _mapping(found: object, file: str, key: str) -> Mapping[str, object]:
    if not isinstance(found, dict):
        raise ConfigError(file, key, "it must be a table of keys and values")
    for name in found:
        if not isinstance(name, str):
            raise ConfigError(file, key, f"the key {_shown(name)} is not a text: put it into quotes")
    return found


def _text(found: object, file: str, key: str) -> str:
    if not isinstance(found, str) or not found:
        raise ConfigError(file, key, f"{_shown(found)} is not a text")
    return found


def _check_keys(found: Collection[str], known: Collection[str], file: str, key: str) -> None:
    for name in found:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            where = f"{key}.{name}" if key else name
            raise ConfigError(file, where, f"this key is not known; {hint}")
