#!/bin/sh
# google-crc32c 1.9.0 (which zarr's crc32c codec calls): Python's lock is let go only for `bytes` of 1 MB or more.
#
# value() of a numpy array or a memory map, of any size, holds it: other threads stand still until it returns, so that
# threads that check chunks behind memory maps run one after the other. The same content as `bytes` runs beside them.
# A memoryview of a writable buffer is refused with a TypeError; a numpy view of the same buffer is taken.
#
# Exits with 1 if this is no longer so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check google-crc32c==1.9.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import threading
import time
from importlib.metadata import version

import google_crc32c
import numpy as np

sys.setswitchinterval(60)  # a thread keeps the lock until it lets go of it by itself
array = np.zeros(200_000_000, np.uint8)
content, count, stop = array.tobytes(), [0], threading.Event()


def run():
    while not stop.is_set():
        count[0] += 1
        time.sleep(0)  # lets go of the lock


def beside(data):
    """How often another thread ran while the checksum was computed."""
    time.sleep(0.01)
    before = count[0]
    google_crc32c.value(data)
    return count[0] - before


thread = threading.Thread(target=run, daemon=True)
thread.start()
as_bytes, as_array = beside(content), beside(array)
stop.set()
try:
    google_crc32c.value(memoryview(bytearray(8)))
    refused = False
except TypeError as error:
    refused = True
    print("memoryview of a bytearray:", error)
print("google-crc32c", version("google-crc32c"), "200 MB: another thread ran", as_bytes, "times beside bytes,", end=" ")
print(as_array, "times beside the same numpy array")
sys.exit(0 if as_bytes > 0 and as_array == 0 and refused else 1)
PYTHON
