"""Revision specs: how an operator names revisions.

    spec     = term ("," term)*              union, order kept, duplicates dropped
    term     = range ("&" range)*            intersection, in the left one's order
    range    = atom | [end] ".." [end]       inclusive, oldest first, ends in any order
    atom     = "(" spec ")" | function "(" spec ")" | N | UUID or unique prefix | tag
             | last | latest | first | all | clean | local | remote | tag:T | trust:T | server:S
    function = first | last | not | reverse
    end      = an atom that is one revision | ISO date or time (no zone: the local one)

`N` counts from the newest (0). A bare tag is the newest revision that has it.

    >>> str(parse("0, tag:daily & not(trust:distrusted)"))
    '(0 , (tag:daily & not(trust:distrusted)))'

Limits: pure; a history is a sequence of revisions, oldest first. Errors give the position of the
mistake; nothing here fails on an empty result except functions and ends that need one revision.
"""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from backy.domain.revision import Revision, Trust
from backy.ground.errors import SpecError

History = Sequence[Revision]

_TOKEN = re.compile(r"\s*(\.\.|[(),&]|(?:(?!\.\.)[^(),&\s])+(?:\s+(?:(?!\.\.)[^(),&\s])+)*)")
_FUNCTIONS = ("first", "last", "not", "reverse")
_LISTS = ("all", "clean", "local", "remote")
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)
_HEX_PREFIX = re.compile(r"[0-9a-f][0-9a-f-]{3,35}", re.ASCII)
_DATE_LIKE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_MAX_DEPTH = 50


class Selection(NamedTuple):
    """What a part of a spec means; `single` where it names one revision, not a list."""

    revisions: list[Revision]
    single: bool


class Spec(NamedTuple):
    """A parsed spec: `evaluate` applies it to a history; `uuid` is set where it is just a full UUID."""

    text: str
    evaluate: Callable[[History], Selection]
    uuid: str | None = None

    def __str__(self) -> str:
        return self.text


class _Token(NamedTuple):
    text: str
    position: int


def parse(text: str) -> Spec:
    """The spec, or SpecError with the position of the mistake."""
    parser = _Parser(text)
    spec = parser.union(0)
    token = parser.peek()
    if token is not None:
        raise SpecError(text, token.position, f"{token.text!r} is not expected here")
    return spec


def select(text: str, history: History) -> list[Revision]:
    """The revisions that a spec names in a history, in the spec's order."""
    return parse(text).evaluate(history).revisions


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = _tokens(text)
        self.at = 0

    def peek(self) -> _Token | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def take(self, *wanted: str) -> bool:
        """Step over the next token if it is one of these."""
        token = self.peek()
        if token is None or token.text not in wanted:
            return False
        self.at += 1
        return True

    def fail(self, why: str) -> SpecError:
        token = self.peek()
        return SpecError(self.text, token.position if token else len(self.text), why)

    def union(self, depth: int) -> Spec:
        if depth > _MAX_DEPTH:
            raise self.fail("too many parentheses")
        parts = [self.intersection(depth)]
        while self.take(","):
            parts.append(self.intersection(depth))
        return parts[0] if len(parts) == 1 else _union(parts)

    def intersection(self, depth: int) -> Spec:
        parts = [self.range(depth)]
        while self.take("&"):
            parts.append(self.range(depth))
        return parts[0] if len(parts) == 1 else _intersection(parts)

    def range(self, depth: int) -> Spec:
        start = self.peek()
        position = start.position if start else len(self.text)
        left = None if start and start.text == ".." else self.end(depth)
        if not self.take(".."):
            if isinstance(left, _Instant):
                raise SpecError(self.text, position, "a date is only the end of a range, as in DATE..")
            assert left is not None
            return left
        following = self.peek()
        right = None if following is None or following.text in (")", ",", "&") else self.end(depth)
        return self.between(left, right, position)

    def end(self, depth: int) -> "Spec | _Instant":
        token = self.peek()
        if token is not None and (instant := _instant(token.text)) is not None:
            self.at += 1
            return instant
        return self.atom(depth)

    def atom(self, depth: int) -> Spec:
        token = self.peek()
        if token is None:
            raise self.fail("a revision is missing")
        if token.text in (")", ",", "&", ".."):
            raise self.fail(f"a revision is missing before {token.text!r}")
        self.at += 1
        if token.text == "(":
            inner = self.union(depth + 1)
            self.close()
            return inner
        if token.text in _FUNCTIONS and self.take("("):
            inner = self.union(depth + 1)
            self.close()
            return self.function(token, inner)
        return self.word(token)

    def close(self) -> None:
        if not self.take(")"):
            raise self.fail("a ')' is missing")

    def function(self, token: _Token, inner: Spec) -> Spec:
        def evaluate(history: History) -> Selection:
            found = inner.evaluate(history).revisions
            if token.text == "reverse":
                return Selection(found[::-1], False)
            if token.text == "not":
                known = {one.uuid for one in found}
                return Selection([one for one in history if one.uuid not in known], False)
            if not found:
                raise SpecError(self.text, token.position, f"{token.text}({inner}) of no revision")
            return Selection([found[0 if token.text == "first" else -1]], True)

        return Spec(f"{token.text}({inner})", evaluate)

    def word(self, token: _Token) -> Spec:
        text = token.text
        single = _single_word(text)
        if single is not None:
            return Spec(text, lambda history: Selection(single(history), True))
        listed = _list_word(text)
        if listed is not None:
            return Spec(text, lambda history: Selection(listed(history), False))
        if ":" in text and not text.startswith("manual:") and not _DATE_LIKE.match(text):
            why = f"{text!r} is none of tag:…, trust:trusted|distrusted|verified, server:…"
            raise SpecError(self.text, token.position, why)

        def evaluate(history: History) -> Selection:
            exact = [one for one in history if one.uuid == text.lower()]
            tagged = [one for one in history if text in one.tags][-1:]
            found = exact or tagged
            if not found and _HEX_PREFIX.fullmatch(text.lower()):
                found = [one for one in history if one.uuid.startswith(text.lower())]
                if len(found) > 1:
                    why = f"{text!r} begins {len(found)} UUIDs"
                    raise SpecError(self.text, token.position, why)
            if not found and _DATE_LIKE.match(text):
                why = f"{text!r} is no date; they are written as 2026-11-02 or 2026-11-02T15:30"
                raise SpecError(self.text, token.position, why)
            return Selection(found, True)

        return Spec(text, evaluate, text.lower() if _is_uuid_like(text) else None)

    def between(
        self, left: "Spec | _Instant | None", right: "Spec | _Instant | None", position: int
    ) -> Spec:
        def evaluate(history: History) -> Selection:
            slices = []
            for end, open_end in ((left, 0), (right, len(history))):
                bound = (open_end, open_end) if end is None else self.bound(end, history, position)
                if bound is None:
                    return Selection([], False)
                slices.append(bound)
            start, stop = min(low for low, _ in slices), max(high for _, high in slices)
            return Selection(list(history[start:stop]), False)

        text = f"{'' if left is None else left}..{'' if right is None else right}"
        return Spec(text, evaluate)

    def bound(self, end: "Spec | _Instant", history: History, position: int) -> tuple[int, int] | None:
        """Slice [start, stop) of the history that an end stands for; None for no revision."""
        if isinstance(end, _Instant):
            return end.bound(history)
        selection = end.evaluate(history)
        if not selection.single:
            raise SpecError(self.text, position, f"{end} is a list, a range's end is one revision")
        if not selection.revisions:
            return None
        index = [one.uuid for one in history].index(selection.revisions[0].uuid)
        return (index, index + 1)


