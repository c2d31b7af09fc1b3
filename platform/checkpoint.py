"""The state of an unfinished experiment in a file addressed by its spec's id: any process that runs the spec goes on from it."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from backstop.platform.contract import Record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backstop.platform.experiment import Experiment
    from backstop.platform.origin import Origin

EVERY = 5.0  # seconds of rounds that a killed process may lose; a long round is lost as a whole
FIELDS = ("state", "records", "costs", "origin", "done", "model")


class Saved(NamedTuple):
    """What a checkpoint holds."""

    state: Any
    records: list[Record]
    costs: dict[str, float]
    origin: Origin  # of all that is in here
    done: bool  # all rounds are: what is left is to send it to the store
    model: Mapping[str, Tensor]  # name → tensor of the final model, once it is done


class Checkpoint:
    """One file in the checkpoint folder. It is replaced as a whole, so a kill leaves the old one or the new one."""

    def __init__(self, folder: Path, spec_id: str) -> None:
        """Name the file; nothing is read or written."""
        self.path = folder / f"{spec_id}.pt"
        self.note = ""  # why the last restore began anew, where there was something

    def save(self, experiment: Experiment, records: list[Record]) -> None:
        """Write state and records. Raises OSError where the folder does not take them."""
        state, net = experiment.state, experiment.built.net
        done = state.round >= experiment.spec.rounds
        model = net.tensors(state.params, state.buffers) if done else {}
        fields = (state, records, experiment.costs, experiment.origin, done, model)
        content = BytesIO()  # a full disk makes torch's own writer raise something else than an OSError
        torch.save(dict(zip(FIELDS, fields, strict=True)), content)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(f".{os.getpid()}")
        try:
            part.write_bytes(content.getbuffer())
            part.replace(self.path)
        finally:
            part.unlink(missing_ok=True)

    def read(self, where: torch.device | str = "cpu") -> Saved | None:
        """What is saved; None where nothing (readable) is."""
        try:
            # Attack and defense states are a plug-in's own types, which only a full unpickling restores; the file is this store's own.
            found = torch.load(self.path, map_location=where, weights_only=False)
            return Saved(*(found[field] for field in FIELDS))
        except Exception:  # noqa: BLE001 -- absent, truncated or foreign: start over, which gives the same bytes
            return None

    def restore(self, experiment: Experiment) -> list[Record]:
        """Put the saved state into the experiment and return the records so far; none where nothing (readable) is saved.

        What is done keeps the origin that it was made with. What is not done goes on only where its
        origin is the experiment's own, else it begins anew, and ``note`` says why: rounds of two
        versions or of two files would make a run that never was.
        """
        saved = self.read(experiment.built.device)
        self.note = ""
        if saved is None:
            return []
        other = saved.origin.difference(experiment.origin)
        if other and not saved.done:
            self.note = f"begins anew: rounds 1 to {saved.state.round} were made with {other}"
            return []
        experiment.state, experiment.costs = saved.state, saved.costs
        experiment.origin = saved.origin
        return list(saved.records)

    def drop(self) -> None:
        """The experiment is finished and logged."""
        self.path.unlink(missing_ok=True)
