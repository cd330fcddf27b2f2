"""`backy reports`: show or delete the reports of damaged chunks."""

import click

from backy.cli.options import Options, pass_options
from backy.cli.render import byte_range, counted, json, local_time, table
from backy.ground.errors import OptionRefused, ReportRefused
from backy.operation.trust import still_needed
from backy.repository import layout, quarantine
from backy.repository.quarantine import Case
from backy.repository.repository import Repository

LIST, SHOW, DELETE = "list", "show", "delete"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--force", is_flag=True, help="Delete although a revision still needs the chunk.")
@click.argument("action", type=click.Choice([LIST, SHOW, DELETE]), default=LIST)
@click.argument("case", required=False)
@pass_options
def command(options: Options, action: str, case: str | None, *, as_json: bool, force: bool) -> None:
    """Show or delete reports of damaged chunks.

    A damaged chunk is moved aside with a report: where it was found, and which revisions it hurts.
    CASE is the report's name, or its begin. Deleting removes the damaged chunk for good.

    \b
    Example:
      backy -b /srv/backy reports
      backy -b /srv/backy reports show 71931e84
    """
    if (case is None) != (action == LIST):
        raise OptionRefused("CASE", f"{action!r} takes {'none' if action == LIST else 'one'}")
    if force and action != DELETE:
        raise OptionRefused("--force", "only 'delete' takes it")
    with options.opened() as (repository, _):
        if case is None:
            found = quarantine.cases(repository.chunks)
            click.echo(json([_document(one) for one in found]) if as_json else _list(found))
            return
        one = quarantine.case(repository.chunks, case)
        if action == SHOW:
            click.echo(json(_document(one)) if as_json else _shown(one))
            return
        with options.log_for(repository) as log:
            _delete(repository, one, force=force)
            log.info("report deleted", case=one.name, chunk=_chunk(one))
        options.tell(f"deleted report {one.name}")


def _delete(repository: Repository, case: Case, *, force: bool) -> None:
    if not force:
        if case.report is None and case.chunk is not None:
            raise ReportRefused(case.name, "nobody knows yet whom it hurts; run 'backy verify' first")
        needed = still_needed(repository, case)
        if needed:
            raise ReportRefused(
                case.name, f"{counted(needed, 'revision')} still lack its chunk; --force deletes it"
            )
    quarantine.delete(repository.chunks, case)


def _state(case: Case) -> str:
    if case.report is None:
        return "not reported yet"
    return "open" if case.report.healed_at is None else "healed"


def _chunk(case: Case) -> str | None:
    if case.report is not None:
        return case.report.chunk
    return None if case.chunk is None else layout.chunk_name(case.chunk)


def _document(case: Case) -> dict[str, object]:
    document: dict[str, object] = {"case": case.name, "state": _state(case), "chunk": _chunk(case)}
    if case.report is None:
        return document
    report = case.report
    return {
        **document,
        "found_at": report.found_at,
        "found_by": report.found_by,
        "why": report.why,
        "healed_at": report.healed_at,
        "healed_by": report.healed_by,
        "revisions": [
            {
                "job": one.job,
                "revision": one.revision,
                "disk": one.disk,
                "ranges": [{"offset": at, "length": length} for at, length in one.ranges],
            }
            for one in report.revisions
        ],
    }


def _list(cases: list[Case]) -> str:
    if not cases:
        return "no reports"
    head = ["Report", "Found (local)", "By", "State", "Revisions", "Why"]
    rows = [
        [one.name, "-", "-", _state(one), "-", "-"]
        if one.report is None
        else [
            one.name,
            local_time(one.report.found_at),
            one.report.found_by,
            _state(one),
            str(len({(hurt.job, hurt.revision) for hurt in one.report.revisions})),
            one.report.why,
        ]
        for one in cases
    ]
    return table(head, rows, right=(4,))


def _shown(case: Case) -> str:
    lines = [f"report {case.name}: {_state(case)}"]
    report = case.report
    if report is None:
        return "\n".join([*lines, f"chunk {_chunk(case)}"])
    lines.append(report.why)
    lines.append(f"found by {report.found_by} at {local_time(report.found_at)}")
    if report.healed_at is not None:
        lines.append(f"healed by {report.healed_by} at {local_time(report.healed_at)}")
    rows = [
        [one.job, one.revision, byte_range(one.disk, offset, length)]
        for one in report.revisions
        for offset, length in one.ranges
    ]
    if rows:
        lines.append(table(["Job", "Revision", "Bytes (offset+length)"], rows))
    return "\n".join(lines)
