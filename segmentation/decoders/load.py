"""`decoder=trained decoder.path=...`: a decoder that `sft/train_decoder.py` saved, of whichever class it is.

from segmentation.decoders import load_decoder
decoder = load_decoder("outputs/decoder/best")     # or a repository of the hub, "owner/name"
"""

from __future__ import annotations

import json
from pathlib import Path

from huggingface_hub import snapshot_download

from segmentation import decoders
from segmentation.decoders.mask_decoder import MaskDecoder
from segmentation.processor import is_missing_folder


def load_decoder(path: str | Path) -> MaskDecoder:
    """The decoder saved at `path`, ready to decode (eval mode), on the CPU in the type it was saved in.

    Args:
        path: a folder, or else the name of a repository of the hub, which is downloaded.

    Raises:
        FileNotFoundError: no config.json there.
        ValueError: it names no decoder of this project.
    """
    if not Path(path).is_dir() and not is_missing_folder(path):
        path = snapshot_download(str(path), allow_patterns=["config.json", "*.safetensors"])
    file = Path(path) / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"decoder.path={path}: no config.json; sft/train_decoder.py writes a decoder there.")
    name = json.loads(file.read_text(encoding="utf-8")).get("decoder")
    made = getattr(decoders, name, None) if name in decoders.__all__ else None
    if not isinstance(made, type) or not issubclass(made, MaskDecoder):
        raise ValueError(f"{file}: decoder {name!r} is no mask decoder of this project.")
    return made.from_pretrained(path).eval()
