"""Backstop inside NVFlare: an aggregator with any chain of defenses.

    from backstop.nvflare import Aggregator

    controller = FedAvg(num_clients=10, aggregator=Aggregator("norm_clip(norm=1)+median"))

docs/flower.md says more.
"""

from __future__ import annotations

try:
    import nvflare.app_common.aggregators.model_aggregator as _nvflare
except ImportError as error:
    raise ImportError(
        f"backstop.nvflare needs NVFlare 2.9 or later ({error}): pip install 'nvflare>=2.9,<3'"
    ) from error

from backstop.platform.stacks.nvflare_aggregator import DefendedAggregator as Aggregator

del _nvflare
__all__ = ["Aggregator"]
