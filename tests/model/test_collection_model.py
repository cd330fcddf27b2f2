"""Collection loses nothing in any interleaving, and every rule of doc/design.md is needed for that.

The models beside this file say what is looked at: `collection_model` (one chunk), `delta_model` (its
forms) and `collection_quarantine` (it rots). Each rule is named after its number in the table of
doc/design.md, "Collection", or after the section that has it.

    pytest tests/model/test_collection_model.py -k 7-rescue
    pytest -m torture tests/model/test_collection_model.py        the same with wider bounds

Limits: what the models leave out, which each says. That the code keeps the rules is shown by
test_pins.py, test_write_order.py and the tests of crashes, not here.
"""

from dataclasses import fields, replace

import collection_quarantine
import delta_model
import pytest
from breadth_first import Outcome
from collection_model import FALSE_MISSING, FALSE_STOP, GIVEN_UP, LOST, UNMAPPED, explore
from collection_quarantine import UNHEALED, UNMARKED, WRONGED
from collection_state import Bounds, Rules, State

from tally import Tally

pytestmark = pytest.mark.proof("T5")

ONE_JOB = Bounds(jobs="AA")
TWO_JOBS = Bounds(jobs="AB")
POWER = Bounds(jobs="AB", power_cuts=1, collector_kills=0, cycles=2, forgets=1)
POWER_ONE_JOB = replace(POWER, jobs="AA")
BY_HAND = Bounds(jobs="AA", removals_by_hand=1, collector_kills=0, forgets=1)
RESTORE = Bounds(jobs="AA", readers=1, collector_kills=0, forgets=1)

# The least number of states that each search without a fault has to see, so that none passes idly.
SAFE = {
    "one job": (ONE_JOB, 89_000),
    "two jobs": (TWO_JOBS, 187_000),
    "two jobs and a power cut": (POWER, 43_000),
    "one job and a power cut": (POWER_ONE_JOB, 23_000),
    "a record removed by hand": (BY_HAND, 36_000),
    "a restore": (RESTORE, 73_000),
}
WIDE = {
    "three writers of one job": (Bounds(jobs="AAA", forgets=2, cycles=2), 350_000),
    "three writers of two jobs": (Bounds(jobs="AAB", forgets=1, cycles=2), 800_000),
    "five cycles and three kills": (Bounds(jobs="AB", cycles=5, collector_kills=3), 3_540_000),
    "two power cuts": (replace(POWER, power_cuts=2, cycles=3, collector_kills=1), 598_000),
}

# Each rule, by its place in doc/design.md: where its absence shows, and how.
DROPPED = {
    "1-one_collector": (ONE_JOB, LOST),
    "2-registers_first": (ONE_JOB, LOST),
    "2-registered_until_map_is_named": (ONE_JOB, LOST),
    "3-pins_parent": (ONE_JOB, LOST),
    "3-pins_own_map_before_its_name": (ONE_JOB, UNMAPPED),
    "3-reader_pins": (RESTORE, FALSE_MISSING),
    "4-forget_leaves_the_map": (ONE_JOB, LOST),
    "4-reap_respects_pins": (ONE_JOB, UNMAPPED),
    "4-reap_looks_again": (ONE_JOB, UNMAPPED),
    "5-mark_lists_jobs_anew": (TWO_JOBS, LOST),
    "5-marks_maps_without_record": (ONE_JOB, LOST),
    "6-census_after_last_rename": (ONE_JOB, LOST),
    "6-sealed_stays_closed": (ONE_JOB, LOST),
    "7-purge_waits_for_census": (ONE_JOB, LOST),
    "7-mark_begins_when_ripe": (ONE_JOB, LOST),
    "7-rescues_what_is_marked": (ONE_JOB, LOST),
    "7-rescue_is_synced": (POWER, LOST),
    "8-trash_is_no_hit": (ONE_JOB, LOST),
    "9-reader_looks_again": (RESTORE, FALSE_MISSING),
    "10-lost_map_stops": (BY_HAND, GIVEN_UP),
    "vanished-reap_needs_a_note": (BY_HAND, GIVEN_UP),
    "killed-unsealed_gets_census_of_now": (ONE_JOB, LOST),
    "killed-marks_die_with_their_run": (ONE_JOB, LOST),
    "killed-note_outlives_map": (ONE_JOB, FALSE_STOP),
    "writing-commit_syncs_all_names": (POWER, LOST),
    "writing-pending_before_map": (ONE_JOB, FALSE_STOP),
    "writing-spares_pending_of_living": (ONE_JOB, FALSE_STOP),
}
NOT_NEEDED = {"registered_until_commit", "reaps"}

