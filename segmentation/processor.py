"""A policy's processor: its tokens, the size of its pictures and its frame of coordinates, without its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoProcessor, ProcessorMixin

from segmentation.boxes import Convention, Relative, ResizedPixels
from segmentation.data.resize import Frame, Tiles

# What transformers loads: a ProcessorMixin, whose attributes depend on the family. A type checker knows neither those
# nor what calling it returns.
Processor = Any
Chat = list[dict[str, Any]]


def chat(text: str) -> Chat:
    """One user turn: the picture, then the text."""
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]


def dialogue(turns: Sequence[str]) -> Chat:
    """Turns of user and assistant, the user's first and last; the picture stands before the first."""
    roles = ("user", "assistant")
    said = [{"role": roles[i % 2], "content": [{"type": "text", "text": text}]} for i, text in enumerate(turns)]
    return [*chat(turns[0]), *said[1:]]


def is_missing_folder(path: str | Path) -> bool:
    """Whether `path` looks like a local folder and is not there; what does not look like one is a name on the hub."""
    local = str(path).startswith((".", "/", "outputs")) or str(path).count("/") > 1  # the hub's are owner/name
    return local and not Path(path).is_dir()


def load_processor(path: str | Path, max_pixels: int | None = None) -> Processor:
    """The processor saved at `path`, padding on the left as generation needs it.

    Args:
        max_pixels: pictures are shown to the policy with at most so many pixels (`image_frame`); an engine is told by
            `engine_limit`. None: the limit that lies at `path`.

    Raises:
        FileNotFoundError: `path` looks like a local folder and is not there.
        ValueError: it holds no multimodal processor, or `max_pixels` is above its limit or too small for a picture.
    """
    if is_missing_folder(path):
        raise FileNotFoundError(f"model.path={path}: no such folder; run the stage that writes it first.")
    if not Path(path, "config.json").exists() and Path(path, "policy", "config.json").exists():
        raise FileNotFoundError(f"model.path={path}: is a run's folder; its policy is {Path(path) / 'policy'}.")
    processor = AutoProcessor.from_pretrained(path)
    if not isinstance(processor, ProcessorMixin):
        raise ValueError(f"model.path={path}: has a {type(processor).__name__}, not a processor of images and text.")
    processor.tokenizer.padding_side = "left"
    if hasattr(processor.image_processor, "crop_to_patches"):
        # InternVL's processor tiles pictures whatever its image processor's own default says (InternVLProcessorKwargs);
        # the vision encoder alone is given the same tiles, and vLLM counts the tokens of as many.
        processor.image_processor.crop_to_patches = True
    if max_pixels is not None:
        _limit(processor.image_processor, max_pixels)
    return processor


def _limit(images: Any, max_pixels: int) -> None:
    """Lower the pixels that an image processor gives a picture at most."""
    tiled = not hasattr(images, "merge_size")
    tile = images.size["height"] * images.size["width"] if tiled else 0
    if tiled:
        least, most = tile * images.min_patches, tile * images.max_patches
    else:
        least, most = 4 * images.size["shortest_edge"], images.size["longest_edge"]  # 4: `segmentation.data.resize.fit`
    if not least <= max_pixels <= most:
        raise ValueError(
            f"model.max_pixels={max_pixels}: the processor at model.path takes {least} to {most}; "
            "more would be taken away again by an engine, which reads the processor there. null keeps its limit."
        )
    if tiled:
        images.max_patches = max_pixels // tile
    else:
        images.size = {"shortest_edge": images.size["shortest_edge"], "longest_edge": max_pixels}


def engine_limit(processor: Processor) -> dict[str, Any]:
    """The processor's limits as vLLM's `mm_processor_kwargs`.

    vLLM loads a processor of its own from the policy's folder. Untold, it would keep room for the largest picture that
    this one takes: 16,384 tokens of a Qwen from the hub, and one tile of an InternVL whose pictures have five.
    """
    images = processor.image_processor
    if hasattr(images, "merge_size"):
        return {"size": {side: images.size[side] for side in ("shortest_edge", "longest_edge")}}
    if hasattr(images, "crop_to_patches"):
        return {name: getattr(images, name) for name in ("min_patches", "max_patches", "crop_to_patches")}
    return {}


def family(path: str | Path) -> str:
    """transformers' `model_type` of the model saved at `path`: qwen2_5_vl, qwen3_vl, internvl, ..."""
    return AutoConfig.from_pretrained(path).model_type


def image_frame(processor: Processor) -> Frame | None:
    """The size to which the processor brings an image; None for families that are not known here."""
    images = processor.image_processor
    if hasattr(images, "merge_size"):
        return ResizedPixels(
            factor=images.patch_size * images.merge_size,
            min_pixels=images.size["shortest_edge"],
            max_pixels=images.size["longest_edge"],
        )
    if hasattr(images, "crop_to_patches") and images.size["height"] == images.size["width"]:
        return Tiles(images.size["height"], images.min_patches, images.max_patches)
    return None


def convention(model_type: str, processor: Processor) -> Convention:
    """The frame in which the family writes coordinates (table in `segmentation.boxes`)."""
    if model_type == "qwen2_5_vl":
        frame = image_frame(processor)
        assert isinstance(frame, ResizedPixels), "a Qwen processor has a merge_size"
        return frame
    return Relative(1000)


def own_frame(section: Mapping[str, Any], model_type: str, processor: Processor) -> dict[str, Convention]:
    """The argument that a format's section leaves to the policy: `{"convention": ...}`.

    Empty where the section names a frame, or has none: its format writes no coordinates, or has a frame of its own.
    """
    open_ = "convention" in section and section["convention"] is None
    return {"convention": convention(model_type, processor)} if open_ else {}
