"""The probe: a small network that says what a picture of the world shows.

It is trained on rendered pictures only, never on generated ones. Needs torch and nothing that
draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from world.spec import (
    COLOURS,
    KINDS,
    POSITION_X,
    POSITIONS,
    SCENES,
    SIZE_SHARE,
    SIZES,
    TIMES,
    Scene,
)

SIDE = 160  # every picture is brought to this square before it is looked at
WEIGHTS = Path(__file__).with_name("probe.safetensors")
SLOTS = ("", "left_", "right_")  # whose kind and colour: the lone or repeated object's, a pair's


@dataclass(frozen=True, slots=True)
class Seen:
    """What a picture shows. None is what does not apply or nobody asked for.

    The probe fills in every field: `kind`, `colour` go with one object or several equal ones,
    `position` and `size` with one, `left_*` and `right_*` with a pair of unlike ones.
    """

    scene: str | None = None
    time: str | None = None
    count: int | None = None
    is_pair: bool | None = None
    kind: str | None = None
    colour: str | None = None
    position: str | None = None
    size: str | None = None
    left_kind: str | None = None
    left_colour: str | None = None
    right_kind: str | None = None
    right_colour: str | None = None

    def items(self) -> list[tuple[str, str | int | bool]]:
        """Every field that is not None."""
        pairs = [(field.name, getattr(self, field.name)) for field in fields(self)]
        return [(name, value) for name, value in pairs if value is not None]

    def agrees(self, other: Seen) -> dict[str, bool]:
        """For every field that is set here: whether `other` has the same."""
        return {name: getattr(other, name) == value for name, value in self.items()}

    @classmethod
    def of(cls, scene: Scene) -> Seen:
        """The truth about a scene."""
        things = scene.things
        first = things[0] if things else None
        known = {"scene": scene.scene, "time": scene.time, "count": len(things)}
        if first is None:
            return cls(**known, is_pair=False)
        if len({thing.kind for thing in things}) > 1:
            left, right = sorted(things, key=lambda thing: thing.x)
            return cls(
                **known,
                is_pair=True,
                left_kind=left.kind,
                left_colour=left.colour,
                right_kind=right.kind,
                right_colour=right.colour,
            )
        if len(things) > 1:
            return cls(**known, is_pair=False, kind=first.kind, colour=first.colour)
        return cls(
            **known,
            is_pair=False,
            kind=first.kind,
            colour=first.colour,
            position=min(POSITIONS, key=lambda name: abs(POSITION_X[name] - first.x)),
            size=min(SIZES, key=lambda name: abs(SIZE_SHARE[name] / first.share - 1.0)),
        )


# Field -> its possible values, in the order of the network's outputs.
VALUES: dict[str, tuple[str | int | bool, ...]] = {
    "scene": SCENES,
    "time": TIMES,
    "count": (0, 1, 2, 3),
    "is_pair": (False, True),
    "position": POSITIONS,
    "size": SIZES,
    **{slot + "kind": KINDS for slot in SLOTS},
    **{slot + "colour": COLOURS for slot in SLOTS},
}
_PLACE = ("scene", "time")
_LAYOUT = ("count", "is_pair", "position", "size")


def shrink(picture: Tensor) -> Tensor:
    """(H, W, 3) uint8 -> (3, SIDE, SIDE) uint8, squashed, by area."""
    values = picture.permute(2, 0, 1).unsqueeze(0).float()
    small = functional.interpolate(values, (SIDE, SIDE), mode="area")
    return small[0].round().to(torch.uint8)


def _block(into: int, out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(into, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)
    )


class ProbeNet(nn.Module):
    """Shrunk pictures and their shape -> logits of every field."""

    def __init__(self) -> None:
        super().__init__()
        fine, coarse, cells = 64, 96, SIDE // 8
        self.fine = nn.Sequential(
            nn.PixelUnshuffle(2),
            _block(12, 32, 2),
            _block(32, 32, 1),
            _block(32, fine, 2),
            _block(fine, fine, 1),
            _block(fine, fine, 1),
        )
        self.coarse = nn.Sequential(_block(fine, coarse, 2), _block(coarse, coarse, 1))
        self.join = nn.Sequential(
            nn.Conv2d(fine + coarse, coarse, 1, bias=False), nn.BatchNorm2d(coarse), nn.ReLU()
        )
        self.place = nn.Sequential(
            nn.Linear(2 * coarse, 64), nn.ReLU(), nn.Linear(64, _outputs(_PLACE))
        )
        # One pair of eyes for the three slots: what a cat is does not depend on where it stands.
        self.where = nn.Parameter(0.02 * torch.randn(1, coarse, cells, cells))
        self.look = nn.Conv2d(coarse, len(SLOTS), 1)
        self.thing = nn.Sequential(
            nn.Linear(coarse, 96), nn.ReLU(), nn.Linear(96, len(KINDS) + len(COLOURS))
        )
        self.map = nn.Conv2d(coarse, 8, 1)
        flat = 8 * cells**2
        self.layout = nn.Sequential(
            nn.Linear(flat + coarse + 2, 64),
            nn.ReLU(),
            nn.Linear(64, _outputs(_LAYOUT)),
        )

    def forward(self, images: Tensor, shapes: Tensor) -> dict[str, Tensor]:
        """images: (B, 3, SIDE, SIDE), -1..1. shapes: (B,), log of width / height."""
        fine = self.fine(images)
        coarse = self.coarse(fine)
        pooled = torch.cat([coarse.mean((2, 3)), coarse.amax((2, 3))], dim=1)
        logits = _split(self.place(pooled), _PLACE)
        wide = functional.interpolate(coarse, scale_factor=2.0, mode="nearest")
        joined = self.join(torch.cat([fine, wide], dim=1))
        attention = self.look(joined + self.where).flatten(2).softmax(dim=2)  # (B, slots, cells)
        slots = attention @ joined.flatten(2).transpose(1, 2)
        things = self.thing(slots)
        for index, slot in enumerate(SLOTS):
            logits[slot + "kind"] = things[:, index, : len(KINDS)]
            logits[slot + "colour"] = things[:, index, len(KINDS) :]
        shape = torch.stack([shapes, shapes.abs()], dim=1).to(pooled.dtype)
        flat = functional.relu(self.map(joined)).flatten(1)
        layout = self.layout(torch.cat([flat, slots[:, 0], shape], dim=1))
        return logits | _split(layout, _LAYOUT)


def _outputs(names: tuple[str, ...]) -> int:
    return sum(len(VALUES[name]) for name in names)


def _split(values: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
    pieces = values.split([len(VALUES[name]) for name in names], dim=1)
    return dict(zip(names, pieces, strict=True))


def as_input(images: Tensor) -> Tensor:
    """uint8 -> what the network takes."""
    return images.float() / 127.5 - 1.0


class Probe:
    """Says of pictures what they show."""

    def __init__(self, net: ProbeNet) -> None:
        self._net = net.eval().requires_grad_(False)

    @classmethod
    def load(cls, path: Path = WEIGHTS) -> Probe:
        return cls(read(path))

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[Tensor | NDArray[np.uint8]]) -> list[Seen]:
        """pictures: (height, width, 3) uint8 each, of any sizes."""
        if not pictures:
            return []
        images = as_input(torch.stack([shrink(torch.as_tensor(picture)) for picture in pictures]))
        ratios = [picture.shape[1] / picture.shape[0] for picture in pictures]
        logits = self._net(images, torch.tensor(ratios).log())
        best = {name: values.argmax(dim=1).tolist() for name, values in logits.items()}
        found = []
        for i in range(len(pictures)):
            known = {name: VALUES[name][index[i]] for name, index in best.items()}
            # Comparing the two sides is surer than the network's own answer, which is not used.
            unlike = known["left_kind"] != known["right_kind"]
            known["is_pair"] = known["count"] == 2 and unlike
            found.append(Seen(**known))
        return found


def read(path: Path) -> ProbeNet:
    """A network as `save` stored it."""
    net = ProbeNet()
    state = {name: tensor.float() for name, tensor in load_file(path).items()}
    net.load_state_dict(state, strict=False)  # BatchNorm's batch counters are not stored
    return net


def save(net: ProbeNet, path: Path) -> None:
    """Store the weights as bf16."""
    state = {
        name: tensor.to(torch.bfloat16).contiguous()
        for name, tensor in net.state_dict().items()
        if tensor.is_floating_point()
    }
    save_file(state, path)
