"""-b, -j and -c: which repository and which job a command works on, and how chunks are stored."""

from pathlib import Path

import pytest
from refusals import refused, unchanged

from backy.domain.chunk import chunk_id
from testsite import CHUNK, Site, parsed, run_backy


def configuration(site: Site, text: str) -> Path:
    """A configuration file beside the repository."""
    path = site.folder / "backy.conf"
    path.write_text(text)
    return path


def jobs_backed_up(site: Site) -> list[str]:
    """Names of the jobs that have a revision."""
    listed = parsed(run_backy("-b", str(site.base), "status", "--json"))
    return [one["job"] for one in listed if one["revisions"]]


@pytest.fixture
def two_jobs(site: Site) -> Site:
    """A repository with the jobs `vm` and `db`."""
    site.image.write_bytes(b"data" * CHUNK)
    site.add_job("db", site.image)
    return site


def test_b_names_a_job_s_directory(two_jobs: Site) -> None:
    """As in 2.5."""
    assert 0 == run_backy("-b", str(two_jobs.base / "db"), "backup", "daily").returncode
    assert ["db"] == jobs_backed_up(two_jobs)


def test_b_names_the_repository_and_j_the_job(two_jobs: Site) -> None:
    """The other way to say the same."""
    assert 0 == run_backy("-b", str(two_jobs.base), "-j", "db", "backup", "daily").returncode
    assert ["db"] == jobs_backed_up(two_jobs)


def test_b_and_j_may_name_the_same_job(two_jobs: Site) -> None:
    """They do not contradict each other."""
    assert 0 == run_backy("-b", str(two_jobs.base / "db"), "-j", "db", "backup", "daily").returncode


@pytest.mark.parametrize("path", [".", "vm", "./vm/", "../backups/vm", "vm/../vm"])
def test_b_may_be_relative(site: Site, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever way leads there."""
    monkeypatch.chdir(site.base)

    assert 0 == run_backy("-b", path, "backup", "daily").returncode


def test_the_current_directory_is_the_default(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the job's directory and in the repository's."""
    for folder in (site.job, site.base):
        monkeypatch.chdir(folder)
        assert 0 == run_backy("backup", "daily").returncode


def test_the_only_job_need_not_be_named(site: Site) -> None:
    """With one job there is no doubt."""
    assert 0 == run_backy("-b", str(site.base), "backup", "daily").returncode
    assert 1 == len(site.history().revisions)


@pytest.mark.parametrize(
    "words",
    [["backup", "daily"], ["restore", "out"], ["find"], ["forget", "-r", "0"], ["status", "-r", "0"]],
)
def test_with_several_jobs_one_must_be_named(two_jobs: Site, words: list[str]) -> None:
    """All of them are listed."""
    with unchanged(two_jobs):
        refused(run_backy("-b", str(two_jobs.base), *words), 2, "-j JOB: say which of db, vm.")


def test_without_any_job_the_way_to_make_one_is_told(site: Site) -> None:
    """A repository whose jobs have all gone."""
    (site.job / "config").unlink()

    refused(run_backy("-b", str(site.base), "backup", "daily"), 2, "'backy init' makes one.")


def test_verify_and_status_take_all_jobs_where_none_is_named(two_jobs: Site) -> None:
    """These two look at the whole repository."""
    for job in ("vm", "db"):
        two_jobs.backup(job=job)

    assert "2 revisions, 1 chunk verified: no findings\n" == (
        run_backy("-b", str(two_jobs.base), "verify").stdout
    )
    assert ["db", "vm"] == jobs_backed_up(two_jobs)


def test_c_names_the_base_directory(two_jobs: Site) -> None:
    """From `global.base-dir`; -b goes before it."""
    path = configuration(two_jobs, f"global: {{base-dir: {two_jobs.base}}}\n")

    assert 0 == run_backy("-c", str(path), "-j", "db", "backup", "daily").returncode
    elsewhere = configuration(two_jobs, "global: {base-dir: /nowhere}\n")
    at = ("-c", str(elsewhere), "-b", str(two_jobs.base / "vm"))
    assert 0 == run_backy(*at, "backup", "daily").returncode
    refused(run_backy("-c", str(elsewhere), "status"), 1, "/nowhere is not a backy repository")


def test_codecs_by_configuration_mix_in_one_store(site: Site) -> None:
    """zstd, none and lz4 one after the other: all revisions restore, and verify is content."""
    contents = {}
    codecs = ["zstd:3", "none", "lz4", "zstd"]
    for number, codec in enumerate(codecs):
        path = configuration(site, f"global: {{codec: '{codec}'}}\n")
        site.image.write_bytes((b"%d" % number) * CHUNK * 3)
        assert 0 == run_backy("-c", str(path), "-b", str(site.job), "backup", "daily").returncode
        uuid = site.cli("find", "-r", "latest").stdout.strip()
        contents[uuid] = site.image.read_bytes()

    assert [2, 0, 1, 2] == [codec_of(site, content[:CHUNK]) for content in contents.values()]
    assert 0 == site.cli("verify").returncode
    out = site.folder / "out.raw"
    for uuid, content in contents.items():
        assert 0 == site.cli("restore", "-r", uuid, str(out)).returncode
        assert content == out.read_bytes()


def codec_of(site: Site, plain: bytes) -> int:
    """The codec's number in the header of the chunk with these bytes."""
    name = chunk_id(plain).hex()
    return (site.chunks / name[:2] / name).read_bytes()[5]


BAD = {
    "an unknown codec": ("global: {codec: gzip}", "global.codec: 'gzip' is none of lz4, none, zstd"),
    "a level that does not exist": ("global: {codec: 'zstd:99'}", "global.codec: 'zstd:99' is none of"),
    "a relative base": ("global: {base-dir: backups}", "'backups' is not an absolute path."),
    "an unknown key": ("global: {base-dri: /x}", "did you mean 'base-dir'?"),
    "an unknown section": ("globl: {}", "did you mean 'global'?"),
    "no YAML": ("global: {", "it is not YAML"),
}


@pytest.mark.parametrize(("text", "why"), BAD.values(), ids=BAD.keys())
def test_a_bad_configuration_is_told_with_file_key_and_reason(site: Site, text: str, why: str) -> None:
    """Before anything is done."""
    path = configuration(site, text)

    with unchanged(site):
        done = run_backy("-c", str(path), "-b", str(site.job), "backup", "daily")
        refused(done, 1, f"{path}: ", why)


def test_a_missing_configuration_is_told(site: Site) -> None:
    """One that was asked for must be there."""
    with unchanged(site):
        done = run_backy("-c", str(site.folder / "none.conf"), "-b", str(site.job), "backup", "daily")
        refused(done, 1, "none.conf: it cannot be read: No such file or directory.")
