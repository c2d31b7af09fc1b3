"""What a malicious client sends in place of the model that it has trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from backstop.platform import seeds
from backstop.platform.contract import Part
from backstop.platform.examples import attack_view
from backstop.platform.library.client_stages import SenderView, attack_stage, sender_view
from backstop.platform.library.forms import arrays_of, form_of
from backstop.platform.library.places import Places, places_of
from backstop.platform.training.stage_errors import located, name_errors


class Sender(NamedTuple):
    """The malicious client that sends, and how often it has sent before."""

    seed: int
    number: int  # counts the malicious clients from 0
    turn: int


def crafted(
    parts: Sequence[Part],
    trained: Any,
    sent: Any,
    sender: Sender,
) -> Any:
    """The model that a client sends, of the one that it has trained and the one that it was sent,
    all in one form; what the stages make of the difference, added to the latter. Counters are those
    of the trained model. Raises BadInput where the two are not of one form.
    """
    form = form_of(trained, "the trained model")
    places = places_of(form, None)
    after = arrays_of(trained, form, "the trained model", "the trained model")
    before = arrays_of(sent, form, "the model that was sent", "the trained model")
    start = places.param_values(before, form.device)
    still = places.buffer_values(before, form.device)
    row = places.param_values(after, form.device) - start
    change = places.buffer_values(after, form.device) - still
    with torch.no_grad(), located(sender.turn):
        for position, part in enumerate(parts):
            stage = name_errors(f"attack {part.name}", attack_stage(part))
            if stage.craft:
                row = stage.craft(None, row[None], _view(start, places, sender, position))[0]
            if stage.craft_buffers and len(change):
                view = _view(start, places, sender, position, "craft buffers")
                change = stage.craft_buffers(None, change[None], view)[0]
    return form.put_together(places.spread(start + row, still + change), after)


def _view(
    start: Tensor,
    places: Places,
    sender: Sender,
    position: int,
    what: str = "craft",
) -> SenderView:
    """What the client knows in one function of one stage; its draws are that function's own."""
    draws = seeds.generator(sender.seed, "attack", sender.turn, sender.number, position, what)
    fields = {
        **vars(attack_view(start)),
        "round": sender.turn,
        "layout": places.layout,
        "generator": draws,
        "members": torch.tensor([sender.number]),
    }
    return sender_view(fields)
