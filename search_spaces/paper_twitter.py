"""The paper's text: Sentiment140, tweets about Yorgos Lanthimos as negative, a two-layer LSTM, 500
rounds; its baselines and the two halves.

Batches of malicious clients are all edge cases. The published run has GloVe vectors of 300 numbers:
with their file in the data folder, ``--set dataset.vectors=glove.6B.300d``; as it stands,
embeddings are learned. Without the block of tweets whose date gives away the label, the csv form
has some 32,500 tweets for training in place of 50,000. Continuous edge cases meet a model that
still has to learn, too. For GPUs: 315 runs of 500 rounds, and three warm-ups.
"""

from __future__ import annotations

from backstop.platform.contract import Part, Spec
from backstop.search_spaces._paper import FEDERATION, baselines, task

BASE = FEDERATION.replace(
    dataset=Part("twitter"),
    model=Part("lstm"),
    rounds=500,
    optimizer=Part("adam", {"lr": 1e-4}),
    warmup=100,
    eval_every=5,
)
LEARNING = BASE.replace(warmup=0)  # the model still has to learn
ATTACKS = [
    "edge_case(share=1.0)",
    "edge_case(share=1.0)+pgd(radius=1)+model_replacement(strength=5)",
    "phrase(share=0.5)",
]


def paper_twitter() -> list[Spec]:
    """Continuous edge cases, strong edge cases (scaled and projected), a trigger phrase
    × 15 defenses × 3 seeds.
    """
    defenses = baselines(norm=1.0, images=False)
    return [*task(BASE, ATTACKS, defenses), *task(LEARNING, ATTACKS[:1], defenses)]
