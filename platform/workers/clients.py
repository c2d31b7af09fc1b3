"""Who trains the blocks: the interface, and training in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from backstop.platform import seeds
from backstop.platform.contract import Prediction
from backstop.platform.training import local_sgd
from backstop.platform.training.evaluate import Probe, Staged, batch_count, joined
from backstop.platform.training.federation import Federation
from backstop.platform.training.local_sgd import Trained


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
    ) -> Trained:
        """Rows of the cohort in a round, sorted by client id. ``state`` is the attack's."""

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


def gather(parts: Sequence[Trained]) -> Trained:
    """All blocks of a round as one, sorted by client id."""
    joined = Trained(*(torch.cat(column) for column in zip(*parts, strict=True)))
    order = joined.client.argsort()
    return Trained(*(column[order.to(column.device)] for column in joined))


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
    return staged.defended(predict, *vectors, batches, draws)


class InProcess:
    """All clients in this process, one block after another."""

    def open(self, built: Federation, folder: Path) -> None:
        """Take up an experiment."""
        del folder
        self.built = built
        self.staged: dict[str, Staged] = {}

    def train(
        self,
        round_index: int,
        cohort: Sequence[int],
        params: Tensor,
        buffers: Tensor,
        state: Any,
    ) -> Trained:
        """Rows of the cohort in a round, sorted by client id."""
        attacked = self.built.attacked(round_index)
        with one_thread():
            units = local_sgd.blocks(self.built, round_index, cohort, attacked)
            return gather(
                [
                    local_sgd.train(self.built, round_index, unit, params, buffers, state, attacked)
                    for unit in units
                ]
            )

    def predict(
        self,
        params: Tensor,
        buffers: Tensor,
        probe: Probe,
        defended: int | None = None,
    ) -> tuple[Prediction, Prediction | None]:
        """What the model predicts for the clean and for the triggered test set."""
        vectors = (params, buffers)
        with one_thread():
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
        """The predictions for one test set, which is staged once."""
        if name not in self.staged or self.staged[name].x is not x:
            self.staged[name] = Staged(self.built.net, x)
        batches = range(batch_count(len(x)))
        return joined(predicted_labels(self.built, self.staged[name], vectors, batches, defended))

    def close(self) -> None:
        """Nothing to give back."""
