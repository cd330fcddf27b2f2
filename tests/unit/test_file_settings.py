"""The settings of a file source: what is accepted, and that every mistake is told with its key."""

import pytest

from backy.domain.config import JobConfig, SourceConfig, TagPolicy, parse_job, render_job
from backy.domain.file_settings import FileSettings, parse_file_settings
from backy.domain.group_settings import GroupSettings, parse_group_settings
from backy.domain.setting import WrongSetting
from backy.domain.settings import parse_settings

ALL: dict[str, str | int | bool] = {
    "filename": "/srv/vm01.raw",
    "clone": "off",
    "clone-directory": "/srv/clones",
    "pre-snapshot": "freeze",
    "post-snapshot": "thaw",
    "snapshot-timeout": "2m",
}


def test_a_name_is_enough() -> None:
    """Everything else has a default."""
    assert FileSettings("/x", True, None) == parse_file_settings({"filename": "/x"})
    assert GroupSettings(None, None, 60) == parse_group_settings({"filename": "/x"}, ["file"])


def test_all_settings_are_taken() -> None:
    """Each has its place."""
    assert FileSettings("/srv/vm01.raw", False, "/srv/clones") == parse_file_settings(ALL)
    assert GroupSettings("freeze", "thaw", 120) == parse_group_settings(ALL, ["file"])


@pytest.mark.parametrize(("written", "wanted"), [("auto", True), ("off", False), ("'off'", False)])
def test_switch_is_read_as_operators_write_it(written: str, wanted: bool) -> None:
    """A bare off is false in YAML."""
    job = parse_job(
        f"source: {{type: file, filename: /x, clone: {written}}}\nschedule: {{}}\n", "config"
    )

    assert wanted is parse_file_settings(job.source.settings).clone


def test_settings_survive_the_job_s_own_file() -> None:
    """The scheduler writes it, and the backup reads it."""
    job = JobConfig(SourceConfig("file", ALL), {"daily": TagPolicy(86400, 1)})

    assert ALL == parse_job(render_job(job), "config").source.settings


def test_missing_name_is_wrong() -> None:
    """There is nothing to back up."""
    with pytest.raises(WrongSetting) as caught:
        parse_file_settings({})

    assert "filename" == caught.value.key


def test_every_mistake_of_the_configuration_is_told() -> None:
    """All values that cannot be meant, and the key that is meant by a mistyped one."""
    text = """
schedules: {default: {}}
jobs:
  vm01:
    schedule: default
    source: {type: file, filename: 7, clone: maybe, clone-directory: clones, pre-snapshot: "",
             snapshot-timeout: soon, post-snapshots: x}
"""
    faults = {fault.key: fault.why for fault in parse_settings(text, "backy.conf").faults}

    assert {
        f"jobs.vm01.source.{key}"
        for key in (
            "filename",
            "clone",
            "clone-directory",
            "pre-snapshot",
            "snapshot-timeout",
            "post-snapshots",
        )
    } == set(faults)
    assert "did you mean 'post-snapshot'?" in faults["jobs.vm01.source.post-snapshots"]
