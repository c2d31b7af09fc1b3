"""Clients on Ray actors: blocks of clients shared out, results put together in the order of the
cohort.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from backstop.platform import loose
from backstop.platform.contract import BrokenStage, Data, Prediction, Question, Samples
from backstop.platform.loose import LooseFile
from backstop.platform.specs.spec import Spec
from backstop.platform.training import federation, loading, local_sgd
from backstop.platform.training.client_rules import NOTHING_KEPT, Round
from backstop.platform.training.device import choose_device
from backstop.platform.training.evaluate import Probe, Staged, batch_count
from backstop.platform.training.federation import Federation
from backstop.platform.training.local_sgd import Sheet, Trained
from backstop.platform.training.matrix import Matrix, WholeMatrix
from backstop.platform.training.mean import finite_rows
from backstop.platform.training.own_tests import OwnPredictions, OwnTest
from backstop.platform.training.validation import honest_scores
from backstop.platform.workers import apart, memory
from backstop.platform.workers.apart import Block, Cut, MatrixApart, SectionJob
from backstop.platform.workers.arrays import shareable, view
from backstop.platform.workers.clients import predicted_by_one, predicted_labels
from backstop.platform.workers.limits import Guard, Limits

READY_TIMEOUT = 120.0  # seconds a fresh actor gets to answer before it is given up and replaced
# replacements for one actor in a row, and actors that one call may end, before the experiment fails
TRIES = 5
# of the memory that a process may take: what a round's rows may have in one. The object store holds
# them a second time while they come, and a defense that changes rows makes a third matrix
GATHERED = 0.25


class Worker:
    """What runs inside a client actor: a federation of its own, built from the spec and the shared
    dataset.
    """

    def __init__(self, device: str, limits: Limits = Limits()) -> None:  # noqa: B008 -- as below
        """Pin the process to one thread and its device. Its trial watches the time, in a process
        of its own.
        """
        torch.set_num_threads(1)
        memory.keep_free_memory()
        self.guard = Guard(limits._replace(minutes=None))
        self.device = choose_device(device)
        self.sets: dict[str, Staged] = {}
        self.unpacked: tuple[str, Data] | None = None  # the dataset at hand, with its key

    def ready(self) -> bool:
        """Answer once the process is up."""
        return True

    def open(
        self,
        spec: Spec,
        key: str,
        arrays: dict[str, Any],
        files: Sequence[LooseFile] = (),
    ) -> None:
        """Take up an experiment. ``arrays`` is the dataset as numpy arrays in shared memory, read
        once per node; ``files`` are the loose files that its plug-ins may be in.
        """
        loose.receive(files)
        self.guard.begin(spec.id)
        data = self._dataset(key, arrays)
        self.built = federation.build_federation(spec, data, self.device)
        self.sets.clear()
        self._stage("clean", self.built.data.test.x)

    def _dataset(self, key: str, arrays: dict[str, Any]) -> Data:
        """The dataset of this key, unpacked where another one is at hand."""
        if self.unpacked is None or self.unpacked[0] != key:
            self.unpacked = (key, unpack(arrays))
        return self.unpacked[1]

    def probe(self, triggered: Any) -> None:
        """Take the triggered test set, (N, …)."""
        self._stage("triggered", self._tensor(triggered))

    def _stage(self, name: str, x: Tensor) -> None:
        self.sets[name] = Staged(self.built.net, x)

    def train(
        self,
        round_index: int,
        unit: Sequence[int],
        params: Any,
        buffers: Any,
        state: Any,
        attacked: bool,
        own: Mapping[int, Any],
    ) -> tuple[Any, ...]:
        """Train one block; numpy in, numpy out."""
        start, first = self._vectors(params, buffers)
        trained = local_sgd.train(
            self.built,
            round_index,
            unit,
            start,
            first,
            state,
            attacked,
            Sheet(unit, start, first, {client: self._tensor(kept) for client, kept in own.items()}),
        )
        return tuple(column.cpu().numpy() for column in trained)

    def train_apart(
        self,
        where: Sequence[Cut],
        *given: Any,
    ) -> Iterator[Any]:
        """Train one block, ``given`` as to :meth:`train`: first what is not its rows, and which of
        them are finite, then a section of the rows after the other.
        """
        client, rows, buffers, loss, _ = self.train(*given)
        values = view(rows)
        yield client, buffers, loss, finite_rows(values).numpy()
        yield from apart.pieces(values, where)

    def defend(
        self,
        job: SectionJob,
        answers: Sequence[Any],
        *blocks: Any,
    ) -> Any:
        """What the defense makes of a section of the rows, or what it asks of the others."""
        return job.defended(self.built.defense, blocks, answers)

    def predict(
        self,
        batches: Mapping[str, Sequence[int]],
        params: Any,
        buffers: Any,
        defended: int | None,
    ) -> dict[str, list[tuple[Any, Any]]]:
        """Labels, and radii where there are any, of some evaluation batches of each test set."""
        vectors = self._vectors(params, buffers)
        predicted = {}
        for name, indices in batches.items():
            staged = self.sets[name]
            predictions = predicted_labels(
                self.built,
                staged,
                vectors,
                indices,
                defended,
            )
            predicted[name] = [_as_arrays(prediction) for prediction in predictions]
        return predicted

    def predict_each(
        self,
        parts: Mapping[int, tuple[Any, Any]],
        params: Any,
        buffers: Any,
        own: Mapping[int, Any],
        defended: int | None,
    ) -> dict[int, list[tuple[Any, Any] | None]]:
        """Labels, and radii where there are any, of some clients' parts of each test set, as each
        client's model has them.
        """
        vectors = self._vectors(params, buffers)
        triggered = self.sets.get("triggered")
        x = (self.sets["clean"].x, triggered.x if triggered else None)
        predicted = {}
        for client, part in parts.items():
            kept = self._tensor(own[client]) if client in own else None
            model = self.built.of_client(vectors, kept)
            both = predicted_by_one(self.built, model, x, OwnTest(*map(view, part)), defended)
            predicted[client] = [_as_arrays(one) if one else None for one in both]
        return predicted

    def score(
        self,
        round_index: int,
        client: int,
        vectors: Sequence[Any],
        kept: Mapping[int, Any],
        models: Any,
        question: Question,
    ) -> Any:
        """What one client honestly answers; ``question`` comes without its models (k, d)."""
        params, buffers = self._vectors(*vectors)
        own = {owner: self._tensor(array) for owner, array in kept.items()}
        here = Round(self.built, round_index, params, buffers, None, {}, own)
        whole = question._replace(models=self._tensor(models))
        return shareable(honest_scores(here, client, whole))

    def _vectors(self, params: Any, buffers: Any) -> tuple[Tensor, Tensor]:
        return self._tensor(params), self._tensor(buffers)

    def _tensor(self, array: Any) -> Tensor:
        return view(array).to(self.device)


def _some(own: Mapping[int, Tensor], clients: Sequence[int]) -> dict[int, Any]:
    """What some clients have of their own, as arrays."""
    return {client: shareable(own[client]) for client in clients if client in own}


def _as_arrays(prediction: Prediction) -> tuple[Any, Any]:
    label = prediction.label.cpu().numpy()
    if prediction.radius is None:
        return label, None
    return label, prediction.radius.cpu().numpy()


def pack(data: Data) -> dict[str, Any]:
    """A dataset as numpy arrays and plain values: what the object store shares without copying."""
    packed: dict[str, Any] = {
        "classes": data.classes,
        "kind": data.kind,
        "mean": data.mean,
        "std": data.std,
    }
    for name, tensor in _tensors(data).items():
        packed[name] = None if tensor is None else tensor.numpy()
    return packed


def _tensors(data: Data) -> dict[str, Tensor | None]:
    """The tensors of a dataset, by the names under which they are packed."""
    return {
        "train_x": data.train.x,
        "train_y": data.train.y,
        "test_x": data.test.x,
        "test_y": data.test.y,
        "client": data.client,
        "vectors": data.vectors,
    }


def unpack(arrays: Mapping[str, Any]) -> Data:
    """The dataset that :func:`pack` packed, on the shared memory."""
    fields = dict(arrays)
    for name, value in arrays.items():
        if isinstance(value, np.ndarray):
            fields[name] = view(value)
    train = _take_samples(fields, "train")
    test = _take_samples(fields, "test")
    return Data(
        train=train,
        test=test,
        **fields,
    )


def _take_samples(fields: dict[str, Any], part: str) -> Samples:
    """The training or the test samples, taken out of the fields."""
    x = fields.pop(f"{part}_x")
    y = fields.pop(f"{part}_y")
    return Samples(x, y)


def _in_order(
    name: str,
    shares: Sequence[Mapping[str, Sequence[int]]],
    answers: Sequence[Mapping[str, Sequence[tuple[Any, Any]]]],
) -> list[tuple[Any, Any]]:
    """All actors' answers for one test set, batch after batch."""
    batches: dict[int, tuple[Any, Any]] = {}
    for share, answer in zip(shares, answers, strict=True):
        batches.update(zip(share[name], answer[name], strict=True))
    return [batches[index] for index in range(len(batches))]


