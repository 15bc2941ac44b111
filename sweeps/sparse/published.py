"""Numbers of the paper: CPAL 2025 (arXiv 2505.15833), VGG-16 on CIFAR-10, in percent, one training each.

Robust accuracy is under PGD-10 with the worst of 19 gradients, l_inf of 2/255, which is the budget of its training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sweeps.sparse.declaration import DENSE, Network


@dataclass(frozen=True)
class Accuracy:
    """In percent."""

    clean: float
    pgd: float


ACCURACIES: Mapping[Network, Accuracy] = {
    DENSE: Accuracy(92.0, 74.9),
    Network("snn", 0.5, "magnitude"): Accuracy(91.8, 74.8),
    Network("snn", 0.9, "magnitude"): Accuracy(88.7, 68.0),
    Network("snn", 0.95, "magnitude"): Accuracy(78.7, 52.6),
    Network("snn", 0.99, "magnitude"): Accuracy(44.9, 17.9),
    Network("snn", 0.5, "hydra"): Accuracy(90.7, 72.8),
    Network("snn", 0.9, "hydra"): Accuracy(89.5, 69.9),
    Network("snn", 0.95, "hydra"): Accuracy(86.9, 64.3),
    Network("snn", 0.99, "hydra"): Accuracy(69.1, 38.5),
    Network("snn", 0.5, "harp"): Accuracy(89.0, 71.4),
    Network("snn", 0.9, "harp"): Accuracy(89.6, 71.1),
    Network("snn", 0.95, "harp"): Accuracy(88.1, 68.1),
    Network("snn", 0.99, "harp"): Accuracy(85.2, 61.0),
    Network("static_ann", 0.9, "hydra"): Accuracy(88.2, 61.1),
    Network("static_random", 0.9): Accuracy(87.4, 62.4),
}
"""Tables B1 and 1, at the sparsities that the table here has."""

ENERGY: Mapping[Network, float] = {
    Network("snn", 0.5, "hydra"): 1.50,
    Network("snn", 0.9, "hydra"): 6.12,
    Network("snn", 0.9, "harp"): 2.15,
    Network("snn", 0.95, "harp"): 3.10,
    Network("snn", 0.99, "harp"): 8.61,
}
"""Table 3: energy of the dense network divided by that of the sparse one."""
