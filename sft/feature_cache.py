"""`cache=folder`: what a frozen policy saw, kept on disk, so that later epochs run the decoder alone.

    folder/cache.json                    what made it
    folder/pictures/ab/abcd….safetensors features of a picture, shared by all that is said of it
    folder/tokens/ef/ef01….safetensors   states of the segmentation tokens of one text about one picture

Files are named by what they are made from (a picture's pixels; those and the text), are written once and read by
memory map, so that memory is bounded by a batch whatever the folder's size. Several processes may share a folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from configs.terminal import first_rank
from segmentation.backbones import Features
from sft.view import View, Viewer

GB = 1e9
Key = tuple[str, str]  # of the picture, of the text about it; "" if no tokens are kept


class FeatureCache:
    """Views by row.

    Image states are kept by the picture alone: it stands before the text in every prompt, and states look back only.

    Args:
        folder: made if it is not there.
        made_by: what the views depend on besides picture and text (`made_by`).
        rows: how many rows there may be, for the size that is printed before the first is written. It is the most
            there can be: rows may share pictures.

    Raises:
        ValueError: the folder holds what another policy, or other layers of it, saw.
    """

    def __init__(self, folder: str | Path, made_by: Mapping[str, Any], rows: int) -> None:
        self.folder, self.rows, self._announced = Path(folder), rows, False
        self.folder.mkdir(parents=True, exist_ok=True)
        header = self.folder / "cache.json"
        if not header.exists():
            _write(header, lambda part: part.write_text(json.dumps(made_by, indent=2) + "\n", encoding="utf-8"))
        before, now = json.loads(header.read_text(encoding="utf-8")), json.loads(json.dumps(made_by))
        if differ := [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]:
            key = differ[0]
            raise ValueError(
                f"cache={folder} was made by another policy or for another decoder: {', '.join(differ)} differ ({key} "
                f"was {before.get(key)!r}, is {now.get(key)!r}). Choose another folder, or delete this one."
            )

    def read(self, key: Key) -> View | None:
        """A row's view on the CPU, None if it is not there."""
        picture, text = key
        files = [self._file("pictures", picture)] + ([self._file("tokens", text)] if text else [])
        if not all(file.exists() for file in files):
            return None
        maps = load_file(files[0])
        levels = sum(name.startswith("vision.") for name in maps)
        rest = {name: maps.get(name) for name in ("image_states", "projected", "projected_fine")}
        features = Features(tuple(maps[f"vision.{level}"] for level in range(levels)), pixels=maps["pixels"], **rest)
        return View(features, load_file(files[1])["tokens"] if text else None)

    def write(self, key: Key, view: View) -> None:
        """Keep a row's view."""
        features = view.features
        maps = {f"vision.{level}": map_ for level, map_ in enumerate(features.vision)} | {"pixels": features.pixels}
        more = {name: getattr(features, name) for name in ("image_states", "projected", "projected_fine")}
        maps |= {name: map_ for name, map_ in more.items() if map_ is not None}
        tokens = {"tokens": view.tokens} if view.tokens is not None else {}
        self._announce(sum(map_.nbytes for map_ in (*maps.values(), *tokens.values())))
        for kind, name, tensors in (("pictures", key[0], maps), ("tokens", key[1], tokens)):
            file = self._file(kind, name)
            if tensors and not file.exists():
                plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
                _write(file, lambda part, plain=plain: save_file(plain, part))

    def _file(self, kind: str, name: str) -> Path:
        return self.folder / kind / name[:2] / f"{name}.safetensors"

    def _announce(self, size: int) -> None:
        if self._announced:
            return
        self._announced = True
        if not first_rank():
            return
        there = sum(file.stat().st_size for file in self.folder.rglob("*.safetensors"))
        free, most = shutil.disk_usage(self.folder).free, size * self.rows
        said = f"cache={self.folder}: {size / 1e6:.2f} MB a row, at most {most / GB:.1f} GB for {self.rows} rows"
        print(f"{said}; {there / GB:.1f} GB are there, {free / GB:.1f} GB are free", flush=True)
        if most - there > free:
            print("warning: it may not fit; a full disk ends the run, which resume=true continues.", flush=True)


def row_key(picture: Image.Image, text: str) -> Key:
    """Of a picture as the policy's processor is given it, and a text about it, "" for none."""
    pixels = hashlib.blake2b(repr(picture.size).encode() + picture.tobytes(), digest_size=16)
    return pixels.hexdigest(), _digest(f"{pixels.hexdigest()}\n{text}".encode()) if text else ""


def made_by(viewer: Viewer) -> dict[str, Any]:
    """What a policy's views depend on, besides picture and text; JSON values."""
    backbone = viewer.backbone
    spec = backbone.spec
    return {
        "weights": weights_digest(viewer.model),
        "family": spec.family,
        "vision_layers": list(spec.vision_layers),
        "cells": backbone.cells,
        "language_model": viewer.reads,
        "token": viewer.token,
        "images": _digest(viewer.processor.image_processor.to_json_string().encode()),
        "chat": _digest((viewer.processor.chat_template or "").encode()),
    }


def weights_digest(model: nn.Module) -> str:
    """Digest of every weight, its name and type."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    data: Any = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return memoryview(data)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _write(file: Path, write: Any) -> None:
    """A file that is there whole or not at all, whoever else writes the same."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{os.getpid()}")
    write(part)
    part.replace(file)
