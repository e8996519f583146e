"""What the tests share: the folder of real data, where the user has one."""
import os
from pathlib import Path

import pytest


@pytest.fixture(scope='session')
def real_data():
    "The folder named by FACEPRIVACY_DATA, with lfw/ and models/ in it; the test is skipped without it"
    folder = Path(os.environ.get('FACEPRIVACY_DATA') or '/nonexistent')
    if not (folder/'models').is_dir(): pytest.skip('FACEPRIVACY_DATA names no folder with lfw/ and models/')
    return folder
