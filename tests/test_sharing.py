"""How a cluster is shared among trials, as a function of the cluster, the trials and what one has
shown.
"""

from __future__ import annotations

import pytest

from backstop.platform.workers.actors import ActorShare
from backstop.platform.workers.sharing import (
    Load,
    Resources,
    TrialWorkers,
    hangs_on_load,
    held,
    round_seconds,
    share_processors,
    slots,
)

ONE, TWO, SIXTEEN = Resources(1), Resources(2), Resources(16)
GPUS = Resources(16, gpus=2, gpu_mib=81_000)
# A round of CIFAR-10's CNN (20 clients of 31.7 ms) is faster on two client actors than on one
# thread, one of a small MLP is slower, as measured: docs/speed.md
LARGE = Load(train_s=0.634, blocks=20, sent_mib=9.0, mib=1200)
RESNET = Load(train_s=84.0, blocks=20, sent_mib=900.0, mib=2500)
SMALL = Load(train_s=0.0029, blocks=5, sent_mib=0.2, mib=700)


@pytest.mark.parametrize(
    ("asked", "trials", "have", "device", "workers"),
    [
        ("auto", 78, TWO, "cpu", TrialWorkers(0, 1, ActorShare())),
        ("auto", 1, TWO, "cpu", TrialWorkers(0, 2, ActorShare())),
        ("auto", 3, SIXTEEN, "cpu", TrialWorkers(0, 5, ActorShare())),
        ("auto", 100, SIXTEEN, "cpu", TrialWorkers(0, 1, ActorShare())),
        ("auto", 1, SIXTEEN, "cpu", TrialWorkers(16, 1, ActorShare())),
        ("auto", 0, ONE, "cpu", TrialWorkers(0, 1, ActorShare())),
        (4, 78, TWO, "cpu", TrialWorkers(4, 1, ActorShare(0.5))),
        (0, 1, Resources(6), "cpu", TrialWorkers(0, 6, ActorShare())),
        (0, 1, SIXTEEN, "cpu", TrialWorkers(0, 8, ActorShare())),
        (4, 1, Resources(16, gpus=1), "cuda", TrialWorkers(4, 1, ActorShare(1.0, 0.25))),
        ("auto", 78, Resources(16, gpus=1), "cuda", TrialWorkers(0, 1, ActorShare(1.0, 1.0))),
        ("auto", 1, Resources(16, gpus=1), "cuda", TrialWorkers(0, 1, ActorShare(1.0, 1.0))),
        ("auto", 1, Resources(16, gpus=4), "cuda", TrialWorkers(4, 1, ActorShare(1.0, 1.0))),
        ("auto", 10, GPUS, "cuda", TrialWorkers(0, 1, ActorShare(1.0, 1.0))),
    ],
)
def test_how_a_trial_is_spread(
    asked: str | int,
    trials: int,
    have: Resources,
    device: str,
    workers: TrialWorkers,
) -> None:
    assert share_processors(asked, trials, have, device)[:3] == workers[:3]


def test_threads_fit_on_a_node() -> None:
    """A process is on one node; more cores than it has are for actors."""
    small = Resources(8, largest_node=2)
    assert share_processors("auto", 1, small, "cpu")[:3] == (8, 1, ActorShare())
    assert share_processors("auto", 4, small, "cpu").threads == 2


def test_actors_are_taken_where_they_are_faster_and_it_says_why() -> None:
    spread = share_processors("auto", 1, SIXTEEN, "cpu", RESNET)
    assert spread[:2] == (16, 1)
    assert spread.reason == (
        "a round takes 13 s on 8 threads of one process, 9.6 s on 16 client actors"
    )


def test_a_guess_of_two_actors_is_what_was_measured_of_them() -> None:
    alone, spread = (round_seconds(LARGE, actors, 1) for actors in (0, 2))
    assert alone / spread == pytest.approx(1.7, abs=0.1)
    alone, spread = (round_seconds(SMALL, actors, 1) for actors in (0, 2))
    assert 0.28 <= alone / spread <= 0.5


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_actors_are_left_where_a_round_is_over_before_they_have_answered(device: str) -> None:
    have = Resources(16, gpus=4)
    kept = share_processors("auto", 1, have, device, SMALL)
    assert kept.actors == 0
    assert "client actors" in kept.reason
    assert share_processors(2, 1, have, device, SMALL).actors == 2  # as asked


@pytest.mark.parametrize(
    ("trials", "have", "gpu_mib", "together", "at_once"),
    [
        (10, GPUS, 6_000.0, 5, 10),  # as many as there are
        (100, GPUS, 6_000.0, 8, 16),  # as many as there are cores for
        (100, GPUS, 30_000.0, 2, 4),  # as many as the memory holds
        (100, GPUS, 90_000.0, 1, 2),
        (100, GPUS._replace(gpu_mib=None), 6_000.0, 1, 2),  # not known
        (3, Resources(16, gpus=1, gpu_mib=81_000), 6_000.0, 3, 3),  # thirds
    ],
)
def test_small_trials_share_a_gpu_that_holds_them(
    trials: int,
    have: Resources,
    gpu_mib: float,
    together: int,
    at_once: int,
) -> None:
    load = LARGE._replace(gpu_mib=gpu_mib)
    workers = share_processors("auto", trials, have, "cuda", load)
    assert workers.share.gpus == pytest.approx(1 / together, abs=1e-4)
    assert slots(workers, {"CPU": have.cpus, "GPU": have.gpus}) == at_once


@pytest.mark.parametrize(
    ("actors", "trials", "have", "device", "hangs"),
    [
        ("auto", 100, SIXTEEN, "cpu", False),  # a core each
        ("auto", 3, SIXTEEN, "cpu", False),  # threads
        ("auto", 1, SIXTEEN, "cpu", True),
        (4, 1, SIXTEEN, "cpu", False),  # as asked
        ("auto", 1, TWO, "cpu", False),
        ("auto", 1, Resources(8, largest_node=2), "cpu", True),
        ("auto", 10, GPUS, "cuda", True),  # how many fit on one
        (0, 10, GPUS, "cuda", True),
        (2, 10, GPUS, "cuda", False),
        ("auto", 2, GPUS, "cuda", False),
        ("auto", 1, GPUS, "cuda", True),  # a trial on both, or on one
        (0, 1, GPUS, "cuda", False),
    ],
)
def test_a_trial_is_measured_where_its_spread_hangs_on_that(
    actors: str | int,
    trials: int,
    have: Resources,
    device: str,
    hangs: bool,
) -> None:
    assert hangs_on_load(actors, trials, have, device) is hangs


def test_the_memory_of_all_nodes_holds_so_many_trials() -> None:
    have = Resources(16, memory_mib=8_000)
    alone = share_processors("auto", 100, have, "cpu", LARGE)
    assert held(alone, have, LARGE) == 6
    on_actors = share_processors(2, 100, have, "cpu", LARGE)
    assert held(on_actors, have, LARGE) == 2  # three processes each
    assert held(alone, have, LARGE._replace(mib=10_000)) == 1
    assert held(alone, have, None) is None
    assert held(alone, SIXTEEN, LARGE) is None


def test_what_a_trial_takes_of_the_cluster() -> None:
    assert TrialWorkers(0, 3, ActorShare()).bundles == [{"CPU": 3.0}]
    assert TrialWorkers(2, 1, ActorShare(0.5)).bundles == [{}, {"CPU": 0.5}, {"CPU": 0.5}]
