"""What makes no sense to train together, though each part is in order by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from snnrobust.schema import check_value

JUMPS = {
    "Poisson": "the spikes that encoder={} draws anew",
    "Latency": "which pixels the rounding of encoder={} moves by a whole step",
    "Phase": "which bits the rounding of encoder={} flips",
}
"""Codes that are no continuous function of the input: a small step changes nothing, or changes it by a jump."""
DRAWN = {
    "StochasticGates": "which gates neuron=stochastic_gates closes anew",
    "LocalFeatureMasking": "which squares neuron=local_feature_masking masks anew",
}
"""Neurons whose every forward pass in training draws."""
INPUT_GRADIENT = ("GradientSparsity", "GradientL1", "GradientL2")
"""Regularizers that measure the input gradient."""
OF_LAYERS = ("SpikeRate", "ThresholdGuarding", "MembraneDistribution", "MembranePerturbation", "TemporalReversal")
"""Regularizers of what the spiking layers do."""
TWO_PASSES = ("membrane_perturbation", "temporal_reversal")
"""Those that compare two passes."""
WINDOWS = ("triangle", "linear", "rectangle")
"""Surrogates that are 0 beyond some distance."""
OF_OPTIMIZERS = {
    "lr": "Positive",
    "weight_decay": "NonNegative",
    "momentum": "NonNegative",
    "eps": "NonNegative",
    "betas": "tuple[ShareBelowOne, ShareBelowOne]",
    "nesterov": "bool",
}
"""What torch's optimizers call the same; torch annotates it, but says nothing of the range."""


def misfits(config: Mapping[str, Any]) -> Iterator[str]:
    """One line per mistake.

    Args:
        config: whose nodes are in order one by one.
    """
    yield from _of_data(config)
    yield from _of_start(config)
    yield from _of_connectivity(config)
    yield from _of_gradients(config)
    yield from _of_layers(config)
    yield from _of_defences(config)
    replaced = [*_replaced(config)]
    yield from replaced or (*_of_optimizer(config), *_of_validation(config))


def _of_data(config: Mapping[str, Any]) -> Iterator[str]:
    encoder, neuron, kind = config["encoder"], config["neuron"], config["dataset"].get("kind")
    if kind != encoder.get("kind"):
        yield (
            f"encoder: got a code for {encoder.get('kind')}, but the dataset consists of {kind}; "
            "allowed: encoder=frames for events, any other for images"
        )
    if _named(neuron, "TrainableThreshold") and neuron["minimum"] > neuron["threshold"]:
        yield f"neuron.minimum: got {neuron['minimum']:g}; allowed: at most neuron.threshold, {neuron['threshold']:g}"
    if _named(neuron, "PSN") and neuron["steps"] != encoder.get("steps"):
        yield f"neuron.steps: got {neuron['steps']}; allowed: {encoder.get('steps')}, the steps of the encoder"


def _of_start(config: Mapping[str, Any]) -> Iterator[str]:
    if config.get("start") is None and _named(config["training"], "Untrained"):
        yield "training: got none, and the weights are random; allowed with start=CHOICE, or any other"
    learned = (config.get("start") or {}).get("training", {})
    if not isinstance(learned, Mapping):
        yield f"start.training: got {learned!r}; allowed: a choice of the group, by training@start.training={learned}"
    converted = config.get("start") is not None and _named(config["start"], "Converted")
    if converted and not _named(config["neuron"], "TrainableThreshold"):
        kind = str(config["neuron"]["_target_"]).rpartition(".")[2]
        yield f"neuron: got {kind}; allowed with start=converted: trainable_threshold"


def _of_connectivity(config: Mapping[str, Any]) -> Iterator[str]:
    if config.get("connectivity") is None or not _named(config["connectivity"], "Rewired"):
        return
    if config.get("start") is None:
        yield (
            "connectivity: got rewired, and random weights are all there; allowed with a start that leaves some "
            "absent, such as start=random_connectivity, or connectivity=null"
        )
    ema = config["training"].get("ema")
    if ema is not None:
        yield (
            f"training.ema: got {ema}; allowed with connectivity=rewired: null, as an average of networks whose "
            "connections differ has more of them"
        )


