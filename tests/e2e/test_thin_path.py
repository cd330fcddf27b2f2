"""The thinnest path through all floors: back up, list, restore, verify, as processes."""

import os

from testsite import Site, parsed


def test_an_image_survives_backup_and_restore_through_the_command_line(site: Site) -> None:
    """What was backed up is restored bit for bit, listed once, and verified."""
    content = os.urandom(10_000) + bytes(20_000) + b"end"
    site.image.write_bytes(content)
    target = site.folder / "out.raw"

    assert 0 == site.cli("backup", "daily").returncode
    assert 0 == site.cli("restore", str(target)).returncode
    assert 0 == site.cli("verify").returncode

    assert content == target.read_bytes()
    assert [["daily"]] == [list(one["tags"]) for one in parsed(site.cli("status", "--json"))]
