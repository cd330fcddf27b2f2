"""What `backy doctor` says of images in a real cluster, and of the modules through which it asks."""

from collections.abc import Iterator

import pytest

from backy.domain.diagnosis import Finding, Verdict
from backy.operation.doctor_ceph import images, installed, judge_modules
from cephcluster import CephCluster
from rbdsite import RbdSite


@pytest.fixture
def site(ceph: CephCluster) -> Iterator[RbdSite]:
    """An image."""
    one = RbdSite(ceph)
    yield one
    one.close()


def looked_at(site: RbdSite, **changed: str) -> Finding:
    """The last finding of a job with such settings."""
    return list(images({"vm": site.config(**changed)}))[-1]


def test_modules_of_this_host_are_fine(ceph: CephCluster) -> None:
    """They are tried in a process of their own, with this Python, and their versions fit."""
    found = installed()

    assert "" == found.error
    assert 3 == len(found.version.split("."))
    assert Verdict.FINE is judge_modules(found, ["rbd"]).verdict


def test_image_that_can_be_read_incrementally_is_fine(site: RbdSite) -> None:
    """Its cluster has a line, and it too."""
    cluster, image = images({"vm": site.config()})

    assert (Verdict.FINE, "cluster of vm") == (cluster.verdict, cluster.subject)
    assert f"{site.ceph.fsid} answers client.admin" == cluster.text
    assert (Verdict.FINE, "job vm") == (image.verdict, image.subject)
    assert f"{site.settings.spec} has 16.0 MiB, with object-map and fast-diff" == image.text


def test_cluster_is_asked_once_for_all_of_its_jobs(site: RbdSite) -> None:
    """Hundreds of images are hundreds of lines and one connection."""
    found = list(images({name: site.config() for name in ("a", "b", "c", "d")}))

    assert ["cluster of a, b, c, …", "job a", "job b", "job c", "job d"] == [
        one.subject for one in found
    ]


def test_image_without_an_object_map_is_to_be_known(site: RbdSite) -> None:
    """Each of its backups reads everything; the command that changes it is named."""
    site.ceph.run("rbd", "feature", "disable", f"{site.settings.spec}", "object-map", "fast-diff")
    found = looked_at(site)

    assert Verdict.NOTE is found.verdict
    assert f"'rbd feature enable {site.settings.spec} object-map fast-diff'" in found.text


def test_image_with_an_invalid_object_map_is_wrong(site: RbdSite) -> None:
    """It looks as if it were incremental, and is not."""
    site.write(0, b"x")
    site.ceph.run("rbd", "feature", "disable", f"{site.settings.spec}", "object-map", "fast-diff")
    site.ceph.run("rbd", "feature", "enable", f"{site.settings.spec}", "object-map", "fast-diff")
    found = looked_at(site)
    site.ceph.run("rbd", "object-map", "rebuild", f"{site.settings.spec}")

    assert (Verdict.WRONG, Verdict.FINE) == (found.verdict, looked_at(site).verdict)
    assert f"'rbd object-map rebuild {site.settings.spec}'" in found.text


def test_what_is_not_there_is_wrong(site: RbdSite) -> None:
    """Image, namespace, pool, user, file: each with the sentence that a backup would end with."""
    told = [
        looked_at(site, **{key: value}).text
        for key, value in [
            ("image", "ghost"),
            ("namespace", "ghost"),
            ("pool", "ghost"),
            ("user", "ghost"),
            ("conf", "/nowhere/ceph.conf"),
            ("image", "a/b"),
        ]
    ]

    pool = site.pool.name
    assert f"there is no {pool}/ghost" == told[0]
    assert f"pool {pool!r} has no namespace 'ghost'" == told[1]
    assert "the cluster has no pool 'ghost'" == told[2]
    assert "client.ghost" in told[3]
    assert "/nowhere/ceph.conf" in told[4]
    assert "source.image" in told[5]
    assert Verdict.WRONG is looked_at(site, image="ghost").verdict


def test_cluster_that_does_not_answer_is_told_once(site: RbdSite) -> None:
    """Within its limit, and not once for each of its jobs."""
    site.close()
    site.ceph.kill_osd()
    jobs = {name: site.config(conf=str(site.ceph.impatient)) for name in ("a", "b", "c")}
    found = list(images(jobs))

    assert [Verdict.FINE, Verdict.WRONG, Verdict.NOTE, Verdict.NOTE] == [one.verdict for one in found]
    assert "did not answer in time" in found[1].text


def test_monitor_that_does_not_answer_is_told(site: RbdSite) -> None:
    """One line, for all jobs of the cluster."""
    site.close()
    site.ceph.kill_monitor()
    found = list(images({"vm": site.config(conf=str(site.ceph.impatient))}))

    assert [("cluster of vm", Verdict.WRONG)] == [(one.subject, one.verdict) for one in found]