def _of_gradients(config: Mapping[str, Any]) -> Iterator[str]:
    """Finite differences of the input: between two passes nothing but the input may differ, and by no jump.

    Exact gradients are of a single pass, which can be differentiated whatever it drew or rounded.
    """
    regularizer, encoder, neuron, model = (config[key] for key in ("regularizer", "encoder", "neuron", "model"))
    if not any(_named(regularizer, name) for name in INPUT_GRADIENT):
        return
    if regularizer["weight"] == 0 or regularizer.get("method", "finite_difference") == "exact":
        return
    begin = f"regularizer: the finite difference of {str(regularizer['_target_']).split('.')[-2]} would measure "
    jumps = next((what for name, what in JUMPS.items() if _named(encoder, name)), None)
    if jumps:
        code = str(encoder["_target_"]).rpartition(".")[2].lower()
        yield (
            f"{begin}{jumps.format(code)}; allowed: regularizer=none, which encoder={code} chooses by itself, "
            "or regularizer.method=exact"
        )
    if _holds(neuron, "NoisyLIF") and _innermost(neuron)["noise"] > 0:
        yield (
            f"{begin}the noise that neuron=noisy_lif draws anew; allowed: regularizer=none, which neuron=noisy_lif "
            "chooses by itself, or regularizer.method=exact"
        )
    drawn = next((what for name, what in DRAWN.items() if _holds(neuron, name)), None)
    if drawn:
        yield f"{begin}{drawn}; allowed: regularizer=none, or regularizer.method=exact"
    if _named(model, "VGG") and model["dropout"] > 0:
        yield (
            f"{begin}which hidden spikes model.dropout sets to 0 anew; allowed: regularizer=none, or model.dropout=0, "
            "or regularizer.method=exact"
        )


def _of_layers(config: Mapping[str, Any]) -> Iterator[str]:
    """Regularizers of what the spiking layers do."""
    regularizer, neuron = config["regularizer"], config["neuron"]
    if not any(_named(regularizer, name) for name in OF_LAYERS) or regularizer["weight"] == 0:
        return
    name = str(regularizer["_target_"]).split(".")[-2]
    if _holds(neuron, "ReLU"):
        yield f"regularizer: {name} is of spiking layers; allowed with neuron=relu: none, or gradient_*"
        return
    if name == "membrane_perturbation":
        if _holds(neuron, "PSN"):
            yield "regularizer: membrane_perturbation is of membranes with a leak; allowed: any neuron but psn"
        yield from _of_attack("regularizer.attack", regularizer["attack"], config)
    if name == "temporal_reversal" and config["encoder"].get("steps") == 1:
        yield "encoder.steps: got 1, and one step cannot be reversed; allowed with temporal_reversal: at least 2"
    if name == "membrane_distribution" and regularizer["gamma"] is None:
        surrogate = str(_innermost(neuron).get("surrogate", {}).get("_target_", "")).rpartition(".")[2]
        if surrogate not in WINDOWS:
            yield (
                f"regularizer.gamma: got null, the half-width of the surrogate, which {surrogate} does not have; "
                f"allowed: a number, or neuron/surrogate={', '.join(WINDOWS)}"
            )
    if name in TWO_PASSES:
        yield from _of_two_passes(name, config)


