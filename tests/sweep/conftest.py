import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def toy():
    """The small sweep of toy.py; one module object, so that all tests share its compiled programs."""
    spec = importlib.util.spec_from_file_location("toy", Path(__file__).with_name("toy.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
