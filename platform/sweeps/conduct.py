"""A sweep from its plan to its last stored run: open the store, check, start the back end, run
what is left, send what waits.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from backstop.platform import loose, storage
from backstop.platform.params import BadInput
from backstop.platform.results.figures.wording import plural
from backstop.platform.results.tracking import drivers, journal, signs_of_life
from backstop.platform.results.tracking.description import run_command
from backstop.platform.results.tracking.experiments import open_experiment
from backstop.platform.results.tracking.progress import begin_progress, write_progress
from backstop.platform.results.tracking.runs import Run, read_runs
from backstop.platform.results.tracking.searched import write_best, write_searched
from backstop.platform.results.tracking.store import Store, is_new
from backstop.platform.results.tracking.sweeps import (
    close_parent,
    drivers_home,
    failed_ids,
    mark_interrupted,
    open_parent,
    stop_runs,
    write_plan,
)
from backstop.platform.results.tracking.titles import varied_keys
from backstop.platform.results.tracking.view import write_view
from backstop.platform.rounds import origin
from backstop.platform.rounds.origin import Made
from backstop.platform.specs.spec import Spec
from backstop.platform.storage import Location
from backstop.platform.sweeps import checks, waiting
from backstop.platform.sweeps.backend import Backend, Observer, Task
from backstop.platform.sweeps.beside import Beside
from backstop.platform.sweeps.plan import SweepPlan, preflight, run_words
from backstop.platform.sweeps.queues import Fixed, Queue
from backstop.platform.sweeps.reporter import Reporter
from backstop.platform.sweeps.session import LOGS, Destination
from backstop.platform.sweeps.waiting import Patience
from backstop.platform.training.device import choose_device
from backstop.platform.workers.limits import log_path
from backstop.platform.workers.sessions import remove_leftovers

FAILED = "failed"
DONE = "FINISHED"  # as MLflow has it
RUNS_LISTED = 5  # runs that one line names at most


class Site(NamedTuple):
    """Where a sweep reads and writes."""

    store: Store
    folder: Location  # of the checkpoints, and of the drivers where the store is a server
    experiment: str  # name of the MLflow experiment
    data: Path  # data folder
    device: str
    mix_fingerprints: bool = False
    keeps_models: bool = True
    command: str = ""  # that has asked for the sweep

    @property
    def checkpoints(self) -> Location:
        """Where the checkpoints are."""
        return self.folder / "checkpoints"


def conduct(
    plan: SweepPlan,
    site: Site,
    backend: Backend,
    *,
    starting: Beside | None = None,
    watch: Callable[[Queue], AbstractContextManager[Observer]],
    say: Callable[[str], None],
    patience: Patience | None = None,
) -> Queue:
    """Run what is left of a plan; the queue, which knows how everything ended.

    ``starting`` is the back end's start where the caller has begun it, who may go on while it ends,
    and settles the store after that; ``watch`` opens what shows the trials as they go;
    ``patience`` is what the caller has with the store. Raises BadInput before anything is trained.
    """
    patience = patience or Patience(site.store, say)
    new_store = is_new(site.store)
    if new_store:
        backend.check()  # before a store is made
    with ExitStack() as stack:
        if starting is None:
            stack.enter_context(journal.settling(site.store))
            starting = stack.enter_context(Beside(backend.start))
        sweep = _OpenSweep(plan, site, backend, starting, patience, stack)
        if new_store:
            sweep.start(plan.specs, f" and a new store in {site.folder}")
        queue = sweep.fill_queue()
        destination = sweep.destination(queue)
        if not sweep.send_waiting(queue, destination):
            sweep.close_finished(queue, destination)
            return queue
        if not new_store:
            backend.check()
            finished = f"{queue.skipped} of {queue.expected} runs are finished already"
            sweep.start(queue.waiting, f"; {finished}")
        task = Task(destination, site.data.resolve(), site.device, loose.sent())
        with watch(queue) as observer, sweep.reporter(queue, destination, observer) as reporter:
            backend.run(queue, task, reporter)
        sweep.insist(queue, destination)
        sweep.close(queue, destination)
    return queue


class _OpenSweep:
    """The steps of a sweep while it is at work on its store."""

    def __init__(
        self,
        plan: SweepPlan,
        site: Site,
        backend: Backend,
        starting: Beside,
        patience: Patience,
        stack: ExitStack,
    ) -> None:
        """Be a driver on the store, and begin to open it."""
        self.plan = plan
        self.site = site
        self.backend = backend
        self.starting = starting
        self.patience = patience
        self.say = patience.say
        self.stack = stack
        self.all_ended = False  # nothing that was started runs any more
        self.home = drivers_home(site.store, site.folder)
        stack.enter_context(drivers.alone(self.home, site.experiment, plan.title))
        self.driver = stack.enter_context(drivers.at_work(self.home))
        # A new store takes MLflow seconds to make, Ray takes seconds to start: side by side. An old
        # store may hold all there is to run.
        pool = stack.enter_context(ThreadPoolExecutor(1))
        self.opening: Future[tuple[str, list[Run]]] = pool.submit(self._open_store)
        stack.callback(self._release)

    def _open_store(self) -> tuple[str, list[Run]]:
        site, insist = self.site, self.patience.insist
        experiment = insist(lambda: open_experiment(site.store, site.experiment))
        journal.write_ahead(site.store)
        lost = insist(lambda: mark_interrupted(site.store, site.folder, site.experiment))
        if lost.words:
            self.say(f"backstop: {lost.words}")
        return experiment, insist(lambda: read_runs(site.store, site.experiment))

    def _release(self) -> None:
        """Nobody works on this sweep's runs any more: all of them or their back end have ended."""
        if self.all_ended:
            self.starting.leave()
        else:
            self.starting.close()
        if not self.opening.done() or self.opening.exception():
            self.patience.give_up()
            return
        experiment, _ = self.opening.result()
        with suppress(BadInput):  # whoever looks after that marks them
            stop_runs(self.site.store, experiment, self.driver)
            drivers.forget(self.home, self.driver)

    def start(self, specs: Sequence[Spec], circumstances: str) -> None:
        """Start the back end, while every federation of the specs is set up for a try."""
        self.starting.begin()
        preflight(specs, self.site.data, self.site.device)
        self.say(f"{self.plan.title}: starting {self.backend.name}{circumstances} …")
        self.starting.wait()

    def fill_queue(self) -> Queue:
        """What is left to run. Raises BadInput where it would not fit what is stored."""
        _, finished = self.opening.result()
        done = {run.id: {**run.metrics, **run.costs} for run in finished}
        queue = Queue(self.plan.source, done)
        queue.finished = finished
        queue.fill()
        self._check_origin(queue, finished)
        return queue

    def destination(self, queue: Queue) -> Destination:
        """The sweep's parent run, opened, and all else that says where runs go."""
        site, plan, insist = self.site, self.plan, self.patience.insist
        store = site.store
        experiment, _ = self.opening.result()
        insist(
            lambda: signs_of_life.check_nobody_else(store, self.home, experiment, self.say),
        )
        parent = insist(
            lambda: open_parent(store, experiment, plan.title, driver=self.driver),
        )
        self.stack.enter_context(signs_of_life.shown(store, parent))
        if isinstance(queue.source, Fixed):
            planned = {spec.id: run_words(spec) for spec in plan.specs}
            insist(lambda: write_plan(store, parent, planned))
        insist(lambda: write_view(store, experiment, plan.specs))
        checkpoints = storage.absolute(site.checkpoints)
        return Destination(
            site.store,
            experiment,
            checkpoints,
            self.driver,
            space=plan.title,
            parent=parent,
            varied=self._varied(),
            keeps_models=site.keeps_models,
            home=storage.local_folder(site.folder).resolve(),
        )

    def _varied(self) -> frozenset[str]:
        """What tells the sweep's runs apart, in the plan or in what its searches may propose."""
        searched = [[*item.search.choices, *item.search.free] for item in self.plan.searches]
        return varied_keys(self.plan.specs).union(*searched)

    def send_waiting(self, queue: Queue, destination: Destination) -> bool:
        """Store what an earlier sweep has trained; whether something is left to run."""
        waiting.drop_stored({run.id for run in queue.finished}, destination.checkpoints)
        sent = waiting.send(queue.waiting, queue, destination)
        if sent:
            runs = plural(len(sent), "run")
            where = f"that waited in {destination.checkpoints}, without training again"
            self.say(f"{self.plan.title}: stored {runs} {where}")
            queue.waiting = [spec for spec in queue.waiting if spec.id not in sent]
            queue.skipped += len(sent)
        return queue.fill()

    def reporter(
        self,
        queue: Queue,
        destination: Destination,
        observer: Observer,
    ) -> Reporter:
        """What notes in the sweep's run how far it is."""
        store, parent = self.site.store, str(destination.parent)
        searches = self.plan.searches
        return Reporter(
            observer,
            queue,
            first=begin_progress(self.driver, self.site.command),
            send=lambda progress: write_progress(store, parent, progress),
            pruned=lambda: sum(search.pruned for search in searches),
        )

    def insist(self, queue: Queue, destination: Destination) -> None:
        """Try again to store what the store did not take while the sweep ran."""
        if not any(item.kept for item in queue.unstored.values()):
            return
        runs = plural(len(queue.unstored), "run")
        first, *_ = queue.unstored.values()
        limit = f"{self.patience.seconds:.0f} s"
        title = self.plan.title
        self.say(f"{title}: {runs} not stored yet ({first.reason}); trying for up to {limit} …")
        if sent := waiting.insist(queue, destination, self.patience):
            self.say(f"{title}: {plural(len(sent), 'run')} stored now")

    def close(self, queue: Queue, destination: Destination) -> None:
        """Write how the sweep has ended, and what its searches have chosen."""
        self.all_ended = True
        self._write_searched(queue, destination)
        insist = self.patience.insist
        with suppress(BadInput):  # what failed is said in any case
            insist(lambda: self._mark_failed(queue, destination))
        self._close_parent(destination, "FAILED" if queue.unstored or queue.failures else DONE)
        with suppress(BadInput):  # whoever looks after that marks them
            insist(lambda: stop_runs(self.site.store, destination.experiment, self.driver))

    def _close_parent(self, destination: Destination, status: str) -> None:
        """Set the status of the sweep's run; where the store stays away, whoever looks after that
        sets it.
        """
        store, parent = self.site.store, str(destination.parent)
        with suppress(BadInput):
            self.patience.insist(lambda: close_parent(store, parent, status))

    def _mark_failed(self, queue: Queue, destination: Destination) -> None:
        """Mark as FAILED the runs whose trials were ended before they could."""
        if not queue.failures:
            return
        marked = failed_ids(self.site.store, destination.experiment, self.driver)
        device = choose_device(self.site.device)
        for spec_id in queue.failures.keys() - marked:
            spec = queue.specs[spec_id]
            made = origin.here(spec, self.site.data, device)
            destination.open_log(spec, made, ()).fail(queue.failures[spec_id])

    def close_finished(self, queue: Queue, destination: Destination) -> None:
        """Write and say that there was nothing left to run. No back end starts, so what a sweep
        has left that was killed as its last run ended is removed here.
        """
        remove_leftovers(storage.local_folder(self.site.folder))
        self._write_searched(queue, destination)
        self._close_parent(destination, DONE)
        where = f"in experiment {self.site.experiment!r}"
        self.say(f"{self.plan.title}: all {queue.expected} runs are finished already {where}")

    def _write_searched(self, queue: Queue, destination: Destination) -> None:
        """What the searches have chosen, in the sweep's run; a store that is away has none of the
        runs either.
        """
        searches = self.plan.searches
        if not searches:
            return
        from backstop.platform.sweeps import reports

        chosen = [reports.searched_by(search) for search in searches]
        parent, store = str(destination.parent), self.site.store
        values, note = reports.best_values(searches), reports.searches_note(searches)

        def write() -> None:
            write_searched(store, parent, [item for item in chosen if item is not None])
            write_best(store, parent, values, note)
            write_view(store, destination.experiment, queue.specs.values())

        with suppress(BadInput):  # what is not stored is said run by run
            self.patience.insist(write)

    def _check_origin(self, queue: Queue, finished: Sequence[Run]) -> None:
        """Before anything is trained: the data of stored and of half-done runs are those of today,
        and the versions those of the store. A plug-in's changed code is warned of.
        """
        site = self.site
        stored = self._stored_on_these_data(finished)
        saved = checks.read_checkpoints(queue.waiting, site.checkpoints)
        started = [Made(spec, checkpoint.origin) for spec, checkpoint in saved]
        try:
            of_stored = origin.other_data_of(stored, site.data)
            of_started = origin.other_data_of(started, site.data)
        except BadInput as error:
            if queue.waiting:
                raise
            unknown = "whether the data are still those of the runs is not known"
            self.say(f"backstop: {unknown}: {error}")
            return
        checks.check_data(of_stored, of_started, name=site.experiment, checkpoints=site.checkpoints)
        if warning := checks.code_warning([*stored, *started]):
            self.say(f"backstop: {warning}")
        if not queue.waiting or self.backend.elsewhere:
            return
        if not site.mix_fingerprints:
            checks.check_fingerprints(finished, site.device, site.experiment)
        checks.say_restarts(saved, site.device, self.say)

    def _stored_on_these_data(self, finished: Sequence[Run]) -> list[Made]:
        """The stored runs on a dataset that the plan uses too, with their origins."""
        datasets = {str(spec.dataset) for spec in self.plan.specs}
        made = checks.runs_made(finished)
        return [one for one in made if str(one.spec.dataset) in datasets]


