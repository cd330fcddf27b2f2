"""Sizes and durations as people write them.

Sizes are bytes, shown in binary units; durations are seconds, written as in backy's configuration:
one integer and one unit (`90`, `15m`, `1d`), never two units in a row.

    >>> format_size(4 * 1024**2)
    '4.0 MiB'
    >>> parse_interval("1d")
    86400

Limits: no fractions in intervals; sizes are formatted only.
"""

import re

_SIZE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_INTERVAL = re.compile(r"([0-9]{1,12})([smhdw]?)", re.ASCII)
_INTERVAL_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def format_size(size: float) -> str:
    """Bytes as text with one decimal from KiB upwards."""
    value = float(size)
    for unit in _SIZE_UNITS:
        if abs(value) < 1024 or unit == _SIZE_UNITS[-1]:
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def format_duration(seconds: float) -> str:
    """Seconds as at most two units: `3.2 s`, `4 min 10 s`, `2 h 5 min`, `3 d 4 h`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def parse_interval(text: str) -> int:
    """Seconds of an interval such as `25h`; ValueError with the reason otherwise."""
    match = _INTERVAL.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a number with one of the units s, m, h, d, w")
    seconds = int(match[1]) * _INTERVAL_UNITS[match[2]]
    if seconds == 0:
        raise ValueError("an interval must be longer than 0")
    return seconds


def format_interval(seconds: int) -> str:
    """An interval as `parse_interval` reads it, in its largest whole unit: `25h`, `1d`, `4w`."""
    for unit in ("w", "d", "h", "m"):
        if seconds and seconds % _INTERVAL_UNITS[unit] == 0:
            return f"{seconds // _INTERVAL_UNITS[unit]}{unit}"
    return f"{seconds}s"
