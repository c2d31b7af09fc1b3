"""NVFlare's own classes around Backstop's aggregator, without a federation; run by test_flower.py
in an environment of its own. Every function that begins with ``check`` is called; prints how many.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.fl_constant import ReservedKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.abstract.model import make_model_learnable
from nvflare.app_common.aggregators.model_aggregator import ModelAggregator
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.shareablegenerators.full_model_shareable_generator import (
    FullModelShareableGenerator,
)
from nvflare.app_common.utils.fl_model_utils import FLModelUtils

import backstop
from backstop.nvflare import Aggregator

CHAIN = "norm_clip(norm=1)+median"
SITES = 6


def arrays(index: int) -> dict[str, Any]:
    """A model or a difference."""
    rng = np.random.default_rng(index)
    return {
        "w": rng.normal(size=(3, 4)).astype(np.float32),
        "bn.running_mean": rng.normal(size=3).astype(np.float32),
        "steps": np.array(index),
    }


def context(number: int = 0, model: dict[str, Any] | None = None) -> FLContext:
    """That of a round of ScatterAndGather."""
    made = FLContext()
    made.set_prop(AppConstants.CURRENT_ROUND, number, private=True, sticky=False)
    learnable = make_model_learnable(arrays(0) if model is None else model, {})
    made.set_prop(AppConstants.GLOBAL_MODEL, learnable, private=True, sticky=False)
    return made


def sent(site: str, kind: str, data: Any, steps: float = 10, number: int = 0) -> Shareable:
    """What a client sends."""
    made = DXO(kind, data=data, meta={MetaKey.NUM_STEPS_CURRENT_ROUND: steps}).to_shareable()
    made.set_peer_props({ReservedKey.IDENTITY_NAME: site})
    made.add_cookie(AppConstants.CONTRIBUTION_ROUND, number)
    return made


def same(ours: Any, theirs: Any) -> bool:
    """Whether all arrays have the same bits."""
    return all(ours[name].tobytes() == np.asarray(theirs[name]).tobytes() for name in theirs)


def expected(differences: list[Any]) -> Any:
    """What the library makes of differences."""
    weights = [10.0 + index for index in range(SITES)]
    sites = [f"site-{index}" for index in range(SITES)]
    return backstop.defense(CHAIN).aggregate(differences, weights, sites, params=arrays(0))


def check_scatter_and_gather() -> None:
    differences = [arrays(index + 1) for index in range(SITES)]
    start = arrays(0)
    whole = [{name: start[name] + one[name] for name in one} for one in differences]
    for kind, data in ((DataKind.WEIGHT_DIFF, differences), (DataKind.WEIGHTS, whole)):
        aggregator, now = Aggregator(CHAIN), context()
        assert isinstance(aggregator, ModelAggregator)
        for index, one in reversed(list(enumerate(data))):
            assert aggregator.accept(sent(f"site-{index}", kind, one, 10 + index), now)
        result = aggregator.aggregate(now)
        found = from_shareable(result)
        assert found.data_kind == DataKind.WEIGHT_DIFF
        told = differences
        if kind == DataKind.WEIGHTS:
            told = [{name: one[name] - start[name] for name in one} for one in whole]
        assert same(found.data, expected(told))
        assert found.data["steps"] == 0
        after = FullModelShareableGenerator().shareable_to_learnable(result, now)["weights"]
        assert (after["w"] != start["w"]).any()
        assert after["w"].dtype == np.float32


def check_fed_avg() -> None:
    aggregator = Aggregator(CHAIN)
    for _ in range(2):
        aggregator.reset_stats()
        for index in range(SITES):
            meta = {"client_name": f"site-{index}", MetaKey.NUM_STEPS_CURRENT_ROUND: 10.0 + index}
            model = FLModel(params=arrays(index + 1), params_type=ParamsType.DIFF, meta=meta)
            assert aggregator.accept_model(model)
        found = aggregator.aggregate_model()
        assert found.params_type == ParamsType.DIFF
        assert same(found.params, expected([arrays(index + 1) for index in range(SITES)]))
        FLModelUtils.update_model(FLModel(params=arrays(0)), found)
    assert aggregator.defense.round == 2


def check_torch_tensors() -> None:
    model = {name: torch.from_numpy(value.copy()) for name, value in arrays(0).items()}
    aggregator, now = Aggregator("median"), context(model=model)
    for index in range(3):
        own = {name: torch.from_numpy(value.copy()) for name, value in arrays(index).items()}
        assert aggregator.accept(sent(f"site-{index}", DataKind.WEIGHTS, own), now)
    found = from_shareable(aggregator.aggregate(now)).data
    assert found["w"].dtype == torch.float32
    assert found["steps"].dtype == torch.int64


def check_what_is_not_accepted() -> None:
    aggregator, now = Aggregator("median"), context(number=3)
    kind, good = DataKind.WEIGHT_DIFF, arrays(1)

    def accepted(shareable: Shareable) -> bool:
        return bool(aggregator.accept(shareable, now))

    assert accepted(sent("a", kind, good, number=3))
    assert not accepted(sent("a", kind, good, number=3))  # again
    assert not accepted(sent("b", kind, good, number=2))  # late
    assert not accepted(sent("c", kind, {"w": good["w"]}, number=3))
    assert not accepted(sent("d", kind, good | {"w": np.zeros(3)}, number=3))
    assert not accepted(sent("e", kind, good, steps=-1, number=3))
    failed = make_reply(ReturnCode.EXECUTION_EXCEPTION)
    failed.set_peer_props({ReservedKey.IDENTITY_NAME: "f"})
    assert not accepted(failed)
    no_model = Shareable()
    no_model.add_cookie(AppConstants.CONTRIBUTION_ROUND, 3)
    assert not accepted(no_model)
    processed = sent("g", kind, good, number=3)
    processed["DXO"]["meta"][MetaKey.PROCESSED_ALGORITHM] = "encrypted"
    assert not accepted(processed)
    whole = FLModel(params=good, params_type=ParamsType.FULL, meta={"client_name": "h"})
    assert not Aggregator("median").accept_model(whole)  # nobody says the global model
    assert (aggregator.aggregate_model().params["w"] == good["w"]).all()


def refused(call: Callable[[], object], words: str) -> None:
    """Whether one line says why something cannot be."""
    try:
        call()
    except backstop.BadInput as error:
        assert words in str(error), error
    else:
        raise AssertionError(words)


def check_what_cannot_be() -> None:
    refused(lambda: Aggregator("crfl"), "changes the model that clients are sent")
    refused(lambda: Aggregator("fltrust"), "give model=")
    refused(lambda: Aggregator(backstop.defense("median", server_lr=0.5)), "server_lr=0.5")
    refused(lambda: Aggregator("median").aggregate_model(), "no contribution to aggregate")


def main() -> None:
    """Every check, one after another."""
    checks = [check for name, check in globals().items() if name.startswith("check")]
    for check in checks:
        check()
    print("CHECKED", json.dumps(len(checks)))


if __name__ == "__main__":
    main()
