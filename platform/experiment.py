"""One experiment: rounds of local training, crafting, defending and moving the global model. A pure
function of its spec.

    for record in run(Spec(attack=(Part("badnets"),), defense=(Part("median"),))):
        print(record.round, record.metrics)

Everything that is carried from round to round is in a :class:`State`, so an experiment can stop
after any round and go on in another process with the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backstop.platform import plugins
from backstop.platform.contract import AttackView, Prediction, Question, Record, Shares
from backstop.platform.rounds import costs, origin, starts, turnout
from backstop.platform.rounds.checkpoint import Checkpoint, Checkpointed, Saved
from backstop.platform.rounds.probes import build_probe
from backstop.platform.rounds.validation import Validation
from backstop.platform.rounds.views import Presence, Views
from backstop.platform.rounds.views import State as State
from backstop.platform.specs.part import plugin_stages
from backstop.platform.specs.spec import Spec, validate
from backstop.platform.storage import Location
from backstop.platform.training import evaluate, federation, loading, own_tests, skew
from backstop.platform.training.device import choose_device
from backstop.platform.training.evaluate import Probe
from backstop.platform.training.local_sgd import Trained
from backstop.platform.training.matrix import Matrix
from backstop.platform.training.server_step import keep_finite, server_step
from backstop.platform.training.stage_errors import located
from backstop.platform.workers import memory
from backstop.platform.workers.clients import Clients, InProcess, one_thread

WARMUP_SAVE_INTERVAL_S = 60.0  # seconds of a warm-up that a stopped process may lose

Telemetry = Callable[[], dict[str, float]]


class Experiment:
    """An experiment that goes round by round; between rounds, ``state`` may be replaced."""

    def __init__(
        self,
        spec: Spec,
        folder: Path,
        device: str = "auto",
        clients: Clients | None = None,
    ) -> None:
        """Validate the spec, load the data, deal it and build the first state. Raises BadInput
        before anything is trained.
        """
        self.spec = validate(spec)
        self.folder = folder
        self.clients: Clients = clients or InProcess()
        with one_thread():
            data = loading.load_dataset(self.spec.dataset, folder)
            where = choose_device(device)
            self.built = federation.build_federation(self.spec, data, where)
            self.attack_turns = self.built.attack_turns()
            self.sees_honest = _sees_honest(self.spec)
            self.views = Views(self.built, folder)
            self.state = self._first(*self._start(device))
            edge_cases = self.views.read_edge_cases
            self.origin = origin.here(self.spec, folder, self.built.device, edge_cases)
        self.clients.open(self.built, folder)
        # the test sets, and the attack's state that they were made of
        self.probed: tuple[Any, Probe] | None = None
        # after how many rounds these clients had trained
        self.seen: tuple[int, frozenset[int]] = (0, frozenset())
        self.costs: dict[str, float] = {}  # since the last record

    def _start(self, device: str) -> tuple[Tensor, Tensor]:
        """The vectors before the first round: fresh, from a checkpoint, or warmed up."""
        spec, net = self.spec, self.built.net
        if spec.warmup:
            return self._warmed_up(device)
        if spec.start:
            model = starts.find_start(spec.start, self.folder)
            return net.vectors(model)
        return net.params, net.buffers

    def _warmed_up(self, device: str) -> tuple[Tensor, Tensor]:
        """The vectors after the warm-up, which is done here unless it was done before."""
        clean = starts.warmup_spec(self.spec)

        def warm_up(kept: Location) -> tuple[Tensor, Tensor]:
            return _warm_up(clean, self.folder, device, self.clients, kept)

        key = self.warm_up_key(self.spec)
        params, buffers = starts.compute_once(key, warm_up)
        where = self.built.device
        return params.to(where), buffers.to(where)

    def warm_up_key(self, spec: Spec) -> str:
        """What the warm-up of a spec is a function of: its clean experiment, the dataset's bytes
        and the kind of machine.
        """
        machine = loading.machine_digest(spec.dataset, self.folder, self.built.device)
        return f"{starts.warmup_spec(spec).id}-{machine}"

    def _first(self, params: Tensor, buffers: Tensor) -> State:
        """The state before the first round: attack and defense see it without their own part."""
        state = State(0, params, buffers, None, None)
        if keeping := self.built.keeping:
            if keeping.carry:
                self.views.first = keeping.carry.first(self.views.sent(state))
            else:
                self.views.first = keeping.taken((params, buffers))
        attack_state = None
        if self.built.attack.init:
            adversary = self.views.attack(state)
            attack_state = self.built.attack.init(adversary)
        server = self.views.server(state)
        defense_state = self.built.defense.init(server)
        return state._replace(attack=attack_state, defense=defense_state)

    @property
    def rounds_left(self) -> int:
        """How many rounds are still to do."""
        return max(0, self.spec.rounds - self.state.round)

    @property
    def model(self) -> Mapping[str, Tensor]:
        """Name → tensor of the global model."""
        state = self.state
        return self.built.net.tensors(state.params, state.buffers)

    def round(self) -> Record | None:
        """Do one round; a record where the round is due for evaluation. What a plug-in raises is a
        :class:`BrokenStage` that names the stage and the round. Interrupted before it has its
        record, the round is not done.
        """
        before = self.state
        try:
            with located(before.round), one_thread():
                return self._round()
        except BaseException:
            self.state = before
            raise

    def _round(self) -> Record | None:
        round_index = self.state.round
        if not round_index:
            self.state = self.state._replace(start_accuracy=self._start_accuracy())
        told = self._step()
        if told is None:
            return None
        metrics = self._measure() | told
        if not self.rounds_left:
            metrics |= self._repaired()
            metrics |= self._of_the_run()
        spent, self.costs = self.costs, {}
        return Record(self.spec.id, round_index, metrics, spent)

    def _start_accuracy(self) -> float:
        """The clean accuracy of the model that the first round's clients are sent."""
        state = self.state
        with self._measured("evaluate"):
            clean = Probe(self.built.data.test, None)
            predicted, _ = self.clients.predict(state.params, state.buffers, clean)
            return evaluate.accuracy(predicted.label, clean.clean)

    def _of_the_run(self) -> dict[str, float]:
        """What is told once: how the model started, how many inputs its rates are of, how unequal
        the clients are, where they drop out, how often that left no honest one, and whether an
        adversary never attacked.
        """
        probe = self.probe()
        told = evaluate.sizes(probe)
        if self.spec.evaluate_by == "clients":
            tests = self._own_tests(probe)
            told = own_tests.measured_sizes(tests, self.built.malicious.tolist())
        with self._measured("telemetry"):  # reads all inputs
            told |= turnout.figures(self.built)
            told |= turnout.absent_adversaries(self.built)
            told |= skew.split_figures(self.built.data, self.built.held)
        start = self.state.start_accuracy
        return told if start is None else {**told, "run/start_accuracy": start}

    def _step(self) -> dict[str, float] | None:
        """Train, defend and move the model; what is told of that where an evaluation is due. Nobody
        holds the round's rows when this returns, so the evaluation has their memory.
        """
        cohort = self.built.cohort(self.state.round)
        if not len(cohort):
            return self._nobody_answered()
        with self._measured("train"):
            state, trained, matrix = self._train(self.state, cohort)
        with self._measured("check"):
            finite = keep_finite(matrix, trained.buffers)
            sent = self._sent(trained, finite)
        if not state.round:
            memory.give_back()  # the largest of all rounds counts, and one is measured in full
        with self._measured("aggregate", peak=True):
            changes = trained.buffers[finite]
            moved, telemetry = self._aggregate(state, matrix, sent, changes)
        self.state = moved._replace(round=state.round + 1)
        if not self._due():
            return None
        with self._measured("telemetry"):
            told = self._honest_loss(trained, state.round)
            told["defense/nonfinite_rows"] = float((~finite).sum())
            told |= telemetry()
            told |= self._attendance(state.round)
        return told

    def _nobody_answered(self) -> dict[str, float] | None:
        """A round in which nothing is trained, attacked, defended or moved; what is told of it
        where an evaluation is due.
        """
        round_index = self.state.round
        self.state = self.state._replace(round=round_index + 1)
        return self._attendance(round_index) if self._due() else None

    def _attendance(self, round_index: int) -> dict[str, float]:
        """How many clients answered, where not all do, and how often one has attacked so far."""
        told = {}
        if self.spec.client_dropout:
            told["round/answered"] = float(len(self.built.cohort(round_index)))
        if self.attack_turns:
            told["attack/turns"] = float(self.attack_turns[round_index])
        return told

    def _measured(
        self,
        phase: str,
        *,
        peak: bool = False,
    ) -> AbstractContextManager[None]:
        """Take down what a phase costs: seconds, and where ``peak`` is true its memory."""
        return costs.measured(phase, self.built.device, self.costs, memory=peak)

    def _due(self) -> bool:
        """Whether the rounds done so far are followed by an evaluation; the last one always is."""
        if not self.rounds_left:
            return True
        return self.state.round % self.spec.eval_every == 0

    def _sent(self, trained: Trained, finite: Tensor) -> Shares:
        """Who sent the rows that the server takes, the finite ones, and how much they count."""
        clients = trained.client.to(finite.device)
        weight = self._weights(trained.client)
        return Shares(clients[finite], weight[finite])

    def _honest_loss(self, trained: Trained, round_index: int) -> dict[str, float]:
        """The mean training loss of honest clients; left out where none was there, as nothing has
        diverged then.
        """
        malicious = self.built.judged(round_index)
        honest = ~torch.isin(trained.client, malicious)
        if not honest.any():
            return {}
        losses = trained.loss.cpu()[honest]
        return {"round/train_loss": losses.double().mean().item()}

    def _repaired(self) -> dict[str, float]:
        """Let the defense repair the final model, and label as it says: figures beside those of the
        plain model before.
        """
        defense = self.built.defense
        if not (defense.finish or defense.predict):
            return {}
        if defense.finish:
            memory.give_back()
            with self._measured("repair", peak=True):
                server = self.views.server(self.state)
                repaired = defense.finish(self.state.defense, server)
            self.state = self._held(self.state._replace(params=repaired), self.state)
        defended = self.state.round if defense.predict else None
        repaired_figures = {}
        for name, value in self._measure(defended).items():
            repaired_figures[name.replace("round/", "repaired/")] = value
        return repaired_figures

    def _weights(self, clients: Tensor) -> Tensor:
        """How many samples each client has."""
        sizes = [float(self.built.sizes[client]) for client in clients.tolist()]
        return torch.tensor(sizes, device=self.built.device)

    def _train(self, state: State, cohort: Tensor) -> tuple[State, Trained, Matrix]:
        """Send the model, plan, train the cohort and craft the malicious rows."""
        return self._trained(self._after_send(state), cohort)

    def _trained(self, state: State, cohort: Tensor) -> tuple[State, Trained, Matrix]:
        attackers = self.built.attackers(state.round)
        present = torch.isin(cohort, attackers)
        attacked = bool(present.any()) and self.built.scheduled(state.round)
        presence = self._presence(cohort, present) if attacked else None
        if presence is not None:
            state = self._after_plan(state, presence)
        trained = self.clients.train(
            state.round,
            cohort.tolist(),
            state.params,
            state.buffers,
            self.built.training_state(state.attack),
            self.views.own(state, cohort.tolist()),
        )
        matrix = self.clients.matrix(trained)
        if trained.rows.is_cpu and trained.rows.nbytes >= memory.LARGE:
            memory.give_back()
        if presence is not None:
            self._crafted(state, trained, matrix, present, presence)
            state = self._after_sending(state, matrix, present, presence)
        return self._after_keeping(state, trained), trained, matrix

    def _after_keeping(self, state: State, trained: Trained) -> State:
        """The state once clients keep what they have of their own."""
        keeping = self.built.keeping
        if keeping is None:
            return state
        kept = dict(state.kept)
        attacking = self.built.attackers(state.round) if self.built.attacked(state.round) else ()
        idle = set() if keeping.private else set(map(int, attacking))
        for client, own in zip(trained.client.tolist(), trained.kept, strict=True):
            if client not in idle:  # who attacks has trained no model of its own
                kept[client] = own.clone()
        return state._replace(kept=kept)

    def _held(self, moved: State, before: State) -> State:
        """The state that has moved, but for what stays with the clients."""
        keeping = self.built.keeping
        if keeping is None:
            return moved
        vectors = (moved.params, moved.buffers)
        params, buffers = keeping.held(vectors, (before.params, before.buffers))
        return moved._replace(params=params, buffers=buffers)

    def _after_send(self, state: State) -> State:
        """The state once the defense has said which model the clients are sent."""
        send = self.built.defense.send
        if not send:
            return state
        server = self.views.server(state, "defense sends")
        params, remembered = send(state.defense, server)
        return self._held(state._replace(params=params, defense=remembered), state)

    def _after_plan(self, state: State, presence: Presence) -> State:
        """The state once the attack has planned its round."""
        plan = self.built.attack.plan
        if not plan:
            return state
        view = self.views.attack(state, presence)
        return self._with_attack(state, plan(state.attack, view))

    def _after_sending(
        self,
        state: State,
        matrix: Matrix,
        present: Tensor,
        presence: Presence,
    ) -> State:
        """The state once the attack has seen what it sent (m, d)."""
        remember = self.built.attack.remember
        if not remember:
            return state
        view = self.views.attack(state, presence)
        return self._with_attack(state, remember(state.attack, matrix.of(present), view))

    def _with_attack(self, state: State, states: Any) -> State:
        """The state with another one of the attack; with another trigger, there is no test set."""
        before, after = map(self.built.trigger_state, (state.attack, states))
        return state._replace(attack=states, probed=state.probed if after is before else None)

    def _presence(self, cohort: Tensor, present: Tensor) -> Presence:
        """How much of the cohort (n,) attacks; ``present`` (n,) says who does."""
        weight = self._weights(cohort)
        share = weight[present].sum() / weight.sum()
        attacking = cohort[present]
        members = torch.searchsorted(self.built.malicious, attacking)
        return Presence(members, len(cohort), share.item())

    def _crafted(
        self,
        state: State,
        trained: Trained,
        matrix: Matrix,
        present: Tensor,
        presence: Presence,
    ) -> None:
        """Let the attack craft the rows, or the buffers, that those present send, in place of what
        was trained.
        """
        craft = self.built.attack.craft
        craft_buffers = self.built.attack.craft_buffers
        if not (craft or craft_buffers):
            return
        view = self.views.attack(state, presence)
        if self.sees_honest:
            view = replace(view, honest=matrix.of(~present))
        if craft:
            own = matrix.of(present)
            crafted = craft(state.attack, own, view)
            if self.built.keeping and self.built.keeping.withheld is not None:
                crafted = crafted.masked_fill(self.built.keeping.withheld, 0.0)
            matrix.replace(present, crafted)
        buffers = trained.buffers
        if craft_buffers and buffers.shape[1]:
            changes = buffers[present]
            buffers[present] = craft_buffers(state.attack, changes, view)

    def _aggregate(
        self,
        state: State,
        matrix: Matrix,
        sent: Shares,
        changes: Tensor,
    ) -> tuple[State, Telemetry]:
        """Defend, and move the global vectors by the weighted mean. Without a weight that is left,
        nothing moves.

        What the defense did is told only when asked for, in the rounds that are evaluated.
        """
        if not len(sent.client):
            return state, dict
        server = replace(self.views.server(state), validate=self._validation(state))
        step = server_step(matrix, sent, changes, self.built.defense, state.defense, server)
        defended = step.defended
        moved = state._replace(
            params=step.moved(state.params, self.spec.server_lr),
            buffers=step.moved_buffers(state.buffers),
            defense=defended.state,
        )
        moved = self._held(moved, state)
        judged = self.built.judged(state.round)
        malicious = judged.to(sent.client.device)

        def telemetry() -> dict[str, float]:
            kept = evaluate.kept(sent, defended.left, malicious)
            return kept | evaluate.masked(defended.stopped(), self.built.net.layout)

        return moved, telemetry

    def _validation(self, state: State) -> Validation:
        """How the clients of a round are asked."""
        cohort = self.built.cohort(state.round)

        def ask(voters: Sequence[int], question: Question) -> Tensor:
            with self._measured("validate"):
                return self.clients.score(
                    state.round,
                    voters,
                    state.params,
                    state.buffers,
                    self.views.own(state, voters),
                    question,
                )

        def adversary() -> AttackView:
            present = torch.isin(cohort, self.built.attackers(state.round))
            return self.views.attack(state, self._presence(cohort, present))

        return Validation(self.built, state, cohort, ask, adversary)

    def _measure(self, defended: int | None = None) -> dict[str, float]:
        """The figures of the global model as it is; as the defense lets it predict after
        ``defended`` rounds.
        """
        with self._measured("evaluate"):
            probe = self.probe()
            if self.spec.evaluate_by == "server":
                return self._measure_global(probe, defended)
            return self._measure_clients(probe, defended)

    def _measure_global(self, probe: Probe, defended: int | None) -> dict[str, float]:
        """The figures of the global model on the test sets."""
        state = self.state
        clean, triggered = self.clients.predict(
            state.params,
            state.buffers,
            probe,
            defended,
        )
        metrics = evaluate.clean_figures(clean.label, probe.clean)
        if triggered is not None and probe.triggered is not None:
            untriggered = clean.label if probe.paired else None
            metrics |= evaluate.success(triggered.label, probe.triggered, untriggered)
        if defended is not None:
            metrics |= _defended_figures(clean, triggered, probe)
        return metrics

    def _measure_clients(self, probe: Probe, defended: int | None) -> dict[str, float]:
        """The figures of the clients' models, each on its own test data, of all that have trained
        so far; and those of the global model, where there is one without a client's part.
        """
        state, built = self.state, self.built
        tests = self._own_tests(probe)
        predicted = self.clients.predict_each(
            state.params,
            state.buffers,
            state.kept,
            probe,
            tests,
            defended,
        )
        by_client = {
            client: own_tests.client_figures(
                predicted[client],
                test,
                probe,
                defended=defended is not None,
            )
            for client, test in tests.items()
        }
        metrics = own_tests.federation_figures(by_client, built.malicious.tolist())
        if built.keeping is None or built.keeping.private is None:
            whole = self._measure_global(probe, defended)
            metrics |= own_tests.global_figures(whole)
        return metrics

    def _own_tests(self, probe: Probe) -> dict[int, own_tests.OwnTest]:
        """What each client that has trained so far is measured on."""
        done, trained = self.seen if self.seen[0] <= self.state.round else (0, frozenset())
        for number in range(done, self.state.round):
            trained |= set(self.built.cohort(number).tolist())
        self.seen = (self.state.round, trained)
        return own_tests.own_tests(self.dealt, probe, sorted(trained), self.spec.seed)

    @cached_property
    def dealt(self) -> list[Tensor]:
        """The indices of each client's own samples of the test set."""
        return own_tests.deal_tests(self.built.data, self.built.shards, self.spec.seed)

    def probe(self) -> Probe:
        """The test sets: made once, and once more whenever the attack's state has changed (a
        learned trigger).
        """
        own = self.built.trigger_state(self.state.attack)
        if self.probed is None or self.probed[0] is not own:
            if self.state.probed is None:
                self.state = self.state._replace(probed=self.state.round)
            self.probed = (own, build_probe(self.views, self.state))
        return self.probed[1]

    def saved(self, records: Sequence[Record]) -> Saved:
        """All that another process needs to go on; the model too, once all rounds are done."""
        done = self.rounds_left == 0
        model = self.model if done else {}
        return Saved(
            self.state,
            list(records),
            self.costs,
            self.origin,
            done,
            model,
        )

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
        self.state = saved.state
        self.costs = saved.costs
        self.origin = saved.origin
        return list(saved.records)

    def close(self) -> None:
        """Give the workers back."""
        self.clients.close()


