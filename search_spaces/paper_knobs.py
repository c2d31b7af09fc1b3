"""The two knobs of the invariant aggregator on the paper's three tasks: AND-mask threshold τ × trim
fraction under continuous edge cases.
"""

from __future__ import annotations

from backstop.platform.contract import Spec
from backstop.search_spaces import paper_cifar10, paper_phishing, paper_twitter
from backstop.search_spaces._paper import knobs


def paper_knobs() -> list[Spec]:
    """Twenty-five settings × three tasks × three seeds."""
    return [
        spec
        for paper in (paper_cifar10, paper_twitter, paper_phishing)
        for spec in knobs(paper.BASE, paper.ATTACKS[0])
    ]
