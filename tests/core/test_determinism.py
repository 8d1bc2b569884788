"""Equal inputs give equal plans, byte for byte, whatever the process, its hash seed, locale and time zone."""

import os
import subprocess
import sys

from tests.conftest import ROOT

# each push plans a sample; with CFSCALE_FULL=1 it is the number that is claimed
PLANS = 10_000 if os.environ.get("CFSCALE_FULL") else 300
PLACES = (
    {"PYTHONHASHSEED": "0", "LC_ALL": "C", "TZ": "UTC"},
    {"PYTHONHASHSEED": "1", "LC_ALL": "C.UTF-8", "TZ": "Asia/Kathmandu"},
    {"PYTHONHASHSEED": "4242", "LC_ALL": "tr_TR.UTF-8", "TZ": "America/St_Johns"},
    {"PYTHONHASHSEED": "random", "LC_ALL": "de_DE.UTF-8", "TZ": "Pacific/Chatham"},
)


def test_four_processes_plan_the_same_bytes() -> None:
    argv = [sys.executable, "-m", "tests.core.plan_digest", str(PLANS)]
    started = [
        subprocess.Popen(argv, cwd=ROOT, env={**os.environ, **place}, stdout=subprocess.PIPE, text=True)
        for place in PLACES
    ]

    digests = {process.communicate(timeout=600)[0].strip() for process in started}

    assert [process.returncode for process in started] == [0] * len(PLACES)
    assert len(digests) == 1
    assert len(digests.pop()) == 64
