"""The model card of a policy's folder: README.md, as the hub reads it; trainings write it.

python sft/card.py outputs/grpo/policy metrics=outputs/eval/metrics.json     # adds the figures
python sft/card.py outputs/grpo/policy push_to_hub=owner/name     # uploads the folder and its card
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import yaml
from huggingface_hub import HfApi, ModelCard, ModelCardData
from omegaconf import DictConfig, OmegaConf

import configs
from configs.entry import CONFIGS
from configs.record import git_state
from configs.terminal import first_rank

CARD = "README.md"
OPTIONS = ("metrics", "push_to_hub")
PACKAGES = ("torch", "transformers", "trl", "peft", "refseg-rl")
# Of released bases; "other" is theirs with a name. Of any other base, its own card's, or what its user fills in.
LICENSES: dict[str, dict[str, str]] = {
    "Qwen/Qwen2.5-VL-3B-Instruct": {"license": "other", "license_name": "qwen-research"},
    "Qwen/Qwen2.5-VL-7B-Instruct": {"license": "apache-2.0"},
    "Qwen/Qwen3-VL-4B-Instruct": {"license": "apache-2.0"},
    "Qwen/Qwen3-VL-8B-Instruct": {"license": "apache-2.0"},
    "OpenGVLab/InternVL3-2B-hf": {"license": "other", "license_name": "qwen"},
    "OpenGVLab/InternVL3-8B-hf": {"license": "other", "license_name": "qwen"},
}
UNKNOWN = {"license": "other", "license_name": "unknown"}
METRICS = "## Metrics\n"

BODY = """# {title}

{what} of {link} for referring segmentation, by refseg-rl (`{command}`).

| | |
|---|---|
| base model | `{base}` |
| started from | `{path}` |
| trained | {trained} |
| data | `{data}` |
| answers | `format={format}` |
{rewards}| commit | {commit} |
| versions | {versions} |

## How to load it

With transformers:

```python
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

path = {folder!r}
processor = AutoProcessor.from_pretrained(path)
model = AutoModelForImageTextToText.from_pretrained(path, dtype="auto", device_map="auto")
image = Image.open("photo.jpg").convert("RGB")
question = {prompt!r}
chat = [{{"role": "user", "content": [{{"type": "image"}}, {{"type": "text", "text": question}}]}}]
text = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
inputs = processor(images=[image], text=[text], return_tensors="pt").to(model.device)
written = model.generate(**inputs, max_new_tokens=512, do_sample=False)
answer = processor.tokenizer.decode(written[0, inputs["input_ids"].shape[1] :], skip_special_tokens=False)
print(answer)
```

With vLLM, `text` and `image` as above:

```python
from vllm import LLM, SamplingParams

engine = LLM(path, max_model_len=4096)
greedy = SamplingParams(temperature=0.0, max_tokens=512, skip_special_tokens=False)
print(engine.generate({{"prompt": text, "multi_modal_data": {{"image": image}}}}, greedy)[0].outputs[0].text)
```

Masks, from the text and a decoder, are what refseg-rl makes of it:
`python evaluation/predict.py model.path={folder}{choices} image=photo.jpg expression="the left cup"`

