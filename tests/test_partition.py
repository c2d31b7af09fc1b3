from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from backstop.platform.contract import Data, Samples
from backstop.platform.params import BadInput
from backstop.platform.training import partition
from backstop.platform.training.partition import cohort, deal, hold_out, malicious_clients

ALPHAS = [None, 0.5, 100.0, "shards", "natural"]


def toy(total: int = 300, classes: int = 5, natural: int = 12) -> Data:
    """Inputs are their own index, so that a sample can be recognized wherever it goes."""
    train = Samples(
        torch.arange(total, dtype=torch.float32).reshape(-1, 1), torch.arange(total) % classes
    )
    test = Samples(torch.full((10, 1), -1.0), torch.zeros(10, dtype=torch.int64))
    return Data(
        train, test, classes=classes, kind="table", client=torch.arange(total) * 7 % natural * 3
    )


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


@pytest.mark.parametrize("alpha", ALPHAS)
def test_every_sample_goes_to_exactly_one_client(alpha: float | str | None) -> None:
    lists = deal(toy(), clients=12, alpha=alpha, seed=3)
    assert len(lists) == 12
    assert all(
        indices.dtype == torch.int64 and len(indices) > 0 and bool((indices.diff() > 0).all())
        for indices in lists
    )
    assert torch.equal(torch.cat(lists).sort().values, torch.arange(300))


@pytest.mark.parametrize("alpha", [None, 0.5, "shards"])
def test_the_seed_decides_the_split(alpha: float | str | None) -> None:
    def dealt(seed: int) -> list[Tensor]:
        return deal(toy(), clients=12, alpha=alpha, seed=seed)

    assert equal(dealt(0), dealt(0))
    assert not equal(dealt(0), dealt(1))


@settings(max_examples=30, deadline=None)
@given(
    total=st.integers(1, 80),
    classes=st.integers(2, 6),
    clients=st.integers(1, 80),
    alpha=st.sampled_from([None, 0.3, 5.0, "shards"]),
)
def test_a_split_is_whole_or_refused(
    total: int, classes: int, clients: int, alpha: float | str | None
) -> None:
    try:
        lists = deal(toy(total, classes), clients=clients, alpha=alpha, seed=1)
    except BadInput:
        assert clients > total or alpha is not None
        return
    assert len(lists) == clients
    assert min(map(len, lists)) > 0
    assert torch.equal(torch.cat(lists).sort().values, torch.arange(total))


def test_iid_sizes_differ_by_at_most_one() -> None:
    assert Counter(map(len, deal(toy(100), clients=7, alpha=None, seed=0))) == {14: 5, 15: 2}


def test_small_alpha_is_less_even_than_large() -> None:
    data = toy(5000, 10)

    def largest_class_share(alpha: float) -> float:
        lists = deal(data, clients=10, alpha=alpha, seed=0)
        return sum(float(data.train.y[one].bincount().max()) / len(one) for one in lists) / len(
            lists
        )

    assert largest_class_share(0.1) > 0.5
    assert 0.3 > largest_class_share(10) > largest_class_share(1e6)
    assert largest_class_share(1e6) == pytest.approx(0.1, abs=0.01)  # ten equal classes


def test_dirichlet_proportions_have_the_moments_of_the_distribution() -> None:
    """A client's share of a class under Dir(alpha) over k clients has mean 1/k and variance
    (1/k)(1 - 1/k)/(k alpha + 1).
    """
    data, clients, alpha = toy(20000, 10), 5, 2.0
    shares = torch.stack(
        [
            torch.stack(
                [
                    data.train.y[one].bincount(minlength=10) / 2000
                    for one in deal(data, clients=clients, alpha=alpha, seed=seed)
                ]
            )
            for seed in range(40)
        ]
    )  # (seeds, clients, classes)
    assert shares.sum(1).allclose(torch.ones(40, 10))
    assert shares.mean((0, 2)).tolist() == pytest.approx([0.2] * clients, abs=0.03)
    assert float(shares.var()) == pytest.approx(0.2 * 0.8 / (clients * alpha + 1), rel=0.15)


def test_dirichlet_is_drawn_anew_until_no_client_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    def least(seed: int) -> int:
        return min(map(len, deal(toy(200, 2), clients=10, alpha=0.3, seed=seed)))

    assert all(least(seed) > 0 for seed in range(20))
    monkeypatch.setattr(partition, "ATTEMPTS", 1)
    refused = 0
    for seed in range(20):
        try:
            least(seed)
        except BadInput:
            refused += 1
    assert 0 < refused < 20  # some first draws leave a client empty, and some do not


def test_a_hopeless_dirichlet_split_says_what_to_change() -> None:
    with pytest.raises(
        BadInput,
        match=(
            r"alpha=0.001 leaves one of clients=50 without samples"
            r".*raise alpha, take fewer clients"
        ),
    ) as caught:
        deal(toy(), clients=50, alpha=0.001, seed=0)
    assert "\n" not in str(caught.value)


def test_shards_give_a_client_two_runs_of_labels() -> None:
    data = toy(2000, 10)
    lists = deal(data, clients=100, alpha="shards", seed=0)
    assert {len(indices) for indices in lists} == {20}
    labels = [len(torch.unique(data.train.y[indices])) for indices in lists]
    assert max(labels) == 2  # 200 shards of 10 samples: no shard spans two of the classes of 200
    assert 1 in labels


def test_natural_clients_keep_their_samples() -> None:
    data = toy()
    assert data.client is not None
    for number, indices in enumerate(deal(data, clients=12, alpha="natural", seed=0)):
        assert torch.unique(data.client[indices]).tolist() == [3 * number]


