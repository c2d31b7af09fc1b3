"""A sweep on a back end of one's own: what it has to do, and what it gets from the platform."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from threading import Event

import pytest

from backstop.platform.contract import Part, Spec
from backstop.platform.experiment import Experiment, run
from backstop.platform.params import BadInput
from backstop.platform.results.tracking.description import run_command
from backstop.platform.results.tracking.runs import read_runs
from backstop.platform.results.tracking.store import locate_store, mlflow_client
from backstop.platform.rounds.checkpoint import saved_ids
from backstop.platform.rounds.finals import final
from backstop.platform.storage import local_folder
from backstop.platform.sweeps.backend import Backend, Observer, Task
from backstop.platform.sweeps.beside import Beside
from backstop.platform.sweeps.conduct import Site, conduct, shortfalls
from backstop.platform.sweeps.plan import SweepPlan
from backstop.platform.sweeps.queues import Finals, Fixed, Queue
from backstop.platform.workers.limits import log_path

BASE = Spec(
    dataset=Part("synthetic"),
    model=Part("logistic"),
    clients=4,
    per_round=4,
    rounds=3,
    batch=16,
    root_size=4,
    alpha=None,
)


class OneByOne:
    """The smallest back end: one trial after another, in this process."""

    name, elsewhere = "a loop", False

    def check(self) -> None:
        pass

    def start(self) -> AbstractContextManager[None]:
        return nullcontext()

    def run(self, queue: Queue, task: Task, observer: Observer) -> None:
        while queue.fill():
            spec = queue.waiting.pop(0)
            observer.started(spec)
            session = task.session(spec)
            for record in session.rounds():
                observer.result(spec, record.round + 1, record.metrics)
            outcome = session.finish()
            queue.ended(spec, outcome)
            observer.ended(spec, outcome.finals, outcome.stored)


class Seen:
    """What an observer is told."""

    def __init__(self) -> None:
        self.rounds: list[int] = []
        self.ends: list[bool] = []

    def started(self, spec: Spec) -> None:
        pass

    def result(self, spec: Spec, rounds: int, last: Finals) -> None:
        self.rounds.append(rounds)

    def ended(self, spec: Spec, finals: Finals | None, stored: bool) -> None:
        self.ends.append(stored)


def conducted(site: Site, backend: Backend, specs: list[Spec]) -> tuple[Queue, Seen, list[str]]:
    """A sweep of the specs, what its observer saw and what was said."""
    seen = Seen()
    said: list[str] = []

    @contextmanager
    def watch(queue: Queue) -> Iterator[Seen]:
        yield seen

    plan = SweepPlan("tiny", Fixed(specs), specs)
    return conduct(plan, site, backend, watch=watch, say=said.append), seen, said


def finals_of(queue: Queue, spec: Spec) -> Finals:
    """What a run has come to, without what it cost."""
    results = queue.results[spec.id] or {}
    return {name: value for name, value in results.items() if name.startswith("final/")}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(locate_store(tmp_path), tmp_path, "tiny", tmp_path / "data", "cpu")


def test_a_loop_of_a_few_lines_runs_a_sweep(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [BASE, BASE.replace(seed=1)]
    queue, seen, said = conducted(site, OneByOne(), specs)
    assert said == [f"tiny: starting a loop and a new store in {site.folder} …"]
    assert (seen.rounds, seen.ends) == ([1, 2, 3] * 2, [True, True])
    expected = {spec.id: final(list(run(spec, folder=site.data, device="cpu"))) for spec in specs}
    assert {spec.id: finals_of(queue, spec) for spec in specs} == expected
    assert all("time/total_aggregate_s" in (queue.results[spec.id] or {}) for spec in specs)
    stored = read_runs(site.store, "tiny")
    assert {item.id: dict(item.metrics) for item in stored} == expected
    assert shortfalls(queue, site) == []

    monkeypatch.setattr(Experiment, "round", lambda _: pytest.fail("all runs are finished"))
    again, _, said = conducted(site, OneByOne(), specs)
    assert list(again.finished) == stored
    assert (again.skipped, said) == (
        2,
        ["tiny: all 2 runs are finished already in experiment 'tiny'"],
    )


def test_a_sweep_goes_on_from_what_a_stopped_back_end_has_left(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    from backstop.platform.sweeps import session

    monkeypatch.setattr(session, "SAVE_INTERVAL_S", 0.0)  # after every round
    real, rounds = Experiment.round, []

    def stopping(self: Experiment) -> object:
        rounds.append(self.state.round)
        if len(rounds) == 3:
            raise KeyboardInterrupt
        return real(self)

    monkeypatch.setattr(Experiment, "round", stopping)
    with pytest.raises(KeyboardInterrupt):
        conducted(site, OneByOne(), [BASE])
    assert [item.status for item in read_runs(site.store, "tiny", status=None)] == ["KILLED"]
    queue, _, said = conducted(site, OneByOne(), [BASE])
    assert rounds == [0, 1, 2, 2]
    assert said == ["tiny: starting a loop; 0 of 1 runs are finished already …"]
    monkeypatch.setattr(Experiment, "round", real)
    assert finals_of(queue, BASE) == final(list(run(BASE, folder=site.data, device="cpu")))
    assert saved_ids(site.checkpoints) == set()


def test_a_back_end_that_cannot_start_is_asked_before_a_store_is_made(site: Site) -> None:
    class Away(OneByOne):
        def check(self) -> None:
            raise BadInput("nobody answers")

    with pytest.raises(BadInput, match="nobody answers"):
        conducted(site, Away(), [BASE])
    assert not list(local_folder(site.folder).iterdir())


class Observed(OneByOne):
    """A back end that tells when it starts and ends."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    @contextmanager
    def _running(self) -> Iterator[None]:
        self.seen.append("started")
        yield
        self.seen.append("ended")

    def start(self) -> AbstractContextManager[None]:
        return self._running()


