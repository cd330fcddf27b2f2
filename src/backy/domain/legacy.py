"""What scripts of backy 2.5 read, in its terms.

    yaml.safe_dump([as_in_2_5(one) for one in history.revisions])

Limits: only the members that known readers use: uuid, trust, timestamp, tags, stats.
"""

from backy.domain.revision import Revision


def as_in_2_5(revision: Revision) -> dict[str, object]:
    """A revision as `status --yaml` of backy 2.5 has it, for the scripts that read that."""
    stats = {"bytes_written": revision.stats.bytes_written, "duration": revision.stats.duration}
    return {
        "uuid": revision.uuid,
        "backend_type": "chunked",
        "timestamp": revision.taken_at,
        "parent": revision.parent or "",
        "stats": stats,
        "trust": revision.trust.value,
        "tags": list(revision.tags),
    }
