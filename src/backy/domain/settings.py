"""`/etc/backy.conf` as a whole: what the scheduler, `check` and the client live by.

    >>> text = "schedules: {default: {daily: {interval: 1d, keep: 10}}}\\n"
    >>> text += "jobs: {vm01: {schedule: default, source: {type: file, filename: /srv/vm01.raw}}}"
    >>> sorted(parse_settings(text, "backy.conf").jobs)
    ['vm01']

All mistakes are found at once (`faults`), each with its key, and what is not mistaken is usable:
one bad job does not stop the others. A caller that wants all or nothing asks `complete`.

Sections and keys: backy 2.5's and its unreleased successor's, so that their files load unchanged;
those that mean nothing here are listed in `legacy`.

Limits: pure; whether a path exists shows when it is used.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from backy.domain import handshake_settings, rbd_settings
from backy.domain.api_settings import ApiConfig, PeerConfig, read_api, read_peers
from backy.domain.config import (
    DISK,
    GLOBAL_KEYS,
    GLOBAL_LEGACY,
    JOB_KEYS,
    MISSING,
    SCHEDULE,
    SECTIONS,
    SOURCE,
    SOURCES,
    GlobalConfig,
    JobConfig,
    SourceConfig,
    TagPolicy,
    legacy_of,
    listed_sources,
    misplaced,
    parse_disk,
    parse_global_section,
    parse_job_source,
    parse_schedule,
    parse_source,
)
from backy.domain.file_settings import FILENAME, KEYS, wrong_file_settings
from backy.domain.group_settings import COMMAND_KEYS, GROUP_KEYS, wrong_group_settings
from backy.domain.names import check_job_name
from backy.domain.section_reader import SectionReader
from backy.domain.strict_yaml import load, mapping, text
from backy.ground.errors import ConfigError, ConfigFaults, NameRefused

DEFAULT_FILE = "/etc/backy.conf"
_MAX_INTERVAL = 366_000 * 86400

# Where a job has several disks, GROUP_KEYS do not stand in the sources.
SOURCE_KEYS: Mapping[str, tuple[str, ...]] = {
    "file": (*KEYS, *COMMAND_KEYS),
    **dict.fromkeys(rbd_settings.TYPES, (*rbd_settings.KEYS, *GROUP_KEYS)),
    handshake_settings.ALWAYS: (*rbd_settings.KEYS, *handshake_settings.KEYS),
}
_REQUIRED: Mapping[str, tuple[str, ...]] = {
    "file": ("filename",),
    **dict.fromkeys(rbd_settings.TYPES, rbd_settings.REQUIRED),
    handshake_settings.ALWAYS: (*rbd_settings.REQUIRED, handshake_settings.VM),
}


# What makes two sources the same image.
_IMAGE = (FILENAME, rbd_settings.POOL, rbd_settings.NAMESPACE, rbd_settings.IMAGE)


class Settings(NamedTuple):
    """The configuration; `jobs` are those without a mistake."""

    file: str
    general: GlobalConfig
    api: ApiConfig
    peers: Mapping[str, PeerConfig]
    schedules: Mapping[str, Mapping[str, TagPolicy]]
    jobs: Mapping[str, JobConfig]
    legacy: tuple[str, ...]
    faults: tuple[ConfigError, ...]

    def complete(self) -> "Settings":
        """Itself; ConfigFaults if anything is wrong."""
        if self.faults:
            raise ConfigFaults(self.file, self.faults)
        return self

    def usable(self) -> "Settings":
        """Itself; ConfigFaults if more is wrong than single jobs and schedules."""
        grave = tuple(one for one in self.faults if one.key.split(".")[0] not in ("jobs", "schedules"))
        if grave:
            raise ConfigFaults(self.file, grave)
        return self


def parse_settings(content: str, file: str, *, lenient: bool = False) -> Settings:
    """Read a whole configuration file; ConfigError only where it is no table at all.

    `lenient` passes over keys that are not known, and lists them in `legacy`.
    """
    document = mapping(load(content, file), file, "")
    reader = _JobReader(file, lenient=lenient)
    reader.keys(document, SECTIONS, "")
    general = reader.table(document, "global", "global", GLOBAL_KEYS + GLOBAL_LEGACY)
    parsed = parse_global_section(
        reader.sound(general, lambda found: parse_global_section(found, file)), file
    )
    schedules = {}
    for name, found in reader.entries(document, "schedules").items():
        if (schedule := reader.schedule(name, found)) is not None:
            schedules[name] = schedule
    jobs = {}
    for name, found in reader.entries(document, "jobs").items():
        if (job := reader.job(name, found, schedules)) is not None:
            jobs[name] = job
    return Settings(
        file,
        parsed,
        read_api(reader, document),
        read_peers(reader, document),
        schedules,
        jobs,
        (*parsed.legacy, *dict.fromkeys(reader.legacy)),
        tuple(reader.faults),
    )


class _JobReader(SectionReader):
    """Reads schedules and jobs."""

    def schedule(self, name: str, found: object) -> Mapping[str, TagPolicy] | None:
        """A schedule, or None if anything about it is mistaken."""
        before, key = len(self.faults), f"schedules.{name}"
        read = partial(_schedule, file=self.file, key=key)
        table = found if isinstance(found, dict) else {}
        policies = {tag: self._known_of(value, f"{key}.{tag}") for tag, value in table.items()}
        for tag, policy in policies.items():
            for part in _parts(policy, all_of=policy == table[tag]):
                self.once(partial(read, {tag: part}))
        return self.value(lambda: read(policies or found), None) if len(self.faults) == before else None

    def _known_of(self, policy: object, key: str) -> object:
        """A tag's policy without what is not known, which is noted."""
        if not isinstance(policy, dict) or not all(isinstance(one, str) for one in policy):
            return policy
        self.keys(policy, TagPolicy._fields, key)
        return {one: value for one, value in policy.items() if one in TagPolicy._fields}

    def job(
        self, name: str, found: object, schedules: Mapping[str, Mapping[str, TagPolicy]]
    ) -> JobConfig | None:
        """A job, or None if anything about it is mistaken."""
        file, key, before = self.file, f"jobs.{name}", len(self.faults)
        try:
            check_job_name(name)
        except NameRefused as error:
            self.faults.append(ConfigError(file, key, f"{error.name!r} is no job name: {error.rule}"))
            return None
        section = self.table({name: found if found is not None else {}}, name, key, JOB_KEYS)
        is_known = len(self.faults) == before  # a key that is not known may be the missing one
        for one, why in misplaced(section):
            if is_known or why != MISSING:
                self.faults.append(ConfigError(file, f"{key}.{one}", why))
        schedule = None
        if SCHEDULE in section:
            wanted = self.value(lambda: text(section[SCHEDULE], file, f"{key}.{SCHEDULE}"), "")
            schedule = schedules.get(wanted)
            if wanted and schedule is None:
                why = f"there is no usable schedule {wanted!r}; {_hint(wanted, sorted(schedules))}"
                self.faults.append(ConfigError(file, f"{key}.{SCHEDULE}", why))
        if SOURCE in section:
            self._source(section[SOURCE], f"{key}.{SOURCE}", beside=None)
        if SOURCES in section:
            self._sources(section, key)
        if len(self.faults) > before or schedule is None:
            return None
        legacy = legacy_of(section)
        self.legacy += legacy
        source = parse_job_source(section, file, f"{key}.")
        if isinstance(source, SourceConfig):
            return JobConfig(_known(source), schedule, legacy)
        disks = {disk: _known(one) for disk, one in source.disks.items()}
        return JobConfig(source._replace(disks=disks), schedule, legacy)

    def _sources(self, section: Mapping[str, object], key: str) -> None:
        """Note what is mistaken in a job's list of disks, and in what stands beside it."""
        file, names = self.file, list[str]()
        images: dict[tuple[str, ...], str] = {}
        kinds: list[str] = []
        entries = listed_sources(section[SOURCES])
        if not entries:
            self.value(lambda: parse_job_source({SOURCES: section[SOURCES]}, file, f"{key}."), None)
        for one, found in entries:
            where = f"{key}.{one}"
            empty: Mapping[str, object] = {}
            table = dict(self.value(partial(mapping, found, file, where), empty))
            if not table:
                continue
            disk = self.value(partial(parse_disk, table.pop(DISK, None), file, f"{where}.{DISK}"), "")
            if disk in names:
                why = "another disk of this job has that name"
                self.faults.append(ConfigError(file, f"{where}.{DISK}", why))
            names += [disk] if disk else []
            self._source(table, where, beside=section)
            kinds.append(str(table.get("type")))
            image = tuple(str(table.get(part)) for part in _IMAGE)
            if image in images and any(part in table for part in _IMAGE):
                why = f"it is the image of {images[image]} too"
                self.faults.append(ConfigError(file, where, why))
            images.setdefault(image, one)
        beside = {one: value for one, value in section.items() if one in GROUP_KEYS}
        self._group(beside, key, [kind for kind in kinds if kind in SOURCE_KEYS])

    def _group(self, settings: Mapping[str, object], key: str, types: Collection[str]) -> None:
        self.faults += [
            ConfigError(self.file, f"{key}.{one.key}", str(one))
            for one in wrong_group_settings(settings, types)
        ]

    def _source(self, found: object, key: str, *, beside: Mapping[str, object] | None) -> None:
        """Note what is mistaken in a source; `beside` stand the settings that concern all of several."""
        parsed = self.value(lambda: parse_source(found, self.file, key), None)
        if parsed is None:
            return
        if parsed.type not in SOURCE_KEYS:
            why = f"{parsed.type!r} is not known; {_hint(parsed.type, tuple(SOURCE_KEYS))}"
            self.faults.append(ConfigError(self.file, f"{key}.type", why))
            return
        common = () if beside is None else GROUP_KEYS
        for one in parsed.settings:
            if one in common:
                why = f"it concerns all disks, so it belongs beside {SOURCES!r}"
                self.faults.append(ConfigError(self.file, f"{key}.{one}", why))
        own = {one: value for one, value in parsed.settings.items() if one not in common}
        self.keys(own, [one for one in SOURCE_KEYS[parsed.type] if one not in common], key)
        for one in _REQUIRED[parsed.type]:
            if one not in own and not (beside is not None and one in common and one in beside):
                self.faults.append(ConfigError(self.file, f"{key}.{one}", MISSING))
        wrong = wrong_file_settings if parsed.type == "file" else rbd_settings.wrong_rbd_settings
        self.faults += [ConfigError(self.file, f"{key}.{one.key}", str(one)) for one in wrong(own)]
        if beside is None:
            known = {one: value for one, value in own.items() if one in SOURCE_KEYS[parsed.type]}
            self._group(known, key, [parsed.type])


