"""backy: block-device backup for virtual machines.

The floors, each importing only from those below (kept by import-linter): `cli`, `operation`,
`repository` | `source` | `target` (strangers to each other), `domain` (pure), `ground`.
"""