def test_a_back_end_starts_while_the_plan_is_tried_and_ends_where_that_fails(site: Site) -> None:
    backend = Observed()
    absent = BASE.replace(dataset=Part("mnist"), model=Part("mlp"))
    with pytest.raises(BadInput, match="mnist"):
        conducted(site, backend, [absent])
    assert backend.seen == ["started", "ended"]


def test_a_finished_sweep_does_not_wait_for_its_back_end_to_end(site: Site) -> None:
    backend, board_is_written = Observed(), Event()

    @contextmanager
    def slow_to_end() -> Iterator[None]:
        with backend.start():
            yield
            assert board_is_written.wait(30.0)

    @contextmanager
    def watch(_: Queue) -> Iterator[Seen]:
        yield Seen()

    plan = SweepPlan("tiny", Fixed([BASE]), [BASE])
    with Beside(slow_to_end) as starting:
        conduct(plan, site, backend, starting=starting, watch=watch, say=lambda _: None)
        assert [run.status for run in read_runs(site.store, "tiny")] == ["FINISHED"]
        assert backend.seen == ["started"]
        board_is_written.set()
    assert backend.seen == ["started", "ended"]


class Ending(OneByOne):
    """A back end whose second trial is ended before it can say anything."""

    def run(self, queue: Queue, task: Task, observer: Observer) -> None:
        ended = queue.waiting.pop(1)
        queue.failed(ended, "its worker died")
        observer.ended(ended, None, False)
        super().run(queue, task, observer)


def test_a_trial_that_was_ended_from_outside_is_marked_and_the_end_says_how_to_go_on(
    site: Site,
) -> None:
    specs = [BASE, BASE.replace(seed=1)]
    queue, _, _ = conducted(site, Ending(), specs)
    stored = {run.id: run for run in read_runs(site.store, "tiny", status=None)}
    assert [stored[spec.id].status for spec in specs] == ["FINISHED", "FAILED"]
    client = mlflow_client(site.store.uri)
    tags = client.get_run(stored[specs[1].id].run_id).data.tags
    assert tags["backstop.error"] == "its worker died"
    log = log_path(local_folder(site.folder) / "logs", specs[1].id)
    log.parent.mkdir()
    log.write_text("long")
    reason, follow_up = shortfalls(queue, site)
    assert reason.startswith(f"1 run failed: its worker died ({specs[1].id[:12]} ")
    assert reason.endswith("; the same command tries again, and runs nothing else")
    command = f"{run_command(specs[1])} --experiment tiny --store {site.folder}"
    assert follow_up == f"  {specs[1].id[:12]} its log: {log}; alone: {command}"
    again, _, _ = conducted(site, OneByOne(), specs)
    assert shortfalls(again, site) == []
    assert len(read_runs(site.store, "tiny")) == 2
