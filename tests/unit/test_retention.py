"""Which revisions go: golden tables, an independent oracle (T13), and clocks and renames (T12)."""

import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from backy.domain.config import TagPolicy
from backy.domain.retention import Fate, Verdict, plan_expiry
from backy.domain.revision import Origin, Revision, SourceIdentity, Stats, Trust
from backy.domain.sla import is_good
from tally import Tally

DAY = 86_400
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
SCHEDULE = {"daily": TagPolicy(DAY, 2), "weekly": TagPolicy(7 * DAY, 1)}
ORIGINS = {"!": Origin.FORCED, "": Origin.SCHEDULE}


def revision(number: int, days: float, tags: str, trust: Trust = Trust.TRUSTED) -> Revision:
    """One taken so many days ago; a forced tag is written `tag!`."""
    names = {tag.rstrip("!"): ORIGINS["!" if tag.endswith("!") else ""] for tag in tags.split()}
    manual = {tag: Origin.MANUAL for tag in names if tag.startswith("manual:")}
    return Revision(
        uuid=f"{number:08x}-0000-4000-8000-000000000000",
        taken_at=NOW - timedelta(days=days),
        tags=names | manual,
        trust=trust,
        maps=(),
        source=SourceIdentity(type="file"),
        stats=Stats(),
    )


def drawn(table: str) -> tuple[list[Revision], list[str]]:
    """The history and the expected verdicts of a golden table: age in days | tags | verdict."""
    history, expected = [], []
    for number, line in enumerate(table.strip().splitlines()):
        age, tags, verdict = (cell.strip() for cell in line.split("|"))
        trust = Trust.DISTRUSTED if age.endswith("?") else Trust.TRUSTED
        history.append(revision(number, float(age.rstrip("?")), tags, trust))
        expected.append(verdict)
    return history, expected


def told(verdict: Verdict) -> str:
    """A verdict as the golden tables write it."""
    return " ".join(
        [verdict.fate.value, *verdict.lost] if verdict.fate is Fate.UNTAG else [verdict.fate.value]
    )


