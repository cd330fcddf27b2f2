"""Lists for people and for programs: aligned tables, and JSON.

    >>> print(table(["Name", "Size"], [["a", "1"], ["bcd", "20"]], right=[1]))
    Name  Size
    a        1
    bcd     20

Limits: one line a row, cells are not wrapped, so that grep and awk work on them.
"""

import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import datetime

import msgspec

from backy.cli.edge import printable


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """Columns as wide as their widest cell, two blanks apart; `right` are aligned to the right."""
    lines = [[printable(text) for text in line] for line in (head, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]

    def cell(column: int, text: str) -> str:
        return text.rjust(widths[column]) if column in right else text.ljust(widths[column])

    return "\n".join("  ".join(cell(*one) for one in enumerate(line)).rstrip() for line in lines)


def json(document: object) -> str:
    """Indented JSON; records, enums and times as in the revision records.

    Of a file's name that is not UTF-8, as that of a stranger's file may be, the odd bytes are escaped.
    """
    try:
        encoded = msgspec.json.encode(document)
    except UnicodeEncodeError:
        encoded = msgspec.json.encode(_escaped(msgspec.to_builtins(document)))
    return msgspec.json.format(encoded, indent=2).decode()


def _escaped(document: object) -> object:
    if isinstance(document, str):
        return os.fsencode(document).decode(errors="backslashreplace")
    if isinstance(document, (list, tuple)):
        return [_escaped(one) for one in document]
    if isinstance(document, dict):
        return {name: _escaped(one) for name, one in document.items()}
    return document


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 revision`, `2 revisions`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def are(number: int) -> str:
    """The verb that goes with `counted`."""
    return "is" if number == 1 else "are"


def byte_range(disk: str, offset: int, length: int) -> str:
    """`OFFSET+LENGTH`, of a disk that has a name with that before it: `root:0+4096`."""
    return f"{disk}:{offset}+{length}" if disk else f"{offset}+{length}"


def local_time(instant: datetime) -> str:
    """An instant in the zone of the host, to the second."""
    with suppress(OverflowError):  # the first and the last day of the calendar have no local form
        instant = instant.astimezone()
    return instant.strftime("%Y-%m-%d %H:%M:%S")
