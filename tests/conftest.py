"""For all tests: no network, and real data only where REFSEG_DATA says it is."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
settings.register_profile("refseg", deadline=None)  # a busy machine is no failure
settings.load_profile("refseg")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
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
