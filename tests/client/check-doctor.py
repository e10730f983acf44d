#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""check-doctor.py WARMCTL NVML: what doctor asks of NVML (a made-up one) arrives, and it needs no CUDA library itself."""
import json, os, subprocess, sys, tempfile

warmctl, nvml = sys.argv[1:3]
with tempfile.TemporaryDirectory() as folder:
    os.symlink(os.path.abspath(nvml), folder + "/libnvidia-ml.so.1")
    path = folder + ":" + os.environ["LD_LIBRARY_PATH"] if "LD_LIBRARY_PATH" in os.environ else folder
    out = subprocess.run([warmctl, "--socket", folder + "/none", "--json", "doctor"], capture_output=True, text=True, env=dict(os.environ, LD_LIBRARY_PATH=path))
assert out.returncode == 1, out
found = json.loads(out.stdout)
for key, verdict, words in (
    ("driver", "good", "driver 999.1 speaks CUDA 99.2"),
    ("gpu0", "good", "Made-up ?GPU?? of compute capability 8.6"),
    ("mode0", "good", "several programs"),
    ("vram0", "good", "23.0 GiB of 24.0 GiB"),
    ("clocks0", "good", "1695 MHz, its memory at 9751 MHz (now 210 and 405)"),
    ("persist0", "good", "persistence"),
    ("socket", "bad", "no daemon answers"),
):
    assert found[key]["verdict"] == verdict and words in found[key]["text"], (key, found[key])
needs = subprocess.run(["readelf", "-d", warmctl], capture_output=True, text=True).stdout
assert "NEEDED" in needs and "cuda" not in needs.lower() and "nvidia" not in needs.lower(), needs
print(f"{len(found)} findings; a made-up NVML is read, none is linked")
