"""The daemon: carries out what `scheduler` and `jobs` decide, until it is told to stop.

    await Service(settings, load, repository, clock, log, notifier).run()

One task each: the loop of decisions, every running job, the API, the watchdog's heartbeat. SIGTERM,
SIGINT and SIGQUIT end it and all children; SIGHUP reloads.

Limits: decides at least every ten seconds, and whenever something happened.
"""

import asyncio
import contextlib
import signal
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol
from uuid import uuid4

import yaml

from backy.daemon import chores, workers
from backy.daemon import jobs as rules
from backy.daemon.jobs import ScheduledJob, Status
from backy.daemon.notify import Notifier
from backy.daemon.prepare import prepare
from backy.daemon.scheduler import Pool, choose
from backy.domain.legacy import as_in_2_5
from backy.domain.settings import Settings
from backy.ground.clock import Clock
from backy.ground.errors import BackyError, JobMissing, JobUnscheduled
from backy.operation.survey import Surveyed, survey, survey_job
from backy.repository import history as histories
from backy.repository import remembered, trust
from backy.repository.repository import Repository

_LONGEST_WAIT = 10.0
_SHORTEST_WAIT = 0.05
# Wall time that differs from the clock that is never set by more than this was set.
_JUMP = 30.0


class Log(Protocol):
    """What the daemon needs of a log."""

    def info(self, event: str, **fields: object) -> None:
        """What was done."""
        ...

    def warning(self, event: str, **fields: object) -> None:
        """What somebody should look at."""
        ...

    def error(self, event: str, **fields: object) -> None:
        """What failed."""
        ...


