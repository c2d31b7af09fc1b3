"""The views on which the laws try a stage, for tests of single stages."""

from backstop.platform.laws.views import (
    CLASSES,
    FEATURES,
    allowed,
    attack_view,
    client_view,
    features,
    model,
    samples,
    server_view,
    train_view,
    two_poisoned,
    uneven,
    with_data,
    with_test,
)

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
