"""A page in the browser: give a picture and an expression, see what a policy answers and what it would be paid.

    python evaluation/serve.py model.path=outputs/grpo/policy format=box
    python evaluation/serve.py model.path=... format=bricks data=refcoco data.root=/data     # samples to pick from
    python evaluation/serve.py model.path=... decoder=trained decoder.path=outputs/decoder/best refiner=sam2 ...

It takes what evaluation/predict.py takes. Rewards are those of `rewards=`, wherever it is known what is meant: of a
sample of `data=`, or by a mask given with the picture. Needs gradio: uv pip install -e '.[serve]'
"""

from __future__ import annotations

import configs

# Imports take seconds, the command line is checked before them.
command = configs.main("serve", several=["data"], script=__name__)

import os
import signal
import socket
from tempfile import TemporaryDirectory

from omegaconf import DictConfig

from evaluation import serving
from rollouts.answers import Answers
from rollouts.device import use_all_cores
from rollouts.sections import make_rewards, make_samples


@command
def main(cfg: DictConfig) -> None:
    """Check, load, serve until Ctrl-C."""
    use_all_cores()
    rewards, weights, _ = make_rewards(cfg.rewards)
    samples = make_samples(cfg.data)
    policy = Answers(cfg)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends it as Ctrl-C does
    with listen(cfg.host, cfg.port) as listening, TemporaryDirectory(prefix="refseg-rl-") as pictures:
        os.environ["GRADIO_TEMP_DIR"] = pictures  # what is uploaded and drawn: nobody else's, and gone with the server
        policy.load()
        page = serving.page(policy, samples, rewards, dict(zip(rewards, weights, strict=True)), cfg.max_tokens)
        host, port = listening.getsockname()[:2]
        print(f"http://{host}:{port}  (Ctrl-C ends it)", flush=True)
        serving.run(page, listening)


def listen(host: str, port: int) -> socket.socket:
    """A socket of that address, taken before anything slow.

    Raises:
        ConfigError: the address is another program's, or none of this machine's.
    """
    try:
        return socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        raise configs.ConfigError(f"host={host}, port={port}: {error}. Choose another; port=0 takes any.") from error


if __name__ == "__main__":
    main()
