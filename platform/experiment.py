"""One experiment: rounds of local training, crafting, defending and moving the global model. A pure
function of its spec.

    for record in run(Spec(attack=(Part("badnets"),), defense=(Part("median"),))):
        print(record.round, record.metrics)

Everything that is carried from round to round is in a :class:`State`, so an experiment can stop
after any round and go on in another process with the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from backstop.platform import seeds
from backstop.platform.contract import (
    AttackView,
    Defense,
    Record,
    Samples,
    ServerView,
    TestSet,
    Updates,
)
from backstop.platform.rounds import costs, origin, starts
from backstop.platform.rounds.checkpoint import Checkpoint, Saved
from backstop.platform.rounds.mean import finite_rows, weighted_mean
from backstop.platform.specs.spec import Spec, validate
from backstop.platform.training import evaluate, federation, loading, local_sgd, network
from backstop.platform.training.device import choose_device
from backstop.platform.training.evaluate import Probe
from backstop.platform.training.federation import Federation
from backstop.platform.training.local_sgd import Trained
from backstop.platform.training.stage_errors import located
from backstop.platform.workers.clients import Clients, InProcess, one_thread

WARMUP_SAVE_INTERVAL_S = 60.0  # seconds of a warm-up that a stopped process may lose


class State(NamedTuple):
    """What is carried from round to round. It can be pickled."""

    round: int  # rounds done
    params: Tensor  # (d,)
    buffers: Tensor  # (e,)
    attack: Any
    defense: Any


class Experiment:
    """An experiment that goes round by round; ``state`` may be taken out and put in between rounds."""

    def __init__(
        self, spec: Spec, folder: Path, device: str = "auto", clients: Clients | None = None
    ) -> None:
        """Validate the spec, load the data, deal it and build the first state. Raises BadInput
        before anything is trained.
        """
        self.spec = validate(spec)
        self.folder = folder
        self.clients: Clients = clients or InProcess()
        with one_thread():
            data = loading.load_dataset(self.spec.dataset, folder)
            self.built = federation.build_federation(self.spec, data, choose_device(device))
            self.attack_turns = self.built.attack_turns()
            self.secret = cache(partial(_malicious_data, self.built))
            self.read_edge_cases = False
            self.state = self._first(*self._start(device))
            self.origin = origin.here(self.spec, folder, self.built.device, self.read_edge_cases)
        self.clients.open(self.built, folder)
        self.probed: tuple[Any, Probe] | None = None
        self.costs: dict[str, float] = {}

    def _start(self, device: str) -> tuple[Tensor, Tensor]:
        """The vectors before the first round: fresh, from a checkpoint, or warmed up."""
        spec, net, where = self.spec, self.built.net, self.built.device
        if spec.warmup:
            clean, key = starts.warmup_spec(spec), self.warm_up_key(spec)
            params, buffers = starts.compute_once(
                key, lambda place: _warm_up(clean, self.folder, device, self.clients, place)
            )
            return params.to(where), buffers.to(where)
        return (
            net.vectors(starts.find_start(spec.start, self.folder))
            if spec.start
            else (net.params, net.buffers)
        )

    def warm_up_key(self, spec: Spec) -> str:
        """What the warm-up of a spec is a function of: its clean experiment, the dataset's bytes
        and the kind of machine.
        """
        return f"{starts.warmup_spec(spec).id}-{loading.machine_digest(spec.dataset, self.folder, self.built.device)}"

    def _first(self, params: Tensor, buffers: Tensor) -> State:
        state = State(0, params, buffers, None, None)
        attack, defense = self.built.attack, self.built.defense
        view = self._attack_view(state, torch.empty(0, dtype=torch.int64), 0, self.spec.malicious)
        plotted = attack.init(view) if attack.init else None
        return state._replace(attack=plotted, defense=defense.init(self._server_view(state)))

    def _server_view(self, state: State) -> ServerView:
        built, spec = self.built, self.spec
        root = built.data.root
        assert root is not None
        return ServerView(
            round=state.round,
            params=state.params,
            layout=built.net.layout,
            model=built.net.caller(state.buffers),
            features=lambda params, x: built.net.features(params, x, state.buffers),
            train=lambda params, samples: local_sgd.train_samples(
                built, state.round, params, state.buffers, samples
            ),
            head=built.net.head_slots(),
            root=Samples(network.to_unit_interval(root.x), root.y),
            classes=built.data.classes,
            server_lr=spec.server_lr,
            generator=seeds.generator(spec.seed, "defense", state.round),
        )

    def _attack_view(self, state: State, members: Tensor, total: int, share: float) -> AttackView:
        built, spec = self.built, self.spec
        return AttackView(
            round=state.round,
            params=state.params,
            layout=built.net.layout,
            model=built.net.caller(state.buffers),
            features=lambda params, x: built.net.features(params, x, state.buffers),
            train=lambda params, samples: local_sgd.train_samples(
                built, state.round, params, state.buffers, samples
            ),
            unpoisoned=partial(self._unpoisoned, state, members),
            head=built.net.head_slots(),
            samples=self.secret,
            sizes=tuple(len(built.shards[int(client)]) for client in built.malicious),
            classes=built.data.classes,
            kind=built.data.kind,
            clients=len(built.malicious),
            members=members,
            total=total,
            share=share,
            server_lr=spec.server_lr,
            generator=seeds.generator(spec.seed, "attack", state.round),
            edge_cases=self._edge_cases(),
            vocabulary=built.data.vocabulary,
            class_weights=built.net.class_weights,
            defend=partial(self._defended, state),
        )

    def _unpoisoned(self, state: State, members: Tensor) -> Tensor:
        clients = self.built.malicious[members].tolist()
        number = self.spec.warmup + state.round
        return local_sgd.unpoisoned(self.built, number, clients, state.params, state.buffers)

    def _defended(self, state: State, rows: Tensor) -> Updates:
        """The defense in use on rows that the adversary made up, with what the adversary has: no
        history, and its own data as root set.
        """
        spec, defense, data = self.spec, self.built.defense, self.secret()
        draws = seeds.generator(spec.seed, "adversary's defense", state.round)
        root = torch.randperm(len(data.y), generator=draws)[: spec.root_size].to(data.y.device)
        view = replace(
            self._server_view(state), root=Samples(data.x[root], data.y[root]), generator=draws
        )
        updates = Updates(
            rows,
            torch.ones(len(rows), device=rows.device),
            torch.arange(len(rows), device=rows.device),
        )
        return defense.apply(updates, defense.init(view), view)[0]

    def _edge_cases(self) -> Callable[[], tuple[Samples, Samples]] | None:
        found = loading.dataset(self.spec.dataset)
        if found.edge_cases is None or found.edge_target is None:
            return None
        target = found.edge_target

        def labelled() -> tuple[Samples, Samples]:
            self.read_edge_cases = True
            pair = loading.load_edge_cases(self.spec.dataset, self.folder)
            assert pair is not None
            train, test = (network.to_unit_interval(x).to(self.built.device) for x in pair)
            return tuple(
                Samples(x, torch.full((len(x),), target, device=x.device)) for x in (train, test)
            )  # type: ignore[return-value]

        return labelled

    def round(self) -> Record | None:
        """Do one round; a record where the round is due for evaluation. What a plug-in raises is a
        :class:`BrokenStage` that names the stage and the round.
        """
        with located(self.state.round):
            return self._round()

    def _round(self) -> Record | None:
        spec, built, state = self.spec, self.built, self.state
        with one_thread():
            # the draws of an experiment go on from those of its warm-up
            number = spec.warmup + state.round
            cohort = built.cohort(number)
            state, trained = self._train(state, cohort)
            finite = finite_rows(trained.rows) & finite_rows(trained.buffers)
            if finite.all():  # no copy of the matrix
                sent = Updates(
                    trained.rows, self._weights(trained.client), trained.client.to(finite.device)
                )
            else:
                sent = Updates(
                    trained.rows[finite],
                    self._weights(trained.client[finite.cpu()]),
                    trained.client.to(finite.device)[finite],
                )
            with costs.measured("aggregate", built.device, self.costs, memory=True):
                state, aggregate, telemetry = self._aggregate(state, sent, trained.buffers[finite])
            self.state = state = state._replace(round=state.round + 1)
            if state.round % spec.eval_every and state.round != spec.rounds:
                return None
            honest = ~torch.isin(trained.client, self._judged(number))
            loss = (
                trained.loss.cpu()[honest].double().mean().item() if honest.any() else float("nan")
            )
            metrics = self._measure() | {
                "round/train_loss": loss,
                "defense/nonfinite_rows": float((~finite).sum()),
                **telemetry(aggregate),
            }
            if self.attack_turns:
                metrics["attack/turns"] = float(self.attack_turns[state.round - 1])
            if (built.defense.finish or built.defense.predict) and state.round == spec.rounds:
                metrics |= self._repaired(built.defense)
            spent, self.costs = self.costs, {}
            return Record(spec.id, state.round - 1, metrics, spent)

    def _judged(self, number: int) -> Tensor:
        """The clients of a round that telemetry takes for malicious: where attackers take turns,
        those that wait train as honest ones.
        """
        return (
            self.built.attackers(number)
            if self.spec.attackers == "in_turn"
            else self.built.malicious
        )

    def _repaired(self, defense: Defense) -> dict[str, float]:
        """Let the defense repair the final model, and label as it says: figures beside those of the
        plain model before.
        """
        if defense.finish:
            with costs.measured("repair", self.built.device, self.costs, memory=True):
                repaired = defense.finish(self.state.defense, self._server_view(self.state))
            self.state = self.state._replace(params=repaired)
        found = self._measure(self.state.round if defense.predict else None)
        return {name.replace("round/", "repaired/"): value for name, value in found.items()}

    def _weights(self, clients: Tensor) -> Tensor:
        return torch.tensor(
            [float(len(self.built.shards[int(client)])) for client in clients],
            device=self.built.device,
        )

    def _train(self, state: State, cohort: Tensor) -> tuple[State, Trained]:
        """Send the model, plan, train the cohort and craft the malicious rows."""
        with costs.measured("train", self.built.device, self.costs):
            if self.built.defense.send:
                draws = seeds.generator(self.spec.seed, "defense sends", state.round)
                view = replace(self._server_view(state), generator=draws)
                sent, remembered = self.built.defense.send(state.defense, view)
                state = state._replace(params=sent, defense=remembered)
            return self._trained(state, cohort)

    def _trained(self, state: State, cohort: Tensor) -> tuple[State, Trained]:
        built = self.built
        number = self.spec.warmup + state.round
        present = torch.isin(cohort, built.attackers(number))
        attacked = built.attacked(number) and bool(present.any())
        members = torch.searchsorted(built.malicious, cohort[present])
        weight = self._weights(cohort)
        share = (weight[present].sum() / weight.sum()).item()
        if attacked and built.attack.plan:
            state = state._replace(
                attack=built.attack.plan(
                    state.attack, self._attack_view(state, members, len(cohort), share)
                )
            )
        trained = self.clients.train(
            number, cohort.tolist(), state.params, state.buffers, state.attack
        )
        craft, craft_buffers = built.attack.craft, built.attack.craft_buffers
        if attacked and (craft or craft_buffers):
            view = replace(
                self._attack_view(state, members, len(cohort), share), honest=trained.rows[~present]
            )
            rows, buffers = trained.rows.clone(), trained.buffers.clone()
            if craft:
                rows[present] = craft(state.attack, trained.rows[present], view)
            if craft_buffers and buffers.shape[1]:
                buffers[present] = craft_buffers(state.attack, trained.buffers[present], view)
            trained = trained._replace(rows=rows, buffers=buffers)
        return state, trained

    def _aggregate(
        self, state: State, sent: Updates, changes: Tensor
    ) -> tuple[State, Tensor, Callable[[Tensor], Any]]:
        """Defend, and move the global vectors by the weighted mean. Without a weight that is left,
        nothing moves.
        """
        if not len(sent.rows):
            return state, torch.zeros_like(state.params), lambda _: {}
        follow = self.built.defense.follow
        assert follow is not None
        after, remembered, shares = follow(sent, state.defense, self._server_view(state))
        aggregate = weighted_mean(after.rows, after.weight)
        params = state.params + aggregate * self.spec.server_lr
        buffers = state.buffers
        if len(buffers):  # a client's buffers count as much as the defense lets the client count
            kept = torch.zeros_like(sent.weight).index_add(
                0, torch.searchsorted(sent.client, shares.client), shares.weight
            )
            buffers = buffers + weighted_mean(changes, kept)
        moved = state._replace(params=params, buffers=buffers, defense=remembered)
        malicious = self._judged(self.spec.warmup + state.round).to(sent.client.device)
        layout = self.built.net.layout
        return (
            moved,
            aggregate,
            lambda row: (
                evaluate.kept(sent, after, malicious) | evaluate.masked(sent.rows, row, layout)
            ),
        )

    def _measure(self, defended: int | None = None) -> dict[str, float]:
        """The figures of the global model as it is; as the defense lets it predict after
        ``defended`` rounds.
        """
        with costs.measured("evaluate", self.built.device, self.costs):
            probe = self.probe()
            clean, triggered = self.clients.predict(
                self.state.params, self.state.buffers, probe, defended
            )
            metrics = evaluate.clean_figures(clean.label, probe.clean)
            if defended is not None:
                metrics["round/rejected_rate"] = evaluate.rejected(clean)
                metrics |= evaluate.certified(clean, probe.clean)
            if triggered is not None and probe.triggered is not None:
                untriggered = clean.label if probe.paired else None
                metrics |= evaluate.success(triggered.label, probe.triggered, untriggered)
                if defended is not None:
                    metrics["round/rejected_triggered_rate"] = evaluate.rejected(triggered)
            return metrics

    def probe(self) -> Probe:
        """The test sets: made once, and once more whenever the attack's state has changed (a
        learned trigger).
        """
        state, attack, test = self.state, self.built.attack, self.built.data.test
        own = state.attack[self.built.judge] if state.attack else None
        if self.probed is None or self.probed[0] is not own:
            triggered = None
            if attack.test_set is not None:
                view = self._attack_view(
                    state, torch.empty(0, dtype=torch.int64), 0, self.spec.malicious
                )
                triggered = attack.test_set(
                    state.attack,
                    replace(view, test=Samples(network.to_unit_interval(test.x), test.y)),
                )
            elif attack.goal is not None:
                stamp = attack.trigger
                draws = seeds.generator(self.spec.seed, "trigger")
                x = (
                    evaluate.stamped(test.x, lambda piece: stamp(state.attack, piece, draws))
                    if stamp
                    else test.x
                )
                triggered = TestSet(x, attack.goal(state.attack, test.y), test.y)
            paired = attack.test_set is None and attack.trigger is not None
            self.probed = (own, Probe(test, triggered, paired))
        return self.probed[1]

    def saved(self, records: Sequence[Record]) -> Saved:
        """All that another process needs to go on from here; the model too, once all rounds are done."""
        state, done = self.state, self.state.round >= self.spec.rounds
        model = self.built.net.tensors(state.params, state.buffers) if done else {}
        return Saved(state, list(records), self.costs, self.origin, done, model)

    def resume(self, checkpoint: Checkpoint) -> list[Record]:
        """Take over what is saved and return the records so far; none where nothing (readable) is.

        What is done keeps the origin that it was made with. What is not done goes on only where its
        origin is the experiment's own, else it begins anew, and the checkpoint's ``note`` says why:
        rounds of two versions or of two files would make a run that never was.
        """
        saved = checkpoint.read(self.built.device)
        checkpoint.note = ""
        if saved is None:
            return []
        other = saved.origin.difference(self.origin)
        if other and not saved.done:
            rounds = f"rounds 1 to {saved.state.round}"
            checkpoint.note = f"begins anew: {rounds} were made with {other}"
            return []
        self.state, self.costs, self.origin = saved.state, saved.costs, saved.origin
        return list(saved.records)

    def close(self) -> None:
        """Give the workers back."""
        self.clients.close()


def _warm_up(
    clean: Spec, folder: Path, device: str, clients: Clients, place: Path
) -> tuple[Tensor, Tensor]:
    """The vectors at the end of a clean experiment; what is done when the process is stopped is
    kept in ``place``.
    """
    warm = Experiment(clean, folder, device, clients)
    checkpoint, until = Checkpoint(place, clean.id), time.perf_counter() + WARMUP_SAVE_INTERVAL_S
    warm.resume(checkpoint)
    while warm.state.round < clean.rounds:
        warm.round()
        if time.perf_counter() > until:
            checkpoint.save(warm.saved([]))
            until = time.perf_counter() + WARMUP_SAVE_INTERVAL_S
    checkpoint.drop()
    return warm.state.params, warm.state.buffers


def _malicious_data(built: Federation) -> Samples:
    """The samples of all malicious clients as the model call takes them."""
    train = built.data.train
    index = torch.cat(
        [
            torch.empty(0, dtype=torch.int64),
            *(built.shards[int(client)] for client in built.malicious),
        ]
    )
    index = index.to(train.y.device)
    return Samples(network.to_unit_interval(train.x[index]), train.y[index])


def run(
    spec: Spec,
    *,
    folder: Path | None = None,
    device: str = "auto",
    clients: Clients | None = None,
    state: State | None = None,
    keep: Callable[[State], None] | None = None,
) -> Iterator[Record]:
    """Run an experiment and yield a record for every evaluated round.

    ``state`` goes on from an earlier run's, ``keep`` is handed the state after every round. Raises
    BadInput for a spec that cannot be run, before anything is trained.
    """
    experiment = Experiment(spec, loading.data_folder(folder), device, clients)
    try:
        experiment.state = state or experiment.state
        while experiment.state.round < experiment.spec.rounds:
            record = experiment.round()
            if keep is not None:
                keep(experiment.state)
            if record is not None:
                yield record
    finally:
        experiment.close()
