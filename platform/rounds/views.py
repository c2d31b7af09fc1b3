"""What is carried from round to round, and what of it a defense and an attack may see."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from backstop.platform import seeds
from backstop.platform.contract import (
    Answers,
    AttackView,
    Buffers,
    Question,
    RoundView,
    Samples,
    ServerView,
    Updates,
)
from backstop.platform.training import loading, local_sgd, partition
from backstop.platform.training.client_rules import Round, Trained
from backstop.platform.training.federation import Federation
from backstop.platform.training.mean import finite_rows
from backstop.platform.training.network import to_unit_interval
from backstop.platform.training.server_step import with_buffers
from backstop.platform.training.validation import honest_scores


class State(NamedTuple):
    """What is carried from round to round. It can be pickled."""

    round: int  # rounds done
    params: Tensor  # (d,)
    buffers: Tensor  # (e,)
    attack: Any
    defense: Any
    start_accuracy: float | None = None  # before the first round; None until it is measured
    # client → what it has of its own, (p,), of those that have trained; only where they keep any
    kept: Mapping[int, Tensor] = {}
    # after how many rounds the attack's test set was made as its state now has it; None: not yet.
    # The set's draws are named by it, so that another process makes the same one
    probed: int | None = None


class Presence(NamedTuple):
    """How much of a round's cohort attacks."""

    members: Tensor  # (m,) indices of the malicious clients that attack
    total: int  # clients in the cohort
    share: float  # of the cohort's sample weight that the members hold


