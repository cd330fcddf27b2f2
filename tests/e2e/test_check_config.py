"""`backy check-config`: a deployment tool learns all mistakes at once, before a reload."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from in_process import Outcome, backy

from testsite import run_backy

TOKEN = "a-secret-token"
GOOD: dict[str, Any] = {
    "global": {"base-dir": "/srv/backy", "worker-limit": 3},
    "api": {"tokens": {TOKEN: "monitoring"}},
    "schedules": {"default": {"daily": {"interval": "1d", "keep": 9}}},
    "jobs": {
        name: {"source": {"type": "file", "filename": f"/srv/{name}"}, "schedule": "default"}
        for name in ("vm01", "vm02")
    },
}


def check(tmp_path: Path, *words: str, **sections: object) -> Outcome:
    """Check a good configuration with other `sections`."""
    file = tmp_path / "backy.conf"
    file.write_text(yaml.safe_dump({**GOOD, **sections}))
    return backy("-c", str(file), "check-config", *words)


def mistakes(tmp_path: Path, *words: str, **sections: object) -> list[str]:
    """The keys that are mistaken, by the JSON."""
    done = check(tmp_path, "--json", *words, **sections)
    assert "" == done.err
    found = json.loads(done.out)
    assert bool(found["mistakes"]) == bool(done.code)
    return [one["key"] for one in found["mistakes"]]


def with_job(name: str, **job: object) -> dict[str, Any]:
    """The good jobs and another one."""
    return {**GOOD["jobs"], name: job}


def test_good_configuration_is_told_as_such(tmp_path: Path) -> None:
    """What was found in it is counted; also quietly, and as 2.5's commands take the file."""
    file = tmp_path / "backy.conf"
    said = (0, f"{file}: 2 jobs, 1 schedule, no mistakes\n", "")
    assert said == check(tmp_path)
    assert said == backy("check-config", "-c", str(file))
    assert (0, "", "") == backy("-q", "-c", str(file), "check-config")


def test_process_ends_with_the_code(tmp_path: Path) -> None:
    """Deployment tools look at nothing else."""
    file = tmp_path / "backy.conf"
    check(tmp_path)
    assert 0 == run_backy("-c", str(file), "check-config").returncode
    check(tmp_path, nonsense={})
    found = [run_backy("-c", str(file), "check-config", *form) for form in ([], ["--json"])]

    assert [1, 1] == [one.returncode for one in found]


def test_all_mistakes_are_told_one_a_line(tmp_path: Path) -> None:
    """Each with its key; nobody has to run it five times."""
    job = {"source": {"type": "file"}, "schedule": "weekly"}
    done = check(
        tmp_path,
        **{
            "global": {"worker-limit": 0, "base_dir": "/srv"},
            "api": {"port": 99999},
            "jobs": with_job("vm03", **job),
        },
    )

    head, *lines = done.err.splitlines()
    assert (1, "", f"backy: {tmp_path}/backy.conf has 5 mistakes:") == (done.code, done.out, head)
    assert [
        *("global.base_dir", "global.worker-limit", "jobs.vm03.schedule"),
        *("jobs.vm03.source.filename", "api.port"),
    ] == [line.split(": ")[0] for line in lines]
    assert "jobs.vm03.source.filename: it is missing" in lines


def test_single_mistake_has_no_number(tmp_path: Path) -> None:
    """The sentence is that of every other configuration error, with a hint."""
    done = check(tmp_path, schedule={})

    assert (1, "", 1) == (done.code, done.out, done.err.count("\n"))
    assert done.err.startswith(f"backy: {tmp_path}/backy.conf: schedule: ")
    assert "schedules" in done.err
    assert "(1)" not in done.err


