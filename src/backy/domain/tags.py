"""Tags of a revision: which are allowed, and how a list of them is edited.

    >>> allowed("daily,manual:before-upgrade", ["daily"], force=False)
    {'daily': <Origin.SCHEDULE: 'schedule'>, 'manual:before-upgrade': <Origin.MANUAL: 'manual'>}

A tag is the schedule's, or an operator's (`manual:…`, which never expires); any other needs `force`
and goes at the next expiry. Where it came from is kept with it, because a renamed schedule must not
look like a forced tag.

Limits: pure.
"""

import enum
from collections.abc import Collection, Mapping

from backy.domain.names import MANUAL_PREFIX, check_tag_name
from backy.domain.revision import Origin
from backy.ground.errors import OptionRefused, TagRefused


class Edit(enum.Enum):
    """What to do with a list of tags."""

    SET = "set"
    ADD = "add"
    REMOVE = "remove"


def split(text: str) -> list[str]:
    """Tags of a comma-separated list, blanks around them ignored, in order and once each."""
    names = [name.strip() for name in text.split(",")]
    return list(dict.fromkeys(check_tag_name(name) for name in names if name))


def allowed(text: str, schedule: Collection[str], force: bool) -> dict[str, Origin]:
    """Tags of a comma-separated list with their origins; TagRefused for one that is neither."""
    names = split(text)
    if not names:
        raise OptionRefused(
            "TAGS", "name at least one tag, such as " + (next(iter(schedule), "manual:now"))
        )
    return {name: _origin(name, schedule, force) for name in names}


def edited(
    tags: Mapping[str, Origin], edit: Edit, text: str, schedule: Collection[str], force: bool
) -> dict[str, Origin]:
    """The tags after an edit; tags that stay keep their origin, removing needs no permission."""
    if edit is Edit.REMOVE:
        gone = set(split(text))
        return {name: origin for name, origin in tags.items() if name not in gone}
    kept = dict(tags) if edit is Edit.ADD else {}
    for name in split(text):
        kept[name] = tags[name] if name in tags else _origin(name, schedule, force)
    return kept


def _origin(name: str, schedule: Collection[str], force: bool) -> Origin:
    if name.startswith(MANUAL_PREFIX) and name != MANUAL_PREFIX:
        return Origin.MANUAL
    if name in schedule:
        return Origin.SCHEDULE
    if force:
        return Origin.FORCED
    raise TagRefused(name, tuple(schedule))
