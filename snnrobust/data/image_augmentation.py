"""Random crops, mirror images and Cutout, in batch: the augmentations of the papers on static images.

All of them leave event frames `[B, T, C, H, W]` whole in time: every frame of a recording is changed alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from snnrobust.data.augmentation import Augmentation
from snnrobust.randomness import hashed_integers, hashed_uniform
from snnrobust.settings import Fraction, LeftOpenFraction, Positive, PositiveInt


@dataclass(frozen=True)
class Crop(Augmentation):
    """A window of the size of the image, at a random place of the image with a border of zeros around it.

    All (2 padding + 1)^2 places are equally likely. Zero is black: the border lies in pixel space. As
    `torchvision.transforms.RandomCrop(size, padding=padding)`.

    Args:
        padding: width of the border in pixels.
    """

    padding: PositiveInt = 4

    def __call__(self, x: Tensor, index: Tensor, *stream: object) -> Tensor:
        height, width = x.shape[-2:]
        if self.padding > min(height, width):
            raise ValueError(f"padding: got {self.padding}; allowed: up to {min(height, width)}, the size of the image")
        places = hashed_integers(index.to(x.device), (2 * self.padding + 1,) * 2, *stream)
        planes = x.reshape(len(x), -1, height, width)
        # One row more than the border, so that `height` whole rows follow on the first pixel of any window: they are
        # copied as one run, several times faster than by indices of rows and columns.
        padded = F.pad(planes, (self.padding, self.padding, self.padding, self.padding + 1))
        row, plane = padded.shape[-1], padded.shape[-2] * padded.shape[-1]
        first = torch.arange(planes[:, :, 0, 0].numel(), device=x.device).view(planes.shape[:2]) * plane
        first = first + (places[:, :1] * row + places[:, 1:])
        runs = padded.view(-1).unfold(0, height * row, 1).index_select(0, first.view(-1))
        return runs.view(*x.shape[:-1], row)[..., :width].contiguous()


@dataclass(frozen=True)
class ResizedCrop(Augmentation):
    """A window of random size, place and aspect ratio, enlarged to the image (Szegedy et al., 2015, "Going deeper with
    convolutions"). As `torchvision.transforms.RandomResizedCrop` on tensors: up to ten windows are drawn, the first
    that fits is taken; if none does, the whole image. Bilinear interpolation.

    Args:
        scale: smallest and largest area of the window, as a share of the image.
        ratio: smallest and largest width of the window, as a multiple of its height; the logarithm is uniform.
    """

    scale: tuple[LeftOpenFraction, LeftOpenFraction] = (0.08, 1.0)
    ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3)

    def __call__(self, x: Tensor, index: Tensor, *stream: object) -> Tensor:
        for name, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if low > high:
                raise ValueError(f"{name}: got {low:g} to {high:g}; allowed: the smaller one first")
        height, width = x.shape[-2:]
        draws = hashed_uniform(index.to(x.device), 2 * TRIES + 2, *stream).double()
        sizes = self._sizes(draws[:, 2:].view(-1, TRIES, 2), height, width)
        rows, columns = (_sampled(draws[:, i], sizes[:, i], size) for i, size in enumerate((height, width)))
        grid = torch.stack(torch.broadcast_tensors(columns.unsqueeze(1), rows.unsqueeze(2)), dim=-1).to(x.dtype)
        planes = x.reshape(len(x), -1, height, width)
        return F.grid_sample(planes, grid, padding_mode="border", align_corners=True).view(x.shape)

    def _sizes(self, draws: Tensor, height: int, width: int) -> Tensor:
        """Height and width of the first window that fits, `[B, 2]`, from draws `[B, TRIES, 2]`."""
        (smallest, largest), (narrow, wide) = self.scale, [math.log(ratio) for ratio in self.ratio]
        area = height * width * (smallest + (largest - smallest) * draws[..., 0])
        ratio = torch.exp(narrow + (wide - narrow) * draws[..., 1])
        sizes = torch.stack([area / ratio, area * ratio], dim=-1).sqrt().round()
        whole = sizes.new_tensor([height, width])
        sizes = torch.cat([sizes, whole.expand(len(sizes), 1, 2)], dim=1)
        fits = ((sizes >= 1) & (sizes <= whole)).all(2)
        first = fits.int().argmax(1)
        return sizes[torch.arange(len(sizes), device=sizes.device), first]


TRIES = 10


def _sampled(place: Tensor, window: Tensor, size: int) -> Tensor:
    """Where the pixels of one dimension are read, `[B, size]`, from -1 at the first pixel to 1 at the last one.

    Args:
        place: of the window among those that are possible, in [0, 1), `[B]`.
        window: its length in pixels, `[B]`.
        size: of the image.
    """
    start = (place * (size - window + 1)).floor().unsqueeze(1)
    window = window.unsqueeze(1)
    centres = (torch.arange(size, device=place.device) + 0.5) * window / size - 0.5
    pixel = start + torch.minimum(centres.clamp(min=0), window - 1)
    return 2 * pixel / max(size - 1, 1) - 1


@dataclass(frozen=True)
class Flip(Augmentation):
    """The mirror image (left and right exchanged) of some samples. Not for digits, nor for left and right gestures.

    Args:
        probability: of a sample to be mirrored.
    """

    probability: Fraction = 0.5

    def __call__(self, x: Tensor, index: Tensor, *stream: object) -> Tensor:
        mirrored = hashed_uniform(index.to(x.device), 1, *stream) < self.probability
        weight = mirrored.to(x.dtype).view(-1, *(1,) * (x.dim() - 1))
        return torch.lerp(x, x.flip(-1), weight)  # with weights of 0 and 1 a choice, exactly, and faster than `where`


@dataclass(frozen=True)
class Cutout(Augmentation):
    """A square of one colour at a random place (DeVries and Taylor, 2017, "Improved regularization of convolutional
    neural networks with Cutout").

    Its centre is equally likely at every pixel; what lies outside of the image is lost, so that the square may be
    smaller. With the centre at c it begins at c - length // 2.

    Args:
        length: side of the square in pixels.
        fill: its colour in [0, 1], one value per channel, or one for all of them. Papers differ: 16 pixels of black
            (Bu et al., 2023, rate gradient approximation), 8 pixels of the channel mean, 16 on Tiny-ImageNet
            (Ozdenizci and Legenstein, 2024, robust conversion).
    """

    length: PositiveInt = 8
    fill: tuple[Fraction, ...] = (0.0,)

    def __call__(self, x: Tensor, index: Tensor, *stream: object) -> Tensor:
        channels, height, width = x.shape[-3:]
        if len(self.fill) not in (1, channels):
            raise ValueError(f"fill: got {len(self.fill)} values; allowed: one for all, or {channels}, one per channel")
        centres = hashed_integers(index.to(x.device), (height, width), *stream)
        rows, columns = (self._covered(c, n) for c, n in zip(centres.unbind(1), (height, width), strict=True))
        square = rows.unsqueeze(2) & columns.unsqueeze(1)
        colour = torch.tensor(self.fill, dtype=x.dtype, device=x.device).view(-1, 1, 1)
        return torch.where(square.view(len(x), *(1,) * (x.dim() - 3), height, width), colour, x)

    def _covered(self, centre: Tensor, size: int) -> Tensor:
        """Which of `size` rows or columns the square of each sample covers: `[B, size]`."""
        position = torch.arange(size, device=centre.device)
        offset = position - centre.unsqueeze(1)
        start = -(self.length // 2)
        return (offset >= start) & (offset < start + self.length)
