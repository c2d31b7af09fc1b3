"""A sweep from its plan to its last stored run: open the store, check, start the back end, run
what is left, send what waits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import NamedTuple

from backstop.platform.params import BadInput
from backstop.platform.results import drivers
from backstop.platform.results.experiments import open_experiment
from backstop.platform.results.runs import Run, read_runs
from backstop.platform.results.store import Store, is_new
from backstop.platform.results.sweeps import (
    close_parent,
    drivers_home,
    mark_interrupted,
    open_parent,
    stop_runs,
    write_plan,
)
from backstop.platform.results.wording import plural
from backstop.platform.rounds import origin
from backstop.platform.rounds.origin import Made
from backstop.platform.specs.spec import Spec
from backstop.platform.sweeps import checks, waiting
from backstop.platform.sweeps.backend import Backend, Observer, Task
from backstop.platform.sweeps.plan import SweepPlan, preflight, run_words
from backstop.platform.sweeps.queues import Fixed, Queue
from backstop.platform.sweeps.session import Destination

RUNS_LISTED = 5  # runs that one line names at most


class Site(NamedTuple):
    """Where a sweep reads and writes."""

    store: Store
    folder: Path  # of the checkpoints, and of the drivers where the store is a server
    experiment: str  # name of the MLflow experiment
    data: Path  # data folder
    device: str
    mix_fingerprints: bool = False

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""
        return self.folder / "checkpoints"


def conduct(
    plan: SweepPlan,
    site: Site,
    backend: Backend,
    *,
    watch: Callable[[Queue], AbstractContextManager[Observer]],
    say: Callable[[str], None],
) -> Queue:
    """Run what is left of a plan; the queue, which knows how everything ended.

    ``watch`` opens what shows the trials as they go. Raises BadInput before anything is trained.
    """
    title = plan.title
    new_store = is_new(site.store)
    if new_store:
        backend.check()  # before a store is made
    with ExitStack() as stack:
        sweep = _OpenSweep(plan, site, backend, say, stack)
        if new_store:
            preflight(plan.specs, site.data, site.device)
            say(f"{title}: starting {backend.name} and a new store in {site.folder} …")
            stack.enter_context(backend.start())
        queue = sweep.fill_queue()
        destination = sweep.destination(queue)
        if not sweep.send_waiting(queue, destination):
            close_parent(site.store, str(destination.parent), "FINISHED")
            where = f"in experiment {site.experiment!r}"
            say(f"{title}: all {queue.expected} runs are finished already {where}")
            return queue
        if not new_store:
            backend.check()
            preflight(queue.waiting, site.data, site.device)
            finished = f"{queue.skipped} of {queue.expected} runs are finished already"
            say(f"{title}: starting {backend.name}; {finished} …")
            stack.enter_context(backend.start())
        with watch(queue) as observer:
            backend.run(queue, Task(destination, site.data.resolve(), site.device), observer)
        sweep.insist(queue, destination)
        status = "FAILED" if queue.unstored or queue.failures else "FINISHED"
        close_parent(site.store, str(destination.parent), status)
    return queue


class _OpenSweep:
    """The steps of a sweep while it is at work on its store."""

    def __init__(
        self,
        plan: SweepPlan,
        site: Site,
        backend: Backend,
        say: Callable[[str], None],
        stack: ExitStack,
    ) -> None:
        """Be a driver on the store, and begin to open it."""
        self.plan, self.site, self.backend, self.say = plan, site, backend, say
        self.home = drivers_home(site.store, site.folder)
        self.driver = stack.enter_context(drivers.at_work(self.home))
        # A new store takes MLflow seconds to make, Ray takes seconds to start: side by side. An old
        # store may hold all there is to run.
        pool = stack.enter_context(ThreadPoolExecutor(1))
        self.opening: Future[tuple[str, list[Run]]] = pool.submit(self._open_store)
        stack.callback(self._release)

    def _open_store(self) -> tuple[str, list[Run]]:
        site = self.site
        experiment = open_experiment(site.store, site.experiment)
        lost = mark_interrupted(site.store, site.folder, site.experiment)
        if lost.words:
            self.say(f"backstop: {lost.words}")
        return experiment, read_runs(site.store, site.experiment)

    def _release(self) -> None:
        """Once the back end has ended: nobody works on this sweep's runs any more."""
        if not self.opening.done() or self.opening.exception():
            return
        experiment, _ = self.opening.result()
        if stop_runs(self.site.store, experiment, self.driver):
            drivers.forget(self.home, self.driver)

    def fill_queue(self) -> Queue:
        """What is left to run. Raises BadInput where it would not fit what is stored."""
        _, finished = self.opening.result()
        queue = Queue(self.plan.source, {run.id: run.metrics for run in finished})
        queue.fill()
        self._check_origin(queue, finished)
        return queue

    def destination(self, queue: Queue) -> Destination:
        """The sweep's parent run, opened, and all else that says where runs go."""
        site, plan = self.site, self.plan
        experiment, _ = self.opening.result()
        parent = open_parent(site.store, experiment, plan.title, driver=self.driver)
        if isinstance(queue.source, Fixed):
            write_plan(site.store, parent, {spec.id: run_words(spec) for spec in plan.specs})
        checkpoints = site.checkpoints.resolve()
        return Destination(
            site.store, experiment, checkpoints, self.driver, space=plan.title, parent=parent
        )

    def send_waiting(self, queue: Queue, destination: Destination) -> bool:
        """Store what an earlier sweep has trained; whether something is left to run."""
        sent = waiting.send(queue.waiting, queue, destination)
        if sent:
            runs = plural(len(sent), "run")
            where = f"that waited in {destination.checkpoints}, without training again"
            self.say(f"{self.plan.title}: stored {runs} {where}")
            queue.waiting = [spec for spec in queue.waiting if spec.id not in sent]
            queue.skipped += len(sent)
        return queue.fill()

    def insist(self, queue: Queue, destination: Destination) -> None:
        """Try again to store what the store did not take while the sweep ran."""
        if not any(item.kept for item in queue.unstored.values()):
            return
        runs = plural(len(queue.unstored), "run")
        reason = next(iter(queue.unstored.values())).reason
        limit = waiting.patience(self.site.store)
        title = self.plan.title
        self.say(f"{title}: {runs} not stored yet ({reason}); trying for up to {limit:.0f} s …")
        if sent := waiting.insist(queue, destination):
            self.say(f"{title}: {plural(len(sent), 'run')} stored now")

    def _check_origin(self, queue: Queue, finished: Sequence[Run]) -> None:
        """Before anything is trained: the data of stored and of half-done runs are those of today,
        and the versions those of the store. A plug-in's changed code is warned of.
        """
        site = self.site
        datasets = {str(spec.dataset) for spec in self.plan.specs}
        stored = [made for made in checks.runs_made(finished) if str(made.spec.dataset) in datasets]
        saved = checks.read_checkpoints(queue.waiting, site.checkpoints)
        started = [Made(spec, checkpoint.origin) for spec, checkpoint in saved]
        try:
            of_stored = origin.other_data_of(stored, site.data)
            of_started = origin.other_data_of(started, site.data)
        except BadInput as error:
            if queue.waiting:
                raise
            self.say(
                f"backstop: whether the data are still those of the runs is not known: {error}"
            )
            return
        checks.check_data(of_stored, of_started, name=site.experiment, checkpoints=site.checkpoints)
        if warning := checks.code_warning([*stored, *started]):
            self.say(f"backstop: {warning}")
        if not queue.waiting or self.backend.elsewhere:
            return
        if not site.mix_fingerprints:
            checks.check_fingerprints(finished, site.device, site.experiment)
        checks.say_restarts(saved, site.device, self.say)


