#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""run-tests.py [--quick] [SUITE...], by way of tools/test: run all that guards main, and close with `N passed, N failed, N skipped`.

Four builds, each in a folder of its own under build-test/ (WARM_TEST_DIR moves it):
  plain   warnings are errors; every suite (unit, proto, fault, slow, system)
  asan    AddressSanitizer and UndefinedBehaviorSanitizer; unit, proto, fault and the mutation runs
  fuzz    the libFuzzer targets, compiled with clang and run shortly, seeds and mutations too
  cuda    the CUDA backend for two architectures, where nvcc is; its suite says what it skips where there is no GPU
--quick leaves out slow and system, and the last three builds; named suites leave out all but the plain one (`cuda`: its own).
Everything printed goes to the terminal; the last lines of what each failing test printed come once more at the end.
"""
import json, os, shutil, subprocess, sys, time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BASE = os.environ.get("WARM_TEST_DIR", os.path.join(ROOT, "build-test"))
BUILDS = [
    ("plain", ["-Dwerror=true", "-Dcuda=disabled"], None, {}),
    ("asan", ["-Dwerror=true", "-Dcuda=disabled", "-Db_sanitize=address,undefined", "-Db_lundef=false", "-Doptimization=1"], ["unit", "proto", "fault"], {}),
    ("fuzz", ["-Dfuzz=true", "-Dcuda=disabled", "-Db_sanitize=address,undefined", "-Db_lundef=false", "-Doptimization=1"], ["fuzz"], {"CC": "clang"}),
    ("cuda", ["-Dwerror=true", "-Dcuda=enabled", "-Dcuda-arch=80,90"], ["cuda"], {}),
]
NVCC = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")


def say(text):
    print(text, flush=True)


def run(command, **more):
    say("+ " + " ".join(command))
    return subprocess.run(command, cwd=ROOT, **more).returncode


def build(name, options, environment):
    """Compile everything; of cuda, where all else was compiled before, the daemon only: the tests bring what they need."""
    folder = os.path.join(BASE, name)
    env = dict(os.environ, **environment)
    fresh = not os.path.exists(os.path.join(folder, "build.ninja"))
    triplet = subprocess.run(["gcc", "-print-multiarch"], capture_output=True, text=True).stdout.strip()
    # meson asks dpkg-dev for this; without it libraries would go where Debian's loader does not look
    setup = ["meson", "setup", folder, "--prefix=/usr", "--libdir=lib/" + triplet, *options] + ([] if fresh else ["--reconfigure"])
    if run(setup, env=env, stdout=subprocess.DEVNULL) or run(["ninja", "-C", folder, "--quiet", *(["daemon/warmd"] if name == "cuda" else [])], env=env):
        return None
    return folder


def test(name, folder, suites, skipped_suites):
    """Run the suites; return rows (name, result, seconds, log)."""
    args = ["meson", "test", "-C", folder, "--print-errorlogs", "--num-processes", str(max(1, (os.cpu_count() or 2) // 2))]
    args += [] if name == "cuda" else ["--no-rebuild"]
    for suite in suites or []:
        args += ["--suite", suite]
    for suite in skipped_suites:
        args += ["--no-suite", suite]
    env = dict(os.environ, ASAN_OPTIONS="detect_leaks=1:abort_on_error=0:allocator_may_return_null=1", UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1")
    log = os.path.join(folder, "meson-logs", "testlog.json")
    if os.path.exists(log):
        os.unlink(log)
    code = run(args, env=env)
    rows = [json.loads(line) for line in open(log)] if os.path.exists(log) else []
    if code and not any(r["result"] in ("FAIL", "ERROR", "TIMEOUT", "INTERRUPT", "UNEXPECTEDPASS") for r in rows):
        rows.append({"name": name + ": meson test ended with %d" % code, "result": "ERROR", "duration": 0})
    return rows


def reason(row):
    """The word a skipped test said."""
    lines = [s for s in (row.get("stdout") or "").split("\n") if "skip" in s.lower()]
    return lines[-1].strip() if lines else "no reason given"


def last_words(row, n_lines=40):
    """What a test printed last."""
    lines = [s for key in ("stdout", "stderr") for s in (row.get(key) or "").rstrip().split("\n")]
    return "".join("\n    " + s for s in lines[-n_lines:] if s)


def main():
    quick = "--quick" in sys.argv
    suites = [a for a in sys.argv[1:] if not a.startswith("-")]
    rows, started = [], time.time()
    wanted = ["plain"] if quick or suites else [b[0] for b in BUILDS]
    if "cuda" in suites:
        wanted = ["plain"] * (len(suites) > 1) + ["cuda"]
    for name, options, own_suites, environment in [b for b in BUILDS if b[0] in wanted]:
        say(f"== {name}")
        if name == "cuda" and not NVCC:
            rows.append({"name": "cuda: build", "result": "SKIP", "duration": 0, "stdout": "skipped: no nvcc here (the CUDA Toolkit): kernels/cuda was not compiled"})
            continue
        folder = build(name, options, environment)
        if not folder:
            rows.append({"name": f"{name}: build", "result": "FAIL", "duration": 0})
            continue
        rows.append({"name": f"{name}: build", "result": "OK", "duration": 0})
        skipped = [] if suites or own_suites else (["slow", "system"] if quick else [])
        mine = own_suites if name == "cuda" else [s for s in suites if s != "cuda"] or own_suites
        rows += test(name, folder, mine, skipped)
    passed = [r for r in rows if r["result"] in ("OK", "EXPECTEDFAIL")]
    skipped = [r for r in rows if r["result"] == "SKIP"]
    failed = [r for r in rows if r not in passed and r not in skipped]
    for r in skipped:
        say(f"skipped: {r['name']}: {reason(r)}")
    for r in failed:
        say(f"FAILED: {r['name']} ({r['result']}){last_words(r)}")
    say(f"{time.time() - started:.0f} s")
    say(f"{len(passed)} passed, {len(failed)} failed, {len(skipped)} skipped")
    return 1 if failed else 0


sys.exit(main())
