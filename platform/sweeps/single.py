"""One experiment that is no part of a sweep, on its way into a store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from backstop.platform.experiment import Experiment
from backstop.platform.params import BadInput
from backstop.platform.results.tracking import drivers
from backstop.platform.results.tracking.experiments import open_experiment
from backstop.platform.results.tracking.runs import Run, find_run
from backstop.platform.results.tracking.scribe import Scribe
from backstop.platform.results.tracking.store import Store, is_new
from backstop.platform.results.tracking.sweeps import (
    Interrupted,
    drivers_home,
    mark_interrupted,
    stop_runs,
)
from backstop.platform.rounds import origin
from backstop.platform.rounds.checkpoint import Checkpoint
from backstop.platform.specs.spec import Spec
from backstop.platform.storage import Location
from backstop.platform.sweeps.session import Destination, Session


@contextmanager
def open_single(
    store: Store,
    folder: Location,
    name: str,
    scribe: Scribe,
    *,
    keeps_models: bool = True,
) -> Iterator[Single]:
    """Be at work on an MLflow experiment while the block lasts: what is left unfinished is KILLED.

    Raises BadInput for a store that cannot be used, before anything is trained.
    """
    home = drivers_home(store, folder)
    with drivers.at_work(home) as driver:
        single = Single(store, folder, name, driver, scribe, keeps_models=keeps_models)
        try:
            yield single
        finally:
            with suppress(BadInput):  # whoever looks after that marks them
                if single.experiment_id:
                    scribe.ask(stop_runs, store, single.experiment_id, driver)
                drivers.forget(home, driver)


class Single:
    """The store of a run of its own; a new one is made when it is first needed."""

    def __init__(
        self,
        store: Store,
        folder: Location,
        name: str,
        driver: str,
        scribe: Scribe,
        *,
        keeps_models: bool = True,
    ) -> None:
        """``folder`` holds the checkpoints, ``name`` is the MLflow experiment's, ``scribe`` does
        what is to be done to the store.
        """
        self.store, self.folder, self.name, self.driver = store, folder, name, driver
        self.scribe = scribe
        self.keeps_models = keeps_models
        self.checkpoints = folder / "checkpoints"
        self.experiment_id = "" if is_new(store) else scribe.ask(open_experiment, store, name)

    def mark_interrupted(self) -> Interrupted:
        """What nobody works on any more in the experiment, marked as KILLED."""
        if not self.experiment_id:
            return Interrupted(0, 0)
        return self.scribe.ask(mark_interrupted, self.store, self.folder, self.name)

    def finished(self, spec: Spec, data: Path) -> Run | None:
        """The finished run of a spec. Raises BadInput where it has read other data than today's."""
        if not self.experiment_id:
            return None
        run = self.scribe.ask(find_run, self.store, self.name, spec)
        if run is None:
            return None
        if changed := origin.other_data(run.data, spec.dataset, data):
            raise BadInput(
                f"this spec is finished in {self.where(run)}, and {changed}; "
                f"put the old data back; {self.another}"
            )
        return run

    def where(self, run: Run) -> str:
        """Where a run stands, in words."""
        return f"experiment {self.name!r} of {self.store.uri}, MLflow run {run.run_id}"

    @property
    def another(self) -> str:
        """How a spec that is finished is run once more, in words."""
        return "to run it anew, give it another --experiment"

    def session(self, experiment: Experiment) -> Session:
        """The experiment, taken up where its checkpoint left off.

        Raises BadInput where its first rounds have read other data than are there now.
        """
        spec = experiment.spec
        saved = Checkpoint(self.checkpoints, spec.id).read()
        if saved is not None:
            self._check_data(saved.origin.data, spec, experiment.folder)
        return Session(experiment, self.checkpoints, self._destination)

    def _check_data(
        self,
        digest: str,
        spec: Spec,
        data: Path,
    ) -> None:
        if changed := origin.other_data(digest, spec.dataset, data):
            path = Checkpoint(self.checkpoints, spec.id).path
            raise BadInput(
                f"this run has begun, and {changed}; put the old data back, "
                f"or remove {path} to begin anew"
            )

    def _destination(self) -> Destination:
        if not self.experiment_id:
            self.experiment_id = self.scribe.ask(open_experiment, self.store, self.name)
        return Destination(
            self.store,
            self.experiment_id,
            self.checkpoints,
            self.driver,
            keeps_models=self.keeps_models,
            scribe=self.scribe,
        )