def shortfalls(queue: Queue, checkpoints: Path) -> list[str]:
    """Which runs of a sweep failed or are not stored, and why: a line for each reason."""
    by_reason: dict[tuple[str, str, str], list[Spec]] = {}

    def add(
        spec_id: str,
        what: str,
        reason: str,
        remedy: str,
    ) -> None:
        by_reason.setdefault((what, reason, remedy), []).append(queue.specs[spec_id])

    for spec_id, reason in queue.failures.items():
        add(spec_id, "failed", reason, "the same command tries again")
    kept = f"kept in {checkpoints}; the same command sends what waits, without training again"
    lost = f"not kept in {checkpoints} either; the same command trains again"
    for spec_id, item in queue.unstored.items():
        add(spec_id, "trained but not stored", item.reason, kept if item.kept else lost)
    lines = [
        f"{plural(len(specs), 'run')} {what}: {reason} ({_listed(specs)}); {remedy}"
        for (what, reason, remedy), specs in by_reason.items()
    ]
    return [*lines, *queue.findings]


def _listed(specs: Sequence[Spec]) -> str:
    """Runs for people, the first few of many."""
    named = [f"{spec.id[:12]} {run_words(spec)}" for spec in specs[:RUNS_LISTED]]
    if len(specs) > RUNS_LISTED:
        named.append(f"and {len(specs) - RUNS_LISTED} more")
    return "; ".join(named)
