"""From a trained policy to one plain directory that transformers and vLLM both load.

python sft/merge.py outputs/run/checkpoint-200 outputs/merged    # an adapter, merged into its base
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import configs


def read_arguments() -> argparse.Namespace:
    """What the command line says."""
    configs.tidy()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="a folder with adapter_config.json, which names the base")
    parser.add_argument("folder", help="where the policy is written; one that is there is replaced")
    read = parser.parse_args()
    if not Path(read.checkpoint, "adapter_config.json").is_file():
        whole = Path(read.checkpoint, "config.json").is_file()
        then = f"it is whole already: model.path={read.checkpoint}" if whole else "name a checkpoint of a run with LoRA"
        parser.error(f"{read.checkpoint}: has no adapter_config.json to merge; {then}.")
    return read


# Imports take seconds, the command line is read before them.
arguments = read_arguments() if __name__ == "__main__" else None

from peft import PeftConfig, PeftModel
from torch import Tensor
from trl.distributed import DistributedBackend

from rollouts.plain_weights import whole_state
from rollouts.policy import Model, Processor, load_model, load_processor, loaded_dtype, resize_embeddings
from segmentation.data.check import Opened


def save_policy(
    model: Model, processor: Processor, folder: str | Path, weights: Mapping[str, Tensor] | None = None
) -> Path:
    """Write model (its adapter merged), processor, chat template and generation config into one folder.

    The folder appears whole or not at all: it is written beside its place and then moved there.

    Args:
        weights: instead of the model's own, which is left as it is (`rollouts.plain_weights`).
    """
    folder = Path(folder)
    part = folder.with_name(folder.name + ".part")
    if weights is not None:
        base: Model = model.get_base_model() if isinstance(model, PeftModel) else model
        base.save_pretrained(part, state_dict=dict(weights))
    else:
        plain: Model = model.merge_and_unload() if isinstance(model, PeftModel) else model
        plain.to(loaded_dtype(plain)).save_pretrained(part)  # tables of new tokens were trained in float32
    processor.save_pretrained(part)
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)  # of a run that was killed right here
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return folder


def finish(trainer: Any, processor: Processor, samples: Opened, output_dir: str | Path) -> None:
    """The end of a training: name the samples that were replaced, and write the policy once, to `output_dir/policy`."""
    if samples.skipped:
        print(f"{len(samples.skipped)} samples had broken images and were replaced: {', '.join(samples.skipped)}")
    policy, main = trainer.accelerator.unwrap_model(trainer.model), trainer.accelerator.is_main_process
    shards = DistributedBackend(trainer.accelerator)
    in_parts = shards.is_zero3 or shards.is_fsdp  # no process has a whole model
    weights = whole_state(policy, shards, keep=main) if in_parts else None
    if main:
        print(f"policy: {save_policy(policy, processor, Path(output_dir) / 'policy', weights)}")
    trainer.accelerator.wait_for_everyone()


def merge(checkpoint: str | Path, folder: str | Path) -> Path:
    """Merge an adapter's checkpoint into the base it names and save the result as one folder.

    Its processor is the checkpoint's, which knows the tokens that a warm start added and the run's picture size; the
    base's where a checkpoint has none.
    """
    base = PeftConfig.from_pretrained(str(checkpoint)).base_model_name_or_path
    if base is None:
        raise ValueError(f"{checkpoint}/adapter_config.json names no base model (base_model_name_or_path).")
    has_own = (Path(checkpoint) / "tokenizer_config.json").exists()
    processor = load_processor(checkpoint if has_own else base)
    model = load_model(base)
    if len(processor.tokenizer) > model.get_input_embeddings().weight.shape[0]:
        resize_embeddings(model, len(processor.tokenizer))
    return save_policy(PeftModel.from_pretrained(model, str(checkpoint)), processor, folder)


if arguments:
    print(merge(arguments.checkpoint, arguments.folder))
