"""Which jobs ask a VM's host, and what does not go together with that."""

from collections.abc import Mapping

import pytest

from backy.domain.config import parse_job
from backy.domain.group_settings import parse_group_settings
from backy.domain.settings import parse_settings
from backy.ground.errors import ConfigError
from backy.source.base import Owner
from backy.source.commands import Commands
from backy.source.handshake import Handshake
from backy.source.registry import open_group

OWNER = Owner("11111111-1111-4111-8111-111111111111", "vm01")
CEPH = "pool: rbd, image: vm01.root"
ASKED = "vm: vm01, consul_acl_token: 5ec2e7"

SOURCES = {
    f"{{type: flyingcircus, {CEPH}, vm: vm01}}": True,
    f"{{type: flyingcircus, {CEPH}, {ASKED}, full-always: false}}": True,
    f"{{type: rbd, {CEPH}, {ASKED}}}": True,
    f"{{type: ceph-rbd, {CEPH}, {ASKED}, freeze-timeout: 2m}}": True,
    f"{{type: rbd, {CEPH}, vm: vm01}}": False,
    f"{{type: rbd, {CEPH}, consul_acl_token: 5ec2e7}}": False,
    f"{{type: rbd, {CEPH}, vm: vm01, consul_acl_token: ''}}": False,
    f"{{type: rbd, {CEPH}, pre-snapshot: freeze, vm: vm01}}": False,
    "{type: file, filename: /x}": False,
}


@pytest.mark.parametrize("source", SOURCES)
def test_type_vm_and_token_decide_whether_a_host_is_asked(source: str) -> None:
    """As in 2.5, and in its unreleased successor."""
    text = f"source: {source}\nschedule: {{}}\n"
    group = open_group(parse_job(text, "config").source, "config", OWNER)

    assert (Handshake if SOURCES[source] else Commands) is type(group._quiesce)


def test_request_is_made_in_the_name_of_the_repository_and_the_job() -> None:
    """By which later runs know it."""
    text = f"source: {{type: flyingcircus, {CEPH}, vm: vm01}}\nschedule: {{}}\n"
    quiesce = open_group(parse_job(text, "config").source, "config", OWNER)._quiesce

    assert isinstance(quiesce, Handshake)
    assert f"{OWNER.repository}/vm01" == str(quiesce.owner)


def test_settings_of_several_disks_stand_beside_them() -> None:
    """One request for all."""
    text = f"""
sources:
- {{disk: root, type: rbd, {CEPH}}}
- {{disk: data, type: rbd, pool: rbd, image: vm01.data}}
vm: vm01
consul_acl_token: 5ec2e7
schedule: {{}}
"""
    quiesce = open_group(parse_job(text, "config").source, "config", OWNER)._quiesce

    assert isinstance(quiesce, Handshake)
    assert ["rbd/vm01.root", "rbd/vm01.data"] == [one.image for one in quiesce.disks.values()]


WRONG = {
    f"source: {{type: flyingcircus, {CEPH}}}": ("source.vm", "missing"),
    f"source: {{type: rbd, {CEPH}, {ASKED}, pre-snapshot: x}}": ("source.pre-snapshot", "the VM's host"),
    f"source: {{type: rbd, {CEPH}, {ASKED}, post-snapshot: x}}": ("source.post-snapshot", "VM's host"),
    f"source: {{type: rbd, {CEPH}, consul-prefix: a b}}": ("source.consul-prefix", "'a b' is no key"),
    "source: {type: file, filename: /x, vm: vm01}": ("source.vm", "not known"),
    f"sources: [{{disk: a, type: rbd, {CEPH}, vm: x}}]": ("sources[a].vm", "beside 'sources'"),
    f"sources: [{{disk: a, type: file, filename: /x}}]\n  {ASKED.replace(', ', chr(10) + '  ')}": (
        "vm",
        "in Ceph only",
    ),
}


@pytest.mark.parametrize("job", WRONG)
def test_what_does_not_go_together_is_told_with_its_key(job: str) -> None:
    """Of the whole configuration, without the token."""
    key, why = WRONG[job]
    text = f"schedules: {{s: {{}}}}\njobs:\n vm01:\n  schedule: s\n  {job}\n"
    found = parse_settings(text, "backy.conf").faults

    assert [f"jobs.vm01.{key}"] == [one.key for one in found]
    assert why in found[0].why
    assert "5ec2e7" not in found[0].message


@pytest.mark.parametrize("job", [one for one in WRONG if "type: file, filename: /x, vm" not in one])
def test_backup_refuses_the_same_in_the_job_s_own_file(job: str) -> None:
    """Whoever wrote that."""
    text = job.replace("\n  ", "\n") + "\nschedule: {}\n"
    with pytest.raises(ConfigError) as caught:
        open_group(parse_job(text, "config").source, "config", OWNER)

    assert WRONG[job][0] == caught.value.key


@pytest.mark.parametrize("settings", [{}, {"vm": ""}, {"vm": 7}])
def test_flyingcircus_without_a_vm_is_wrong(settings: Mapping[str, object]) -> None:
    """There is no host to be asked."""
    with pytest.raises(ValueError, match="the VM's name"):
        parse_group_settings(settings, ["flyingcircus"])
