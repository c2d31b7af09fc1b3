"""Parameters that several attacks share, one annotation each, so that they read alike.

Nothing here imports torch: what an attack's signature says can be told without it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from backstop.platform.params import Range

Target = Annotated[
    int | Literal["next"],
    Range(0, 10**6),
    "class that the trigger stands for, y*; next: the class after the true one (all-to-all)",
]
Source = Annotated[
    int | None, Range(0, 10**6), "only samples of this class are attacked; none: all"
]
# of a batch: Bagdasaryan et al., AISTATS 2020, on CIFAR-10; the usual share in federated learning
SHARE = 20 / 64
Share = Annotated[
    float,
    Range(0, 1, low_open=True, search=(0.05, 1)),
    "share of each batch (of its source samples) that is poisoned",
]
EdgeShare = Annotated[
    float,
    Range(0, 1, low_open=True, search=(0.05, 1)),
    "share of each batch replaced by edge cases",
]
Direction = Annotated[Literal["std", "unit", "sign"], "what the mean moves against, p"]
