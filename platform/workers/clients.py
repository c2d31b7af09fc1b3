"""Who trains the blocks: the interface, and training in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from backstop.platform import seeds
from backstop.platform.contract import Prediction, Question
from backstop.platform.training import local_sgd
from backstop.platform.training.client_rules import NOTHING_KEPT, Round
from backstop.platform.training.evaluate import Probe, Staged, batch_count, joined
from backstop.platform.training.federation import Federation, another
from backstop.platform.training.local_sgd import Sheet, Trained
from backstop.platform.training.matrix import Matrix, WholeMatrix
from backstop.platform.training.own_tests import OwnPredictions, OwnTest
from backstop.platform.training.validation import honest_scores
from backstop.platform.workers import memory

T = TypeVar("T")  # what is shared out


class Clients(Protocol):
    """Who trains and evaluates. ``open`` starts on an experiment; another one may follow on the
    same workers.
    """

    def open(self, built: Federation, folder: Path) -> None:
        """Take up an experiment."""

    def train(
        self,
        round_index: int,
        cohort: Sequence[int],
        params: Tensor,
        buffers: Tensor,
        state: Any,
        own: Mapping[int, Tensor] = NOTHING_KEPT,
    ) -> Trained:
        """Rows of the cohort in a round, sorted by client id. ``state`` is the attack's; ``own``
        holds for each what it has of its own, (p,), where the defense lets clients keep something.
        """

    def matrix(self, trained: Trained) -> Matrix:
        """The rows that were trained last: those of ``trained``, or where they are instead."""

    def score(
        self,
        round_index: int,
        voters: Sequence[int],
        params: Tensor,
        buffers: Tensor,
        own: Mapping[int, Tensor],
        question: Question,
    ) -> Tensor:
        """What each of these clients honestly answers in a round that began with the global
        vectors, (m, k, s) float64, in their order; ``own`` is what they have of their own.
        """

    def predict(
        self,
        params: Tensor,
        buffers: Tensor,
        probe: Probe,
        defended: int | None = None,
    ) -> tuple[Prediction, Prediction | None]:
        """What the model predicts for the clean and for the triggered test set: by its largest
        output, or as the defense says, where ``defended`` is the number of rounds that are done.
        """

    def predict_each(
        self,
        params: Tensor,
        buffers: Tensor,
        own: Mapping[int, Tensor],
        probe: Probe,
        parts: Mapping[int, OwnTest],
        defended: int | None = None,
    ) -> dict[int, OwnPredictions]:
        """What each client's model predicts for its part of the test sets: the global one with what
        the client has of its own.
        """

    def close(self) -> None:
        """Give the workers back."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread, because the thread count changes the bits of a sum; the old count is
    put back.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def predicted_labels(
    built: Federation,
    staged: Staged,
    vectors: tuple[Tensor, Tensor],
    batches: Sequence[int],
    defended: int | None,
) -> list[Prediction]:
    """The predictions for some evaluation batches, as both kinds of clients make them."""
    predict = built.defense.predict
    if defended is None or predict is None:
        return [Prediction(label) for label in staged.predict(*vectors, batches)]
    draws = seeds.generator(built.spec.seed, "predict", defended)
    return staged.defended(predict, *vectors, batches, draws, built.data.root)


def predicted_by_one(
    built: Federation,
    vectors: tuple[Tensor, Tensor],
    x: tuple[Tensor, Tensor | None],
    part: OwnTest,
    defended: int | None,
) -> OwnPredictions:
    """What one client's model predicts for its part of the clean and of the triggered inputs."""

    def predicted(inputs: Tensor | None, index: Tensor) -> Prediction | None:
        if inputs is None or not len(index):
            return None
        staged = Staged(built.net, inputs[index.to(inputs.device)])
        batches = range(batch_count(len(index)))
        return joined(predicted_labels(built, staged, vectors, batches, defended))

    return OwnPredictions(predicted(x[0], part.clean), predicted(x[1], part.triggered))


