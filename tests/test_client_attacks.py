"""What one client can have of an attack outside of Backstop: poisoned data, a crafted model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

import backstop
from backstop.platform import plugins, seeds
from backstop.platform.library.client_stages import read_client_stages
from backstop.platform.library.crafting import Sender, crafted
from backstop.platform.library.poisoning import poisoned_data as poisoned
from backstop.platform.params import BadInput

POISONING = [
    *("badnets", "blended", "bpp", "dba", "edge_case", "edge_phrase", "fcba", "feature_value"),
    *(
        "ftrojan",
        "invisible",
        "label_flip",
        "phrase",
        "physical",
        "semantic",
        "sig",
        "single_pixel",
        "wanet",
    ),
]
CRAFTING = ["gaussian", "model_replacement", "pgd", "sign_flip"]
FIRST = Sender(seed=0, number=0, turn=0)


def images(n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seeds.stream(0, "images"))
    return rng.random((n, 1, 8, 8)).astype(np.float32), np.arange(n) % 10


def where(after: Any, before: Any) -> Any:
    """Which samples are others than before."""
    return (np.asarray(after) != np.asarray(before)).reshape(len(before), -1).any(1)


def test_these_attacks_can_be_had_at_a_client_and_no_others() -> None:
    found: dict[str, list[str]] = {"poisoning": [], "crafting": [], "refused": []}
    for name in plugins.names("attacks"):
        try:
            chain = read_client_stages(name, "malicious")
        except BadInput as error:
            assert f"attack {name} " in str(error)
            assert str(error).endswith(f"backstop run --attack {name}")
            found["refused"].append(name)
            continue
        for what, parts in chain._asdict().items():
            found[what] += [part.name for part in parts]
    assert found["poisoning"] == POISONING
    assert found["crafting"] == CRAFTING
    rest = set(plugins.names("attacks")) - {*POISONING, *CRAFTING}
    assert set(found["refused"]) == rest


@pytest.mark.parametrize("name", ["badnets", "blended", "sig", "ftrojan", "wanet"])
def test_poisoned_samples_bear_the_trigger_that_is_tested(name: str) -> None:
    x, y = images()
    after, labels = poisoned((x, y), f"{name}(share=0.25, target=3)", seed=5)
    stamped = backstop.trigger(name, seed=5)(x)
    relabeled = where(labels, y)
    assert (labels[relabeled] == 3).all()
    assert (after[relabeled] == stamped[relabeled]).all()
    others = where(after, x) & ~relabeled
    if name != "wanet":  # it also warps samples that keep their label
        assert (labels[others] == 3).all()  # they had the label already
        assert where(after, x).sum() == 10


def test_the_share_is_drawn_from_all_samples() -> None:
    x, _ = images()
    y = np.repeat(np.arange(10), 4)  # by class: the first quarter would be of three classes
    after, _ = poisoned((x, y), "badnets(share=0.25)")
    classes = set(y[where(after, x)].tolist())
    assert len(classes) > 4
    again, _ = poisoned((x, y), "badnets(share=0.25)")
    other, _ = poisoned((x, y), "badnets(share=0.25)", index=1)
    assert (again == after).all()
    assert (other != after).any()


def test_data_come_back_in_the_form_in_which_they_are_given() -> None:
    x, y = images()
    channels_last = (x.transpose(0, 2, 3, 1) * 255).astype(np.uint8)
    after, labels = poisoned((channels_last, y.astype(np.int32)), "badnets", channels="last")
    assert (after.shape, after.dtype, labels.dtype) == (channels_last.shape, np.uint8, np.int32)
    tensors = torch.from_numpy(x).double(), torch.from_numpy(y)
    after, labels = poisoned(tensors, "badnets")
    assert (after.dtype, labels.dtype) == (torch.float64, torch.int64)
    same = ~torch.from_numpy(where(after, tensors[0]))
    assert torch.equal(after[same], tensors[0][same])
    assert not torch.equal(after, tensors[0])


def test_a_dataset_becomes_a_dataset() -> None:
    class Pairs(Dataset[tuple[torch.Tensor, int]]):
        def __len__(self) -> int:
            return 20

        def __getitem__(self, position: int) -> tuple[torch.Tensor, int]:
            return torch.full((1, 8, 8), position / 20), position % 10

    after = poisoned(Pairs(), "badnets(share=0.5)")
    assert isinstance(after, TensorDataset)
    before = torch.stack([Pairs()[position][0] for position in range(20)])
    assert where(after.tensors[0], before).sum() == 10
    assert [int(label) for label in after.tensors[1]].count(0) >= 10


def test_all_to_all_goes_by_the_number_of_classes() -> None:
    x, y = images()
    _, labels = poisoned((x, y), "badnets(target=next, share=1)", classes=10)
    assert (labels == (y + 1) % 10).all()


def test_parts_of_a_trigger_are_dealt_to_the_malicious_clients() -> None:
    x, y = images()
    zeros = np.zeros_like(x)
    parts = [poisoned((zeros, y), "dba(share=1)", index=index)[0] for index in range(4)]
    whole = backstop.trigger("dba")(zeros)
    assert (np.max(parts, axis=0) == whole).all()
    assert all((part != whole).any() for part in parts)


def test_what_the_attacker_has_is_given() -> None:
    x, y = images()
    table = x.reshape(len(x), -1)
    after, _ = poisoned((table, y), "feature_value(share=0.5)", known=(table[:20], y[:20]))
    stamp = backstop.trigger("feature_value", data=(table[:20], y[:20]))(table)
    moved = where(after, table)
    assert moved.sum() == 20
    assert (after[moved] == stamp[moved]).all()
    _, labels = poisoned((x, y), "semantic(source=1, target=7)", known=(x, y))
    assert (labels == 7).sum() > (y == 7).sum()


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "crafting": (
        lambda: poisoned(images(), "badnets+sign_flip"),
        "sign_flip changes what a client",
    ),
    "learned": (lambda: poisoned(images(), "a3fl"), "attack a3fl prepares itself from the global"),
    "nothing": (lambda: poisoned(images(), "none"), "none attacks nothing"),
    "no chain": (lambda: poisoned(images(), 3), "3 is no stage"),  # type: ignore[arg-type]
    "no pair": (lambda: poisoned(3, "badnets"), "data is int; give (x, y)"),
    "labels": (lambda: poisoned((images()[0], images()[1][:3]), "badnets"), "y has shape (3,)"),
    "normalized": (
        lambda: poisoned((images()[0] - 1, images()[1]), "badnets"),
        "before they are normalized",
    ),
    "all-to-all": (lambda: poisoned(images(), "badnets(target=next)"), "needs classes="),
    "classes": (lambda: poisoned(images(), "badnets", classes=1), "classes=1 is not allowed"),
    "target": (lambda: poisoned(images(), "badnets(target=12)", classes=10), "target=12 is none"),
    "unknown": (lambda: poisoned(images(), "semantic"), "give known=(x, y)"),
    "kinds": (lambda: poisoned(images(), "phrase"), "documents are (n, length)"),
    "two triggers": (lambda: poisoned(images(), "badnets+blended"), "both define the trigger"),
    "item": (lambda: poisoned(TensorDataset(torch.ones(3)), "badnets"), "items are (x, y)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_is_one_clear_line(case: str) -> None:
    call, words = WRONG[case]
    with pytest.raises(BadInput) as caught:
        call()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


# -- what is sent


def models() -> tuple[dict[str, Any], dict[str, Any]]:
    """What a client was sent, and what it has trained."""
    rng = np.random.default_rng(seeds.stream(0, "models"))

    def made(count: int) -> dict[str, Any]:
        return {
            "weight": rng.normal(size=(3, 4)).astype(np.float32),
            "bn.running_var": rng.random(4).astype(np.float32),
            "bn.num_batches_tracked": np.array(count),
        }

    return made(1), made(9)


def craft(chain: str, sender: Sender = FIRST) -> dict[str, Any]:
    """What a client sends, less what it was sent."""
    sent, trained = models()
    after = crafted(backstop.parse_chain(chain), trained, sent, sender)
    assert after["bn.num_batches_tracked"] == 9
    return {name: after[name] - sent[name] for name in ("weight", "bn.running_var")}


def test_an_update_is_scaled_and_so_are_statistics() -> None:
    sent, trained = models()
    after = craft("model_replacement(strength=7)")
    for name, change in after.items():
        assert change == pytest.approx(7 * (trained[name] - sent[name]), rel=1e-4, abs=1e-5)
    flipped = craft("sign_flip(strength=2)")
    assert flipped["weight"] == pytest.approx(-2 * (trained["weight"] - sent["weight"]), abs=1e-5)
    still = trained["bn.running_var"] - sent["bn.running_var"]
    assert flipped["bn.running_var"] == pytest.approx(still, abs=1e-6)


def test_stages_follow_each_other() -> None:
    assert np.linalg.norm(craft("pgd(radius=0.5)")["weight"]) == pytest.approx(0.5, rel=1e-4)
    scaled = craft("pgd(radius=0.5)+model_replacement(strength=4)")["weight"]
    assert np.linalg.norm(scaled) == pytest.approx(2, rel=1e-4)


def test_noise_is_another_for_each_client_and_turn() -> None:
    drawn = [
        craft("gaussian", Sender(seed, number, turn))["weight"]
        for seed, number, turn in [(0, 0, 0), (0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    ]
    assert (drawn[0] == drawn[1]).all()
    assert all((drawn[0] != other).all() for other in drawn[2:])


def test_models_of_two_forms_are_refused() -> None:
    sent, trained = models()
    with pytest.raises(BadInput, match="the model that was sent has no array 'weight'"):
        crafted(backstop.parse_chain("sign_flip"), trained, {"other": sent["weight"]}, FIRST)