"""


def write_card(cfg: DictConfig, prompt: str, folder: str | Path) -> None:
    """Write the card of a policy that rl/grpo.py or sft/warm_start.py trained; on every rank, only rank 0 writes.

    Args:
        cfg: of the run.
        prompt: the format's question about an expression, for the code in the card.
        folder: where the policy lies; no card is written where there is none.
    """
    if not first_rank() or not Path(folder).is_dir():
        return
    base, license_ = origin(str(cfg.model.path))
    local = base.count("/") != 1 or Path(base).is_dir()  # of the hub are owner/name
    grpo = "rewards" in cfg
    git = git_state(Path(__file__).resolve().parents[1])
    form = configs.plain(cfg.format)
    paid = {name: one["weight"] for name, one in configs.plain(cfg.rewards).items()} if grpo else {}
    lora = cfg.model.lora
    body = BODY.format(
        title=Path(folder).resolve().parent.name,
        what="GRPO" if grpo else "Supervised warm start",
        command="rl/grpo.py" if grpo else "sft/warm_start.py",
        base=base,
        link=f"`{base}`" if local else f"[{base}](https://huggingface.co/{base})",
        path=cfg.model.path,
        trained=f"LoRA of rank {lora.r}, merged"
        if lora
        else "all weights" + ", vision frozen" * cfg.model.freeze_vision,
        data=_short(configs.plain(cfg.data)),
        format=_short(form),
        rewards=f"| rewards | {', '.join(f'{name} x {weight:g}' for name, weight in paid.items())} |\n" if grpo else "",
        commit="unknown" if git is None else f"{git['commit']}{', changed' if git['dirty'] else ''}",
        versions=", ".join(f"{name} {version(name)}" for name in PACKAGES),
        folder=str(folder),
        prompt=prompt,
        choices="".join(f" {one}" for one in _choices(cfg)),
    )
    license_fields: dict[str, Any] = license_
    data = ModelCardData(
        base_model=None if local else base,
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        tags=["referring-segmentation", "refseg-rl", "grpo" if grpo else "sft"],
        **license_fields,
    )
    ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}").save(Path(folder) / CARD)


def _choices(cfg: DictConfig) -> list[str]:
    """What evaluation/predict.py has to be told besides the policy: the format, precision, and a trained decoder."""
    form = configs.plain(cfg.format)
    made: list[list[str]] = []
    for file in sorted((CONFIGS / "format").glob("*.yaml")):
        own = configs.plain(cast(DictConfig, OmegaConf.load(file)))
        if own["_target_"] == form["_target_"]:
            differ = {key: value for key, value in form.items() if own.get(key) != value}
            made.append([f"format={file.stem}", *(f"format.{key}={json.dumps(one)}" for key, one in differ.items())])
    said = min(made, key=len, default=[f"format={form['_target_'].rpartition('.')[2]} # your own: with --config-dir"])
    said += [f"model.dtype={cfg.model.dtype}"] if cfg.model.dtype != "float32" else []
    path = (cfg.get("decoder") or {}).get("path")
    return [*said, *([f"decoder=trained decoder.path={path}"] if path else [])]


def origin(path: str) -> tuple[str, dict[str, str]]:
    """The released model at the root of the one at `path`, by the cards in between, and its license's fields."""
    card = Path(path) / CARD
    if not card.is_file():
        return path, LICENSES.get(path, UNKNOWN)
    said = ModelCard.load(card).data.to_dict()
    fields = {key: said[key] for key in ("license", "license_name", "license_link") if key in said}
    return said.get("base_model") or path, fields or UNKNOWN


def add_metrics(folder: str | Path, metrics: Mapping[str, Any]) -> None:
    """Put what an evaluation found at the end of the card, in place of what was there."""
    file = Path(folder) / CARD
    numbers = {name: one for name, one in metrics.items() if isinstance(one, int | float) and "interval" not in name}
    rows = "\n".join(
        f"| {name} | {one:.4f} |" if isinstance(one, float) else f"| {name} | {one} |" for name, one in numbers.items()
    )
    text = file.read_text(encoding="utf-8").split(METRICS)[0]
    table = f"{METRICS}\nProtocol `{metrics.get('protocol')}`:\n\n| metric | value |\n|---|---|\n{rows}\n"
    file.write_text(text + table, encoding="utf-8")


def push(folder: str | Path, name: str) -> str:
    """Upload a folder as the model `name` of the hub, which is made if it is not there; the user is logged in."""
    api = HfApi()
    api.create_repo(name, exist_ok=True)
    return str(api.upload_folder(repo_id=name, folder_path=str(folder)))


def _short(section: dict[str, Any]) -> str:
    """A section in one line: what it makes, and its values."""
    target = str(section.pop("_target_", "")).rpartition(".")[2]
    values = {key: value for key, value in section.items() if value not in (None, False)}
    said = yaml.safe_dump(values, default_flow_style=True, sort_keys=False, width=1000).strip()
    return f"{target} {said}" if values else target


def main(arguments: list[str]) -> None:
    """Add metrics to a card, upload its folder, or both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="a policy's, with the card that its training wrote")
    parser.add_argument("options", nargs="*", metavar="KEY=VALUE", help="metrics=FILE, push_to_hub=OWNER/NAME")
    read = parser.parse_args(arguments)
    folder, options = read.folder, dict(one.partition("=")[::2] for one in read.options)
    for key in options:
        if key not in OPTIONS:
            parser.error(str(configs.unknown("key", key, OPTIONS)))
    if not (Path(folder) / CARD).is_file():
        parser.error(f"{folder} has no {CARD}; rl/grpo.py and sft/warm_start.py write it into policy/.")
    if "metrics" in options:
        if not Path(options["metrics"]).is_file():
            parser.error(f"metrics={options['metrics']}: no such file.")
        add_metrics(folder, json.loads(Path(options["metrics"]).read_text(encoding="utf-8")))
    if "push_to_hub" in options:
        print(push(folder, options["push_to_hub"]))


if __name__ == "__main__":
    main(sys.argv[1:])
