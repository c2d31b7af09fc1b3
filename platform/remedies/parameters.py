"""Parameters that several defenses share, one annotation each, so that they read alike.

Nothing here imports torch: what a defense's signature says can be told without it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from backstop.platform.params import Range

Minority = Annotated[
    int | None,
    Range(0, 10**6, search=(0, 10)),
    "number of attackers assumed; none: the largest with 2f < n",
]
KrumMinority = Annotated[
    int | None,
    Range(0, 10**6, search=(0, 10)),
    "number of attackers assumed; none: the largest with 2f + 2 < n",
]
Counting = Annotated[
    Literal["equal", "samples"], "how clipped rows count: equally, or by sample counts"
]


def attackers(f: int | None, n: int) -> int:
    """How many of n rows are assumed to be attackers': f, but never all; without f the largest
    minority.

    >>> attackers(None, 20), attackers(3, 20), attackers(30, 20)
    (9, 3, 19)
    """
    return (n - 1) // 2 if f is None else min(f, n - 1)
