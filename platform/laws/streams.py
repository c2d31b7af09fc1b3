"""The generators that belong to nobody, which no plug-in may touch."""

from __future__ import annotations

import pickle
import random  # noqa: TID251 -- only looked at

import numpy as np
import torch


def global_states() -> dict[str, bytes]:
    """The states of the generators that nothing may touch."""
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": pickle.dumps(np.random.get_state()),  # noqa: NPY002 -- only looked at
        "random": pickle.dumps(random.getstate()),
    }
