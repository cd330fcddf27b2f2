"""T4: there is no sync in backy of which nobody would notice that it is gone.

    pytest -m torture tests/model/test_every_sync.py      each is left out, and its test fails

Those that backups, edits and collections come by are left out in test_power_cut_model.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import syncsites
from syncsites import HARMLESS, NOTICED
from tally import Tally

pytestmark = pytest.mark.proof("T4")

TESTS = Path(__file__).parents[1]


def test_every_sync_that_is_listed_is_there() -> None:
    """In one list only."""
    assert HARMLESS.keys() | NOTICED.keys() <= syncsites.sites().keys()
    assert HARMLESS.keys().isdisjoint(NOTICED)


@pytest.mark.torture(weight=0.06, whole=True)
@pytest.mark.parametrize("site", NOTICED)
def test_a_test_notices_that_it_is_left_out(site: str, tally: Tally) -> None:
    """The one that is named, in a run of its own; with the sync it passes, as in every run."""
    file, _, test = NOTICED[site].partition("::")
    command = [sys.executable, "-m", "pytest", "-p", "syncsites", "-p", "no:cacheprovider", "-q", "-x"]
    command += [str(TESTS / file), "-k", test]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("BACKY_")}

    done = subprocess.run(
        command,
        cwd=TESTS.parent,
        env={**environment, syncsites.ENVIRONMENT: site, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (1, True) == (done.returncode, f"FAILED tests/{file}::{test}" in done.stdout), done.stdout
    tally.tell(1, f"{site} left out: noticed")