class Service:
    """The jobs, the workers, and the loop between them."""

    def __init__(
        self,
        settings: Settings,
        load: Callable[[], Settings],
        repository: Repository,
        clock: Clock,
        log: Log,
        notifier: Notifier,
        options: Sequence[str] = (),
    ) -> None:
        """`load` reads the configuration again for a reload, and raises BackyError.

        `options` are those that all children get before their command.
        """
        self.settings = settings
        self.repository = repository
        self.jobs: dict[str, ScheduledJob] = {}
        self.started_at = clock.now()
        self.counters: Counter[str] = Counter()
        self._load = load
        self._clock = clock
        self._log = log
        self._notifier = notifier
        self._options = ("-q", *options)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        # Of jobs that were changed while they ran: their successors wait until these have ended.
        self._ending: set[asyncio.Task[None]] = set()
        self._chore: asyncio.Task[None] | None = None
        self._chores_ended: dict[str, chores.Last] = {}
        self._chores_asked: set[str] = set()
        self._legacy_told: tuple[str, ...] = ()
        if (outcome := remembered.read_outcome(repository.chunks)) is not None:
            self._chores_ended[chores.COLLECTION] = chores.Last(outcome.at, failed=bool(outcome.stopped))
        cycle = trust.read_cycle(repository.chunks)
        if cycle is not None and cycle.sliced_at is not None:
            self._chores_ended[chores.VERIFICATION] = chores.Last(cycle.sliced_at)
        self._wake = asyncio.Event()
        self._stopping = False
        self._adopt(settings)

    async def run(self) -> None:
        """Work until `stop`; then end all children."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self.hang_up)
        heartbeat = asyncio.create_task(self._beat())
        self._log.info("scheduler started", jobs=len(self.jobs), workers=self.limit)
        self._notifier.send("READY=1", f"STATUS={len(self.jobs)} jobs")
        try:
            await self._decide_for_ever()
        finally:
            self._notifier.send("STOPPING=1")
            heartbeat.cancel()
            running = [*self._tasks.values()]
            running += [self._chore] if self._chore is not None else []
            for task in running:
                task.cancel()
            # Those that are ending were told before, and must not be disturbed in it.
            await asyncio.gather(*running, *self._ending, return_exceptions=True)
            self._log.info("scheduler stopped")

    def stop(self) -> None:
        """End as soon as all children have."""
        self._stopping = True
        self._wake.set()

    def request(self, name: str) -> None:
        """Run a job now, in front of all others; JobMissing, JobUnscheduled."""
        if name not in self.jobs:
            raise JobMissing(name, "it is not in the scheduler's configuration")
        if not self.jobs[name].config.schedule:
            raise JobUnscheduled(name)
        self.jobs[name] = rules.requested(self.jobs[name])
        self._log.info("run requested", job=name)
        self._wake.set()

    def request_collection(self) -> None:
        """Collect garbage now, or once more if that is being done."""
        self._chores_asked.add(chores.COLLECTION)
        self._log.info("collection requested")
        self._wake.set()

    def reload(self) -> None:
        """Read the configuration again; BackyError, and then everything stays as it was."""
        self._notifier.reloading()
        try:
            settings = self._load().complete()
            self._warn_of_fixed(settings)
            self._adopt(settings)
        except BackyError as error:
            self._log.error("configuration not reloaded, the old one stays", error=error.message)
            raise
        finally:
            self._notifier.send("READY=1", f"STATUS={len(self.jobs)} jobs")
        self._log.info("configuration reloaded", jobs=len(self.jobs), workers=self.limit)
        self._wake.set()

    @property
    def limit(self) -> int:
        """Workers of each pool."""
        return self.settings.general.worker_limit

    def running(self) -> Mapping[Pool, int]:
        """How many jobs of each pool run."""
        used = Counter(job.running for job in self.jobs.values() if job.running is not None)
        return {pool: used[pool] for pool in Pool}

    def status(self) -> list[Status]:
        """An entry for each job, by name."""
        now, mono = self._clock.now(), self._clock.monotonic()
        return [
            rules.status(job, now, rules.status_text(job, now, mono))
            for _, job in sorted(self.jobs.items())
        ]

    def queue(self) -> int:
        """How many jobs are due and do not run."""
        now, mono = self._clock.now(), self._clock.monotonic()
        return sum(rules.is_due(job, now, mono) for job in self.jobs.values())

    def round(self) -> list[str]:
        """Decide once; the jobs to start, which are marked as running."""
        now, mono = self._clock.now(), self._clock.monotonic()
        due = [rules.waiting(job, now) for job in self.jobs.values() if rules.is_due(job, now, mono)]
        if not due:
            return []
        free = {pool: self.limit - used for pool, used in self.running().items()}
        return choose(due, free, self.limit)

    def _adopt(self, settings: Settings) -> None:
        """Make the jobs those of `settings`: changed ones start anew, the others notice nothing."""
        now = self._clock.now()
        for name in set(self.jobs) - set(settings.jobs):
            self._forget(name, "left the configuration")
        fresh, known = {}, dict(self.jobs)
        for name, config in settings.jobs.items():
            if name not in known or known[name].config != config:
                fresh[name] = config
                if name in known:
                    self._forget(name, "its configuration changed")
        for name, problem in prepare(self.repository, fresh).items():
            self._log.error("job cannot be prepared", job=name, error=problem)
        found = survey(self.repository, set(fresh) - set(known), now, processes=1 if known else None)
        for name, config in fresh.items():
            seen = found[name] if name in found else rules.seen(known[name])
            self.jobs[name] = rules.planned(rules.new_job(name, config, now), seen, now)
        for fault in settings.faults:
            self._log.error("configuration", error=fault.message)
        legacy = tuple(dict.fromkeys(settings.legacy))
        if legacy and legacy != self._legacy_told:
            self._log.warning("settings of older versions have no effect", keys=", ".join(legacy))
        self._legacy_told = legacy
        self.settings = settings

    def _warn_of_fixed(self, settings: Settings) -> None:
        """What a running scheduler cannot change."""
        if settings.general.base_dir != self.settings.general.base_dir:
            self._log.warning("global.base-dir changes with the next start only")
        if settings.api != self.settings.api:
            self._log.warning("the api section changes with the next start only")

    def _forget(self, name: str, why: str) -> None:
        del self.jobs[name]
        task = self._tasks.pop(name, None)
        if task is not None:
            self._log.warning("backup ended", job=name, reason=why)
            task.cancel()
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def _decide_for_ever(self) -> None:
        wall, mono = self._clock.now(), self._clock.monotonic()
        while not self._stopping:
            self._wake.clear()
            now, later = self._clock.now(), self._clock.monotonic()
            if abs((now - wall).total_seconds() - (later - mono)) > _JUMP:
                await self._look_again(now)
                self._log.warning("the clock was set, all jobs are planned anew", now=now.isoformat())
            wall, mono = now, later
            for name in self.round():
                self._start(name)
            self._start_chore(now)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._until_next(now))

    async def _look_again(self, now: datetime) -> None:
        """Read all histories by the new time, which decides which revisions are of the future."""
        # In one process, since there are threads by now, which do not go with forks.
        found = await asyncio.to_thread(survey, self.repository, list(self.jobs), now, 1)
        for name, seen in found.items():
            job = self.jobs.get(name)
            if job is not None and job.running is None:
                self.jobs[name] = rules.planned(job, seen, now)

    def _until_next(self, now: datetime) -> float:
        """Seconds to wait; short while something is due, but then a worker's end wakes us anyway."""
        ahead = [
            (job.run.at - now).total_seconds()
            for job in self.jobs.values()
            if job.running is None and job.run.at > now
        ]
        return min(max(min(ahead, default=_LONGEST_WAIT), _SHORTEST_WAIT), _LONGEST_WAIT)

    def _start_chore(self, now: datetime) -> None:
        """Start what is due for the whole repository, one at a time."""
        if self._chore is not None:
            return
        known = chores.wanted(self.settings.general)
        chore = chores.due(known, self._chores_ended, self.started_at, now, self._chores_asked)
        if chore is not None:
            self._chores_asked.discard(chore.name)
            self._chore = asyncio.create_task(self._do_chore(chore), name=chore.name)

    async def _do_chore(self, chore: chores.Chore) -> None:
        task = str(uuid4())
        self._log.info(f"{chore.name} started", task=task)
        words = [*self._command(self.repository.base.path), *chore.words]
        try:
            ended = await workers.run_child(words, task)
        except OSError as error:
            ended = workers.Ended(1, f"it could not be started: {error}")
        if ended.code == 0:
            self._log.info(f"{chore.name} finished", task=task)
        elif ended.code == chore.finding:
            self._log.error(f"{chore.name} found damage", task=task, error=ended.said)
        else:
            why = ended.said or f"it ended with code {ended.code}"
            self._log.error(f"{chore.name} failed", error=why, task=task)
        failed = ended.code not in (0, chore.finding)
        self._chores_ended[chore.name] = chores.Last(self._clock.now(), failed=failed)
        self._chore = None
        self._wake.set()

    def _start(self, name: str) -> None:
        job = self.jobs[name]
        tags = rules.tags_now(job, self._clock.now()) or tuple(job.config.schedule)
        self.jobs[name] = rules.started(job)
        self._tasks[name] = asyncio.create_task(self._work(name, tags), name=name)

    async def _work(self, name: str, tags: tuple[str, ...]) -> None:
        """One job from backup to callback."""
        task = str(uuid4())
        if before := {one for one in self._ending if one.get_name() == name}:
            await asyncio.wait(before)
        self._log.info("backup started", job=name, tags=",".join(tags), task=task)
        try:
            failure = await self._backed_up(name, tags, task)
            await self._tell(name, failure, task)
        except Exception as error:  # noqa: BLE001 - a bug in one job's run must not stop the others
            failure = f"internal error, please report it ({type(error).__name__}: {error})"
        found = await asyncio.to_thread(survey_job, self.repository, name, self._clock.now())
        del self._tasks[name]
        self._note(name, found, failure, task)
        self._wake.set()

    def _note(self, name: str, found: Surveyed, failure: str | None, task: str) -> None:
        now, job = self._clock.now(), self.jobs[name]
        if failure is None:
            self.counters["succeeded"] += 1
            self.jobs[name] = rules.finished(job, found, now)
            revision = found.figures.revision
            self._log.info("backup finished", job=name, revision=revision, task=task)
        else:
            self.counters["failed"] += 1
            self.jobs[name] = rules.failed(job, found, now, self._clock.monotonic())
            retry = self.jobs[name].run.at.isoformat(timespec="seconds")
            self._log.error("backup failed", job=name, error=failure, retry=retry, task=task)

    async def _backed_up(self, name: str, tags: tuple[str, ...], task: str) -> str | None:
        """Back up, then expire; what went wrong with the backup, or None."""
        # Again, since the disk may have been full at the start, or somebody has removed the directory.
        job = {name: self.jobs[name].config}
        for problem in (await asyncio.to_thread(prepare, self.repository, job)).values():
            return problem
        words = self._command(f"{self.repository.base.path.rstrip('/')}/{name}")
        codec = str(self.settings.general.codec)
        delta = "auto" if self.settings.general.delta else "off"
        try:
            ended = await workers.run_child(
                [*words, "backup", "--codec", codec, "--delta", delta, ",".join(tags)], task
            )
            if ended.code != 0:
                return ended.said or f"it ended with code {ended.code}"
            expired = await workers.run_child([*words, "expire"], task)
        except OSError as error:
            return f"it could not be started: {error}"
        if expired.code != 0:
            self._log.error("expiry failed", job=name, error=expired.said, task=task)
        return None

    def _command(self, base: str) -> list[str]:
        """How a child begins that works on this directory."""
        return [*workers.command(), *self._options, "-b", base]

    async def _tell(self, name: str, failure: str | None, task: str) -> None:
        """Call the operator's program; its exit code is only logged."""
        general = self.settings.general
        program = general.completed_callback if failure is None else general.failed_callback
        if program is None:
            return
        try:
            given = await asyncio.to_thread(self._history_text, name)
            ended = await workers.run_program([program, name], task, given)
        except (OSError, BackyError) as error:
            self._log.error("callback failed", job=name, error=str(error), task=task)
            return
        if ended.code != 0:
            self._log.warning("callback failed", job=name, code=ended.code, said=ended.said, task=task)

    def _history_text(self, name: str) -> bytes:
        with self.repository.job(name) as job:
            history = histories.load(job.directory)
        entries = [as_in_2_5(one) for one in history.revisions]
        return str(yaml.safe_dump(entries, sort_keys=False)).encode()

    def hang_up(self) -> None:
        """What SIGHUP asks for: a reload, whose outcome is in the log."""
        with contextlib.suppress(BackyError):
            self.reload()

    async def _beat(self) -> None:
        """Tell the watchdog that this loop turns."""
        while self._notifier.interval is not None:
            self._notifier.send("WATCHDOG=1")
            await asyncio.sleep(self._notifier.interval)