class _Shortfall(NamedTuple):
    """What runs of a sweep lack, why, and what to do about it."""

    what: str
    reason: str
    remedy: str


def shortfalls(queue: Queue, site: Site) -> list[str]:
    """Which runs of a sweep failed or are not stored, and why: a line for each reason, and for
    failures one more that says where to read on and how to run one of them alone.
    """
    affected: dict[_Shortfall, list[Spec]] = {}
    for spec_id, shortfall in _each_shortfall(queue, site.checkpoints):
        affected.setdefault(shortfall, []).append(queue.specs[spec_id])
    lines = []
    for shortfall, specs in affected.items():
        what, reason, remedy = shortfall
        runs = plural(len(specs), "run")
        lines.append(f"{runs} {what}: {reason} ({_listed(specs)}); {remedy}")
        if what == FAILED:
            lines.append(_follow_up(specs[0], site))
    return [*lines, *queue.findings]


def _follow_up(spec: Spec, site: Site) -> str:
    """Where the log of a failed run is, if it has one, and the command that runs it alone."""
    log = log_path(storage.local_folder(site.folder) / LOGS, spec.id)
    where = f"its log: {log}; " if log.exists() else ""
    options = f"--experiment {shlex.quote(site.experiment)} --store {shlex.quote(str(site.folder))}"
    return f"  {spec.id[:12]} {where}alone: {run_command(spec)} {options}"


def _each_shortfall(queue: Queue, checkpoints: Location) -> Iterator[tuple[str, _Shortfall]]:
    """The ids of the runs that failed or are not stored, each with what it lacks."""
    again = "the same command tries again, and runs nothing else"
    for spec_id, reason in queue.failures.items():
        yield spec_id, _Shortfall(FAILED, reason, again)
    kept = f"kept in {checkpoints}; the same command sends what waits, without training again"
    lost = f"not kept in {checkpoints} either; the same command trains again"
    for spec_id, item in queue.unstored.items():
        remedy = kept if item.kept else lost
        yield spec_id, _Shortfall("trained but not stored", item.reason, remedy)


def _listed(specs: Sequence[Spec]) -> str:
    """Runs for people, the first few of many."""
    named = [f"{spec.id[:12]} {run_words(spec)}" for spec in specs[:RUNS_LISTED]]
    if len(specs) > RUNS_LISTED:
        named.append(f"and {len(specs) - RUNS_LISTED} more")
    return "; ".join(named)
