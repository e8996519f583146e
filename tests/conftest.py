"""What the tests share: the folder of real data and a browser, where the user has them."""
import os
import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope='session')
def real_data():
    "The folder named by FACEPRIVACY_DATA, with lfw/ and models/ in it; the test is skipped without it"
    folder = Path(os.environ.get('FACEPRIVACY_DATA') or '/nonexistent')
    if not (folder/'models').is_dir(): pytest.skip('FACEPRIVACY_DATA names no folder with lfw/ and models/')
    return folder


@pytest.fixture(scope='session')
def browser():
    "Chromium without a window"
    api = pytest.importorskip('playwright.sync_api', reason='playwright is not installed: pip install playwright')
    chromium = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    if not chromium: pytest.skip('no chromium on PATH: apt-get install chromium')
    with api.sync_playwright() as p:
        opened = p.chromium.launch(executable_path=chromium, args=['--no-sandbox', '--disable-gpu', '--disable-quic'])
        yield opened
        opened.close()
