"""A claim is held by one process at a time, and by none that is dead."""

import os
import signal
import subprocess
import sys
import time

import pytest

from snnrobust.claims import Busy, Claim, holder, patiently

HOLD = """
import sys, time
from pathlib import Path
from snnrobust.claims import Claim
with Claim(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def lock(tmp_path):
    return tmp_path / "run" / ".lock"


@pytest.fixture
def other(lock):
    """Another process that holds the claim."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_another_process_is_refused_and_told_who_holds_it(lock, other):
    with pytest.raises(Busy, match=f"^process {other.pid} on .*, since 20"):
        Claim(lock)
    assert (holder(lock) or "").startswith(f"process {other.pid} on ")


def test_a_killed_owner_holds_nothing(lock, other):
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    assert holder(lock) is None
    with Claim(lock):
        assert (holder(lock) or "").startswith(f"process {os.getpid()} on ")


def test_a_suspended_owner_still_holds_it(lock, other):
    os.kill(other.pid, signal.SIGSTOP)
    with pytest.raises(Busy):
        Claim(lock)
    os.kill(other.pid, signal.SIGCONT)


def test_it_ends_with_its_block_and_can_be_released_before(lock):
    with Claim(lock) as claim:
        with pytest.raises(Busy):
            Claim(lock)
        claim.release()
        with Claim(lock):
            assert holder(lock)
    assert holder(lock) is None
    assert holder(lock.with_name("absent")) is None


def test_a_child_of_the_owner_does_not_keep_it(lock):
    with Claim(lock):
        child = subprocess.Popen(["sleep", "60"])
    assert holder(lock) is None
    child.kill()
    child.wait()


def test_patience_waits_until_nobody_is_in_the_way(lock, other):
    with pytest.raises(Busy):
        patiently(lambda: Claim(lock), wait=False)
    started = time.monotonic()
    subprocess.Popen(["sh", "-c", f"sleep 0.5; kill -9 {other.pid}"]).wait()
    with patiently(lambda: Claim(lock), wait=True):
        assert time.monotonic() - started >= 0.5


def test_an_error_of_the_file_system_names_the_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        Claim(tmp_path / "file" / ".lock")
