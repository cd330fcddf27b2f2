"""The golden stores: small repositories that earlier versions wrote, packed beside what they hold.

    unpack("store-1", folder); held_by("store-1")

Limits: of tests/golden; make_store.py there writes new ones.
"""

import json
import tarfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("golden")
STORES = sorted(path.name.removesuffix(".tar.gz") for path in FOLDER.glob("store-*.tar.gz"))


def unpack(name: str, folder: Path) -> None:
    """A store's repository into a folder."""
    with tarfile.open(FOLDER / f"{name}.tar.gz") as tar:
        # Python 3.11.2, which is Debian's, knows no filters; later ones warn without one.
        if hasattr(tarfile, "data_filter"):
            tar.extraction_filter = tarfile.data_filter
        tar.extractall(folder)


def held_by(name: str) -> dict[str, Any]:
    """What its revisions hold."""
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return found