class Views:
    """The views of one experiment's rounds."""

    def __init__(self, built: Federation, folder: Path) -> None:
        """``folder`` holds the dataset's edge cases, read when an attack asks for them."""
        self.built, self.folder = built, folder
        self.attacker_data = cache(partial(_attacker_data, built))
        self.read_edge_cases = False
        self.first: Tensor | None = None  # what clients have of their own before the first round

    def server(self, state: State, draws: str = "defense") -> ServerView:
        """What an honest server knows; ``draws`` names its generator."""
        root = self.built.data.root
        assert root is not None
        return ServerView(
            **vars(self._shared(state, draws)),
            train=self._training(state),
            root=Samples(to_unit_interval(root.x), root.y),
            server_lr=self.built.spec.server_lr,
            buffers=self._unsent(state),
            told=self._told(state),
        )

    def _carried(self, state: State, clients: Sequence[int]) -> Tensor | None:
        """What the first of some clients remembers; None where clients remember nothing."""
        keeping = self.built.keeping
        if keeping is None or keeping.carry is None or not clients:
            return None
        return state.kept.get(clients[0], self.first)

    def _told(self, state: State) -> Mapping[int, Tensor]:
        """What clients have sent besides their rows; those that attack send nothing."""
        built = self.built
        if built.keeping is None or built.keeping.carry is None:
            return {}
        attacked = built.attacked(state.round)
        silent = set(built.attackers(state.round).tolist()) if attacked else set()
        return {client: own for client, own in state.kept.items() if client not in silent}

    def sent(self, state: State) -> RoundView:
        """What everybody knows who is sent the first model, with draws for what clients remember
        before they have trained.
        """
        return self._shared(state, "carried")

    def attack(self, state: State, presence: Presence | None = None) -> AttackView:
        """What the adversary knows in a round; without ``presence`` outside of one. Of several
        adversaries each is made its own of it.
        """
        if presence is None:
            presence = Presence(_nobody(), 0, self.built.spec.malicious)
        return self._attack(state, presence, range(len(self.built.malicious)))

    def _attack(
        self,
        state: State,
        presence: Presence,
        among: Sequence[int],
    ) -> AttackView:
        """What the adversary knows in a round who has some of the malicious clients, by index: the
        model, the memory and the data for its copy of the defense are theirs, all else is what all
        of them know.
        """
        built, spec = self.built, self.built.spec
        clients = [int(built.malicious[index]) for index in among]
        own = self._as_its_clients(state, clients)
        return AttackView(
            **vars(self._shared(own, "attack")),
            train=self._training(own),
            unpoisoned=lambda: self._unpoisoned(state, presence.members).rows,
            unpoisoned_buffers=lambda: self._unpoisoned(state, presence.members).buffers,
            samples=self.attacker_data,
            sizes=tuple(map(len, _malicious_shards(built))),
            kind=built.data.kind,
            clients=len(built.malicious),
            members=presence.members,
            total=presence.total,
            share=presence.share,
            server_lr=spec.server_lr,
            edge_cases=self._edge_cases(),
            vocabulary=built.data.vocabulary,
            class_weights=built.net.class_weights,
            defend=partial(self._defended, state, clients),
            carried=self._carried(state, clients),
            among=partial(self._attack, state, presence),
        )

    def _as_its_clients(self, state: State, clients: Iterable[int]) -> State:
        """The state with the model that an adversary's clients have: where clients keep a part of
        it, the mean of what they keep.
        """
        keeping = self.built.keeping
        if keeping is None or keeping.private is None:
            return state
        kept = [state.kept[who] for who in clients if who in state.kept]
        params, buffers = keeping.used((state.params, state.buffers), keeping.mean(kept))
        return state._replace(params=params, buffers=buffers)

    def _shared(self, state: State, draws: str) -> RoundView:
        generator = seeds.generator(self.built.spec.seed, draws, state.round)
        return self.built.round_view(
            state.round,
            state.params,
            state.buffers,
            generator,
        )

    def _unsent(self, state: State) -> Buffers:
        """The buffers before a client has sent any."""
        start = state.buffers
        return Buffers(
            client=_nobody().to(start.device),
            changes=start.new_zeros(0, len(start)),
            start=start,
            layout=self.built.net.buffer_layout,
        )

    def _training(self, state: State) -> Callable[[Tensor, Samples], Tensor]:
        def train(params: Tensor, samples: Samples) -> Tensor:
            return local_sgd.train_samples(
                self.built,
                state.round,
                params,
                state.buffers,
                samples,
            )

        return train

    def _unpoisoned(self, state: State, members: Tensor) -> Trained:
        clients = self.built.malicious[members].tolist()
        return local_sgd.unpoisoned(
            self.built,
            state.round,
            clients,
            state.params,
            state.buffers,
            self.own(state, clients),
        )

    def own(self, state: State, clients: Iterable[int]) -> dict[int, Tensor]:
        """What some clients have of their own: the first model's where they have not trained."""
        keeping = self.built.keeping
        if keeping is None:
            return {}
        assert self.first is not None
        return {client: state.kept.get(client, self.first) for client in clients}

    def _defended(
        self,
        state: State,
        clients: Sequence[int],
        updates: Updates,
        memory: Any = None,
        at: tuple[int, Tensor] | None = None,
        buffers: Tensor | None = None,
    ) -> tuple[Updates, Any]:
        """As :class:`~backstop.platform.contract.RunDefense`, by who has these clients. Rows that
        are not finite do not come to the defense, as they do not in a round.
        """
        spec, defense = self.built.spec, self.built.defense
        if buffers is None:
            buffers = state.buffers.new_zeros(len(updates.rows), len(state.buffers))
        finite = finite_rows(updates.rows) & finite_rows(buffers)
        if not finite.all():
            updates = Updates(*(column[finite] for column in updates))
        if not finite.any():
            return updates, memory
        if at is not None:
            round_index, params = at
            state = state._replace(round=round_index, params=params)
        draws = seeds.generator(spec.seed, "adversary's defense", state.round)
        root = _some(self._data_of(clients), spec.root_size, draws)
        view = replace(self.server(state), root=root, generator=draws, told={})
        view = replace(view, validate=partial(self._rehearsed, state, clients))
        view = with_buffers(view, updates.client, buffers[finite])
        known = defense.init(view) if memory is None else memory
        return defense.apply(updates, known, view)

    def _data_of(self, clients: Sequence[int]) -> Samples:
        """The samples of some malicious clients, client after client."""
        every = self.attacker_data()
        if len(clients) == len(self.built.malicious):
            return every
        sizes = list(map(len, _malicious_shards(self.built)))
        here = torch.isin(self.built.malicious, torch.tensor(clients))
        index = here.repeat_interleave(torch.tensor(sizes)).to(every.y.device)
        return Samples(every.x[index], every.y[index])

    def _rehearsed(
        self,
        state: State,
        clients: Sequence[int],
        question: Question,
        voters: Tensor | int,
    ) -> Answers:
        """A validation round of the adversary's copy: its own clients, in turn, stand for all who
        are asked, and answer honestly.
        """
        built = self.built
        own = self.own(state, clients)
        here = Round(built, state.round, state.params, state.buffers, None, {}, own)
        asked = torch.arange(voters) if isinstance(voters, int) else voters.cpu().sort().values
        holders = itertools.cycle(clients)
        scores = [
            honest_scores(here, holder, question, known_as)
            for known_as, holder in zip(asked.tolist(), holders, strict=False)
        ]
        return Answers(asked, torch.stack(scores))

    def _edge_cases(self) -> Callable[[], tuple[Samples, Samples]] | None:
        dataset = loading.dataset(self.built.spec.dataset)
        if dataset.edge_cases is None or dataset.edge_target is None:
            return None
        return partial(self._labeled_edge_cases, dataset.edge_target)

    def _labeled_edge_cases(self, target: int) -> tuple[Samples, Samples]:
        self.read_edge_cases = True
        pair = loading.load_edge_cases(self.built.spec.dataset, self.folder)
        assert pair is not None
        train, test = (to_unit_interval(x).to(self.built.device) for x in self._evaluated(*pair))
        return _all_of_class(train, target), _all_of_class(test, target)

    def _evaluated(self, train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
        """A dataset's own edge cases, to be trained on and to be evaluated on: of a run that is
        evaluated on validation data both are of the training ones.
        """
        built = self.built
        if built.spec.evaluate_on == "test":
            return train, test
        part, left = partition.hold_out_validation(train, built.spec.seed, kind=built.data.kind)
        return train[left], train[part]


def _nobody() -> Tensor:
    """The indices of no client."""
    return torch.empty(0, dtype=torch.int64)


def _some(
    samples: Samples,
    count: int,
    draws: torch.Generator,
) -> Samples:
    """So many of the samples, drawn without repetition."""
    order = torch.randperm(len(samples.y), generator=draws)
    index = order[:count].to(samples.y.device)
    return Samples(samples.x[index], samples.y[index])


def _all_of_class(x: Tensor, label: int) -> Samples:
    y = torch.full((len(x),), label, device=x.device)
    return Samples(x, y)


def _attacker_data(built: Federation) -> Samples:
    """The samples of all malicious clients as the model call takes them."""
    train = built.data.train
    shards = _malicious_shards(built)
    index = torch.cat([_nobody(), *shards]).to(train.y.device)
    x = to_unit_interval(train.x[index])
    return Samples(x, train.y[index])


def _malicious_shards(built: Federation) -> list[Tensor]:
    """The sample indices of each malicious client."""
    return [built.shards[int(client)] for client in built.malicious]
