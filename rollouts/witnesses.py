"""Proof that an engine holds the weights it was last sent: columns of a few of its matrices, bit for bit.

An engine may keep a matrix fused with others, packed for its kernels, or cut over several GPUs, and a checkpoint's
checksum says nothing about that. So it is asked for what it computes with: a matrix times a one-hot vector is one of
its columns, exactly, in whatever form it is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor

MATRICES = 6
COLUMNS = 4


class Witnesses:
    """A few matrices of an engine in this process, from its first to its last one.

    Those that split their inputs (attention's output, the MLP's last) are never fused with others, so that each is one
    weight of the policy. Both name them alike from the number of their layer on.

    Args:
        llm: `vllm.LLM`.

    Raises:
        ValueError: it has no such matrix.
    """

    def __init__(self, llm: Any) -> None:
        from vllm.model_executor.layers.linear import RowParallelLinear

        model = llm.llm_engine.model_executor.driver_worker.model_runner.model
        named = [(_tail(name), part) for name, part in model.named_modules() if isinstance(part, RowParallelLinear)]
        tails = Counter(tail for tail, _ in named)
        layers: list[tuple[str, Any]] = [(tail, part) for tail, part in named if tail and tails[tail] == 1]
        if not layers:
            raise ValueError(f"{type(model).__name__}: no matrix by which its weights could be told from others.")
        places = torch.linspace(0, len(layers) - 1, MATRICES).round().int().tolist()
        self.layers = dict(layers[place] for place in places)
        self.sent: dict[str, tuple[str, Tensor]] = {}

    def watch(self, weights: Iterator[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """The weights as they go by, on their way to the engine."""
        self.sent.clear()
        for name, weight in weights:
            tail = _tail(name.removesuffix(".weight"))
            if name.endswith(".weight") and tail in self.layers:
                layer = self.layers[tail]
                self.sent[tail] = name, weight[:, _columns(layer)].to(layer.params_dtype, copy=True)  # (out, COLUMNS)
            yield name, weight

    @torch.no_grad()
    def stale(self) -> list[str]:
        """Names of the weights that the engine has otherwise than they were sent."""
        stale = []
        for tail, layer in self.layers.items():
            if tail not in self.sent:
                stale.append(f"{tail} (never sent)")
                continue
            name, columns = self.sent[tail]
            local = [column - layer.tp_rank * layer.input_size_per_partition for column in _columns(layer)]
            ask = torch.zeros(COLUMNS, layer.input_size_per_partition, dtype=columns.dtype, device=columns.device)
            ask[range(COLUMNS), local] = 1.0
            held = layer.quant_method.apply(layer, ask, bias=None).T  # (out, COLUMNS)
            if not torch.equal(held, columns):
                stale.append(f"{name} (off by {(held - columns).abs().max().item():.2g})")
        return stale

    def check(self, process: int) -> None:
        """Compare on every process, and the processes with each other; all of them call it.

        Raises:
            RuntimeError: an engine has other weights than it was sent, or two processes have sent different ones.
        """
        sums = {name: columns.double().sum().item() for name, columns in self.sent.values()}
        told = gather_object([(process, self.stale(), sums)])
        if wrong := [f"process {number}: {', '.join(stale)}" for number, stale, _ in told if stale]:
            raise RuntimeError(f"vLLM does not have the weights it was sent. {'; '.join(wrong)}.")
        first = told[0][2]
        for number, _, other in told[1:]:
            # with tensor parallelism each process looks at columns of its own
            if other.keys() != first.keys() or (not self.split and other != first):
                raise RuntimeError(f"vLLM of process {number} has other weights than that of process {told[0][0]}.")

    @property
    def split(self) -> bool:
        """Whether the matrices are cut over several processes."""
        return any(layer.tp_size > 1 for layer in self.layers.values())


def _columns(layer: Any) -> list[int]:
    """Which columns of the whole matrix are compared: evenly spread over the part that is here."""
    first, size = layer.tp_rank * layer.input_size_per_partition, layer.input_size_per_partition
    return [first + place for place in torch.linspace(0, size - 1, COLUMNS).int().tolist()]


def _tail(name: str) -> str:
    """A matrix's name from its layer's number on, behind what holds the layers: `blocks.0.mlp.down_proj`."""
    parts = name.split(".")
    number = next((place for place, part in enumerate(parts) if part.isdigit()), 0)
    return ".".join(parts[number - 1 :]) if number else ""
