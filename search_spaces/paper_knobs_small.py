"""The two knobs of the invariant aggregator on the three small tasks: AND-mask threshold τ × trim
fraction under continuous edge cases.
"""

from __future__ import annotations

from backstop.platform.contract import Spec
from backstop.search_spaces import paper_cifar10_small, paper_phishing_small, paper_twitter_small
from backstop.search_spaces._paper import knobs

THRESHOLDS = (0.0, 0.6, 0.8)
TRIMS = (0.0, 0.25, 0.45)


def paper_knobs_small() -> list[Spec]:
    """Nine settings × three tasks × two seeds."""
    tasks = (paper_cifar10_small, paper_twitter_small, paper_phishing_small)
    return [
        spec
        for paper in tasks
        for spec in knobs(paper.BASE, paper.ATTACKS[0], THRESHOLDS, TRIMS, range(2))
    ]
