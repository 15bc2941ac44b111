"""Attacks inside a training get what they have a use for, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from snnrobust.schema import ConfigError
from snnrobust.yamls import folder

AROUND = {"threat": "linf", "estimator": "trained"}
"""What the yaml files of defences, regularizers and validations choose for the attack in them."""


def fit_attacks(config: DictConfig, choices: Mapping[Any, Any]) -> None:
    """Takes back, in place, what such a file chose for its attack where another attack has no use for it.

    What the command line chose stays, and is refused later where the attack does not know it.

    Raises:
        ConfigError: for attacks that look at another run, or at codes.
    """
    for group, choice in choices.items():
        word, _, place = str(group).partition("@")
        if (
            word != "attack"
            or not choice
            or place.partition(".")[0] not in ("defence", "regularizer", "training", "start")
        ):
            continue
        own = OmegaConf.to_container(OmegaConf.load(folder() / "attack" / f"{choice}.yaml"))
        assert isinstance(own, dict)
        if "seed" not in own:
            raise ConfigError(f"{group}: got {choice}; allowed: attacks on the inputs of the network that is trained")
        for name, default in AROUND.items():
            if own.get(name) == f"${{{name}}}" or choices.get(f"{name}@{place}.{name}") != default:
                continue
            with open_dict(config):
                node = OmegaConf.select(config, place)
                brought = node.pop(name)
                if name in own:
                    node[name] = {key: value if key == "_target_" else brought[key] for key, value in own[name].items()}