def _joined(batches: Sequence[tuple[Any, Any]], device: torch.device) -> Prediction:
    """The answers for all batches of a test set as one."""
    labels, radii = zip(*batches, strict=True)
    label = _concatenated(labels, device)
    if radii[0] is None:
        return Prediction(label)
    return Prediction(label, _concatenated(radii, device))


def _concatenated(arrays: Sequence[Any], device: torch.device) -> Tensor:
    whole = np.concatenate(arrays)
    return torch.tensor(whole, device=device)


def _as_trained(arrays: Sequence[Any]) -> Trained:
    """The rows that an actor has trained, on the memory of its answer."""
    columns = map(view, arrays)
    return Trained(*columns)


def _last_first(count: int) -> list[int]:
    """Indices to be popped from the end, the lowest first."""
    return list(reversed(range(count)))


def _counts(probe: Probe) -> dict[str, int]:
    """How many samples each test set has."""
    counts = {"clean": len(probe.clean.y)}
    if probe.triggered is not None:
        counts["triggered"] = len(probe.triggered.wanted)
    return counts


class InObjectStore(NamedTuple):
    """What is in the object store."""

    item: Any  # the thing itself, or a key that tells it
    ref: Any

    def holds(self, item: Any) -> bool:
        """Whether it is this very object."""
        return self.item is item


