"""Settings that make every yaml file of a model small enough to be tried in a test; its structure stays."""

IMAGES = {"cnn_dvs": "mnist"}
"""Datasets of images for models that are too large for the digits; only their shapes are used."""

_STAGES = ("model.stem_width=6", "model.width=8", "model.blocks=[1,1]")
SMALLER: dict[str, tuple[str, ...]] = {
    "vgg5": ("model.plan=[4,pool,6,6,pool]", "model.hidden=[16,16]"),
    "vgg9": ("model.plan=[4,4,pool,6,6,pool]", "model.hidden=[16]"),
    "vgg11": ("model.plan=[4,pool,8]", "model.hidden=[16]"),
    "vgg11_tiny_imagenet": ("model.plan=[8,pool,16]", "model.hidden=[32]", "model.dropout=0.2"),
    "vgg13": ("model.plan=[4,4,pool,6,6,pool]", "model.hidden=[16,16]"),
    "vgg16": ("model.plan=[8,pool,8,8,8,pool]", "model.hidden=[16,16]", "model.pool=max"),
    "vgg19": ("model.plan=[4,pool,6,6,6,6,pool]", "model.hidden=[16,16]"),
    "vgg_snn": ("model.plan=[4,pool,6,6,pool]",),
    "vgg_snn_gesture": ("model.plan=[4,pool,6,6]",),
    "wrn16": ("model.width=2", "model.stem=3", "model.blocks=[1,1]"),
    "wrn28": ("model.width=1", "model.stem=4", "model.blocks=[1,2]"),
    "resnet17": ("model.width=4", "model.blocks=[1,2]", "model.strides=[1,2]", "model.hidden=16"),
    "resnet18": ("model.width=4", "model.blocks=[1,1]", "model.strides=[1,2]"),
    "resnet19": ("model.width=4", "model.blocks=[2,1]", "model.strides=[1,2]", "model.hidden=16"),
    "resnet20": ("model.width=4", "model.blocks=[1,1]", "model.strides=[1,2]"),
    "resnet32": ("model.width=4", "model.blocks=[1,2]", "model.strides=[1,2]"),
    "sew_resnet18": (*_STAGES, "model.stem=cifar"),
    "sew_resnet34": (*_STAGES, "model.pool=avg"),
    "sew_resnet50": (*_STAGES, "model.stem=cifar", "model.pool=none"),
    "sew_resnet19c": _STAGES,
    "spiking_resnet18": (*_STAGES, "model.stem=cifar"),
    "spiking_resnet34": (*_STAGES, "model.pool=avg"),
    "spiking_resnet50": (*_STAGES, "model.stem=cifar", "model.pool=none"),
    "cnn_dvs": ("model.channels=[6,8]", "model.hidden=32"),
}