def _schedule(found: object, file: str, key: str) -> Mapping[str, TagPolicy]:
    # What is longer cannot be told to the job, whose configuration has seconds.
    policies = parse_schedule(found, file, key)
    for tag, policy in policies.items():
        if policy.interval > _MAX_INTERVAL:
            raise ConfigError(file, f"{key}.{tag}.interval", "an interval is at most 1000 years")
    return policies


def _known(source: SourceConfig) -> SourceConfig:
    """A source without the keys that are passed over."""
    known = SOURCE_KEYS[source.type]
    settings = {one: value for one, value in source.settings.items() if one in known}
    return source._replace(settings=settings)


_SOUND = {"interval": 86400, "keep": 1}


def _parts(policy: object, *, all_of: bool) -> Iterator[object]:
    """A tag's policy as several, so that each mistake is met: one setting beside sound ones."""
    if not isinstance(policy, dict):
        yield policy
        return
    for field in TagPolicy._fields:
        if field in policy:
            yield {**_SOUND, field: policy[field]}
        elif all_of:  # otherwise a key that is not known was taken out, which may be this one
            yield {one: value for one, value in _SOUND.items() if one != field}
    yield {**_SOUND, **policy}


def _hint(name: str, known: Sequence[str]) -> str:
    import difflib

    if near := difflib.get_close_matches(name, known, n=1):
        return f"did you mean {near[0]!r}?"
    return f"there are {', '.join(known[:20]) or 'none'}{', …' if len(known) > 20 else ''}"
