"""Client actors: the same bytes for any number of them, in any order, and when one dies in the
middle of a round.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from backstop.platform import seeds
from backstop.platform.contract import BrokenStage, Part, Prediction, Spec
from backstop.platform.experiment import Experiment, run
from backstop.platform.specs.part import to_chain
from backstop.platform.threats.backdoor import Planted
from backstop.platform.training import evaluate, local_sgd
from backstop.platform.training.local_sgd import Trained
from backstop.platform.workers import actors, rays
from backstop.platform.workers.actors import ActorShare, OnActors, Worker, pack, unpack
from backstop.platform.workers.clients import InProcess
from backstop.platform.workers.connection import local_ray

pytestmark = pytest.mark.xdist_group("actors")
NOWHERE = Path("unused")
SPEC = Spec(
    clients=12,
    per_round=8,
    malicious=0.25,
    selection="fixed",
    rounds=3,
    batch=16,
    block=3,
    root_size=20,
    alpha=0.5,
    optimizer=Part("sgd", {"lr": 0.1}),
    attack=to_chain("badnets+model_replacement(strength=3)", "attack"),
    defense=(Part("median"),),
)
SPECS = {
    "vmap": SPEC,
    "loop": SPEC.replace(model=Part("cnn")),
    "bfloat16": SPEC.replace(precision="bfloat16"),
    "client dropout": SPEC.replace(client_dropout=0.5),
    "validation": SPEC.replace(evaluate_on="validation"),
    "loop in bfloat16": SPEC.replace(model=Part("cnn"), precision="bfloat16"),
    "vote": SPEC.replace(defense=to_chain("crfl(norm=6, noise=0.05, draws=9)", "defense")),
    "clients that score": SPEC.replace(defense=(Part("flshield"),)),
    "clients that vote": SPEC.replace(defense=(Part("crowdguard"),), rounds=1),
    "rejection": SPEC.replace(defense=to_chain("flip(steps=2, confidence=0.5)", "defense")),
    "private heads": SPEC.replace(defense=to_chain("fedrep(head_epochs=2)+median", "defense")),
    "models of their own": SPEC.replace(defense=(Part("ditto"),)),
    "masks": SPEC.replace(defense=to_chain("lockdown(anneal=0.1)", "defense")),
    "private norms": SPEC.replace(
        defense=(Part("fedbn"),), model=Part("normed_mlp"), alpha=10.0, rounds=2
    ),
    "buffers": SPEC.replace(
        model=Part("convnet", {"width": 8, "modules": 2}), clients=40, per_round=4, rounds=1
    ),
}


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """A private Ray with room for the actors of these tests."""
    with local_ray(None, cpus=4) as found:
        yield found


def test_a_cluster_that_is_there_answers(ray: Any) -> None:
    address = ray.get_runtime_context().gcs_address
    assert rays.check_address(address) == address
    assert rays.check_address(f"localhost:{address.rpartition(':')[2]}")


def curve(
    spec: Spec, workers: OnActors | InProcess | None = None
) -> list[tuple[int, dict[str, float]]]:
    return [
        (record.round, dict(record.metrics))
        for record in run(spec, folder=NOWHERE, device="cpu", clients=workers)
    ]


@cache
def alone(name: str) -> list[tuple[int, dict[str, float]]]:
    """The curve of one of SPECS in one thread of this process."""
    return curve(SPECS[name])


class Staying(OnActors):
    """Actors that wait for the next experiment: each takes seconds to start."""

    def close(self) -> None:
        """They stay."""


@pytest.fixture(scope="module")
def crews(ray: Any) -> Iterator[list[Staying]]:
    """One client actor, and three."""
    staying = [Staying(count, share=ActorShare(cpus=0.5)) for count in (1, 3)]
    yield staying
    for crew in staying:
        OnActors.close(crew)


@pytest.mark.parametrize("name", SPECS)
def test_any_number_of_actors_gives_the_same_digits(crews: list[Staying], name: str) -> None:
    spec = SPECS[name]
    assert len(alone(name)) == spec.rounds
    for crew in crews:
        assert curve(spec, crew) == alone(name)


@pytest.mark.parametrize("name", SPECS)
def test_any_number_of_threads_gives_the_same_digits(name: str) -> None:
    assert curve(SPECS[name], InProcess(3)) == alone(name)


def test_threads_take_up_one_experiment_after_another() -> None:
    workers = InProcess(3)
    for name in ("vmap", "loop", "vmap"):
        assert curve(SPECS[name], workers) == alone(name)


def test_threads_work_on_models_of_their_own() -> None:
    """A functional call puts other tensors into a module for as long as it lasts."""
    workers = InProcess(3)
    built = Experiment(SPECS["loop"], NOWHERE, "cpu", workers).built
    federations = [lane.built for lane in workers.lanes]
    assert federations[0] is built
    for one, other in itertools.combinations(federations, 2):
        assert one.net.module is not other.net.module
        assert one.replica.module is not other.replica.module
        assert one.attack is not other.attack
        assert one.data is other.data


@pytest.mark.parametrize("threads", [1, 4])
def test_the_first_client_that_breaks_is_named(threads: int) -> None:
    """The longest client comes first; with several threads another one may break earlier."""
    workers = InProcess(threads)
    experiment = Experiment(SPECS["loop"], NOWHERE, "cpu", workers)
    state, cohort = experiment.state, experiment.built.cohort(0).tolist()
    units = local_sgd.blocks(experiment.built, 0, cohort, attacked=True)
    attackers = set(experiment.built.malicious.tolist())
    first = next(unit[0] for unit in units if unit[0] in attackers)
    with pytest.raises(BrokenStage, match=rf"^attack \w+: round 1: client {first}: AttributeError"):
        workers.train(0, cohort, state.params, state.buffers, ("no", "state"))


def test_an_interrupted_round_ends_the_threads_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing goes on behind the back of whoever interrupted."""
    workers = InProcess(2)
    experiment = Experiment(SPECS["loop"], NOWHERE, "cpu", workers)
    done: list[int] = []
    monkeypatch.setattr(local_sgd, "train", lambda *given: done.append(given[2]))

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(workers, "_on_lanes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        experiment.round()
    workers.close()
    assert done == []


class Stopped(BaseException):
    """No Exception, like SystemExit."""


@pytest.mark.parametrize("threads", [1, 3])
def test_what_ends_a_thread_ends_the_round(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    """Rows that nobody has trained are whatever the memory held."""
    workers = InProcess(threads)
    experiment = Experiment(SPECS["loop"], NOWHERE, "cpu", workers)

    def stopped(*_: Any) -> None:
        raise Stopped

    monkeypatch.setattr(local_sgd, "train", stopped)
    with pytest.raises(Stopped):
        experiment.round()
    workers.close()


def test_what_a_thread_meets_between_two_clients_ends_the_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workers = InProcess(3)
    experiment = Experiment(SPECS["loop"], NOWHERE, "cpu", workers)

    def no_more(*_: Any) -> Iterator[list[int]]:
        yield [0]
        raise Stopped

    monkeypatch.setattr(local_sgd, "blocks", no_more)
    monkeypatch.setattr(local_sgd, "train", lambda *_: None)
    with pytest.raises(Stopped):
        experiment.round()
    workers.close()


def test_actors_take_up_one_experiment_after_another(crews: list[Staying]) -> None:
    workers = crews[-1]
    pids = []
    for spec in (SPEC, SPEC.replace(seed=5), SPEC.replace(attack=()), SPEC):
        experiment = Experiment(spec, NOWHERE, "cpu", workers)
        while experiment.state.round < spec.rounds:
            record = experiment.round()
        assert record is not None
        assert dict(record.metrics) == curve(spec)[-1][1]
        pids.append(_pids(workers))
    assert len({tuple(found) for found in pids}) == 1, "the actors must outlive an experiment"


def test_what_a_plugin_raises_on_an_actor_is_one_line_here(crews: list[Staying]) -> None:
    workers = crews[0]
    experiment = Experiment(SPECS["loop"], NOWHERE, "cpu", workers)
    state, cohort = experiment.state, experiment.built.cohort(0).tolist()
    line = r"^attack \w+: round 1: client \d+: AttributeError: [^\n]*$"
    with pytest.raises(BrokenStage, match=line):
        workers.train(0, cohort, state.params, state.buffers, ("no", "state"))


def test_an_actor_that_dies_in_the_middle_of_a_round_is_replaced(ray: Any) -> None:
    workers = OnActors(2, share=ActorShare(cpus=0.5))
    experiment = Experiment(SPECS["loop"], NOWHERE, "cpu", workers)
    before = _pids(workers)
    calls = itertools.count()
    original = workers._map

    def murderous(work: Sequence[Any]) -> list[Any]:
        def wrap(call: Any) -> Any:
            def sent(actor: Any) -> Any:
                ref = call(actor)
                # some blocks of the first round are done, this one is under way
                if next(calls) == 3:
                    os.kill(before[0], signal.SIGKILL)
                return ref

            return sent

        return original([wrap(call) for call in work])

    workers._map = murderous  # type: ignore[method-assign, assignment]
    found = [record.metrics for record in iter_rounds(experiment)]
    assert [dict(row) for row in found] == [row for _, row in alone("loop")]
    after = _pids(workers)
    assert before[0] not in after
    assert before[1] in after
    workers.close()


def test_a_call_that_ends_every_actor_ends_the_experiment(
    ray: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that a block needs and no actor has is not there at the hundredth try either."""
    monkeypatch.setattr(actors, "TRIES", 2)
    workers = OnActors(1, share=ActorShare(cpus=0.5))
    sent = []

    def fatal(actor: Any) -> Any:
        sent.append(actor)
        assert len(sent) <= 2
        return actor.__ray_call__.remote(lambda _: os._exit(1))

    with pytest.raises(ray.exceptions.RayActorError):
        workers._map([fatal])
    assert len(sent) == 2
    workers.close()


def iter_rounds(experiment: Experiment) -> Iterator[Any]:
    while experiment.state.round < experiment.spec.rounds:
        yield experiment.round()


def _pids(workers: OnActors) -> list[int]:
    refs = [
        actor.__ray_call__.remote(lambda self: __import__("os").getpid())
        for actor in workers.actors
    ]
    return list(workers.ray.get(refs))


@pytest.mark.parametrize("name", ["vmap", "loop"])
def test_the_order_of_blocks_does_not_matter(name: str) -> None:
    spec = SPECS[name]
    built = Experiment(spec, NOWHERE, "cpu").built
    cohort = list(range(8))
    units = local_sgd.blocks(built, 0, cohort, attacked=True)
    state = (Planted(10), None)

    def rows(order: Sequence[list[int]]) -> Trained:
        start = built.net.params, built.net.buffers
        sheet = local_sgd.Sheet(cohort, *start)
        for unit in order:
            local_sgd.train(built, 0, unit, *start, state, attacked=True, sheet=sheet)
        return sheet.trained

    forward, backward = rows(units), rows(units[::-1])
    assert forward.client.tolist() == cohort
    assert torch.equal(forward.rows, backward.rows)
    assert torch.equal(forward.loss, backward.loss)


def test_a_worker_computes_on_shared_memory_without_writing_to_it() -> None:
    experiment = Experiment(SPEC, NOWHERE, "cpu")
    arrays = pack(experiment.built.data)
    for value in arrays.values():
        if hasattr(value, "flags"):
            value.flags.writeable = False
    worker = Worker("cpu")
    worker.open(experiment.spec, "key", arrays)
    params = experiment.state.params.numpy().copy()
    params.flags.writeable = False
    buffers, state = experiment.state.buffers.numpy(), experiment.state.attack
    found = worker.train(0, [0, 1], params, buffers, state, attacked=True, own={})
    expected = local_sgd.train(
        experiment.built,
        0,
        [0, 1],
        experiment.state.params,
        experiment.state.buffers,
        experiment.state.attack,
        attacked=True,
    )
    assert torch.equal(torch.from_numpy(found[1]), expected.rows)
    assert unpack(arrays).train.x.data_ptr() == arrays["train_x"].ctypes.data


def test_what_the_defense_predicts_does_not_depend_on_how_batches_are_dealt() -> None:
    built = Experiment(SPECS["vote"], NOWHERE, "cpu").built
    predict, x = (
        built.defense.predict,
        torch.rand(1100, 1, 8, 8, generator=seeds.generator(0, "tests")),
    )
    assert predict

    def asked(numbers: list[int]) -> list[Prediction]:
        staged, draws = evaluate.Staged(built.net, x), seeds.generator(0, "tests", "draws")
        return staged.defended(predict, built.net.params, built.net.buffers, numbers, draws)

    together = asked([0, 1, 2])
    dealt = [asked([0])[0], asked([1])[0], asked([2])[0]]
    assert [len(part.label) for part in together] == [500, 500, 100] and asked([]) == []
    for one, other in zip(together, dealt, strict=True):
        assert torch.equal(one.label, other.label)
        assert (
            one.radius is not None
            and other.radius is not None
            and torch.equal(one.radius, other.radius)
        )


def test_the_evaluation_batches_cover_a_set_once() -> None:
    built = Experiment(SPEC, NOWHERE, "cpu").built
    for count in (0, 1, evaluate.BATCH, evaluate.BATCH + 1, 3 * evaluate.BATCH - 1):
        staged = evaluate.Staged(
            built.net, torch.arange(count).float().reshape(-1, 1, 1, 1).expand(-1, 1, 8, 8)
        )
        first, again = (
            [staged.batch(number) for number in range(evaluate.batch_count(count))]
            for _ in range(2)
        )
        assert sum(map(len, first)) == count
        assert all(one is other for one, other in zip(first, again, strict=True)), (
            "a batch is normalized once"
        )
