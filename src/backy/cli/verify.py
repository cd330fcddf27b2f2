"""`backy verify`: prove that revisions can be restored, and move aside what cannot be."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple

import click

from backy.cli import edge
from backy.cli.options import Options, pass_options
from backy.cli.render import byte_range, counted, json, table
from backy.cli.verify_slice import run_slice, tell_slice
from backy.ground.clock import SystemClock
from backy.ground.errors import (
    BackyError,
    CouldNotVerify,
    FormatUnknown,
    HistoryUnclear,
    JobMissing,
    OptionRefused,
    RecordDamaged,
    RevisionMissing,
    StorageFailed,
    UsageError,
)
from backy.ground.linux import keep_freed_memory
from backy.operation.select import choose
from backy.operation.trust import Concluded, conclude
from backy.operation.verify import Finding, Result, Selected, verify
from backy.repository import history as histories
from backy.repository.repository import Repository

ALL = "all"


@click.command()
@click.option(
    "-r", "--revision", "spec", default=ALL, metavar="SPEC", show_default=True, help="Which ones."
)
@click.option("--quick", is_flag=True, help="Prove the checksums of chunk files only, without decoding.")
@click.option("--no-quarantine", is_flag=True, help="Only report: move nothing, mark nothing.")
@click.option(
    "--slice",
    "duration",
    metavar="TIME",
    help="Go on with the whole store for so long (30m, 2h), from where the last slice ended.",
)
@click.option("--json", "as_json", is_flag=True, help="Findings as JSON.")
@pass_options
def command(
    options: Options,
    spec: str,
    duration: str | None,
    *,
    quick: bool,
    no_quarantine: bool,
    as_json: bool,
) -> None:
    """Prove that revisions can be restored.

    Decodes and hashes every chunk that the revisions need, shared ones once; of one job, or of all
    jobs where none is named. Bad chunks are moved aside with a report, so that the next backup stores
    them anew; revisions are marked as damaged or verified. Exit code 0: all is well, 1: findings,
    2: it could not do everything, and found nothing.

    \b
    Example:
      backy -b /srv/backy/vm01 verify
      backy -b /srv/backy verify --quick --json
      backy -b /srv/backy verify --slice 30m
    """
    keep_freed_memory()
    if duration is not None:
        if spec != ALL or quick or no_quarantine:
            raise OptionRefused("--slice", "it does not go with -r, --quick or --no-quarantine")
        with _could_not_verify():
            found = run_slice(options, duration)
        tell_slice(options, found, as_json=as_json)
        if found.bad or found.damaged:
            sys.exit(1)
        if found.failed is not None:
            sys.exit(CouldNotVerify.exit_code)
        return
    with _could_not_verify():
        result, done, unreadable, awaited = _verify(options, spec, quick=quick, look_only=no_quarantine)
    # What could not be marked as verified only is as trustworthy as before.
    is_left = done.failed is not None and awaited
    if as_json:
        click.echo(json(_document(result, done, unreadable)))
    else:
        _tell_result(options, result, done, quick=quick)
    for name, error in unreadable.items():
        edge.say(f"warning: job {name!r} was not verified: {error.message}")
    if is_left or (result.findings and done.failed is not None):
        edge.say(f"warning: not everything could be moved aside or marked: {done.failed}")
    if result.findings:
        sys.exit(1)
    if unreadable or is_left:
        sys.exit(CouldNotVerify.exit_code)


@contextmanager
def _could_not_verify() -> Iterator[None]:
    """Whatever keeps verify from looking ends with another code than its findings."""
    try:
        yield
    except UsageError:
        raise
    except BackyError as error:
        raise CouldNotVerify(error) from error
    except OSError as error:
        cause = StorageFailed("read", str(error.filename or "the repository"), error.errno or 0)
        raise CouldNotVerify(cause) from error


def _tell_result(options: Options, result: Result, done: Concluded, *, quick: bool) -> None:
    if result.findings:
        click.echo(_table(result.findings))
    what = "checksums of " if quick else ""
    found_any = counted(len(result.findings), "finding") if result.findings else "no findings"
    options.tell(
        f"{counted(result.revisions, 'revision')}, {what}{counted(result.chunks, 'chunk')} "
        f"verified: {found_any}"
    )
    if done.aside:
        options.tell(
            f"{counted(done.aside, 'chunk')} moved aside, {counted(done.damaged, 'revision')} damaged: "
            "see 'backy reports'"
        )
    if done.healed:
        options.tell(f"{counted(done.healed, 'damaged chunk')} had been stored anew")


class _Verified(NamedTuple):
    """What was found and done, and which of several jobs could not be read.

    `awaited`: some record spoke against its revision, in a way that verify takes back when all is good.
    """

    result: Result
    done: Concluded
    unreadable: dict[str, StorageFailed]
    awaited: bool


def _verify(options: Options, spec: str, *, quick: bool, look_only: bool) -> _Verified:
    with ExitStack() as stack:
        repository, name = stack.enter_context(options.opened())
        unreadable: dict[str, StorageFailed] = {}
        if name is None:
            selection = []
            for job in repository.directories():
                try:
                    with suppress(JobMissing):  # gone meanwhile, or no job
                        selection.append(_selected(repository, job, spec, lenient=True))
                except StorageFailed as error:
                    unreadable[job] = error
        else:
            selection = [_selected(repository, name, spec, lenient=False)]
        own = repository if name is None else stack.enter_context(repository.job(name))
        log = stack.enter_context(options.log_for(own))
        log.info("verify started", job=name or "(all)", spec=spec, quick=quick)
        result = verify(repository, selection, options.progress(), quick=quick)
        done = Concluded()
        if not look_only:
            done = conclude(repository, selection, result, SystemClock(), quick=quick)
        log.info(
            "verify finished",
            job=name or "(all)",
            findings=len(result.findings),
            aside=done.aside,
            damaged=done.damaged,
            healed=done.healed,
            unreadable=list(unreadable),
        )
        awaited = any(
            one.damaged or (one.blames_store and not quick)
            for selected in selection
            for one in selected.revisions
        )
        return _Verified(result, done, unreadable, awaited)


def _selected(repository: Repository, name: str, spec: str, *, lenient: bool) -> Selected:
    """A job's revisions that match; `lenient`: none is fine, since other jobs are verified too."""
    with repository.job(name) as job:
        history = histories.load(job.directory)
    if spec == ALL:
        return Selected(name, history, history.revisions)
    try:
        chosen = choose(history, spec, name)
    except HistoryUnclear:
        # What cannot be read is a finding; of the rest, all is verified rather than the wrong ones.
        return Selected(name, history, history.revisions)
    except (RecordDamaged, FormatUnknown) as error:
        named = tuple(one for one in history.unreadable if one.error is error)
        return Selected(name, history._replace(unreadable=named, lost=()), ())
    except RevisionMissing:
        if not lenient and spec not in history.lost:
            raise
        named_lost = tuple(uuid for uuid in history.lost if uuid == spec)
        return Selected(name, history._replace(unreadable=(), lost=named_lost), ())
    # A full UUID is found even where other records are unclear, and those are not meant then.
    return Selected(name, history._replace(unreadable=(), lost=()), chosen)


def _table(findings: list[Finding]) -> str:
    rows = []
    for one in findings:
        ranges = ", ".join(byte_range(one.disk, *span) for span in one.ranges[:4])
        more = f", … ({len(one.ranges)})" if len(one.ranges) > 4 else ""
        rows.append([one.kind.value, one.job, one.revision, (ranges + more) or "-", one.why])
    return table(["What", "Job", "Revision", "Bytes (offset+length)", "Why"], rows)


def _document(
    result: Result, done: Concluded, unreadable: dict[str, StorageFailed]
) -> dict[str, object]:
    findings = [
        {**one._asdict(), "ranges": [{"offset": at, "length": length} for at, length in one.ranges]}
        for one in result.findings
    ]
    return {
        "revisions": result.revisions,
        "chunks": result.chunks,
        "findings": findings,
        "unreadable": [{"job": name, "why": error.message} for name, error in unreadable.items()],
        **done._asdict(),
    }