MISTAKES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "nothing": ({}, []),
    "job name": ({"jobs": with_job("../x")}, ["jobs.../x"]),
    "no source": ({"jobs": with_job("vm03", schedule="default")}, ["jobs.vm03.source"]),
    "empty job": ({"jobs": with_job("vm03")}, ["jobs.vm03.source", "jobs.vm03.schedule"]),
    "source type": (
        {"jobs": with_job("vm03", schedule="default", source={"type": "tape"})},
        ["jobs.vm03.source.type"],
    ),
    "interval": (
        {"schedules": {**GOOD["schedules"], "other": {"daily": {"interval": "soon", "keep": 1}}}},
        ["schedules.other.daily.interval"],
    ),
    "short token": ({"api": {"tokens": {"short": "me"}}}, ["api.tokens"]),
    "open without tokens": ({"api": {"addrs": "0.0.0.0"}}, ["api.tokens"]),
    "peer": ({"peers": {"other": {"url": "http://other:6023"}}}, ["peers.other"]),
}


@pytest.mark.parametrize(("sections", "keys"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_as_json_have_their_keys(
    tmp_path: Path, sections: dict[str, Any], keys: list[str]
) -> None:
    """For programs; code 1 as soon as there is one."""
    assert keys == mistakes(tmp_path, **sections)


def test_json_counts_what_is_usable(tmp_path: Path) -> None:
    """One bad job does not hide the others."""
    found = json.loads(check(tmp_path, "--json", jobs=with_job("vm03", schedule="none")).out)

    assert {"jobs", "mistakes", "legacy"} == set(found)
    assert 2 == found["jobs"]
    assert {"file", "key", "why"} == set(found["mistakes"][0])


def test_lenient_passes_over_unknown_keys_and_lists_them(tmp_path: Path) -> None:
    """A newer tool's file can be used, and other mistakes stay mistakes."""
    sections = {"future": {}, "api": {"colour": "red"}}

    assert ["future", "api.colour"] == mistakes(tmp_path, **sections)
    assert [] == mistakes(tmp_path, "--lenient", **sections)
    assert (0, "future has no effect\napi.colour has no effect\n") == (
        check(tmp_path, "--lenient", **sections).code,
        "".join(check(tmp_path, "--lenient", **sections).out.splitlines(keepends=True)[:2]),
    )
    assert ["api.port"] == mistakes(tmp_path, "--lenient", future={}, api={"port": -1})


def test_keys_of_older_versions_are_told_and_no_mistakes(tmp_path: Path) -> None:
    """2.5's file loads unchanged, and its administrator learns what it does no more."""
    legacy = {"status-interval": 30, "telnet-port": 6023, "status-file": "/srv/backy/status"}
    found = check(tmp_path, **{"global": {**GOOD["global"], **legacy}})

    assert (0, "") == (found.code, found.err)
    assert {f"global.{key} has no effect" for key in legacy} == set(found.out.splitlines()[:-1])
    as_json = check(tmp_path, "--json", **{"global": {**GOOD["global"], **legacy}})
    assert {f"global.{key}" for key in legacy} == set(json.loads(as_json.out)["legacy"])


@pytest.mark.parametrize("api", [{"tokens": {TOKEN: 7}}, {"tokens": {TOKEN: "a", "tiny!": "b"}}])
def test_no_message_has_a_token(tmp_path: Path, api: dict[str, Any]) -> None:
    """What a deployment tool logs is no secret."""
    said = [check(tmp_path, *form, api=api) for form in ([], ["--json"])]

    assert [1, 1] == [one.code for one in said]
    assert not any(word in one.out + one.err for one in said for word in (TOKEN, "tiny!"))


BROKEN = {
    "empty list": b"[]",
    "text": b"hello",
    "bad yaml": b"jobs: {a: [}",
    "no utf-8": b"global: \xff",
    "twice": b"jobs: {}\njobs: {}\n",
    "tag": b"jobs: !!python/object:os.system {}",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_file_that_is_no_table_is_refused(tmp_path: Path, content: bytes, form: list[str]) -> None:
    """With one sentence that names the file."""
    file = tmp_path / "backy.conf"
    file.write_bytes(content)
    done = backy("-c", str(file), "check-config", *form)

    assert (1, "") == (done.code, done.out)
    assert done.err.startswith(f"backy: {file}: ")
    assert 1 == done.err.count("\n")


def test_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    """The path is told."""
    done = backy("-c", str(tmp_path / "none"), "check-config")

    assert (1, f"backy: {tmp_path}/none: it cannot be read: No such file or directory.\n") == (
        done.code,
        done.err,
    )
