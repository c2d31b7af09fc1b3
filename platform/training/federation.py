"""The static side of an experiment: data, shards, malicious clients, model, attack."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from backstop.platform import loose, plugins, seeds
from backstop.platform.contract import Attack, Data, Defense, RoundView, Samples
from backstop.platform.optimizers import OPTIMIZERS, Optimizer
from backstop.platform.params import BadInput
from backstop.platform.specs.part import chains_apart
from backstop.platform.specs.spec import Spec
from backstop.platform.training import fitting, network, partition, splits
from backstop.platform.training.adversaries import adversaries
from backstop.platform.training.attack_chain import attack_chain, find_trigger_stage, in_training
from backstop.platform.training.defense_chain import chain, only_repairs
from backstop.platform.training.keeping import Keeping, keeping_of


class Federation(NamedTuple):
    """What stays the same in all rounds of one experiment."""

    spec: Spec  # validated, defaults filled in
    data: Data  # on the device
    # for each client the indices of its training samples, ascending; none where it is a fake
    shards: tuple[Tensor, ...]
    sizes: tuple[int, ...]  # of the shards; of a fake what it claims
    malicious: Tensor  # (m,) ids of malicious clients, ascending
    net: network.Network
    # the loop engine's working copy; every client loads the global vectors into it
    replica: network.Replica
    attack: Attack  # all stages as one
    # index of the stage whose state decides on the triggered test set; None: those of all, as they
    # are of several adversaries
    trigger_stage: int | None
    training_stages: tuple[bool, ...]  # which stages local training asks for something
    defense: Defense  # all stages as one
    device: torch.device
    keeping: Keeping | None = None  # what each client has of its own

    @property
    def held(self) -> tuple[Tensor, ...]:
        """The shards of the clients that hold data."""
        return tuple(shard for shard in self.shards if len(shard))

    def attacked(self, round_index: int) -> bool:
        """Whether malicious clients attack in this round, from 0; a warm-up's do not count. While
        an attack is dormant they are honest clients, to the defense's rules for these too.
        """
        return self.scheduled(round_index) and not self.spec.dormant

    def scheduled(self, round_index: int) -> bool:
        """Whether an attack, dormant or not, falls into this round: it makes its trigger then."""
        return bool(self.spec.attack) and self._attack_index(round_index) is not None

    def _attack_index(self, round_index: int) -> int | None:
        """Which of the scheduled attacks falls into a round, from 0; None where none does."""
        spec = self.spec
        since = round_index - spec.attack_start
        over = spec.attack_stop is not None and round_index >= spec.attack_stop
        if since < 0 or over or since % spec.attack_every:
            return None
        return since // spec.attack_every

    def attackers(self, round_index: int) -> Tensor:
        """Ascending ids of the malicious clients that may attack in a round: with
        ``attackers=in_turn`` the one whose turn it is, none outside the schedule.
        """
        attack_index = self._attack_index(round_index)
        if attack_index is None or not len(self.malicious):
            return self.malicious[:0]
        if self.spec.attackers == "all":
            return self.malicious
        turn = attack_index % len(self.malicious)
        return self.malicious[turn : turn + 1]

    def attack_turns(self) -> tuple[int, ...]:
        """How often a malicious client has attacked by the end of each round, all clients together;
        empty where nobody is meant to attack. Cohorts are a function of the spec, so nothing is
        counted.
        """
        spec = self.spec
        if not spec.attack or spec.dormant:
            return ()
        turns = []
        for round_index in range(spec.rounds):
            present = torch.isin(self.cohort(round_index), self.attackers(round_index))
            turns.append(int(present.sum()))
        return tuple(accumulate(turns))

    def trigger_state(self, states: Any) -> Any:
        """The part of the attack's state that the triggered test set is made of."""
        whole = not states or self.trigger_stage is None
        return states if whole else states[self.trigger_stage]

    def training_state(self, states: Any) -> Any:
        """The attack's state as local training needs it: without that of stages which have no part
        in it, and may be large.
        """
        if states is None or all(self.training_stages):
            return states
        pairs = zip(states, self.training_stages, strict=True)
        return tuple(state if needed else None for state, needed in pairs)

    def judged(self, round_index: int) -> Tensor:
        """Ascending ids of the clients of a round that telemetry takes for malicious: where
        attackers take turns, those that wait train as honest ones, but for fakes, which cannot.
        """
        if self.spec.attackers == "in_turn" and self.spec.fake_samples is None:
            return self.attackers(round_index)
        return self.malicious

    def cohort(self, round_index: int) -> Tensor:
        """Ascending ids (int64) of the clients that train in a round: those asked that answer."""
        return partition.answering(
            self.asked(round_index),
            dropout=self.spec.client_dropout,
            seed=self.spec.seed,
            round=self.draw_round(round_index),
        )

    def asked(self, round_index: int) -> Tensor:
        """Ascending ids (int64) of the clients that the server asks to train in a round.

        They follow from the schedule, whatever the attack, so its clean twin has the same.
        """
        spec = self.spec
        in_turn = spec.attackers == "in_turn"
        return partition.cohort(
            clients=spec.clients,
            per_round=spec.per_round,
            selection=spec.selection,
            malicious=self.malicious,
            seed=spec.seed,
            round=self.draw_round(round_index),
            certain=self.attackers(round_index) if in_turn else None,
        )

    def draw_round(self, round_index: int) -> int:
        """The round that names the draws of a round: those of an experiment go on from those of its
        warm-up. Nothing else counts the warm-up's rounds.
        """
        return self.spec.warmup + round_index

    def draws(
        self,
        what: str,
        round_index: int,
        client: int,
    ) -> torch.Generator:
        """The generator of one thing that a client does in a round."""
        return seeds.generator(self.spec.seed, what, self.draw_round(round_index), client)

    def round_view(
        self,
        round_index: int,
        params: Tensor,
        buffers: Tensor,
        generator: torch.Generator,
    ) -> RoundView:
        """What everybody knows in a round; the view of each is made of it."""
        net = self.net
        return RoundView(
            round=round_index,
            params=params,
            layout=net.layout,
            model=lambda vector, x: net.logits(vector, x, buffers),
            features=lambda vector, x: net.features(vector, x, buffers),
            head=net.head_slots(),
            classes=self.data.classes,
            generator=generator,
            private=self.keeping.withheld if self.keeping else None,
        )

    def of_client(
        self,
        vectors: tuple[Tensor, Tensor],
        own: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """The model that a client uses: the global one, with what it has of its own (p,)."""
        return self.keeping.used(vectors, own) if self.keeping else vectors

    def lonely(self, where: str, remedy: str) -> str:
        """Why training cannot go on where it comes to a batch of one sample, and what to do."""
        return (
            f"model {self.spec.model}: {where}, and of one sample its BatchNorm has one value a"
            f" channel, so no variance; {remedy}, or take a model without BatchNorm"
        )

    def optimizer(self, lr: float | None = None) -> Optimizer:
        """A new optimizer of the spec, with another learning rate where one is given."""
        part = self.spec.optimizer
        changed = {} if lr is None else {"lr": lr}
        return OPTIMIZERS[part.name](**{**part.params, **changed})


def build_federation(
    spec: Spec,
    data: Data,
    where: torch.device,
) -> Federation:
    """Everything that stays the same, from a validated spec and its dataset."""
    root, rest = partition.hold_out(len(data.train.y), spec.root_size, spec.seed)
    data = data._replace(root=_taken(data.train, root))
    if spec.evaluate_on == "validation":
        data, rest = _validated(data, rest, spec.seed)
    fakes = _fakes(spec)
    shards = partition.deal(
        data,
        clients=spec.clients - len(fakes),
        alpha=spec.alpha,
        seed=spec.seed,
        among=rest,
        labels_each=spec.labels_each,
        size_exponent=spec.size_exponent,
    )
    if spec.input_noise:
        data = splits.noisy(data, shards, noise=spec.input_noise, seed=spec.seed)
    sizes = list(map(len, shards))
    if spec.fake_samples is not None:
        shards, sizes = partition.beside_fakes(shards, fakes, spec.fake_samples)
    module = _model(spec, data)
    attack, stages = _attack(spec)
    several = len(chains_apart(spec.attack)) > 1
    own = loose.is_full_name(spec.model.name)
    net = network.network(module, data, where, spec.batch, spec.precision, one_by_one=own)
    defense = _defense(spec)
    keeping = keeping_of(defense, net, spec.model.name, _keeping_stage(spec))
    if keeping and not keeping.carry and spec.evaluate_by == "server":
        raise BadInput(
            "defense: a stage has clients keep a part of the model, which its facts do not say;"
            ' add KEEPS = "norms", "head" or "model" to its file'
        )
    # clients begin at models of their own, or take steps of their own: one after another
    if keeping or (defense.local and defense.local.step):
        net = net._replace(vectorized=False)
    built = Federation(
        spec=spec,
        data=_move(data, where),
        shards=tuple(shards),
        sizes=tuple(sizes),
        malicious=partition.malicious_clients(
            spec.clients,
            spec.malicious,
            spec.seed,
            by=spec.malicious_by,
            sizes=sizes,
        ),
        net=net,
        replica=network.Replica(net),
        attack=attack,
        trigger_stage=None if several else find_trigger_stage(stages),
        training_stages=() if several else tuple(map(in_training, stages)),
        defense=defense,
        device=where,
        keeping=keeping,
    )
    _trainable(built)
    _has_statistics(built)
    return built


def _fakes(spec: Spec) -> Tensor:
    """The ids of the clients that hold no data."""
    if spec.fake_samples is None:
        return torch.empty(0, dtype=torch.int64)
    return partition.malicious_clients(spec.clients, spec.malicious, spec.seed)


def _keeping_stage(spec: Spec) -> str:
    """The stage under which clients keep a part of the model; empty where none says so."""
    names = (part.name for part in spec.defense)
    return next((name for name in names if plugins.defense_facts(name).keeps), "")


def _taken(samples: Samples, index: Tensor) -> Samples:
    return Samples(samples.x[index], samples.y[index])


def _validated(
    data: Data,
    rest: Tensor,
    seed: int,
) -> tuple[Data, Tensor]:
    """The data with a validation part of the training samples ``rest`` in place of the test set,
    which nobody sees any more, and which of them are left for the clients.
    """
    part, left = partition.hold_out_validation(data.train.x[rest], seed, kind=data.kind)
    return data._replace(test=_taken(data.train, rest[part])), rest[left]


def another(built: Federation) -> Federation:
    """The same federation for another thread: data and shards are shared, models and stages are
    its own, as they are in another process.
    """
    net = built.net._replace(module=copy.deepcopy(built.net.module))
    attack, _ = _attack(built.spec)
    return built._replace(
        net=net,
        replica=network.Replica(net),
        attack=attack,
        defense=_defense(built.spec),
    )


def _model(spec: Spec, data: Data) -> nn.Module:
    """The model with its initial values."""
    make = plugins.build("models", spec.model.name, spec.model.params)
    shape = tuple(data.train.x.shape[1:])
    with seeds.seeded(spec.seed, "model"):
        module: nn.Module = make(shape, data.classes)
    if loose.is_full_name(spec.model.name):
        module = fitting.fit(module, data, loose.short_name(spec.model.name))
    if data.vectors is not None:
        _embed(module, data.vectors, spec)
    return module


def _attack(spec: Spec) -> tuple[Attack, list[Attack]]:
    """The stages as one, and one by one; of a dormant attack what tells how often it would
    succeed.
    """
    chains, stages = [], []
    for parts in chains_apart(spec.attack):
        names = [item.name for item in parts]
        knows = [plugins.attack_facts(name).knows for name in names]
        built = [plugins.build("attacks", item.name, item.params) for item in parts]
        chains.append(attack_chain(built, knows, names))
        stages += built
    attack = chains[0] if len(chains) == 1 else adversaries(chains)
    if spec.dormant:  # nothing that a malicious client trains on or sends is left
        attack = Attack(
            init=attack.init,
            plan=attack.plan,
            trigger=attack.trigger,
            goal=attack.goal,
            test_set=attack.test_set,
        )
    return attack, stages


def _defense(spec: Spec) -> Defense:
    names = [item.name for item in spec.defense]
    stages = [plugins.build("defenses", item.name, item.params) for item in spec.defense]
    _check_reach(names, stages)
    return chain(*stages, names=names)


def _check_reach(names: Sequence[str], stages: Sequence[Defense]) -> None:
    """BadInput where clients use models of their own, and a stage repairs the global one without
    saying so: a spec of one that says it is refused before anything is built.
    """
    if not any(plugins.defense_facts(name).keeps == "model" for name in names):
        return
    for name, stage in zip(names, stages, strict=True):
        if only_repairs(stage):
            raise BadInput(
                f"defense {name}: all that it does is to change the final model, which its facts do"
                " not say; add REPAIRS = True to its file"
            )


def _trainable(built: Federation) -> None:
    """BadInput where somebody's training would come to a batch of one sample and the model cannot
    take it.
    """
    if not built.net.pairs:
        return
    spec = built.spec
    if spec.batch == 1:
        raise BadInput(built.lonely("batch=1", "set batch to 2 or more"))
    single = [client for client, shard in enumerate(built.shards) if len(shard) == 1]
    if single:
        where = f"client {single[0]} has one sample"
        if len(single) > 1:
            where = f"{len(single)} clients have one sample each, client {single[0]} among them"
        raise BadInput(built.lonely(where, "take fewer clients, a more even split (alpha)"))
    trained = [
        item.name for item in spec.defense if "root" in plugins.defense_facts(item.name).needs
    ]
    if trained and spec.root_size == 1:
        where = f"root_size=1 with {trained[0]}"
        raise BadInput(built.lonely(where, "set root_size to 2 or more"))


def _has_statistics(built: Federation) -> None:
    """BadInput where a defense looks at BatchNorm statistics and the model has none."""
    if built.net.batch_norm:
        return
    for item in built.spec.defense:
        if "buffers" in plugins.defense_facts(item.name).needs:
            raise BadInput(
                f"defense {item.name} looks at BatchNorm statistics and model {built.spec.model}"
                " has none; take a model with BatchNorm, e.g. resnet18(norm=batch)"
            )


def _embed(
    module: nn.Module,
    vectors: Tensor,
    spec: Spec,
) -> None:
    """Give the model's embedding the dataset's pre-trained vectors as initial values."""
    table = getattr(getattr(module, "embedding", None), "weight", None)
    if not isinstance(table, Tensor) or table.shape != vectors.shape:
        has = f"one of {_sides(table)}" if isinstance(table, Tensor) else "none"
        raise BadInput(
            f"model {spec.model}: the word vectors of dataset {spec.dataset} need an embedding of"
            f" {_sides(vectors)}; the model has {has}; set words and dim to fit"
        )
    table.data.copy_(vectors)


def _sides(table: Tensor) -> str:
    return " x ".join(map(str, table.shape))


def _move(data: Data, where: torch.device) -> Data:
    def moved(samples: Samples) -> Samples:
        return Samples(samples.x.to(where), samples.y.to(where))

    root = moved(data.root) if data.root else None
    return data._replace(
        train=moved(data.train),
        test=moved(data.test),
        root=root,
    )
