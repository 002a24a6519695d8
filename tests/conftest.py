"""For all tests: no network, and real data only where REFSEG_DATA says it is."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
settings.register_profile("refseg", deadline=None)  # a busy machine is no failure
settings.load_profile("refseg")


def share_the_machine() -> None:
    """Give each worker of pytest-xdist cores and a port of its own, and so what it launches."""
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        number, count = int(worker.removeprefix("gw")), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        if cores := sorted(os.sched_getaffinity(0))[number::count]:
            os.sched_setaffinity(0, cores)
        os.environ["MASTER_PORT"] = str(29600 + number)


share_the_machine()  # before torch is imported, which counts the cores


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    long = {item.path for item in items if item.get_closest_marker("vllm")}
    items.sort(key=lambda item: item.path not in long)  # files with engines first: no worker ends with them alone
    if os.environ.get("REFSEG_DATA"):
        return
    for item in items:
        if item.get_closest_marker("realdata"):
            item.add_marker(pytest.mark.skip(reason="REFSEG_DATA is not set to the folder of real data"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; tests that ask for it are marked `realdata`."""
    folder = Path(os.environ["REFSEG_DATA"])
    assert folder.is_dir(), f"REFSEG_DATA={folder} is not a folder"
    return folder


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that knows the boxes of `tests.taught.some_scenes` by heart."""
    from rollouts.policy import image_frame, load_processor
    from segmentation.boxes import ResizedPixels
    from segmentation.formats import BoxFormat
    from tests.runs import BASE, ROOT
    from tests.taught import some_scenes, teach

    frame = image_frame(load_processor(ROOT / BASE))
    assert isinstance(frame, ResizedPixels)
    return teach(some_scenes(), BoxFormat(frame), tmp_path_factory.mktemp("taught"))
