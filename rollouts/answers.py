"""A policy that answers: prompts, engine, format, mask decoder and refiner as one thing, the same for every command."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from omegaconf import DictConfig
from PIL import Image

import configs
from rollouts.engines import Completion, Engine, Sampling, check_engine, make_engine
from rollouts.painter import Painter
from rollouts.policy import image_frame, load_model
from rollouts.reading import read
from rollouts.rows import Chat, chat
from rollouts.sections import make_decoder, make_processor
from segmentation.decoders import MaskDecoder
from segmentation.sample import Prediction, Sample

STATE_STYLES = {
    "found": "green",
    "no_target": "yellow",
    "invalid": "red",
}  # of `segmentation.sample.state`, in a terminal


class Answers:
    """What a policy says about samples.

    It is made in two steps, so that what is wrong with a config shows before weights are loaded: the constructor checks
    everything, `load` takes the time.

    Args:
        cfg: sections `model`, `format`, `decoder` and `refiner` (may be left out), and the values `engine` and
            `structured`, as in `configs/evaluate.yaml`.

    Attributes:
        processor, format, frame: the policy's; `frame` as in `rollouts.rows.picture`.

    Raises:
        ConfigError: a value that cannot be, a policy that is not there or does not know the format's tokens.
        ModuleNotFoundError: engine=vllm without vLLM.
    """

    def __init__(self, cfg: DictConfig) -> None:
        check_engine(cfg)
        if cfg.structured and cfg.engine != "vllm":
            raise configs.ConfigError(f"structured={cfg.structured} is vLLM's: choose engine=vllm, or structured=0.")
        self._cfg = cfg
        self.processor, self.format = make_processor(cfg)
        self.frame = image_frame(self.processor)
        self._decoder = make_decoder(cfg.decoder)
        self._refiner = configs.instantiate(cfg.refiner, where="refiner") if cfg.get("refiner") else None
        self._painter: Painter | None = None
        self._engine: Engine | None = None

    def load(self) -> None:
        """Load the policy, and put refiner and decoder where it runs. A second call does nothing.

        Of several processes all must call it, those too that have nothing to answer (`make_engine`).

        Raises:
            ValueError: the decoder was trained on another policy, or needs what the format does not write.
        """
        if self._engine:
            return
        cfg = self._cfg
        regex = self.format.regex(cfg.structured) if cfg.structured else None
        engine = make_engine(cfg, self.processor, regex, beside=isinstance(self._decoder, MaskDecoder))
        device = "cuda" if torch.cuda.is_available() else "cpu"
        if self._refiner:
            self._refiner.model.to(device)
        if isinstance(self._decoder, MaskDecoder):  # it reads features of the engine's own model, if that is at hand
            model = engine.model or load_model(cfg.model.path, cfg.model.dtype).to(device).eval()
            self._painter = Painter(self._decoder, model, self.processor, self.format)
        self._engine = engine

    def generate(
        self,
        samples: Sequence[Sample],
        images: Sequence[Image.Image],
        max_tokens: int,
        sampling: Sampling | None = None,
    ) -> list[Completion]:
        """One completion a sample, greedy unless it is sampled; `images` are their pictures in the policy's frame."""
        self.load()
        assert self._engine, "load makes it"
        return self._engine.generate(self.chats(samples), images, max_tokens, sampling=sampling) if samples else []

    def read(
        self, samples: Sequence[Sample], images: Sequence[Image.Image], completions: Sequence[Completion]
    ) -> list[Prediction]:
        """What the completions say, with their masks: the decoder's, then the refiner's."""
        decoder = None if isinstance(self._decoder, MaskDecoder) else self._decoder
        predictions = [
            read(self.text(one), one.truncated, sample, self.format, decoder)
            for one, sample in zip(completions, samples, strict=True)
        ]
        if self._painter and samples:
            tokens = [one.tokens for one in completions]
            predictions = self._painter.paint(predictions, samples, self.chats(samples), images, tokens)
        return self._refiner.refine(predictions, samples) if self._refiner else predictions

    def text(self, completion: Completion) -> str:
        """A completion as text, special tokens kept."""
        return completion.text(self.processor.tokenizer)

    def chats(self, samples: Sequence[Sample]) -> list[Chat]:
        """The prompts."""
        return [chat(self.format.prompt(sample.expression)) for sample in samples]
