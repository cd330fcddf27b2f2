"""Source types by name: from a job's configuration to its source.

    >>> open_source(SourceConfig("file", {"filename": "/srv/vm01.raw"}), "config").path
    '/srv/vm01.raw'

Limits: checks the settings' form only; whether the image is there shows when it is read.
"""

from backy.domain.config import SourceConfig
from backy.ground.errors import ConfigError, OptionRefused
from backy.source.base import Source
from backy.source.file import FileSource

TYPES = ("file",)


def open_source(config: SourceConfig, file: str) -> Source:
    """The source that a configuration file describes; ConfigError with the key."""
    if config.type not in TYPES:
        known = ", ".join(TYPES)
        raise ConfigError(file, "source.type", f"{config.type!r} is not known; known are {known}")
    unknown = set(config.settings) - {"filename"}
    if unknown:
        why = "this key is not known for type file; known is filename"
        raise ConfigError(file, f"source.{min(unknown)}", why)
    filename = config.settings.get("filename")
    if not isinstance(filename, str) or not filename or "\0" in filename:
        raise ConfigError(file, "source.filename", "it must be the path of an image or block device")
    return FileSource(filename)


def from_argument(kind: str, source: str, absolute: str) -> SourceConfig:
    """The configuration for `backy init KIND SOURCE`; `absolute` is SOURCE as an absolute path."""
    if kind not in TYPES:
        raise OptionRefused("TYPE", f"{kind!r} is not known; known are {', '.join(TYPES)}")
    if not source or "\0" in source:
        raise OptionRefused("SOURCE", "it must be the path of an image or block device")
    if any("\ud800" <= one <= "\udfff" for one in absolute):
        raise OptionRefused("SOURCE", "its path is not UTF-8, which no configuration can hold")
    return SourceConfig(kind, {"filename": absolute})