class ActorShare(NamedTuple):
    """What one client actor takes of its node."""

    cpus: float = 1.0
    gpus: float = 0.0


class OnActors:
    """Clients on ``count`` Ray actors. Ray must be running; inside a trial the actors stand in its
    placement group.
    """

    def __init__(
        self,
        count: int,
        *,
        device: str = "cpu",
        share: ActorShare | None = None,
        limits: Limits = Limits(),  # noqa: B008 -- a named tuple: safe as a default
        in_sections: bool | None = None,
    ) -> None:
        """Start the actors; they come up while the caller goes on. ``in_sections`` says whether
        rows stay apart where they can; None: where they are large. The bytes are the same.
        """
        import ray

        self.ray = ray
        self.device = device
        self.limits = limits
        self.share = share or ActorShare(gpus=0.0 if device == "cpu" else 1.0)
        self.actors: list[Any] = [self._start() for _ in range(count)]
        self.experiment: tuple[Any, ...] | None = None  # what every actor's ``open`` is given
        self.data: InObjectStore | None = None  # a dataset by its key
        self.published_probe: InObjectStore | None = None
        self.kept: dict[str, InObjectStore] = {}
        self.in_sections = in_sections
        self.apart = False  # whether this experiment's rows stay where they are trained
        self.left_apart: MatrixApart | None = None  # the rows that were trained last, if so

    def _start(self) -> Any:
        actor = self.ray.remote(Worker).options(
            num_cpus=self.share.cpus,
            num_gpus=self.share.gpus,
            max_restarts=0,
            max_concurrency=1,
        )
        return actor.remote(self.device, self.limits)

    def open(self, built: Federation, folder: Path) -> None:
        """Take up an experiment: the dataset goes to the object store once, each actor builds its
        own federation.
        """
        self.built = built
        self.experiment = (built.spec, *self._put_dataset(built.spec, folder), loose.sent())
        self.published_probe = None
        self.kept = {}
        self.apart = self._stays_apart(built)
        opened = [self._configure(actor) for actor in self.actors]
        for slot, refs in enumerate(opened):
            self._await_ready(slot, refs)

    def _stays_apart(self, built: Federation) -> bool:
        """Whether the rows stay apart. Where they should and cannot, a line on stderr says why."""
        mib = 4 * built.spec.per_round * len(built.net.params) / memory.MEBIBYTE
        wanted = self.in_sections
        if wanted is None:
            wanted = mib > GATHERED * self._process_mib()
        reason = apart.why_gathered(built) if wanted else ""
        if reason:
            held = f"one process holds the {mib:,.0f} MiB of a round's rows"
            print(f"{held}: {reason}", file=sys.stderr, flush=True)
        return wanted and not reason

    def _process_mib(self) -> float:
        """The memory that each process of the experiment may take."""
        if self.limits.gib is not None:
            return self.limits.gib * 1024
        mib = memory.machine_mib()
        return math.inf if mib is None else mib / (len(self.actors) + 1)

    def _put_dataset(self, spec: Spec, folder: Path) -> InObjectStore:
        """The spec's dataset in the object store, put there where another one is."""
        key = f"{folder}:{spec.dataset}"
        if self.data is None or self.data.item != key:
            data = loading.load_dataset(spec.dataset, folder)
            self.data = InObjectStore(key, self.ray.put(pack(data)))
        return self.data

    def _configure(self, actor: Any) -> list[Any]:
        """Bring an actor up to date: the experiment, and the triggered test set if there is one."""
        if self.experiment is None:
            return [actor.ready.remote()]
        refs = [actor.open.remote(*self.experiment)]
        if self.published_probe:
            refs.append(actor.probe.remote(self.published_probe.ref))
        return refs

    def _await_ready(self, slot: int, refs: list[Any]) -> None:
        """Wait until an actor is up to date; replace it where it dies or does not come up."""
        for attempt in range(TRIES):
            try:
                self.ray.get(refs, timeout=READY_TIMEOUT)
                return
            except (self.ray.exceptions.RayActorError, self.ray.exceptions.GetTimeoutError):
                if attempt == TRIES - 1:
                    raise
                # right after a node is lost, a new actor may still be placed on it
                time.sleep(attempt)
                refs = self._replace(slot)

    def _replace(self, slot: int) -> list[Any]:
        """Start another actor in the slot; what to wait for until it is up to date."""
        self._kill(slot)
        self.actors[slot] = self._start()
        return self._configure(self.actors[slot])

    def _kill(self, slot: int) -> None:
        with contextlib.suppress(Exception):
            self.ray.kill(self.actors[slot])

    def _map(self, calls: Sequence[Callable[[Any], Any]]) -> list[Any]:
        """Do all calls on whichever actor is free; results in the order of the calls. A dead
        actor's call is done again, unless it is the call that ends every actor.
        """
        results: list[Any] = [None] * len(calls)
        deaths = [0] * len(calls)
        waiting = _last_first(len(calls))
        free = _last_first(len(self.actors))
        busy: dict[Any, tuple[int, int]] = {}  # what is awaited: the actor's slot, the call's index
        while waiting or busy:
            while waiting and free:
                slot, index = free.pop(), waiting.pop()
                answer = calls[index](self.actors[slot])
                busy[answer] = (slot, index)
            done = self._first_done(busy)
            slot, index = busy.pop(done)
            try:
                results[index] = self._result(done)
            except self.ray.exceptions.RayActorError:
                deaths[index] += 1
                if deaths[index] == TRIES:
                    raise
                self._await_ready(slot, self._replace(slot))
                waiting.append(index)
            free.append(slot)
        return results

    def _map_apart(
        self,
        calls: Sequence[Callable[[Any], list[Any]]],
    ) -> list[tuple[Any, list[Any]]]:
        """The same for calls with several answers, of which the first comes here and references
        tell where the others are.
        """
        others: dict[int, list[Any]] = {}

        def first(
            index: int,
            call: Callable[[Any], list[Any]],
            actor: Any,
        ) -> Any:
            answer, *others[index] = call(actor)
            return answer

        answers = self._map([partial(first, index, call) for index, call in enumerate(calls)])
        return [(answer, others[index]) for index, answer in enumerate(answers)]

    def _first_done(self, awaited: Iterable[Any]) -> Any:
        """The first of the answers to be there; waits for it."""
        (done,), _ = self.ray.wait(list(awaited), num_returns=1)
        return done

    def _result(self, done: Any) -> Any:
        """What a call returned. A broken stage is its one line instead of Ray's traceback."""
        try:
            return self.ray.get(done)
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, BrokenStage):
                raise error.cause from error
            raise

    def train(
        self,
        round_index: int,
        cohort: Sequence[int],
        params: Tensor,
        buffers: Tensor,
        state: Any,
        own: Mapping[int, Tensor] = NOTHING_KEPT,
    ) -> Trained:
        """Rows of the cohort in a round, sorted by client id. The global vectors are put into the
        object store once.
        """
        attacked = self.built.attacked(round_index)
        units = local_sgd.blocks(self.built, round_index, cohort, attacked)
        shared = self._put_vectors(params, buffers)
        attack_state = self._keep("state", state)

        blocks = [
            (round_index, unit, *shared, attack_state, attacked, _some(own, unit)) for unit in units
        ]
        if self.apart:
            return self._train_apart(blocks, sorted(cohort), params, buffers)

        def call(block: tuple[Any, ...]) -> Callable[[Any], Any]:
            return lambda actor: actor.train.remote(*block)

        sheet = Sheet(sorted(cohort), params, buffers, own)
        for part in self._map([call(block) for block in blocks]):
            sheet.copy(_as_trained(part))
        return sheet.trained

    def _train_apart(
        self,
        blocks: Sequence[tuple[Any, ...]],
        cohort: Sequence[int],
        params: Tensor,
        buffers: Tensor,
    ) -> Trained:
        """Train blocks whose rows stay in the object store; here they have no coordinates."""
        where = apart.cuts(len(cohort), len(params), len(self.actors))
        sheet = Sheet(cohort, params[:0], buffers)
        finite = torch.zeros(len(cohort), dtype=torch.bool)

        def call(block: tuple[Any, ...]) -> Callable[[Any], list[Any]]:
            return lambda actor: actor.train_apart.options(num_returns=1 + len(where)).remote(
                where, *block
            )

        stored = []
        for told, rows in self._map_apart([call(block) for block in blocks]):
            client, changes, loss, sound = map(view, told)
            nothing = params.new_empty(len(client), 0)
            sheet.copy(Trained(client, nothing, changes, loss, nothing))
            numbers = [sheet.row_of[number] for number in client.tolist()]
            finite[numbers] = sound
            stored.append(Block(numbers, rows))
        self.left_apart = MatrixApart(self.ray, self._map, where, stored, finite)
        return sheet.trained

    def matrix(self, trained: Trained) -> Matrix:
        """The rows that were trained last; nothing is held of them here from then on."""
        left, self.left_apart = self.left_apart, None
        return left or WholeMatrix(trained.rows)

    def score(
        self,
        round_index: int,
        voters: Sequence[int],
        params: Tensor,
        buffers: Tensor,
        own: Mapping[int, Tensor],
        question: Question,
    ) -> Tensor:
        """What each of these clients honestly answers, in their order. The models are put into the
        object store once.
        """
        vectors = [shareable(vector) for vector in (params, buffers)]
        models = self.ray.put(shareable(question.models))
        told = question._replace(models=question.models[:0], sender=question.sender.cpu())

        def call(client: int) -> Callable[[Any], Any]:
            kept = _some(own, [client])
            return lambda actor: actor.score.remote(
                round_index, client, vectors, kept, models, told
            )

        try:
            scores = self._map([call(client) for client in voters])
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from None
        return torch.stack(list(map(view, scores))).to(params.device)

    def predict(
        self,
        params: Tensor,
        buffers: Tensor,
        probe: Probe,
        defended: int | None = None,
    ) -> tuple[Prediction, Prediction | None]:
        """What the model predicts for the clean and for the triggered test set, the evaluation
        batches dealt out to the actors.
        """
        self._publish(probe)
        shared = self._put_vectors(params, buffers)
        counts = _counts(probe)
        shares = [self._batches(slot, counts) for slot in range(len(self.actors))]

        def call(share: Mapping[str, Sequence[int]]) -> Callable[[Any], Any]:
            return lambda actor: actor.predict.remote(share, *shared, defended)

        answers = self._map([call(share) for share in shares])
        predicted = {}
        for name in counts:
            batches = _in_order(name, shares, answers)
            predicted[name] = _joined(batches, params.device)
        return predicted["clean"], predicted.get("triggered")

    def predict_each(
        self,
        params: Tensor,
        buffers: Tensor,
        own: Mapping[int, Tensor],
        probe: Probe,
        parts: Mapping[int, OwnTest],
        defended: int | None = None,
    ) -> dict[int, OwnPredictions]:
        """What each client's model predicts for its part of the test sets, the clients dealt out to
        the actors.
        """
        self._publish(probe)
        shared, clients = self._put_vectors(params, buffers), list(parts)
        shares = [clients[slot :: len(self.actors)] for slot in range(len(self.actors))]

        def call(share: Sequence[int]) -> Callable[[Any], Any]:
            index = {client: tuple(map(shareable, parts[client])) for client in share}
            kept = _some(own, share)
            return lambda actor: actor.predict_each.remote(index, *shared, kept, defended)

        predicted = {}
        for answer in self._map([call(share) for share in shares]):
            for client, both in answer.items():
                predicted[client] = OwnPredictions(
                    *(_joined([one], params.device) if one else None for one in both)
                )
        return predicted

    def _publish(self, probe: Probe) -> None:
        """Give all actors the triggered test set, where they do not have this one yet."""
        triggered, published = probe.triggered, self.published_probe
        if triggered is None or (published is not None and published.holds(triggered)):
            return
        ref = self.ray.put(shareable(triggered.x))
        self.published_probe = InObjectStore(triggered, ref)
        for slot, actor in enumerate(self.actors):
            self._await_ready(slot, [actor.probe.remote(ref)])

    def _batches(self, slot: int, counts: Mapping[str, int]) -> dict[str, range]:
        """The evaluation batches of an actor, the same every round, so that each normalizes and
        keeps its own share of them only.
        """
        return {
            name: range(slot, batch_count(count), len(self.actors))
            for name, count in counts.items()
        }

    def _put_vectors(self, params: Tensor, buffers: Tensor) -> tuple[Any, Any]:
        shared_params = self._keep("params", params)
        shared_buffers = self._keep("buffers", buffers)
        return shared_params, shared_buffers

    def _keep(self, name: str, item: Any) -> Any:
        """The reference of an item, put anew only when it is another object than last time."""
        last = self.kept.get(name)
        if last is not None and last.holds(item):
            return last.ref
        ref = self.ray.put(shareable(item))
        self.kept[name] = InObjectStore(item, ref)
        return ref

    def close(self) -> None:
        """Stop the actors."""
        for slot in range(len(self.actors)):
            self._kill(slot)
        self.actors = []
