"""Reading the tables of a configuration file so that every mistake is noted, not only the first.

    >>> reader = SectionReader("backy.conf", lenient=False)
    >>> reader.table({"global": {"worker-limit": 2, "worker": 3}}, "global", "global", ["worker-limit"])
    {'worker-limit': 2}
    >>> [fault.key for fault in reader.faults]
    ['global.worker']

Limits: pure; what a value means is its section's matter.
"""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import TypeVar

from backy.domain.strict_yaml import mapping, shown, unknown_key
from backy.ground.errors import ConfigError

Value = TypeVar("Value")


class SectionReader:
    """Collects mistakes and legacy keys while the document is read."""

    def __init__(self, file: str, *, lenient: bool) -> None:
        self.file = file
        self.faults: list[ConfigError] = []
        self.legacy: list[str] = []
        self._lenient = lenient

    def value(self, read: Callable[[], Value], otherwise: Value) -> Value:
        """What `read` returns; after a mistake, which is noted, `otherwise`."""
        try:
            return read()
        except ConfigError as error:
            self.faults.append(error)
            return otherwise

    def sound(
        self, section: Mapping[str, object], read: Callable[[Mapping[str, object]], object]
    ) -> Mapping[str, object]:
        """The entries that `read` accepts, each read alone, so that each mistake is noted."""
        return {
            name: value
            for name, value in section.items()
            if self.value(partial(read, {name: value}), None) is not None
        }

    def keys(self, found: Collection[str], known: Collection[str], key: str) -> None:
        """Note each key that is not known."""
        for name in found:
            if name not in known:
                if self._lenient:
                    self.legacy.append(f"{key}.{name}" if key else name)
                else:
                    self.faults.append(unknown_key(name or "''", known, self.file, key))

    def table(
        self, document: Mapping[str, object], name: str, key: str, known: Collection[str] | None = None
    ) -> Mapping[str, object]:
        """A sub-table, empty where it is missing or none; its keys are checked if they are given."""
        empty: Mapping[str, object] = {}
        found = document.get(name)
        table = empty if found is None else self.value(lambda: mapping(found, self.file, key), empty)
        if known is not None:
            self.keys(table, known, key)
            return {one: value for one, value in table.items() if one in known}
        return table

    def entries(self, document: Mapping[str, object], name: str) -> Mapping[str, object]:
        """As `table`, where a key that is no text spoils its own entry only."""
        found = document.get(name)
        if not isinstance(found, dict):
            return self.table(document, name, name)
        for one in found:
            if not isinstance(one, str):
                why = f"the name {shown(one)} is not a text: put it into quotes"
                self.faults.append(ConfigError(self.file, name, why))
        return {one: value for one, value in found.items() if isinstance(one, str)}

    def once(self, read: Callable[[], object]) -> None:
        """Note a mistake that is not noted yet."""
        try:
            read()
        except ConfigError as error:
            if error.message not in [one.message for one in self.faults]:
                self.faults.append(error)
