"""Doctor, for Ceph: whether Python sees its modules, and whether clusters and images answer.

    modules(sources)
    for finding in images({"vm01": SourceConfig("rbd", {"pool": "rbd", "image": "vm01"})}): …

The modules are tried in a process of their own: ones that do not fit their library may take Python
with them. They are the distribution's and cannot be installed by pip; so a virtual environment has to
be shown the two, and only them: with all of dist-packages on PYTHONPATH, Debian's older requests and
urllib3 would stand before its own (measured: urllib3 1.26 instead of 2.8).

Limits: versions of packages are compared where dpkg knows them.
"""

import glob
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from backy.domain.config import SourceConfig
from backy.domain.diagnosis import Finding, fine, note, wrong
from backy.domain.handshake_settings import TYPES
from backy.domain.rbd_settings import RbdSettings, parse_rbd_settings
from backy.domain.setting import WrongSetting
from backy.ground.ceph import PACKAGE, Access, CephFailed, Cluster, connected
from backy.ground.rbd import Pool, open_pool
from backy.ground.units import format_size

NEEDED_BY = TYPES
SUBJECT = "python modules"

_PLACES = ("/usr/lib/python3/dist-packages", "/usr/lib64/python3*/site-packages")
_NAMES = ("rados", "rbd")
_TAG = f"cpython-{sys.version_info.major}{sys.version_info.minor}"
_ABSENT = "ModuleNotFoundError"
_PROBE = "import rados, rbd; print('.'.join(map(str, rbd.RBD().version())))"
_PROBE_SECONDS = 20
# Each module and the library that it speaks to.
_PAIRS = (("python3-rbd", "librbd1"), ("python3-rados", "librados2"))


class Installed(NamedTuple):
    """What the host has of the modules.

    `error` is why they cannot be imported, `version` librbd's if they can. `files` are module files of
    the distribution, `packages` versions by package, `shadows` a directory that hides the environment's
    own packages.
    """

    error: str = ""
    version: str = ""
    files: Sequence[str] = ()
    packages: Mapping[str, str] = {}
    shadows: str = ""


def modules(sources: Collection[SourceConfig]) -> list[Finding]:
    """Whether the modules can be used; wrong only where a job needs them."""
    return [judge_modules(installed(), [one.type for one in sources if one.type in NEEDED_BY])]


def judge_modules(found: Installed, needed_by: Sequence[str]) -> Finding:
    """The finding; pure but for the names of this Python and its folders."""
    say = wrong if needed_by else note
    unneeded = "" if needed_by else ", which no configured job needs"
    if found.error:
        missing = f"rados and rbd cannot be imported by {sys.executable}{unneeded}"
        return say(SUBJECT, f"{missing}: {_cure(found)}")
    for module, library in _PAIRS:
        pair = found.packages.get(module), found.packages.get(library)
        if None not in pair and pair[0] != pair[1]:
            why = f"{module} {pair[0]} does not fit {library} {pair[1]}{unneeded}"
            return say(SUBJECT, f"{why}: install both in the same version")
    if found.shadows:
        why = f"{found.shadows} stands before this environment's own packages and hides newer ones"
        return say(SUBJECT, f"{why}: take it off PYTHONPATH, and instead {_link(found.shadows)}")
    return fine(SUBJECT, f"rados and rbd can be imported, librbd is {found.version}")


def _cure(found: Installed) -> str:
    files = [os.path.basename(one) for one in found.files]
    if not files:
        then = "" if sys.prefix == "/usr" else f", and then {_link(_PLACES[0])}"
        return f"install {PACKAGE}{then}"
    if not any(_TAG in one for one in files):
        versions = sorted(
            {f"3.{minor}" for one in files for minor in re.findall(r"cpython-3(\d+)", one)}
        )
        return f"{PACKAGE} is for Python {' and '.join(versions)}: have backy run by that one"
    if found.error.startswith(_ABSENT):
        return _link(os.path.dirname(found.files[0]))
    return f"{found.error}: install {PACKAGE} and its libraries in the same version"