def _sees_honest(spec: Spec) -> bool:
    """Whether a stage of the attack is shown the honest rows, a copy of which is made for it."""
    stages = [plugins.attack_facts(part.name) for part in plugin_stages(spec.attack)]
    return any(stage.knows == "all" for stage in stages)


def _defended_figures(
    clean: Prediction,
    triggered: Prediction | None,
    probe: Probe,
) -> dict[str, float]:
    """What only a defense that predicts its own way has: rejections and certificates."""
    figures = {"round/rejected_rate": evaluate.rejected(clean)}
    figures |= evaluate.certified(clean, probe.clean)
    if triggered is not None:
        figures["round/rejected_triggered_rate"] = evaluate.rejected(triggered)
    return figures


def _warm_up(
    clean: Spec,
    folder: Path,
    device: str,
    clients: Clients,
    kept: Location,
) -> tuple[Tensor, Tensor]:
    """The vectors at the end of a clean experiment; what is done when the process is stopped stays
    in the folder ``kept``.
    """
    warm = Experiment(clean, folder, device, clients)
    checkpointed = Checkpointed(warm, Checkpoint(kept, clean.id))
    while not checkpointed.done:
        for _ in checkpointed.rounds(WARMUP_SAVE_INTERVAL_S):
            pass
        if not checkpointed.done:
            checkpointed.save()
    checkpointed.checkpoint.drop()
    return warm.state.params, warm.state.buffers


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
        while experiment.rounds_left:
            record = experiment.round()
            if keep is not None:
                keep(experiment.state)
            if record is not None:
                yield record
    finally:
        experiment.close()
