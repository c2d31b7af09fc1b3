"""A validation round: who is asked, what honest clients answer, and what malicious ones do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from backstop.platform import seeds
from backstop.platform.contract import Answers, Asked, AttackView, BrokenStage, Question
from backstop.platform.rounds.views import State
from backstop.platform.threats.lies import lies
from backstop.platform.training.federation import Federation

# (clients, question) → their honest answers (m, k, s)
AskClients = Callable[[Sequence[int], Question], Tensor]


class Validation(NamedTuple):
    """The ``validate`` of a server's view in a round."""

    built: Federation
    state: State
    cohort: Tensor  # (n,) ids
    ask: AskClients
    adversary: Callable[[], AttackView]  # its view of the round

    def __call__(self, question: Question, voters: Tensor | int, /) -> Answers:
        """Ask some clients of the round, or so many of the federation."""
        client = self._drawn(voters) if isinstance(voters, int) else self._called(voters)
        honest = Answers(client, self.ask(client.tolist(), question))
        return self._testified(question, honest) if self._attacked() else honest

    def _called(self, voters: Tensor) -> Tensor:
        """Clients of the round by their ids."""
        client = voters.cpu().sort().values
        strangers = client[~torch.isin(client, self.cohort)]
        if len(strangers) or not len(client):
            raise ValueError(
                f"clients {strangers.tolist()} cannot be asked; give ids of this round's clients"
            )
        return client

    def _drawn(self, count: int) -> Tensor:
        """So many clients of the federation, by a stream of the round."""
        round_index = self.built.draw_round(self.state.round)
        draws = seeds.generator(self.built.spec.seed, "validators", round_index)
        order = torch.randperm(len(self.built.sizes), generator=draws)
        return order[:count].sort().values

    def _attacked(self) -> bool:
        return self.built.attacked(self.state.round)

    def _testified(self, question: Question, honest: Answers) -> Answers:
        """The answers, with those of the malicious clients among the voters as the attack has
        them.
        """
        lying = torch.isin(honest.client, self.built.malicious).to(honest.scores.device)
        if not lying.any():
            return honest
        asked = Asked(question, self._own(question.sender), honest.scores[lying])
        scores = honest.scores.clone()
        scores[lying] = question.bounded(self._said(asked))
        return honest._replace(scores=scores)

    def _own(self, sender: Tensor) -> Tensor:
        """Which models (k,) the attack has a part in: those of attacking clients, and where such
        clients are in the round, those of several.
        """
        attacking = self.built.attackers(self.state.round)
        present = attacking[torch.isin(attacking, self.cohort)]
        own = torch.isin(sender, present.to(sender.device))
        return own | (sender < 0) if len(present) else own

    def _said(self, asked: Asked) -> Tensor:
        """What the malicious clients say, (m, k, s)."""
        testify = self.built.attack.testify
        if testify is None:
            return lies(asked)
        said = testify(self.state.attack, asked, self.adversary())
        if said.shape != asked.scores.shape or not said.isfinite().all():
            shapes = f"{tuple(said.shape)} for {tuple(asked.scores.shape)}"
            raise BrokenStage("attack", f"answers of shape {shapes}; they are finite scores")
        return said.to(asked.scores)
