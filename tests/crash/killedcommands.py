"""Commands on one repository that are killed one after the other, and what it must hold.

    commands = Commands(site, runner, seed)
    commands.kill_one(); …; commands.check_kills_were_late_enough()

Every other one is killed at a time that is drawn from as long as such a command was seen to take: within
a system call, in the middle of a thread's work, or before anything was done, which on a busy machine may
be all of them. So those between are killed at a step that is drawn, after the first one.

Limits: a seed repeats what is drawn, not where a command stands at that time, nor what follows from it.
"""

import random
import signal
import time
from pathlib import Path
from typing import Any

from crashsite import Run, Runner, Scene, noise, varied_image

from backy.domain.config import JobConfig, SourceConfig, TagPolicy, render_job
from testsite import CHUNK, Site

# Seconds and steps of a command before one has been measured.
SECONDS, STEPS = 0.04, 30
KEEP = 3
VERBS = ("backup", "backup", "expire", "forget", "tags", "gc", "verify", "out")


class Commands:
    """One repository, on which commands are killed one after the other, and what it must hold."""

    def __init__(self, site: Site, runner: Runner, seed: int) -> None:
        self.random = random.Random(seed)
        self.scene = Scene(site, runner)
        self.kills = self.kills_after_a_step = 0
        self._seconds: dict[str, float] = {}
        self._steps: dict[str, int] = {}
        self._out = str(site.folder / "out.raw")
        source = SourceConfig("file", {"filename": str(site.image)})
        (site.job / "config").unlink()
        (site.job / "config").write_text(render_job(JobConfig(source, {"daily": TagPolicy(1, KEEP)})))
        self.scene.site.image.write_bytes(varied_image(seed % 7))
        self.scene.backup()

    def kill_one(self) -> None:
        """Run commands until one was killed before its end, by time or by step; look at all there is."""
        by_time = self.kills % 2 == 0
        while not self._run(by_time=by_time):
            pass
        self.kills += 1

    def check_kills_were_late_enough(self) -> None:
        """At least a third of them hit a command that had begun to change something."""
        assert self.kills_after_a_step >= self.kills // 3

    def _run(self, *, by_time: bool) -> bool:
        scene = self.scene
        images = scene.images
        verb = self.random.choice(VERBS)
        chosen = self.random.choice(list(images))
        if verb == "backup":
            seed = self.random.randrange(4)
            scene.site.image.write_bytes(varied_image(seed)[: 7 * CHUNK] + noise(seed, 2 * CHUNK))
        if verb == "forget" and len(images) < 2:
            verb = "verify"
        words = {
            "backup": ("backup", "daily"),
            "expire": ("expire",),
            "forget": ("forget", "-r", chosen),
            "tags": ("tags", "add", "-r", chosen, "manual:x"),
            "gc": ("gc", "--now", "--force"),
            "verify": ("verify",),
            "out": ("restore", "-r", chosen, self._out),
        }[verb]
        when: dict[str, Any] = (
            {"after": self.random.uniform(0, self._seconds.get(verb, SECONDS))}
            if by_time
            else {"at": self.random.randint(2, max(2, self._steps.get(verb, STEPS))), "action": "kill"}
        )
        began = time.monotonic()
        run = scene.runner.run(
            "-b",
            str(scene.site.job),
            *words,
            **when,
            threads=self.random.choice([1, 4]),
            batch_size=3 * CHUNK,
        )
        assert run.ended_well or ("killed", signal.SIGKILL) == (run.state, run.code), run
        self._measure(verb, run, time.monotonic() - began)
        self._settle(verb, chosen, run)
        scene.check_images()
        return run.state == "killed"

    def _measure(self, verb: str, run: Run, took: float) -> None:
        """Learn how long such a command is, and how far this one came."""
        if run.ended_well:
            self._seconds[verb], self._steps[verb] = took, len(run.steps)
        elif len(run.steps) > 1:
            # The last step that it told may not have been done.
            self.kills_after_a_step += 1
        else:
            self._seconds[verb] = 1.2 * self._seconds.get(verb, SECONDS)

    def _settle(self, verb: str, chosen: str, run: Run) -> None:
        """Take over into the model what the command may and, if it ended well, must have done."""
        images, listed = self.scene.images, self.scene.listed()
        new = [uuid for uuid in listed if uuid not in images]
        gone = [uuid for uuid in images if uuid not in listed]
        assert len(new) <= (verb == "backup")
        assert not (verb == "backup" and run.ended_well) or new
        if verb == "expire":
            assert set(gone) <= set(list(images)[:-KEEP])
        else:
            assert gone in ([], [chosen] if verb == "forget" else [])
            assert not (verb == "forget" and run.ended_well) or gone
        for uuid in new:
            images[uuid] = self.scene.site.image.read_bytes()
        for uuid in gone:
            del images[uuid]
        if verb == "out" and run.ended_well:
            assert images[chosen] == Path(self._out).read_bytes()