DELTAS = delta_model.Bounds(forgets=1)
A_ROT = delta_model.Bounds(forgets=0, cycles=1, rots=1)
KILLED = delta_model.Bounds(forgets=2, cycles=3, newcomer=True, prepared="killed")
# Marks by id keep all forms of an id; what these two rules are for shows with marks by file.
BY_FILE = replace(KILLED, cycles=2, collector_kills=1, baseless=True, marks_by_id=False)
ROTTEN = delta_model.Bounds(forgets=1, prepared="rotten", marks_by_id=False)
HEALED = delta_model.Bounds(forgets=1, cycles=2, prepared="healed")
HEALED_BY_FILE = replace(HEALED, marks_by_id=False)
DELTAS_SAFE = {
    "deltas": (DELTAS, 208_000),
    "a rotten file": (A_ROT, 34_000),
    "a third job": (KILLED, 66_000),
    "marks by file": (BY_FILE, 90_000),
    "marks by file and a rotten file": (ROTTEN, 3_700),
    "a chunk that has healed as a base": (HEALED, 28_000),
    "marks by file and a chunk that has healed as a base": (HEALED_BY_FILE, 26_000),
}
DELTAS_WIDE = {
    "a chunk that has healed as a base": (
        replace(HEALED, forgets=2, cycles=3, collector_kills=1),
        533_000,
    ),
    "two forgets and a kill": (delta_model.Bounds(collector_kills=1), 1_280_000),
    "a rotten file": (delta_model.Bounds(forgets=1, rots=1), 1_500_000),
    "a third job from the start": (delta_model.Bounds(forgets=1, newcomer=True), 2_390_000),
}
DELTAS_DROPPED = {
    "dedup-names_hold_the_base": (DELTAS, delta_model.LOST),
    "dedup-hits_own_base_only": (KILLED, delta_model.LOST),
    "5-marks_base": (DELTAS, delta_model.LOST),
    "5-marks_full": (ROTTEN, delta_model.UNHEALED),
    "6-condemns_deltas_first": (BY_FILE, delta_model.BASELESS),
    "dedup-hits_with_the_base_only": (HEALED, delta_model.UNHEALED),
    "healing-replaces_by_full": (A_ROT, delta_model.UNHEALED),
    "healing-reader_falls_back": (A_ROT, delta_model.UNHEALED),
}

ROT = collection_quarantine.Bounds()
ROT_LONGER = collection_quarantine.Bounds(forgets=2, cycles=3, verifies=2)
ROT_WIDE = collection_quarantine.Bounds(writers=2)
QUARANTINE_DROPPED = {
    "quarantine-moves_before_it_lists": UNMARKED,
    "quarantine-looks_after_its_commit": UNMARKED,
    "quarantine-hashes_again_where_it_lies": WRONGED,
    "7-rescues_without_replacing": UNHEALED,
    "quarantine-case_voids_trash": UNMARKED,
    "quarantine-keeps_good_where_bad_took_its_name": UNHEALED,
}


def expect_none(outcome: Outcome, least: int) -> None:
    """No fault, in a search that saw at least so many states."""
    assert "" == outcome.fault, outcome.told()
    assert least <= outcome.states


def expect(fault: str, outcome: Outcome) -> None:
    """That fault and no other, and a way to it."""
    assert fault == outcome.fault, outcome.told()
    assert outcome.trace


@pytest.mark.parametrize("what", SAFE)
def test_nothing_is_lost_in_any_interleaving(what: str, tally: Tally) -> None:
    """With all rules no state has a fault, whoever is killed or cut off wherever."""
    bounds, least = SAFE[what]

    outcome = explore(Rules(), bounds)

    expect_none(outcome, least)
    tally.tell(outcome.states, f"collection, {what}: {outcome.states} states, none with a loss")


@pytest.mark.torture(weight=1, whole=True)
@pytest.mark.parametrize("what", WIDE)
def test_nothing_is_lost_within_wider_bounds(what: str, tally: Tally) -> None:
    """The same with more writers, cycles, kills and power cuts."""
    bounds, least = WIDE[what]

    outcome = explore(Rules(), bounds)

    expect_none(outcome, least)
    tally.tell(outcome.states, f"collection, {what}: {outcome.states} states, none with a loss")


@pytest.mark.parametrize("rule", DROPPED)
def test_every_rule_that_is_dropped_loses_something(rule: str) -> None:
    """The search finds the fault that the rule is there to prevent."""
    bounds, fault = DROPPED[rule]

    expect(fault, explore(replace(Rules(), **{_field(rule): False}), bounds))


@pytest.mark.parametrize("bounds", [ONE_JOB, POWER], ids=["one job", "two jobs and a power cut"])
def test_a_writer_whose_map_has_its_name_needs_no_registration(bounds: Bounds) -> None:
    """Staying registered until the commit is more than collection asks for: the map is a pin by then."""
    expect_none(explore(replace(Rules(), registered_until_commit=False), bounds), 24_000)


