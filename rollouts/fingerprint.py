"""Which weights lie in a folder: another training into the same folder makes others under the same name."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

PLACES, BLOCK = 64, 1 << 16  # of each file; evenly spread, so that no layer of a model is passed over


def policy_identity(cfg: DictConfig) -> dict[str, Any]:
    """What answers depend on of a config's `model`, and of its `decoder` and `refiner` where they have a path."""
    model = cfg.model
    paths = {name: (cfg.get(name) or {}).get("path") for name in ("model", "decoder", "refiner")}
    return {
        "checkpoint": str(model.path),
        "weights": {name: fingerprint(path) for name, path in paths.items() if path},
        "dtype": model.dtype,
        "max_pixels": model.max_pixels,
    }


def fingerprint(path: str | Path) -> str | None:
    """Digest of the weights in a folder, of their sizes and of 4 MB of each file; None for a repository of the hub."""
    files = sorted(Path(path).glob("*.safetensors"))
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as content:
            for place in range(PLACES):
                content.seek(max(size - BLOCK, 0) * place // (PLACES - 1))
                digest.update(content.read(BLOCK))
    return digest.hexdigest() if files else None
