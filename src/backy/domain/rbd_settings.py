"""The settings of a source of type `rbd`: what operators write, as a frozen record.

    >>> found = parse_rbd_settings({"pool": "rbd.hdd", "image": "vm01.root", "full-always": True})
    >>> found.spec, found.full_always
    ('rbd.hdd/vm01.root', True)

`ceph-rbd` and `ceph` are other names of the type; `pool`, `image` and `full-always` are as in backy 2.5.

Limits: pure; whether there is such an image shows when it is used.
"""

from collections.abc import Mapping
from typing import NamedTuple

from backy.domain.setting import WrongSetting, setting
from backy.domain.strict_yaml import shown

POOL, IMAGE, NAMESPACE = "pool", "image", "namespace"
CLUSTER, USER, CONF = "cluster", "user", "conf"
FULL_ALWAYS = "full-always"
TYPES = ("rbd", "ceph-rbd", "ceph")
KEYS = (POOL, IMAGE, NAMESPACE, CLUSTER, USER, CONF, FULL_ALWAYS)
REQUIRED = (POOL, IMAGE)


class RbdSettings(NamedTuple):
    """Which image, and how to reach its cluster: None for what librados finds by itself.

    `namespace` is "" for the pool's default one, `user` has no "client." before it. With `full_always`
    no snapshot is kept, and every backup reads the whole image.
    """

    pool: str
    image: str
    namespace: str = ""
    cluster: str | None = None
    user: str | None = None
    conf: str | None = None
    full_always: bool = False

    @property
    def spec(self) -> str:
        """As Ceph writes it: POOL/IMAGE or POOL/NAMESPACE/IMAGE."""
        return "/".join(filter(None, (self.pool, self.namespace, self.image)))


def parse_rbd_settings(settings: Mapping[str, object]) -> RbdSettings:
    """The settings, whose keys were checked; WrongSetting for the first that is wrong or missing."""
    return RbdSettings(
        setting(settings, POOL, _name, None),
        setting(settings, IMAGE, _name, None),
        setting(settings, NAMESPACE, _name, None) if NAMESPACE in settings else "",
        setting(settings, CLUSTER, _name, None) if CLUSTER in settings else None,
        setting(settings, USER, _user, None) if USER in settings else None,
        setting(settings, CONF, _path, None) if CONF in settings else None,
        setting(settings, FULL_ALWAYS, _switch, False),
    )


def wrong_rbd_settings(settings: Mapping[str, object]) -> list[WrongSetting]:
    """All that are wrong, for those who tell every mistake at once; a missing name is not told."""
    found = []
    for key, value in settings.items():
        try:
            parse_rbd_settings({POOL: "pool", IMAGE: "image", key: value})
        except WrongSetting as error:
            found.append(error)
    return found


def parse_spec(spec: str) -> dict[str, str]:
    """Settings of POOL/IMAGE or POOL/NAMESPACE/IMAGE; ValueError.

    >>> parse_spec("rbd/tenant/vm01")
    {'pool': 'rbd', 'namespace': 'tenant', 'image': 'vm01'}
    """
    parts = spec.split("/")
    if len(parts) not in (2, 3):
        raise ValueError("it must be POOL/IMAGE or POOL/NAMESPACE/IMAGE")
    keys = (POOL, IMAGE) if len(parts) == 2 else (POOL, NAMESPACE, IMAGE)
    return {key: _name(part) for key, part in zip(keys, parts, strict=True)}


def _name(found: object) -> str:
    if not isinstance(found, str) or not found.isprintable() or not found or set("/@") & set(found):
        raise ValueError(f"{shown(found)} is no name in Ceph: a text without / and @")
    return found


def _user(found: object) -> str:
    name = _name(found)
    if name.startswith("client."):
        raise ValueError(f"{shown(found)} is to be written without 'client.'")
    return name


def _path(found: object) -> str:
    if not isinstance(found, str) or not found.startswith("/") or "\0" in found:
        raise ValueError(f"{shown(found)} is not the absolute path of a configuration file")
    return found


def _switch(found: object) -> bool:
    if found is True or found is False:
        return found
    raise ValueError(f"{shown(found)} is neither true nor false")
