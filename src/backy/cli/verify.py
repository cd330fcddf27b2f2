"""`backy verify`: prove that revisions can be restored."""

import sys
from contextlib import ExitStack

import click

from backy.cli.options import Options, pass_options
from backy.cli.render import counted, json, table
from backy.ground.errors import (
    BackyError,
    CouldNotVerify,
    FormatUnknown,
    HistoryUnclear,
    RecordDamaged,
    RevisionMissing,
    StorageFailed,
    UsageError,
)
from backy.ground.linux import keep_freed_memory
from backy.operation.select import choose
from backy.operation.verify import Finding, Result, Selected, verify
from backy.repository import history as histories
from backy.repository.repository import Repository

ALL = "all"


@click.command()
@click.option(
    "-r", "--revision", "spec", default=ALL, metavar="SPEC", show_default=True, help="Which ones."
)
@click.option("--quick", is_flag=True, help="Prove the checksums of chunk files only, without decoding.")
@click.option("--json", "as_json", is_flag=True, help="Findings as JSON.")
@pass_options
def command(options: Options, spec: str, *, quick: bool, as_json: bool) -> None:
    """Prove that revisions can be restored.

    Decodes and hashes every chunk that the revisions need, shared ones once; of one job, or of all
    jobs where none is named. Exit code 0: all is well, 1: findings, 2: it could not run.

    \b
    Example:
      backy -b /srv/backy/vm01 verify
      backy -b /srv/backy verify --quick --json
    """
    keep_freed_memory()
    try:
        result = _verify(options, spec, quick=quick)
    except UsageError:
        raise
    except BackyError as error:
        raise CouldNotVerify(error) from error
    except OSError as error:
        cause = StorageFailed("read", str(error.filename or "the repository"), error.errno or 0)
        raise CouldNotVerify(cause) from error
    if as_json:
        click.echo(json(_document(result)))
    elif result.findings:
        click.echo(_table(result.findings))
    if not as_json:
        what = "checksums of " if quick else ""
        found = counted(len(result.findings), "finding") if result.findings else "no findings"
        options.tell(
            f"{counted(result.revisions, 'revision')}, {what}{counted(result.chunks, 'chunk')} "
            f"verified: {found}"
        )
    if result.findings:
        sys.exit(1)


def _verify(options: Options, spec: str, *, quick: bool) -> Result:
    with ExitStack() as stack:
        repository, name = stack.enter_context(options.opened())
        jobs = repository.jobs() if name is None else [name]
        selection = [_selected(stack, repository, job, spec, lenient=name is None) for job in jobs]
        log = stack.enter_context(options.log_for(selection[0].job if name else None))
        log.info("verify started", job=name or "(all)", spec=spec, quick=quick)
        result = verify(repository, selection, options.progress(), quick=quick)
        log.info("verify finished", job=name or "(all)", findings=len(result.findings))
        return result


def _selected(
    stack: ExitStack, repository: Repository, name: str, spec: str, *, lenient: bool
) -> Selected:
    """A job's revisions that match; `lenient`: none is fine, since other jobs are verified too."""
    job = stack.enter_context(repository.job(name))
    history = histories.load(job.directory)
    if spec == ALL:
        return Selected(job, history, history.revisions)
    try:
        chosen = choose(history, spec, name)
    except HistoryUnclear:
        # What cannot be read is a finding; of the rest, all is verified rather than the wrong ones.
        return Selected(job, history, history.revisions)
    except (RecordDamaged, FormatUnknown) as error:
        named = tuple(one for one in history.unreadable if one.error is error)
        return Selected(job, history._replace(unreadable=named, lost=()), ())
    except RevisionMissing:
        if not lenient and spec not in history.lost:
            raise
        named_lost = tuple(uuid for uuid in history.lost if uuid == spec)
        return Selected(job, history._replace(unreadable=(), lost=named_lost), ())
    # A full UUID is found even where other records are unclear, and those are not meant then.
    return Selected(job, history._replace(unreadable=(), lost=()), chosen)


def _table(findings: list[Finding]) -> str:
    rows = []
    for one in findings:
        ranges = ", ".join(f"{offset}+{length}" for offset, length in one.ranges[:4])
        more = f", … ({len(one.ranges)})" if len(one.ranges) > 4 else ""
        rows.append([one.kind.value, one.job, one.revision, (ranges + more) or "-", one.why])
    return table(["What", "Job", "Revision", "Bytes (offset+length)", "Why"], rows)


def _document(result: Result) -> dict[str, object]:
    findings = [
        {**one._asdict(), "ranges": [{"offset": at, "length": length} for at, length in one.ranges]}
        for one in result.findings
    ]
    return {"revisions": result.revisions, "chunks": result.chunks, "findings": findings}
