"""The work that all contenders are given: two federations, written once as plain arrays that need
no library but NumPy.

``image``: CIFAR-10, 100 clients with Dirichlet(0.5) label shares, 20 a round, one local epoch in
batches of 64 with SGD(0.01, momentum 0.9), the CNN of PyTorch's CIFAR-10 tutorial, the whole test
set every round. ``table``: the same on a table of 8,844 rows with 30 features and an MLP of 128 and
256 hidden units, the size of the phishing data of X. Wang et al. (AISTATS 2024).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from backstop.platform.contract import Part, Spec
from backstop.platform.params import BadInput
from backstop.platform.specs.spec import validate
from backstop.platform.training import federation, loading, partition
from backstop.platform.training.device import choose_device

SGD = Part("sgd", {"lr": 0.01, "momentum": 0.9})
IMAGE = Spec(
    dataset=Part("cifar10"),
    model=Part("cnn"),
    clients=100,
    per_round=20,
    malicious=0.0,
    alpha=0.5,
    batch=64,
    optimizer=SGD,
)
TABLE = IMAGE.replace(
    dataset=Part("synthetic", {"samples": 8844, "features": 30, "classes": 2}),
    model=Part("mlp", {"hidden": "128-256"}),
)
CLEAN = {"image": IMAGE, "table": TABLE}
ATTACKED = IMAGE.replace(malicious=0.2, attack=(Part("badnets"),), defense=(Part("trimmed_mean"),))


def problem(name: str) -> str:
    """Why this work cannot be done here; empty where it can."""
    try:
        loading.load_dataset(CLEAN[name].dataset, loading.data_folder())
    except BadInput as error:
        return str(error).replace(str(loading.data_folder()), "$BACKSTOP_DATA")
    return ""


def write(name: str, rounds: int, to: Path) -> None:
    """Write a federation: the samples as stored, each sample's client (-1: the server's root set),
    the cohorts, the first model.
    """
    spec = validate(CLEAN[name])
    built = federation.build_federation(
        spec, loading.load_dataset(spec.dataset, loading.data_folder()), choose_device("cpu")
    )
    owner = np.full(len(built.data.train.y), -1)
    for client, shard in enumerate(built.shards):
        owner[shard.numpy()] = client
    cohorts = [
        partition.cohort(
            clients=spec.clients,
            per_round=spec.per_round,
            selection=spec.selection,
            malicious=built.malicious,
            seed=spec.seed,
            round=number,
        ).numpy()
        for number in range(rounds)
    ]
    arrays = {
        "x": built.data.train.x.numpy(),
        "y": built.data.train.y.numpy(),
        "test_x": built.data.test.x.numpy(),
        "test_y": built.data.test.y.numpy(),
        "owner": owner,
        "cohorts": np.stack(cohorts),
        "start": built.net.params.numpy(),
    }
    to.mkdir(parents=True, exist_ok=True)
    for key, array in arrays.items():
        np.save(to / f"{key}.npy", array)
    facts = {
        "model": name,
        "mean": built.data.mean,
        "std": built.data.std,
        "batch": spec.batch,
        **spec.optimizer.params,
    }
    (to / "facts.json").write_text(json.dumps(facts))