def _link(place: str) -> str:
    """How a virtual environment sees these two modules and nothing else of the distribution."""
    folder = os.path.join(sys.prefix, "lib", "ceph")
    pth = os.path.join(sysconfig.get_path("purelib"), "ceph.pth")
    links = " ".join(f"{place}/{name}.{_TAG}*.so" for name in _NAMES)
    return f"'mkdir -p {folder} && ln -s {links} {folder}/ && echo {folder} > {pth}' makes them visible"


def installed() -> Installed:
    """What there is on this host."""
    files = sorted(
        file for place in _PLACES for name in _NAMES for file in glob.glob(f"{place}/{name}.*.so")
    )
    words = [sys.executable, "-P", "-c", _PROBE]
    try:
        done = subprocess.run(  # noqa: S603 - this Python
            words, check=False, capture_output=True, text=True, timeout=_PROBE_SECONDS
        )
    except subprocess.TimeoutExpired:
        return Installed(f"importing them did not end within {_PROBE_SECONDS} s", files=files)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return Installed(lines[-1] if lines else f"Python ended with {done.returncode}", files=files)
    return Installed(
        version=done.stdout.strip(), files=files, packages=_package_versions(), shadows=_shadow()
    )


def _package_versions() -> dict[str, str]:
    """Versions of the packages that have to fit; none where there is no dpkg."""
    names = [name for pair in _PAIRS for name in pair]
    words = ["dpkg-query", "--show", "--showformat=${Package} ${Version}\n", *names]
    try:
        done = subprocess.run(  # noqa: S603 - fixed words
            words, check=False, capture_output=True, text=True, timeout=_PROBE_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    rows = (line.split() for line in done.stdout.splitlines())
    return {row[0]: row[1] for row in rows if len(row) == 2}


def _shadow() -> str:
    """The distribution's folder, where a virtual environment has it before its own; or ""."""
    if sys.prefix == sys.base_prefix or (own := sysconfig.get_path("purelib")) not in sys.path:
        return ""
    before = sys.path[: sys.path.index(own)]
    return next((one for one in before if one.endswith("/dist-packages")), "")


# ..Images.....................................................................................


def images(sources: Mapping[str, SourceConfig]) -> Iterator[Finding]:
    """Whether each cluster answers and has the jobs' images; each call has Ceph's time limit."""
    clusters: dict[Access, dict[str, RbdSettings]] = {}
    for name, source in sources.items():
        if source.type in NEEDED_BY:
            try:
                settings = parse_rbd_settings(source.settings)
            except WrongSetting as error:
                yield wrong(f"job {name}", f"source.{error.key}: {error}")
                continue
            access = Access(settings.conf, settings.user, settings.cluster)
            clusters.setdefault(access, {})[name] = settings
    for access, jobs in clusters.items():
        yield from _cluster(access, jobs)


def _cluster(access: Access, jobs: Mapping[str, RbdSettings]) -> Iterator[Finding]:
    subject = f"cluster of {', '.join(list(jobs)[:3])}{', …' if len(jobs) > 3 else ''}"
    try:
        with connected(access) as cluster:
            yield fine(subject, f"{cluster.fsid} answers {access.client}")
            for name, settings in jobs.items():
                if cluster.is_out:
                    yield note(f"job {name}", "not looked at, since its cluster stopped to answer")
                else:
                    yield _image(cluster, f"job {name}", settings)
    except CephFailed as error:
        yield wrong(subject, error.why)


def _image(cluster: Cluster, subject: str, settings: RbdSettings) -> Finding:
    try:
        with ExitStack() as stack:
            pool: Pool = stack.enter_context(open_pool(cluster, settings.pool, settings.namespace))
            image = stack.enter_context(pool.image(settings.image))
            text = f"{image.spec} has {format_size(image.size)}"
            has_map, is_wrong = image.has_fast_diff, image.is_map_invalid
    except CephFailed as error:
        return wrong(subject, error.why)
    if not has_map:
        cure = f"'rbd feature enable {settings.spec} object-map fast-diff'"
        return note(
            subject, f"{text}, and each backup reads all of it: {cure} lets it read changes only"
        )
    if is_wrong:
        cure = f"'rbd object-map rebuild {settings.spec}'"
        return wrong(subject, f"{text}, but its object map is invalid: {cure} lets backups read changes")
    return fine(subject, f"{text}, with object-map and fast-diff")
