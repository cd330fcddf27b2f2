"""What Prometheus scrapes from `/metrics`.

    text = render(service, clock.now(), (used, free))

Names follow Prometheus' conventions: base units (seconds, bytes), `_total` for counters.

Limits: gauges are of this moment; figures of a job change when its backup has ended.
"""

from collections.abc import Iterator
from datetime import datetime

from prometheus_client.core import CollectorRegistry, CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from backy.daemon.scheduler import Pool
from backy.daemon.service import Service

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render(service: Service, now: datetime, store: tuple[int, int]) -> bytes:
    """The exposition text; `store` is (bytes used, bytes free) of the repository's file system."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(service, now, store))
    return generate_latest(registry)


class _Snapshot(Collector):
    """One scrape."""

    def __init__(self, service: Service, now: datetime, store: tuple[int, int]) -> None:
        self._service = service
        self._now = now
        self._store = store

    def collect(self) -> Iterator[Metric]:
        yield from self._jobs()
        yield from self._daemon()

    def _jobs(self) -> Iterator[Metric]:
        def gauge(name: str, text: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"backy_job_{name}", text, labels=["job"])

        age = gauge("age_seconds", "Age of the newest good revision, or of the configuration.")
        sla = gauge("sla_ok", "1 while the job keeps its service level.")
        limit = gauge("sla_limit_seconds", "The age at which the service level breaks.")
        duration = gauge("duration_seconds", "How long the newest good revision took.")
        read = gauge("read_bytes", "What the newest good revision read of its source.")
        stored = gauge("stored_bytes", "What the newest good revision added to the store.")
        result = gauge("last_result", "1 if the last backup succeeded, 0 if it failed.")
        revisions = gauge("revisions", "Revisions in the history.")
        for name, job in self._service.jobs.items():
            verdict, found = job.sla(self._now), job.figures
            age.add_metric([name], verdict.age)
            sla.add_metric([name], float(verdict.ok))
            limit.add_metric([name], verdict.limit)
            revisions.add_metric([name], found.revisions)
            if found.newest is not None:
                duration.add_metric([name], found.duration)
                read.add_metric([name], found.bytes_read)
                stored.add_metric([name], found.bytes_written)
            if job.last_failed or found.newest is not None:
                result.add_metric([name], float(not job.last_failed))
        yield from (age, sla, limit, duration, read, stored, result, revisions)

    def _daemon(self) -> Iterator[Metric]:
        service = self._service
        limit = GaugeMetricFamily("backy_pool_limit", "Workers of a pool.", labels=["pool"])
        running = GaugeMetricFamily("backy_pool_running", "Busy workers of a pool.", labels=["pool"])
        used = service.running()
        for pool in Pool:
            limit.add_metric([pool.value], service.limit)
            running.add_metric([pool.value], used[pool])
        yield from (limit, running)
        yield GaugeMetricFamily(
            "backy_queue_jobs", "Jobs that wait for a worker.", value=service.queue()
        )
        yield GaugeMetricFamily(
            "backy_start_time_seconds",
            "When the scheduler started.",
            value=service.started_at.timestamp(),
        )
        ended = CounterMetricFamily("backy_backups", "Backups that ended.", labels=["result"])
        for result in ("succeeded", "failed"):
            ended.add_metric([result], service.counters[result])
        yield ended
        size, free = self._store
        yield GaugeMetricFamily(
            "backy_store_used_bytes", "Bytes used on the repository's file system.", value=size
        )
        yield GaugeMetricFamily(
            "backy_store_free_bytes", "Bytes free on the repository's file system.", value=free
        )
        figures = [job.figures for job in service.jobs.values()]
        stored = sum(one.stored for one in figures)
        logical = sum(one.logical for one in figures)
        yield GaugeMetricFamily(
            "backy_stored_bytes", "Bytes that all revisions of configured jobs added.", value=stored
        )
        yield GaugeMetricFamily(
            "backy_dedup_ratio",
            "Bytes of these revisions' images, divided by the bytes that they added to the store.",
            value=logical / stored if stored else 0.0,
        )