class InProcess:
    """All clients in this process, on one or more threads.

    Each thread computes with one kernel thread, in which the interpreter's lock is free, and on
    models and stages of its own, so that the bits are those of one thread.
    """

    def __init__(self, threads: int = 1) -> None:
        """``threads`` work side by side; a model on a GPU is served by the first alone."""
        self.threads = threads
        self.pool: ThreadPoolExecutor | None = None

    def open(self, built: Federation, folder: Path) -> None:
        """Take up an experiment."""
        del folder
        memory.keep_free_memory()
        self.built = built
        count = self.threads if built.device.type == "cpu" else 1
        self.lanes = [_Lane(built), *(_Lane(another(built)) for _ in range(count - 1))]
        if count > 1 and self.pool is None:
            self.pool = ThreadPoolExecutor(count - 1, "clients", torch.set_num_threads, (1,))

    def train(
        self,
        round_index: int,
        cohort: Sequence[int],
        params: Tensor,
        buffers: Tensor,
        state: Any,
        own: Mapping[int, Tensor] = NOTHING_KEPT,
    ) -> Trained:
        """Rows of the cohort in a round, sorted by client id."""
        attacked = self.built.attacked(round_index)
        sheet = Sheet(sorted(cohort), params, buffers, own)

        def work(lane: _Lane, unit: Sequence[int]) -> None:
            local_sgd.train(lane.built, round_index, unit, params, buffers, state, attacked, sheet)

        threads = len(self.lanes)
        self._share(local_sgd.blocks(self.built, round_index, cohort, attacked, threads), work)
        return sheet.trained

    def matrix(self, trained: Trained) -> Matrix:
        """The rows that were trained: they are here."""
        return WholeMatrix(trained.rows)

    def score(
        self,
        round_index: int,
        voters: Sequence[int],
        params: Tensor,
        buffers: Tensor,
        own: Mapping[int, Tensor],
        question: Question,
    ) -> Tensor:
        """What each of these clients honestly answers, in their order."""
        scores: dict[int, Tensor] = {}

        def work(lane: _Lane, client: int) -> None:
            here = Round(lane.built, round_index, params, buffers, None, {}, own)
            scores[client] = honest_scores(here, client, question)

        self._share(voters, work)
        return torch.stack([scores[client] for client in voters])

    def predict(
        self,
        params: Tensor,
        buffers: Tensor,
        probe: Probe,
        defended: int | None = None,
    ) -> tuple[Prediction, Prediction | None]:
        """What the model predicts for the clean and for the triggered test set."""
        vectors = (params, buffers)
        clean = self._labels("clean", probe.clean.x, vectors, defended)
        if probe.triggered is None:
            return clean, None
        return clean, self._labels("triggered", probe.triggered.x, vectors, defended)

    def _labels(
        self,
        name: str,
        x: Tensor,
        vectors: tuple[Tensor, Tensor],
        defended: int | None,
    ) -> Prediction:
        """The predictions for one test set; each thread stages batches of its own, once."""
        predicted: dict[int, Prediction] = {}
        count = len(self.lanes)

        def work(_: _Lane, share: int) -> None:
            lane, batches = self.lanes[share], range(share, batch_count(len(x)), count)
            labels = predicted_labels(lane.built, lane.stage(name, x), vectors, batches, defended)
            predicted.update(zip(batches, labels, strict=True))

        self._share(range(count), work)
        return joined([predicted[batch] for batch in sorted(predicted)])

    def predict_each(
        self,
        params: Tensor,
        buffers: Tensor,
        own: Mapping[int, Tensor],
        probe: Probe,
        parts: Mapping[int, OwnTest],
        defended: int | None = None,
    ) -> dict[int, OwnPredictions]:
        """What each client's model predicts for its part of the test sets."""
        predicted: dict[int, OwnPredictions] = {}
        x = (probe.clean.x, probe.triggered.x if probe.triggered else None)

        def work(lane: _Lane, client: int) -> None:
            vectors = self.built.of_client((params, buffers), own.get(client))
            predicted[client] = predicted_by_one(lane.built, vectors, x, parts[client], defended)

        self._share(parts, work)
        return predicted

    def _share(self, items: Iterable[T], work: Callable[[_Lane, T], None]) -> None:
        """Do the work on all items, each thread on the next that is left. Of several failures the
        one is raised that one thread would have met.
        """
        waiting = iter(enumerate(items))
        failures: dict[int, BaseException] = {}

        def go_on(lane: _Lane) -> None:
            for index, item in waiting:
                try:
                    work(lane, item)
                except BaseException as error:  # noqa: BLE001 -- raised below, by the caller
                    failures[index] = error
                if failures:
                    return

        with one_thread():
            try:
                self._on_lanes(go_on)
            except BaseException as error:
                failures[-1] = error
                raise
        if failures:
            raise failures[min(failures)]

    def _on_lanes(self, go_on: Callable[[_Lane], None]) -> None:
        """Let every thread, this one among them, go on until nothing is left. What a thread raises
        is raised here, once none of them works any more.
        """
        if self.pool is None:
            go_on(self.lanes[0])
            return
        first, *others = self.lanes
        working = [self.pool.submit(go_on, lane) for lane in others]
        go_on(first)
        wait(working)
        for thread in working:
            thread.result()

    def close(self) -> None:
        """End the threads; the next experiment starts new ones."""
        if self.pool is not None:
            self.pool.shutdown()
        self.pool = None


class _Lane:
    """What one thread works on."""

    def __init__(self, built: Federation) -> None:
        self.built = built
        self.staged: dict[str, Staged] = {}

    def stage(self, name: str, x: Tensor) -> Staged:
        """A test set, staged once."""
        if name not in self.staged or self.staged[name].x is not x:
            self.staged[name] = Staged(self.built.net, x)
        return self.staged[name]
