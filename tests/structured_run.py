"""Texts of a policy that knows no format, with and without each format's regex; JSON on the last line.

python tests/structured_run.py FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rollouts.device import prepare_vllm
from rollouts.engines import VLLMEngine
from rollouts.policy import add_tokens, image_frame, load_model, load_processor
from rollouts.rows import chat, picture
from segmentation.data.scenes import Scenes
from segmentation.formats import BoxFormat, BrickFormat, DescriptorFormat, Format, Reasoning, SegTokenFormat
from segmentation.sample import Invalid
from tests.runs import BASE

FORMATS: dict[str, Format] = {
    "box": BoxFormat(),
    "box, point": BoxFormat(point=True),
    "box, mask token": BoxFormat(mask_token=True),
    "bricks, image": BrickFormat(8, label="none"),
    "bricks, box": BrickFormat(6, scope="box"),
    "bricks, wrapped": BrickFormat(6, scope="box", code="wrapped"),
    "bricks, columns": BrickFormat(16, scope="box", code="columns", columns=8),
    "descriptors": DescriptorFormat(4),
    "descriptors, image": DescriptorFormat(4, rle="image"),
    "descriptors, none": DescriptorFormat(2, rle="none"),
    "seg token": SegTokenFormat(),
    "thoughts": Reasoning(SegTokenFormat(), longest=200),
}
SAMPLES, TOKENS = 8, 400


def main() -> None:
    """A policy with every format's tokens, none of them trained; then each format."""
    folder = Path(sys.argv[1])
    model, processor = load_model(BASE), load_processor(BASE)
    add_tokens(model, processor, tuple(dict.fromkeys(t for form in FORMATS.values() for t in form.new_tokens)))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    prepare_vllm()
    engine = VLLMEngine(folder, processor, "float32", max_length=512)
    samples = [Scenes("val", SAMPLES)[index] for index in range(SAMPLES)]
    images = [picture(sample, image_frame(processor)) for sample in samples]
    said = {}
    for name, form in FORMATS.items():
        chats = [chat(form.prompt(sample.expression)) for sample in samples]
        rows = {}
        for key, regex in (("free", None), ("structured", form.regex(2))):
            engine.regex = regex
            rows[key] = []
            for completion, sample in zip(engine.generate(chats, images, TOKENS), samples, strict=True):
                text = completion.text(processor.tokenizer)
                prediction = form.parse(text, sample.height, sample.width)
                reason = prediction.reason if isinstance(prediction, Invalid) else None
                rows[key].append({"text": text, "cut": completion.truncated, "reason": reason})
        said[name] = rows
    print(json.dumps(said))


if __name__ == "__main__":
    main()
