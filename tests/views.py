"""The views on which the laws try a stage, for tests of single stages."""

from backstop.platform.laws.views import (
    FEATURES,
    allowed,
    features,
    model,
    samples,
    two_poisoned,
    uneven,
    with_data,
    with_test,
)
from backstop.platform.laws.views import LABEL_COUNT as CLASSES
from backstop.platform.laws.views import plain_attack_view as attack_view
from backstop.platform.laws.views import plain_client_view as client_view
from backstop.platform.laws.views import plain_server_view as server_view
from backstop.platform.laws.views import plain_train_view as train_view

__all__ = (
    "CLASSES",
    "FEATURES",
    "allowed",
    "attack_view",
    "client_view",
    "features",
    "model",
    "samples",
    "server_view",
    "train_view",
    "two_poisoned",
    "uneven",
    "with_data",
    "with_test",
)
