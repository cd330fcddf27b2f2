"""Errors: each says one clear sentence from its fields, and ends the process with a documented code."""

import errno
import inspect

import pytest

from backy.ground import errors
from backy.ground.errors import BackyError

EXAMPLES: list[tuple[BackyError, int, str]] = [
    (errors.NameRefused("job", "../x", "use letters"), 2, "'../x' is no job name: use letters."),
    (errors.SpecError("0,", 2, "it ends"), 2, "revision spec: it ends, at character 3:\n  0,\n    ^"),
    (errors.OptionRefused("--jobs", "too many"), 2, "--jobs: too many."),
    (
        errors.CouldNotVerify(errors.JobBusy("vm")),
        2,
        "nothing was verified: a backup of 'vm' is running",
    ),
    (errors.ConfigError("f", "a.b", "it is missing"), 1, "f: a.b: it is missing."),
    (errors.ConfigError("f", "", "it is empty"), 1, "f: it is empty."),
    (
        errors.ConfigFaults(
            "f", (errors.ConfigError("f", "a", "bad"), errors.ConfigError("f", "b", "worse"))
        ),
        1,
        "f has 2 mistakes: (1) a: bad; (2) b: worse.",
    ),
    (errors.ConfigFaults("f", (errors.ConfigError("f", "a", "bad"),)), 1, "f: a: bad."),
    (errors.DaemonRunning("/x"), 69, "another scheduler runs on /x: 'systemctl stop backy' ends it."),
    (errors.DaemonUnreachable("http://h", "refused"), 1, "the scheduler at http://h: refused."),
    (
        errors.ListenRefused("::1", 80, "it is taken"),
        1,
        "the API cannot listen on ::1 port 80: it is taken.",
    ),
    (errors.NotARepository("/x", "no chunks"), 1, "/x is not a backy repository: no chunks."),
    (errors.NotARepository("/x", "is it mounted?"), 1, "/x is not a backy repository: is it mounted?"),
    (errors.RepositoryRefused("/x", "it is full"), 1, "/x: it is full."),
    (
        errors.CollectorBusy("/x"),
        1,
        "/x: another garbage collection is running; try again when it has ended.",
    ),
    (
        errors.CollectionStopped((("/x/vm", "it is gone."), ("/y", "why"))),
        1,
        (
            "nothing was collected, because of /x/vm: it is gone (and 1 more); mount or "
            "repair it, give a revision up with 'backy forget', or name with "
            "'backy gc --gone' what was removed on purpose."
        ),
    ),
    (
        errors.CollectionTooMuch(7, 9),
        1,
        (
            "nothing was condemned, because 7 of the store's 9 chunks would go at once; "
            "make sure that all jobs are there, then use --force."
        ),
    ),
    (errors.ReportMissing("ab"), 1, "'ab' names no report; 'backy reports list' shows them."),
    (errors.ReportMissing("a", 2), 1, "'a' names several reports;"),
    (errors.ReportRefused("ab", "why"), 1, "report ab stays: why."),
    (
        errors.RevisionDamaged("u", 7),
        1,
        "revision u was made, but 7 bytes of it cannot be restored, since chunks were found damaged",
    ),
    (errors.FormatUnknown("/x", "store format 9"), 1, "/x: store format 9 is not known to this version"),
    (errors.StorageFailed("write", "/x", errno.EIO), 1, "write /x: Input/output error."),
    (
        errors.StorageFailed("write", "/x", errno.ENOSPC),
        1,
        "write /x: the disk is full: free some space",
    ),
    (
        errors.StorageFailed("write", "/x", errno.EROFS),
        1,
        "write /x: the file system is mounted read-only.",
    ),
    (
        errors.StorageFailed("open", "/x", errno.EMFILE),
        1,
        "open /x: too many open files: raise the limit",
    ),
    (errors.JobMissing("vm", "there is db"), 1, "there is no job 'vm': there is db."),
    (
        errors.JobUnscheduled("vm"),
        1,
        "the schedule of job 'vm' is empty, so there are no tags to run it with: use ",
    ),
    (errors.JobExists("vm", "/x/config"), 1, "job 'vm' exists already: edit /x/config to change it."),
    (errors.JobBusy("vm"), 1, "a backup of 'vm' is running already; nothing was done."),
    (errors.HistoryBusy("/x/.history"), 1, "/x/.history is held by an edit that does not end"),
    (
        errors.RevisionMissing("0", "vm"),
        1,
        "no revision of 'vm' matches '0'; 'backy status' lists them.",
    ),
    (errors.RevisionAmbiguous("all", ("a", "b")), 1, "'all' matches 2 revisions (a, b): name one"),
    (errors.RevisionGone("u"), 1, "revision u has been forgotten meanwhile; nothing was changed."),
    (
        errors.HistoryUnclear("0", ("a.rev",)),
        1,
        "'0' may not be what you mean, since a.rev cannot be used",
    ),
    (
        errors.TagRefused("x", ("daily",)),
        1,
        "tag 'x' is not in the job's schedule (daily): use one of these",
    ),
    (errors.TagRefused("x", ()), 1, "tag 'x' is not in the job's schedule (empty)"),
    (
        errors.TagsDiffer("u", ("a",), ()),
        1,
        "revision u has the tags (none), not a; nothing was changed.",
    ),
    (errors.RecordDamaged("/x", "it ends"), 1, "/x: the revision record is damaged: it ends."),
    (errors.SnapshotsDamaged("/x", "it ends"), 1, "/x: the list of snapshots is damaged: it ends."),
    (errors.MapDamaged("/x", "it ends"), 1, "/x: the chunk map is damaged: it ends."),
    (errors.MapUnreadable("/x", "No"), 1, "/x: the chunk map cannot be read: No."),
    (errors.ChunkMissing("ab"), 1, "chunk ab is missing."),
    (errors.ChunkDamaged("ab", "it ends"), 1, "chunk ab is damaged: it ends."),
    (errors.ChunkUnreadable("ab", errno.EIO), 1, "chunk ab cannot be read: Input/output error."),
    (errors.EncodingFault("ab", "lz4"), 1, "chunk ab did not survive lz4: it decodes to other bytes"),
    (
        errors.ImageDamaged(4096, 4096, "gone."),
        1,
        "bytes 4096 to 8191 cannot be restored: gone; --keep-going",
    ),
    (errors.SourceRefused("/x", "no such file"), 1, "source /x: no such file."),
    (errors.ConsulFailed("h:8500", "it answers 500"), 1, "Consul at h:8500: it answers 500."),
    (
        errors.SourceFailed("/x", 7, "bad sector"),
        1,
        "source /x: reading at byte 7 failed: bad sector; no rev",
    ),
    (errors.TargetRefused("/x", "too small"), 1, "target /x: too small; it was not touched."),
    (errors.TargetFailed("/x", 7, "no space"), 1, "target /x: byte 7: no space; it is incomplete."),
    (
        errors.TargetFailed("/x", 7, "no space", kept=True),
        1,
        "target /x: byte 7: no space; it is as it was before.",
    ),
    (
        errors.ImageDamaged(0, 4096, "gone.", "/dev/x"),
        1,
        "bytes 0 to 4095 cannot be restored: gone; target /dev/x is incomplete; --keep-going",
    ),
    (
        errors.ReadBackDiffers("/x", 0, 10),
        1,
        "target /x: bytes 0 to 9 read back differently from what was",
    ),
]


@pytest.mark.parametrize(("error", "code", "message"), EXAMPLES, ids=lambda one: type(one).__name__)
def test_error_says_what_is_the_matter(error: BackyError, code: int, message: str) -> None:
    """The message begins with these words, ends as a sentence does, and is what `str` gives."""
    assert error.message.startswith(message)
    assert error.message == str(error)
    assert error.message.endswith((".", "?", "^"))
    assert code == error.exit_code


def test_every_error_has_an_example_here() -> None:
    """No error class is without a message, and none is forgotten in this table."""
    classes = [
        one for _, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, BackyError)
    ]
    # One is raised itself although another is a kind of it.
    leaves = {one for one in classes if not one.__subclasses__()} | {errors.MapDamaged}

    assert leaves == {type(error) for error, _, _ in EXAMPLES}


def test_tree_in_the_docstring_is_the_tree() -> None:
    """The drawing at the head of the module names every class."""
    drawn = errors.__doc__ or ""
    classes = [
        one for _, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, BackyError)
    ]

    assert [] == [one.__name__ for one in classes if one.__name__ not in drawn]
