"""The page of evaluation/serve.py: what is asked on it, what is answered, and how both are laid out.

Nothing is fetched from anywhere: gradio's telemetry and version check are off, and fonts are the reader's own.
"""

from __future__ import annotations

import html
import math
import os
import socket
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from evaluation.question import Question, answer, asked
from rollouts.answers import Answers
from rollouts.sections import Reward
from segmentation import masks
from segmentation.panels import Tile, annotated, answered, gallery
from segmentation.sample import Found, Invalid, Prediction, Sample, open_image, state

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read on import, and not by all of gradio from `analytics_enabled=`
try:
    import gradio as gr
    import uvicorn
    from fastapi import FastAPI
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f"{error}: uv pip install -e '.[serve]'", name=error.name) from error

KEPT = 3600  # seconds
Shown = tuple[Image.Image | None, str, str, str]  # picture, what was read, the text, rewards


def drawn(sample: Sample, known: bool, prediction: Prediction) -> Image.Image:
    """The answer, and what is meant beside it where that is known."""
    picture = open_image(sample)
    tiles = [Tile("answer", picture, answered(prediction, sample.height, sample.width))]
    tiles += [Tile("meant", picture, annotated(sample))] if known else []
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.png"
        gallery(sample.expression, tiles, page, columns=2, width=3.4)
        with Image.open(page) as file:
            return file.convert("RGB")


def said(prediction: Prediction) -> str:
    """What was read out of the text, in words."""
    words = state(prediction).replace("_", " ")
    if isinstance(prediction, Invalid):
        return f"{words}: {prediction.reason}"
    if not isinstance(prediction, Found):
        return words
    boxes = [(one.box and " ".join(f"{edge:.0f}" for edge in one.box)) or "a mask" for one in prediction.instances]
    return "\n".join([f"{words}: {len(boxes)}", *boxes])


def table(weights: Mapping[str, float], scores: Sequence[float] | None) -> str:
    """HTML of each reward, its weight, and the sum; or why there are none."""
    if scores is None:
        return "<p>Not known what is meant: no rewards. Give a mask of it, or pick a sample.</p>"
    known = {name: one for name, one in zip(weights, scores, strict=True) if not math.isnan(one)}
    rows = [(name, f"{weight:g}", f"{known[name]:.3f}" if name in known else "-") for name, weight in weights.items()]
    rows.append(("total", "", f"{sum(weights[name] * one for name, one in known.items()):.3f}"))
    lines = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><tr><th>reward</th><th>weight</th><th>value; - does not apply</th></tr>{body}</table>"


def page(
    policy: Answers,
    samples: Sequence[Sample],
    rewards: Mapping[str, Reward],
    weights: Mapping[str, float],
    max_tokens: int,
) -> FastAPI:
    """The page, as an app to serve."""

    def ask(image: str | None, expression: str, truth: str | None, picked: Sample | None) -> Shown:
        try:
            sample, known = asked(image, expression, truth, picked)
            prediction, text, scores = answer(policy, sample, known, rewards, max_tokens)
        except ValueError as error:
            return None, f"cannot be asked: {error}", "", ""
        return drawn(sample, known, prediction), said(prediction), text, table(weights, scores)

    def pick(index: float | None) -> tuple[Any, ...]:
        try:
            if index is None or not 0 <= index < len(samples) or index != int(index):
                raise Question(f"Sample: there are {len(samples)}; choose a number from 0 to {len(samples) - 1}.")
            sample = samples[int(index)]
            sample = replace(sample, image=open_image(sample))
        except ValueError as error:
            return (*[gr.skip()] * 4, f"cannot be picked: {error}")
        assert isinstance(sample.image, Image.Image)
        meant = None if sample.mask is None else Image.fromarray(masks.decode(sample.mask)).convert("L")
        return sample.image, sample.expression, meant, sample, ""

    # Gradio keeps what is uploaded and drawn as files; without `delete_cache` for ever.
    with gr.Blocks(analytics_enabled=False, title="refseg-rl", delete_cache=(KEPT, KEPT)) as blocks:
        gr.Markdown("# What does the policy see?")
        picked = gr.State()
        with gr.Row():
            with gr.Column(scale=2):
                file = {"type": "filepath", "image_mode": None, "format": "png", "sources": ["upload", "clipboard"]}
                image = gr.Image(label="Picture", elem_id="picture", height=260, **file)
                expression = gr.Textbox(label="Expression", elem_id="expression", placeholder="the left cup")
                button = gr.Button("Ask", variant="primary", elem_id="ask")
                truth = gr.Image(
                    label="What is meant, if known: a mask, white on black",
                    elem_id="truth",
                    height=160,
                    **file,
                )
                with gr.Row():
                    index = gr.Number(0, label=f"Sample of data, 0 to {len(samples) - 1}", precision=0, elem_id="index")
                    choose = gr.Button("Pick", elem_id="pick")
            with gr.Column(scale=3):
                drawing = {"format": "png", "buttons": ["download"]}
                shown = gr.Image(show_label=False, elem_id="answer", interactive=False, **drawing)
                read = gr.Textbox(label="Read as", elem_id="read", interactive=False)
                text = gr.Textbox(label="Text", elem_id="text", interactive=False, buttons=["copy"])
                paid = gr.HTML(elem_id="paid")
        inputs, outputs = [image, expression, truth, picked], [shown, read, text, paid]
        # One question at a time: an engine is not made for several callers.
        gr.on([button.click, expression.submit], ask, inputs, outputs, concurrency_limit=1, api_visibility="private")
        choose.click(pick, [index], [*inputs, read], api_visibility="private")
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    return gr.mount_gradio_app(FastAPI(), blocks, path="/", theme=theme, footer_links=[])


def run(app: FastAPI, listening: socket.socket) -> None:
    """Serve until Ctrl-C."""
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])