GOLDEN = {
    "two daily ones stay, and older ones go": """
        9    | daily          | remove
        4    | daily          | remove
        3    | daily          | remove
        2    | daily          | keep
        1    | daily          | keep
        0    | daily          | keep""",
    "young ones stay even if there are more than enough": """
        2.1  | daily          | remove
        2.0  | daily          | keep
        1.9  | daily          | keep
        0.2  | daily          | keep
        0.1  | daily          | keep""",
    "too few ones stay however old they are": """
        900  | daily weekly   | untag weekly
        800  | daily weekly   | keep""",
    "a tag goes alone where another stays": """
        30   | daily weekly   | remove
        20   | daily weekly   | untag daily
        3    | daily          | remove
        1    | daily          | keep
        0    | daily          | keep""",
    "distrusted ones never count, and expire like others": """
        9    | daily          | keep
        8?   | daily          | keep
        7?   | daily          | keep
        6    | daily          | keep""",
    "distrusted ones go once enough good ones are newer": """
        9?   | daily          | remove
        8    | daily          | keep
        7    | daily          | keep""",
    "forced tags go, manual ones stay": """
        9    | x!             | remove
        8    | x! manual:a    | untag x
        7    | manual:a       | keep
        6    | x! daily       | untag x
        5    | x!             | keep""",
    "a forced tag stays while nothing good is newer": """
        3    | x!             | remove
        2    | daily          | keep
        1?   | x!             | keep""",
    "no tag is a reason to go, except for the newest good one": """
        3    |                | remove
        2?   |                | remove
        1    |                | keep
        0?   |                | remove""",
    "where none is good the newest one stays": """
        3?   |                | remove
        2?   |                | keep
        -9   |                | refused""",
    "what is in no schedule now stays": """
        90   | hourly         | keep
        80   | hourly daily   | keep
        1    | daily          | keep""",
    "what is dated in the future is refused and does not count": """
        9    | daily          | keep
        8    | daily          | keep
        -1   | daily          | refused
        -400 |                | refused""",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_plan_is_that_of_the_golden_table(name: str) -> None:
    """Schedule of all tables: daily keeps 2, weekly 1; `?` is distrusted, `!` forced."""
    history, expected = drawn(GOLDEN[name])

    assert expected == [told(one) for one in plan_expiry(history, SCHEDULE, NOW)]


def test_every_verdict_says_why() -> None:
    """The operator reads a reason for each tag, in the order of the tags."""
    history, _ = drawn(
        "30 | daily manual:a x! old | \n 4 | weekly daily | \n 3 | daily | "
        "\n 2 | daily | \n -1 | daily | "
    )
    plan = plan_expiry(history, SCHEDULE, NOW)

    expected = (
        "daily: 3 newer ones, and older than 2 x 1d",
        "manual:a: set by hand",
        "x: was forced for one run",
        "old: no longer in the schedule; --apply-orphaned-tags lets it go",
    )
    assert (expected, ("daily", "x")) == (plan[0].reasons, plan[0].lost)
    assert ("weekly: 1 of 1 to keep", "daily: 2 newer ones, and older than 2 x 1d") == plan[1].reasons
    assert ("daily: 2 of 2 to keep",) == plan[2].reasons
    assert ("the newest good revision",) == plan[3].reasons
    assert ("dated in the future: check the clock",) == plan[4].reasons


def history_of(dice: random.Random) -> list[Revision]:
    """A history, oldest first, of any tags, origins, trust and gaps, with some dated ahead."""
    words = ["daily", "weekly", "hourly", "daily!", "x!", "manual:a", "gone", "weekly daily", ""]
    ages = sorted(
        (
            dice.choice([0, 1, 2, 7, 14, 15, -1, dice.uniform(-2, 40)])
            for _ in range(dice.randint(0, 14))
        ),
        reverse=True,
    )
    states = [Trust.TRUSTED, Trust.TRUSTED, Trust.VERIFIED, Trust.DISTRUSTED]
    states = [Trust.DISTRUSTED] if dice.random() < 0.1 else states
    return [
        revision(number, age, " ".join(dice.sample(words, dice.randint(0, 3))), dice.choice(states))
        for number, age in enumerate(ages)
    ]


def schedule_of(dice: random.Random) -> dict[str, TagPolicy]:
    """Some of three tags."""
    tags = dice.sample(["daily", "weekly", "hourly"], dice.randint(0, 3))
    return {tag: TagPolicy(dice.choice([3600, DAY, 7 * DAY]), dice.randint(1, 4)) for tag in tags}


def oracle(
    history: Sequence[Revision], schedule: Mapping[str, TagPolicy], *, orphaned: bool
) -> dict[str, set[str] | None]:
    """What the rules say, word by word: the tags that each revision has afterwards, None if it goes."""
    after: dict[str, set[str] | None] = {}
    past = [one for one in history if one.taken_at <= NOW + timedelta(minutes=5)]
    all_bad = all(one.trust is Trust.DISTRUSTED for one in past)
    newest_of_bad = past[-1] if past and all_bad else None
    for place, one in enumerate(history):
        later = [other for other in history[place + 1 :] if other.trust is not Trust.DISTRUSTED]
        later = [other for other in later if other.taken_at <= NOW + timedelta(minutes=5)]
        ahead = one.taken_at > NOW + timedelta(minutes=5)
        left = set()
        for tag, origin in one.tags.items():
            if tag.startswith("manual:"):
                left.add(tag)
            elif tag in schedule:
                interval, keep = schedule[tag]
                enough = len([other for other in later if tag in other.tags]) >= keep
                if not (enough and one.taken_at + keep * timedelta(seconds=interval) < NOW):
                    left.add(tag)
            elif (origin is Origin.FORCED and not later) or (
                origin is not Origin.FORCED and not orphaned
            ):
                left.add(tag)
        newest_good = not later and one.trust is not Trust.DISTRUSTED
        if ahead or newest_good or one is newest_of_bad:
            left = set(one.tags)
            after[one.uuid] = left
        else:
            after[one.uuid] = left or None
    return after


def outcome(plan: Sequence[Verdict]) -> dict[str, set[str] | None]:
    """The same of a plan."""
    return {one.uuid: None if one.remove else set(one.tags) - set(one.lost) for one in plan}


def applied(history: Sequence[Revision], plan: Sequence[Verdict]) -> list[Revision]:
    """The history once a plan is carried out."""
    return [
        one.with_tags({tag: origin for tag, origin in one.tags.items() if tag not in verdict.lost})
        for one, verdict in zip(history, plan, strict=True)
        if not verdict.remove
    ]


def sweep(first: int, last: int) -> None:
    """Laws that hold of each generated history."""
    for seed in range(first, last):
        dice = random.Random(seed)
        history, schedule, orphaned = history_of(dice), schedule_of(dice), dice.random() < 0.3
        plan = plan_expiry(history, schedule, NOW, apply_orphaned=orphaned)
        assert oracle(history, schedule, orphaned=orphaned) == outcome(plan), f"seed {seed}"

        rest = applied(history, plan)
        good = [one for one in history if is_good(one, NOW)]
        assert good[-1:] == [one for one in rest if is_good(one, NOW)][-1:], f"seed {seed}: newest gone"
        assert bool(history) == bool(rest), f"seed {seed}: all gone"
        again = plan_expiry(rest, schedule, NOW, apply_orphaned=orphaned)
        assert not [one for one in again if one.lost or one.remove], f"seed {seed}: not idempotent"

        larger = {
            tag: TagPolicy(one.interval, one.keep + dice.randint(0, 3)) for tag, one in schedule.items()
        }
        gone = {one.uuid for one in plan if one.remove}
        fewer = {
            one.uuid for one in plan_expiry(history, larger, NOW, apply_orphaned=orphaned) if one.remove
        }
        assert fewer <= gone, f"seed {seed}: not monotone"


@pytest.mark.parametrize("first", range(0, 2000, 500))
def test_plan_is_the_oracle_s_idempotent_and_monotone(first: int) -> None:
    """2,000 histories: the rules read literally agree, twice is once, a larger keep removes no more."""
    sweep(first, first + 500)


@pytest.mark.proof("T13")
@pytest.mark.torture(weight=0.2)
@pytest.mark.parametrize("first", range(2000, 12_000, 1000))
def test_plan_is_the_oracle_s_on_10000_histories(tally: Tally, first: int) -> None:
    """10,000 further histories."""
    for seed in tally.seeds(range(first, first + 1000)):
        sweep(seed, seed + 1)


LONG = [revision(n, 400 - n, "daily weekly" if n % 7 == 0 else "daily") for n in range(400)]


@pytest.mark.parametrize("schedule", [{}, {"renamed": TagPolicy(DAY, 1)}], ids=["emptied", "renamed"])
def test_changed_schedule_deletes_nothing_unless_told(schedule: dict[str, TagPolicy]) -> None:
    """Upstream deletes every revision then; here it takes --apply-orphaned-tags, which spares one."""
    plan = plan_expiry(LONG, schedule, NOW)
    told_to = plan_expiry(LONG, schedule, NOW, apply_orphaned=True)

    assert {(Fate.KEEP, ())} == {(one.fate, one.lost) for one in plan}
    assert [LONG[-1].uuid] == [one.uuid for one in told_to if not one.remove]


def test_removed_tag_stays_while_the_others_expire() -> None:
    """Taking one tag out of a schedule frees only what had no such tag."""
    plan = plan_expiry(LONG, {"daily": TagPolicy(DAY, 2)}, NOW)

    assert not [one for one in plan if one.remove and "weekly" in one.tags]


@pytest.mark.parametrize("days", [365, -365, 365 * 12, -400, -401, -20_000, 365 * 7000])
def test_wrong_clock_never_removes_beyond_the_plan(days: int) -> None:
    """A year ahead or back, past 2038 or far off: keep of each tag stay, and what is future stays."""
    now = NOW + timedelta(days=days)
    plan = plan_expiry(LONG, SCHEDULE, now)
    stays = [one for one in plan if not one.remove]

    assert LONG[-1].uuid == stays[-1].uuid
    assert all(one.fate is Fate.REFUSED for one in plan if one.taken_at > now + timedelta(minutes=5))
    past = [one for one in plan if one.taken_at <= now]
    assert past[-1:] == [one for one in past if not one.remove][-1:]
    for tag, policy in SCHEDULE.items():
        kept = [one for one in past if tag in one.tags and tag not in one.lost]
        assert min(policy.keep, sum(tag in one.tags for one in past)) <= len(kept)
