"""The state of an unfinished experiment in a file addressed by its spec's id: any process that runs
the spec goes on from it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from backstop.platform import storage
from backstop.platform.contract import Record
from backstop.platform.params import BadInput
from backstop.platform.rounds.origin import Origin
from backstop.platform.storage import Location

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# seconds of rounds that a killed process may lose; a long round is lost as a whole
SAVE_INTERVAL_S = 5.0
SUFFIX = ".pt"


class Saved(NamedTuple):
    """What a checkpoint holds."""

    state: Any
    records: list[Record]
    costs: dict[str, float]
    origin: Origin  # of all that is in here
    done: bool  # all rounds are: what is left is to send it to the store
    model: Mapping[str, Tensor]  # name → tensor of the final model, once it is done


class Checkpoint:
    """One file in the checkpoint folder, or one object. It is replaced as a whole, so a kill leaves
    the old one or the new one.
    """

    def __init__(self, folder: Location, spec_id: str) -> None:
        """Name the file; nothing is read or written."""
        self.path = folder / f"{spec_id}{SUFFIX}"
        self.note = ""  # why the last restore began anew, where there was something

    def save(self, saved: Saved, *, patient: bool = False) -> None:
        """Write what is saved. Raises OSError where the folder or the object store does not take
        it, with ``patient`` only after a while.
        """
        import torch

        content = BytesIO()  # torch's own writer raises something else for a full disk
        torch.save(saved._asdict(), content)
        storage.write_whole(self.path, content.getbuffer(), patient=patient)

    def read(self, where: torch.device | str = "cpu") -> Saved | None:
        """What is saved; None where nothing (readable) is."""
        import torch

        try:
            with storage.open_read(self.path) as file:
                # Attack and defense states are a plug-in's own types, which only a full unpickling
                # restores; the file is this store's own.
                return Saved(**torch.load(file, map_location=where, weights_only=False))
        # absent, truncated or foreign: start over, which gives the same bytes
        except Exception:  # noqa: BLE001
            return None

    def exists(self) -> bool:
        """Whether something is saved, as far as it can be told."""
        with suppress(OSError):
            return storage.exists(self.path)
        return False

    def drop(self) -> None:
        """The experiment is finished and logged. What cannot be removed now is no harm."""
        with suppress(OSError):
            storage.delete(self.path)


def saved_ids(folder: Location) -> set[str]:
    """The ids of the specs that have a checkpoint there. Raises BadInput where the folder or the
    object store does not say.
    """
    try:
        listed = storage.file_names(folder)
    except OSError as error:
        reason = error.strerror or storage.first_line(error)
        raise BadInput(f"checkpoints in {folder} cannot be listed: {reason}") from None
    return {name.removesuffix(SUFFIX) for name in listed if name.endswith(SUFFIX)}


class Resumable(Protocol):
    """An experiment that can be saved between two rounds and taken up again."""

    @property
    def rounds_left(self) -> int:
        """How many rounds are still to do."""

    def round(self) -> Record | None:
        """Do one round; a record where the round is due for evaluation."""

    def saved(self, records: Sequence[Record]) -> Saved:
        """All that another process needs to go on from here."""

    def resume(self, checkpoint: Checkpoint) -> list[Record]:
        """Take over what is saved and return the records so far."""


class Checkpointed:
    """An experiment and its checkpoint: taken up where that left off, then saved now and then."""

    def __init__(self, experiment: Resumable, checkpoint: Checkpoint) -> None:
        """Restore what is saved; ``records`` are those so far."""
        self.experiment, self.checkpoint = experiment, checkpoint
        self.records = experiment.resume(checkpoint)

    @property
    def done(self) -> bool:
        """Whether the last round is done."""
        return self.experiment.rounds_left == 0

    def rounds(self, seconds: float) -> Iterator[Record]:
        """Rounds until the time is over or the last one is done, at least one: those evaluated."""
        deadline = time.perf_counter() + seconds
        while not self.done:
            record = self.experiment.round()
            if record is not None:
                self.records.append(record)
                yield record
            if time.perf_counter() >= deadline:
                return

    def save(self, *, patient: bool = False) -> None:
        """Write the checkpoint. Raises OSError where the folder does not take it."""
        self.checkpoint.save(self.experiment.saved(self.records), patient=patient)