def test_only_reaping_gives_the_space_of_forgotten_revisions_back() -> None:
    """Without it nothing is lost, and what a forgotten revision needed stays for ever."""

    def given_back(state: State) -> str:
        forgotten = state.left.forgets < ONE_JOB.forgets
        return "given back" if forgotten and not state.stored and not state.in_trash else ""

    assert "given back" == explore(Rules(), ONE_JOB, given_back).fault
    expect_none(explore(replace(Rules(), reaps=False), ONE_JOB), 49_000)
    expect_none(explore(replace(Rules(), reaps=False), ONE_JOB, given_back), 49_000)


# ..Deltas......................................................................................


@pytest.mark.parametrize("what", DELTAS_SAFE)
def test_no_delta_loses_its_base(what: str, tally: Tally) -> None:
    """Two jobs give one content different forms, and every revision can be read at any moment."""
    bounds, least = DELTAS_SAFE[what]

    outcome = delta_model.explore(delta_model.Rules(), bounds)

    expect_none(outcome, least)
    tally.tell(outcome.states, f"deltas, {what}: {outcome.states} states, none with a loss")


@pytest.mark.torture(weight=1, whole=True)
@pytest.mark.parametrize("what", DELTAS_WIDE)
def test_no_delta_loses_its_base_within_wider_bounds(what: str, tally: Tally) -> None:
    """The same with more forgets, kills and jobs."""
    bounds, least = DELTAS_WIDE[what]

    outcome = delta_model.explore(delta_model.Rules(), bounds)

    expect_none(outcome, least)
    tally.tell(outcome.states, f"deltas, {what}: {outcome.states} states, none with a loss")


@pytest.mark.parametrize("rule", DELTAS_DROPPED)
def test_every_rule_of_deltas_that_is_dropped_loses_something(rule: str) -> None:
    """The search finds the fault that the rule is there to prevent."""
    bounds, fault = DELTAS_DROPPED[rule]

    expect(fault, delta_model.explore(replace(delta_model.Rules(), **{_field(rule): False}), bounds))


def test_replacing_a_delta_by_one_of_the_same_name_does_no_harm() -> None:
    """As long as names hold the base: two files of one name hold the same bytes."""
    rules = replace(delta_model.Rules(), publishes_without_replacing=False)

    expect_none(delta_model.explore(rules, DELTAS), 208_000)


def test_marks_by_id_may_leave_a_delta_that_nobody_needs_without_its_base() -> None:
    """It keeps the bit of its id, not its base; so a hit must have pinned the base by other means."""
    bounds = replace(BY_FILE, marks_by_id=True)

    expect(delta_model.BASELESS, delta_model.explore(delta_model.Rules(), bounds))


# ..Quarantine..................................................................................


@pytest.mark.parametrize(
    ("bounds", "least"),
    [
        pytest.param(ROT, 23_000, id="one round"),
        pytest.param(ROT_LONGER, 126_000, id="two verifies"),
        pytest.param(
            ROT_WIDE, 813_000, id="three jobs", marks=pytest.mark.torture(weight=1, whole=True)
        ),
    ],
)
def test_damage_that_was_moved_aside_is_healed_or_marked(
    bounds: collection_quarantine.Bounds, least: int, tally: Tally
) -> None:
    """Verify, backup and collection see each other's findings in whatever order they come."""
    outcome = collection_quarantine.explore(collection_quarantine.Rules(), bounds)

    expect_none(outcome, least)
    tally.tell(
        outcome.states, f"quarantine: {outcome.states} states, none with damage that nobody is told of"
    )


@pytest.mark.parametrize("rule", QUARANTINE_DROPPED)
def test_every_rule_of_quarantine_that_is_dropped_hides_damage(rule: str) -> None:
    """The search finds the fault that the rule is there to prevent."""
    rules = replace(collection_quarantine.Rules(), **{_field(rule): False})

    expect(QUARANTINE_DROPPED[rule], collection_quarantine.explore(rules, ROT))


def test_no_rule_of_the_models_is_left_out() -> None:
    """Every rule is dropped by a test above."""
    assert {one.name for one in fields(Rules)} == {*map(_field, DROPPED), *NOT_NEEDED}
    assert {one.name for one in fields(delta_model.Rules)} == {
        *map(_field, DELTAS_DROPPED),
        "publishes_without_replacing",
    }
    assert {one.name for one in fields(collection_quarantine.Rules)} == {
        *map(_field, QUARANTINE_DROPPED)
    }


def _field(rule: str) -> str:
    return rule.partition("-")[2]
