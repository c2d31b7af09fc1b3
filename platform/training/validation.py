"""What one client answers in a validation round, by its own data."""

from __future__ import annotations

from torch import Tensor

from backstop.platform.contract import Question
from backstop.platform.training.client_rules import Round, client_view


def honest_scores(
    here: Round,
    client: int,
    question: Question,
    known_as: int | None = None,
) -> Tensor:
    """The scores (k, s), float64, that the client honestly gives the models of a question, under
    the name of another one where it stands for that.
    """
    name = client if known_as is None else known_as
    return question.answer(client_view(here, client, here.draws("validation", name)), name)
