"""Every file that a README says to write, written, and pictures for the dataset among them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from segmentation.data.scenes import Scenes
from segmentation.masks import decode, empty
from segmentation.sample import open_image
from tests.runs import ROOT

READMES = ("rewards", "segmentation/data", "segmentation/decoders", "segmentation/formats")
FILE = re.compile(r"```(?:python|yaml)\n# (mine/\S+)\n(.*?)```", re.DOTALL)


def write_mine(folder: Path) -> Path:
    """`folder/mine`, with code, configs and photos."""
    for readme in READMES:
        for name, text in FILE.findall((ROOT / readme / "README.md").read_text()):
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    mine = folder / "mine"
    for part in ("images", "masks"):
        (mine / "photos" / part).mkdir(parents=True)
    for scene in Scenes("train", 8):
        name = scene.expression.replace("/", " ") + f" {scene.id.rpartition('-')[2]}"
        mask = decode(scene.mask or empty(scene.height, scene.width))
        Image.fromarray(mask.astype(np.uint8) * 255).save(mine / "photos" / "masks" / f"{name}.png")
        open_image(scene).convert("RGB").save(mine / "photos" / "images" / f"{name}.jpg")
    return mine