class _Instant(NamedTuple):
    text: str
    at: datetime

    def __str__(self) -> str:
        return self.text

    def bound(self, history: History) -> tuple[int, int]:
        """The empty or small slice of revisions at this instant: a range includes both."""
        before = sum(one.taken_at < self.at for one in history)
        upto = sum(one.taken_at <= self.at for one in history)
        return (before, upto)


def _tokens(text: str) -> list[_Token]:
    found = []
    at = 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            raise SpecError(text, at, f"{text[at]!r} is not expected here")
        found.append(_Token(match[1], match.start(1)))
        at = match.end()
    return found


def _union(parts: Sequence[Spec]) -> Spec:
    def evaluate(history: History) -> Selection:
        found = (one for part in parts for one in part.evaluate(history).revisions)
        return Selection(list({one.uuid: one for one in found}.values()), False)

    return Spec(f"({' , '.join(map(str, parts))})", evaluate)


def _intersection(parts: Sequence[Spec]) -> Spec:
    def evaluate(history: History) -> Selection:
        found = parts[0].evaluate(history).revisions
        for part in parts[1:]:
            known = {one.uuid for one in part.evaluate(history).revisions}
            found = [one for one in found if one.uuid in known]
        return Selection(found, False)

    return Spec(f"({' & '.join(map(str, parts))})", evaluate)


def _single_word(text: str) -> Callable[[History], list[Revision]] | None:
    if _NUMBER.fullmatch(text):
        count = int(text)
        return lambda history: (
            list(history[len(history) - 1 - count :][:1]) if count < len(history) else []
        )
    if text in ("last", "latest"):
        return lambda history: list(history[-1:])
    if text == "first":
        return lambda history: list(history[:1])
    return None


def _list_word(text: str) -> Callable[[History], list[Revision]] | None:
    kind, _, value = text.partition(":")
    # Peers' revisions (upstream's server:S) are never here: all are local, none is partial.
    if text in ("all", "clean", "local", "server:"):
        return list
    if text == "remote" or (kind == "server" and value):
        return _nothing
    if kind == "tag" and value:
        return lambda history: [one for one in history if value in one.tags]
    if kind == "trust" and value.lower() in {trust.value for trust in Trust}:
        wanted = Trust(value.lower())
        return lambda history: [one for one in history if one.trust is wanted]
    return None


def _nothing(_history: History) -> list[Revision]:
    return []


def _instant(text: str) -> _Instant | None:
    """A date or time as the end of a range; short digit strings are numbers, not years."""
    if not re.match(r"[0-9]{4}-?[0-9]{2}-?[0-9]{2}", text, re.ASCII) or _is_uuid_like(text):
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    try:
        # astimezone on a naive time takes the local zone, as users expect of a bare date.
        return _Instant(text, at.astimezone(UTC))
    except (OverflowError, ValueError):  # the first or last day of the calendar, in another zone
        late = at.year > 1
        return _Instant(
            text, datetime.max.replace(tzinfo=UTC) if late else datetime.min.replace(tzinfo=UTC)
        )


def _is_uuid_like(text: str) -> bool:
    return len(text) == 36 and text.count("-") == 4
