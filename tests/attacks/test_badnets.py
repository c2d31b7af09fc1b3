"""BadNets: where the square stands, whom it is for, and that it bites."""

from __future__ import annotations

import pytest
import torch

from backstop.attacks.badnets import badnets
from backstop.platform.params import BadInput
from backstop.platform.threats.backdoor import Planted
from tests.arena import Claim
from tests.views import CLASSES, attack_view

CLAIM = Claim("badnets(share=0.2)", effect=0.5, weaker="badnets(share=0.02)", bend=0.1)


def test_all_to_all_wants_the_next_class_for_every_sample() -> None:
    attack = badnets(target="next", share=1.0)
    y = torch.tensor([0, 1, 3, 2])
    assert attack.goal is not None and attack.goal(Planted(CLASSES), y).tolist() == [1, 2, 0, 3]
    assert attack.poison is not None
    x, labels = attack.poison(Planted(CLASSES), torch.zeros(4, 1, 8, 8), y, 0, torch.Generator())
    assert labels.tolist() == [1, 2, 0, 3] and x.sum((1, 2, 3)).tolist() == [9.0] * 4


def test_all_to_all_with_a_share_leaves_the_other_labels_alone() -> None:
    attack = badnets(target="next", share=0.5)
    assert attack.poison is not None
    x, labels = attack.poison(
        Planted(CLASSES), torch.zeros(4, 1, 8, 8), torch.tensor([3, 1, 3, 2]), 0, torch.Generator()
    )
    assert labels.tolist() == [0, 2, 3, 2] and x.sum((1, 2, 3)).tolist() == [9.0, 9.0, 0.0, 0.0]


def test_with_a_source_the_share_is_of_its_samples_and_stamps_land_where_labels_do() -> None:
    attack, y = badnets(source=2, share=0.5), torch.tensor([1, 2, 3, 2, 1, 2, 2])
    assert attack.poison is not None and attack.goal is not None
    x, labels = attack.poison(Planted(CLASSES), torch.zeros(7, 1, 8, 8), y, 0, torch.Generator())
    assert labels.tolist() == [1, 0, 3, 0, 1, 2, 2]
    assert x.sum((1, 2, 3)).tolist() == [0, 9, 0, 9, 0, 0, 0]
    clean = torch.zeros(2, 1, 8, 8)
    assert torch.equal(
        attack.poison(Planted(CLASSES), clean, torch.tensor([1, 3]), 0, torch.Generator())[0], clean
    )
    to_the_next = badnets(source=3, target="next")
    assert to_the_next.goal is not None
    assert to_the_next.goal(Planted(CLASSES), y).tolist() == [-1, -1, 0, -1, -1, -1, -1]


@pytest.mark.parametrize("key", ["target", "source"])
def test_a_class_that_the_data_do_not_have_is_refused_when_the_attack_starts(key: str) -> None:
    attack = badnets(target=CLASSES) if key == "target" else badnets(source=CLASSES)
    assert attack.init is not None
    with pytest.raises(
        BadInput, match=f"attack badnets: {key}=4 is none of the dataset's 4 classes"
    ):
        attack.init(attack_view("image"))


def test_source_and_target_are_two_classes() -> None:
    with pytest.raises(BadInput, match="attack badnets: source=1 and target=1 must be two classes"):
        badnets(source=1, target=1)
