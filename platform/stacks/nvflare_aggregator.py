"""A defense as an aggregator of NVFlare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from nvflare.apis.fl_constant import ReservedKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.abstract.fl_model import FLModel, MetaKey, ParamsType
from nvflare.app_common.abstract.model import ModelLearnableKey
from nvflare.app_common.aggregators.model_aggregator import ModelAggregator
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.utils.fl_model_utils import FLModelUtils

from backstop.platform.library.aggregation import Aggregator as Defense
from backstop.platform.library.replies import ModelArrays, Reply, of_types, unusable
from backstop.platform.library.whole_models import check_needs, read_defense
from backstop.platform.params import BadInput
from backstop.platform.specs.part import Part, chain_text

CLIENT_NAME = "client_name"  # NVFlare's key in a model's meta, as its FedAvg reads it


class Contribution(NamedTuple):
    """What one client sent in the round at hand."""

    reply: Reply
    whole: bool  # a whole model, not a difference


class DefendedAggregator(ModelAggregator):  # type: ignore[misc]  # nvflare installs beside Backstop
    """An aggregator of NVFlare that is a defense: for its ``FedAvg(aggregator=…)``, and as the
    aggregator of ``ScatterAndGather``.

    What it makes of the clients' differences is what :func:`backstop.defense` makes of them, bit
    for bit, with the clients' names as ids and ``NUM_STEPS_CURRENT_ROUND`` as weights. Whole models
    are made differences against the workflow's global model; the result is always a difference.
    Contributions with other arrays than the model's, of another round, encrypted or otherwise
    processed, or a second one of a client, are not accepted, and the log says so.
    """

    def __init__(
        self,
        defense: str | Part | Sequence[Part | str] | Defense,
        model: Any = None,
        root: Any = None,
    ) -> None:
        """``defense`` is a chain, ``"norm_clip(norm=1)+median"``, or what :func:`backstop.defense`
        returns; ``model``, a torch.nn.Module, and ``root``, clean samples (x, y), are for defenses
        that need them. Raises BadInput, also for defenses that change what clients are sent: that
        is the workflow's matter.
        """
        super().__init__()
        self.defense = read_defense(defense)
        chained = chain_text(self.defense.spec.defense, "defense")
        if self.defense.sends:
            raise BadInput(
                f"defense {chained} changes the model that clients are sent, which an aggregator of"
                " NVFlare cannot"
            )
        if self.defense.spec.server_lr != 1:
            raise BadInput(
                f"defense {chained}: server_lr={self.defense.spec.server_lr}; NVFlare's workflow"
                " adds the aggregate as it is, so only 1 is possible"
            )
        check_needs(self.defense, model, root)
        self._extras = {"model": model, "root": root}
        self._brought: dict[str, Contribution] = {}

    def accept(self, shareable: Shareable, fl_ctx: FLContext) -> bool:
        """Take a contribution, as ``ScatterAndGather`` hands it over; whether it counts."""
        self.fl_ctx = fl_ctx
        name = shareable.get_peer_prop(ReservedKey.IDENTITY_NAME, default="?")
        code = shareable.get_return_code()
        if code and code != ReturnCode.OK:
            return self._refuse(name, f"it returned {code}")
        now, then = (
            fl_ctx.get_prop(AppConstants.CURRENT_ROUND),
            shareable.get_cookie(AppConstants.CONTRIBUTION_ROUND),
        )
        if now != then:
            return self._refuse(name, f"it is of round {then}, this is round {now}")
        try:
            model = FLModelUtils.from_shareable(shareable, fl_ctx)
        except ValueError as error:
            return self._refuse(name, f"it holds no model: {error}")
        return self._take(name, model)

    def accept_model(self, model: FLModel) -> bool:
        """Take a client's model, as ``FedAvg`` hands it over; whether it counts."""
        return self._take(str(model.meta.get(CLIENT_NAME, "?")), model)

    def aggregate_model(self) -> FLModel:
        """The defense's aggregate of what was accepted, a difference."""
        if not self._brought:
            raise BadInput("backstop.nvflare.Aggregator: there is no contribution to aggregate")
        replies = [self._difference(each) for each in self._brought.values()]
        aggregate = self.defense.aggregate(
            [reply.arrays for reply in replies],
            [float(reply.weight) for reply in replies],
            [reply.client for reply in replies],
            params=self._global_model(),
            **self._extras,
        )
        self.reset_stats()
        return FLModel(params=aggregate, params_type=ParamsType.DIFF)

    def reset_stats(self) -> None:
        """Forget what was accepted in this round; what the defense remembers stays."""
        self._brought = {}

    def _take(self, name: str, model: FLModel) -> bool:
        if name in self._brought:
            return self._refuse(name, "it has sent one already")
        if not model.params:
            return self._refuse(name, "it holds no arrays")
        processed = model.meta.get(MetaKey.PROCESSED_ALGORITHM)
        if processed is not None:
            return self._refuse(name, f"it was processed with {processed}")
        weight = model.meta.get(MetaKey.NUM_STEPS_CURRENT_ROUND, 1.0)
        reply = Reply(name, model.params, weight)
        reason = unusable(reply, self._like(reply))
        if reason:
            return self._refuse(name, reason)
        whole = model.params_type == ParamsType.FULL
        if whole and self._global_model() is None:
            return self._refuse(
                name,
                "it is a whole model, and the workflow says no global one; have clients send"
                " differences, params_transfer_type DIFF",
            )
        self._brought[name] = Contribution(reply, whole)
        return True

    def _refuse(self, name: str, reason: str) -> bool:
        self.warning(f"contribution of {name} is left out: {reason}")
        return False

    def _like(self, reply: Reply) -> ModelArrays:
        """Arrays as a contribution should have them: those of the global model, where the workflow
        says it, else of what came first.
        """
        model = self._global_model()
        if model is not None:
            return model
        return next(iter(self._brought.values())).reply.arrays if self._brought else reply.arrays

    def _global_model(self) -> Mapping[str, Any] | None:
        known = self.fl_ctx.get_prop(AppConstants.GLOBAL_MODEL) if self.fl_ctx else None
        weights: Mapping[str, Any] | None = known and known.get(ModelLearnableKey.WEIGHTS)
        return weights or None

    def _difference(self, brought: Contribution) -> Reply:
        reply, model = brought.reply, self._global_model()
        arrays = of_types(reply.arrays, self._like(reply))
        if brought.whole:
            assert model is not None
            assert isinstance(arrays, Mapping)
            arrays = {name: arrays[name] - model[name] for name in model}
        return reply._replace(arrays=arrays)