def _of_two_passes(name: str, config: Mapping[str, Any]) -> Iterator[str]:
    """Between the passes nothing may differ but what is compared."""
    neuron, model = config["neuron"], config["model"]
    begin = f"regularizer: {name} compares two passes, and would measure"
    if _named(config["encoder"], "Poisson"):
        yield f"{begin} {JUMPS['Poisson'].format('poisson')}; allowed: any other encoder"
    if _holds(neuron, "NoisyLIF") and _innermost(neuron)["noise"] > 0:
        yield f"{begin} the noise that neuron=noisy_lif draws anew; allowed: neuron.noise=0, or another neuron"
    drawn = next((what for drawing, what in DRAWN.items() if _holds(neuron, drawing)), None)
    if drawn:
        yield f"{begin} {drawn}; allowed: another neuron"
    if _named(model, "VGG") and model["dropout"] > 0:
        yield f"{begin} which hidden spikes model.dropout sets to 0 anew; allowed: model.dropout=0"


def _of_defences(config: Mapping[str, Any]) -> Iterator[str]:
    attack = config["defence"].get("attack")
    if isinstance(attack, Mapping):
        yield from _of_attack("defence.attack", attack, config)


def _replaced(config: Mapping[str, Any]) -> Iterator[str]:
    """Groups below `training` that were given a name as if they were values."""
    for key, training in _trainings(config):
        at = "" if key == "training" else f"@{key}"
        for part in ("optimizer", "schedule", "validation"):
            node = training.get(part, {})
            if not isinstance(node, Mapping):
                choice = f"training/{part}{at and f'{at}.{part}'}={node}"
                yield f"{key}.{part}: got {node!r}; allowed: a choice of the group, such as {choice}"


def _trainings(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The training, and that of what a start learns, by their keys."""
    yield "training", config["training"]
    learned = (config.get("start") or {}).get("training")
    if isinstance(learned, Mapping):
        yield "start.training", learned


def _of_optimizer(config: Mapping[str, Any]) -> Iterator[str]:
    """Values of common settings; torch itself refuses the others when the optimizer is made."""
    for key, training in _trainings(config):
        for name, value in training.get("optimizer", {}).items():
            if name in OF_OPTIMIZERS:
                yield from check_value(f"{key}.optimizer.{name}", value, OF_OPTIMIZERS[name])
            elif isinstance(value, float):
                yield from check_value(f"{key}.optimizer.{name}", value, "float")


def _of_validation(config: Mapping[str, Any]) -> Iterator[str]:
    for key, training in _trainings(config):
        validation = training.get("validation", {})
        attack = validation.get("attack")
        if attack is not None and not isinstance(attack, Mapping):
            yield f"{key}.validation.attack: got {attack!r}; allowed: null, or what training/validation=robust brings"
        elif attack is not None:
            yield from _of_attack(f"{key}.validation.attack", attack, config)
        elif validation.get("measure") == "robust_accuracy":
            yield (
                f"{key}.validation.attack: got null; allowed with {key}.validation.measure=robust_accuracy: an "
                "attack, as training/validation=robust brings"
            )


def _of_attack(key: str, attack: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    """An attack that runs in the course of a training."""
    if _holds(attack, "Strongest"):
        yield (
            f"{key}.estimator: got strongest, which is chosen for a trained model; allowed: any other, such as "
            f"estimator@{key}.estimator=trained"
        )
    if _holds(attack, "Transfer"):
        yield f"{key}: got a transferred attack, which is for evaluations; allowed: any other"
    if _holds(attack, "Flips") and config["dataset"].get("max_count") != 1:
        yield (
            f"{key}: flips are of events in binary frames; allowed with dataset=digits_events_binary, or "
            "dataset.max_count=1"
        )


def _holds(node: Any, name: str) -> bool:
    """Whether an object of that class is in a node, at any depth."""
    if not isinstance(node, Mapping):
        return False
    return str(node.get("_target_", "")).endswith(f".{name}") or any(_holds(value, name) for value in node.values())


def _innermost(neuron: Mapping[str, Any]) -> Mapping[str, Any]:
    """The neuron itself where others are wrapped around it."""
    while isinstance(neuron.get("neuron"), Mapping):
        neuron = neuron["neuron"]
    return neuron


def _named(node: Mapping[str, Any], name: str) -> bool:
    return str(node["_target_"]).endswith(f".{name}")
