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
    the name of another one where it stands for that. Where clients keep a part of the model, it is
    the client's own in each of them.
    """
    name = client if known_as is None else known_as
    own_view = client_view(here.begun_by(client), client, here.draws("validation", name))
    if keeping := here.federation.keeping:
        models = keeping.shown(question.models, here.own.get(client))
        question = question._replace(models=models)
    return question.answer(own_view, name)
