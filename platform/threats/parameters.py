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
# the bars of ``dba``, and of who cuts its trigger another way
BarLength = Annotated[
    int | None,
    Range(1, 10**4, search=(1, 8)),
    "length of a bar in pixels; none: 6 in images of more than 28 x 28, else 4",
]
BarGap = Annotated[
    int | None,
    Range(0, 10**4, search=(0, 8)),
    "pixels between bars; none: 3 in images of more than 28 x 28, else 2",
]
BarShift = Annotated[
    int, Range(0, 10**4, search=(0, 8)), "pixels from the top and left edges to the trigger"
]
# of the networks of ``threats/generators.py``
GeneratorPasses = Annotated[
    int,
    Range(0, 200, search=(1, 20)),
    "passes over the clients' data for the generator in an attacked round",
]
GeneratorRate = Annotated[
    float,
    Range(0, 1, low_open=True, log=True, search=(1e-4, 0.1)),
    "learning rate of the generator",
]
