"""What an attacker knows who trains in no federation of Backstop's: the shape of its inputs, and
samples where it is given some.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from backstop.platform import plugins, seeds
from backstop.platform.contract import AttackView, Kind, Part, RoundView, Samples
from backstop.platform.examples import attack_view_of
from backstop.platform.params import BadInput
from backstop.platform.specs.spec import MANY


class AttackerData(NamedTuple):
    """What an attacker has besides the inputs at hand."""

    seed: int = 0
    samples: Samples | None = None  # of its own
    vocabulary: Mapping[str, int] | None = None  # word → token id
    classes: int | None = None  # None: as many as the samples show, else any number

    def view(
        self,
        x: Tensor,
        kind: Kind,
        stage: Part,
        given_as: str,
    ) -> AttackView:
        """Its view at the start of an attack on inputs like ``x`` (n, …). Where a stage asks for
        samples that it has not, BadInput says to give them as ``given_as``.
        """
        nobody = Samples(x[:0], torch.zeros(0, dtype=torch.int64))
        data = nobody if self.samples is None else self.samples
        known = RoundView(
            round=0,
            params=torch.zeros(0),
            layout=(),
            model=_no_model,
            features=_no_model,
            head=(),
            classes=self._classes(),
            generator=seeds.generator(self.seed, "attack", 0),
        )
        view = attack_view_of(
            known,
            kind,
            data,
            sizes=(len(data.y),),
            total=1,
            train=_no_model,
        )
        fields = {**vars(view), "vocabulary": self.vocabulary}
        if self.samples is None and (kind != "image" or _chooses(stage)):
            fields["samples"] = lambda: _no_samples(stage, given_as)
        return AttackView(**fields)

    def _classes(self) -> int:
        if self.classes is not None:
            return self.classes
        return MANY if self.samples is None else int(self.samples.y.max()) + 1


def _chooses(stage: Part) -> bool:
    """Whether a stage chooses among samples; of others it only takes the shape."""
    return bool(plugins.build("attacks", stage.name, stage.params).test_set)


def _no_samples(stage: Part, given_as: str) -> Samples:
    declared = plugins.find("attacks", stage.name).parameters
    hint = ", or the words themselves, words=…" if "words" in declared else ""
    does = "chooses inputs among" if _chooses(stage) else "makes its trigger of"
    raise BadInput(f"attack {stage.name} {does} the attacker's data; give {given_as}{hint}")


def _no_model(*_: Any) -> Tensor:
    raise BadInput("attack: there is no model outside of a federation")
