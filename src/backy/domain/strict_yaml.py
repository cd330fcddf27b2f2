"""YAML as operators write it, strictly: no key twice, no bombs, and every mistake with its line.

    >>> load("a: {b: 1}", "backy.conf")
    {'a': {'b': 1}}

Limits: plain data only; nesting of 50 levels. Aliases are allowed and never expanded in messages.
"""

from collections.abc import Collection, Mapping

import yaml

from backy.ground.errors import ConfigError

_SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_DEPTH = 50


def load(content: str, file: str) -> object:
    """The document; ConfigError with the line where it is none."""
    try:
        _check_depth(content)
        return yaml.load(content, Loader=_Loader)  # noqa: S506 - derived from a safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" in line {mark.line + 1}" if mark else ""
        raise ConfigError(file, "", f"it is not YAML: {error.problem}{where}") from error
    except (
        yaml.YAMLError,
        ValueError,
        LookupError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise ConfigError(file, "", f"it is not YAML: {str(error).splitlines()[0]}") from error


class _Loader(_SAFE_LOADER):  # type: ignore[misc, valid-type]  # chosen at run time
    """A safe loader that refuses a key that stands twice: dropping one silently loses a setting."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> object:  # noqa: FBT002 - PyYAML's signature
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    # Not named, since it may be a token; the line is.
                    problem = "a key stands twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _check_depth(content: str) -> None:
    """ValueError for a nesting that would exhaust the C loader's stack, which kills the process."""
    depth = 0
    for event in yaml.parse(content, Loader=_SAFE_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                raise ValueError(f"it is nested more than {_MAX_DEPTH} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def shown(found: object) -> str:
    """A value for a message: short, and never expanded."""
    if isinstance(found, dict):
        return "a table"
    if isinstance(found, list | tuple | set):
        return "a list"
    if isinstance(found, int) and found.bit_length() > 64:
        return "a huge number"
    shown = repr(found)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def mapping(found: object, file: str, key: str) -> Mapping[str, object]:
    """A table whose keys are texts; ConfigError."""
    if not isinstance(found, dict):
        raise ConfigError(file, key, "it must be a table of keys and values")
    for name in found:
        if not isinstance(name, str):
            raise ConfigError(file, key, f"the key {shown(name)} is not a text: put it into quotes")
    return found


def text(found: object, file: str, key: str) -> str:
    """A text that is not empty; ConfigError."""
    if not isinstance(found, str) or not found:
        raise ConfigError(file, key, f"{shown(found)} is not a text")
    return found


def check_keys(found: Collection[str], known: Collection[str], file: str, key: str) -> None:
    """ConfigError for the first key that is not known."""
    for name in found:
        if name not in known:
            raise unknown_key(name, known, file, key)


def unknown_key(name: str, known: Collection[str], file: str, key: str) -> ConfigError:
    """The error for a key below `key` that is none of the known ones, with the nearest of them."""
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    where = f"{key}.{name}" if key else name
    return ConfigError(file, where, f"this key is not known; {hint}")