def test_some_of_the_natural_clients() -> None:
    data = toy()
    assert data.client is not None
    chosen = [
        torch.unique(data.client[indices]).tolist()
        for indices in deal(data, clients=5, alpha="natural", seed=0)
    ]
    assert all(len(ids) == 1 for ids in chosen)
    assert chosen == sorted(chosen) and len({ids[0] for ids in chosen}) == 5
    assert chosen != [
        torch.unique(data.client[indices]).tolist()
        for indices in deal(data, clients=5, alpha="natural", seed=1)
    ]


@pytest.mark.parametrize(
    ("alpha", "clients", "message"),
    [
        (None, 301, r"clients=301 is more than the 300 training samples"),
        ("shards", 151, r"300 training samples do for clients=150, not 151"),
        ("natural", 13, r"clients=13 is not allowed; this dataset has 12 clients of its own"),
        (
            "shard",
            3,
            r"alpha='shard' is not allowed; alpha is a number above 0, none, shards, natural,",
        ),
    ],
)
def test_impossible_splits_are_refused(
    alpha: float | str | None, clients: int, message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        deal(toy(), clients=clients, alpha=alpha, seed=0)


def test_natural_needs_natural_clients() -> None:
    with pytest.raises(BadInput, match="no clients of its own"):
        deal(toy()._replace(client=None), clients=3, alpha="natural", seed=0)


def test_the_root_set_leaves_the_training_data() -> None:
    (root, rest), (other, _) = (hold_out(300, 40, seed) for seed in (0, 1))
    assert len(root) == 40
    assert torch.equal(torch.cat([root, rest]).sort().values, torch.arange(300))
    assert torch.equal(rest, rest.sort().values)
    assert not torch.equal(root, other)


@pytest.mark.parametrize("alpha", [None, 0.5, "shards", "natural"])
def test_what_is_held_out_is_dealt_to_nobody(alpha: float | str | None) -> None:
    root, rest = hold_out(300, 40, seed=0)
    dealt = torch.cat(deal(toy(), clients=12, alpha=alpha, seed=0, among=rest)).sort().values
    assert torch.equal(dealt, rest)
    assert not torch.isin(dealt, root).any()


def test_a_root_set_of_nothing() -> None:
    root, rest = hold_out(300, 0, seed=0)
    assert len(root) == 0
    assert torch.equal(rest, torch.arange(300))


@pytest.mark.parametrize("size", [300, 301, -1])
def test_a_root_set_must_leave_something(size: int) -> None:
    with pytest.raises(
        BadInput, match=rf"root_size={size} is not allowed; the dataset has 300 training samples"
    ):
        hold_out(300, size, seed=0)


@pytest.mark.parametrize(
    ("clients", "share", "count"),
    [
        (100, 0.2, 20),
        (100, 0.0, 0),
        (7, 1.0, 7),
        (10, 0.25, 3),
        (100, 0.145, 15),
        (10, 0.04, 0),
        (3, 0.5, 2),
    ],
)
def test_the_number_of_malicious_clients(clients: int, share: float, count: int) -> None:
    ids = malicious_clients(clients, share, seed=0)
    assert ids.dtype == torch.int64 and len(ids) == count
    assert ids.tolist() == sorted(set(ids.tolist()) & set(range(clients)))


def test_malicious_clients_are_drawn_and_more_of_them_contain_fewer() -> None:
    few, many = (set(malicious_clients(100, share, seed=4).tolist()) for share in (0.1, 0.3))
    assert few < many  # so a sweep over the share changes as little as it can
    assert few != set(malicious_clients(100, 0.1, seed=5).tolist())


@pytest.mark.parametrize("selection", ["random", "fixed"])
def test_a_cohort(selection: str) -> None:
    bad = malicious_clients(50, 0.3, seed=0)

    def drawn(number: int, seed: int = 0) -> list[int]:
        found = cohort(
            clients=50, per_round=10, selection=selection, malicious=bad, seed=seed, round=number
        )
        assert found.dtype == torch.int64
        return found.tolist()

    for number in range(20):
        ids = drawn(number)
        assert len(ids) == 10 and ids == sorted(set(ids) & set(range(50)))
    assert drawn(3) == drawn(3)
    assert drawn(3) != drawn(4) and drawn(3) != drawn(3, seed=1)
    assert {client for number in range(100) for client in drawn(number)} == set(range(50))


@pytest.mark.parametrize(
    ("per_round", "share", "count"),
    [(10, 0.3, 3), (5, 0.3, 2), (50, 0.3, 15), (1, 0.3, 0), (10, 0.0, 0), (10, 1.0, 10)],
)
def test_a_fixed_cohort_holds_its_share_of_malicious_clients(
    per_round: int, share: float, count: int
) -> None:
    bad = malicious_clients(50, share, seed=0)
    for number in range(10):
        found = cohort(
            clients=50, per_round=per_round, selection="fixed", malicious=bad, seed=0, round=number
        )
        assert len(found) == per_round and int(torch.isin(found, bad).sum()) == count


def test_a_random_cohort_does_not_depend_on_who_is_malicious() -> None:
    one, other = (
        cohort(
            clients=50,
            per_round=10,
            selection="random",
            malicious=malicious_clients(50, share, seed=0),
            seed=0,
            round=2,
        )
        for share in (0.0, 0.5)
    )
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("per_round", "selection", "message"),
    [
        (51, "random", r"per_round=51 is not allowed; with clients=50 it is in \[1, 50\]"),
        (51, "fixed", "per_round=51"),
        (5, "some", "random or fixed"),
    ],
)
def test_impossible_cohorts_are_refused(per_round: int, selection: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        cohort(
            clients=50,
            per_round=per_round,
            selection=selection,
            malicious=torch.arange(3),
            seed=0,
            round=0,
        )
