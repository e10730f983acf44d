#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""bare.py [--keep] [--only try|test]: what a new user does, in a bare Debian 12 tree: clone, tools/try, tools/test.

debootstrap makes the tree (minbase: no compiler, no Python), the mirror is the one that this machine's apt uses, git is
installed as a user would, and the two commands of the README run there in a container (systemd-nspawn, not booted).
Prints each command's time and last lines; if one fails, the whole of its log stays, and where is said. --keep: all stays.
Exit 0 if both succeed; 77 with a word where it cannot run. Needs root.
"""
import os, shutil, subprocess, sys, tempfile, time

from debian import make_tree, need

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TAIL, TAIL_FAILED = 6, 150       # lines; tools/test closes with what its failing tests said
HOST_APT = ("/etc/apt/sources.list", "/etc/apt/sources.list.d", "/etc/apt/apt.conf.d", "/etc/apt/keyrings", "/etc/apt/trusted.gpg.d", "/etc/resolv.conf")


def copy_apt_settings(tree):
    """The tree reaches packages as this machine does."""
    for path in HOST_APT:
        target = tree + path
        if os.path.isdir(path):
            shutil.copytree(path, target, dirs_exist_ok=True)
        elif os.path.exists(path):
            shutil.copy(path, target)


def inside(tree, command, log):
    """Run in the tree; return (exit status, seconds)."""
    started = time.monotonic()
    full = ["systemd-nspawn", "-q", "-D", tree, "--register=no", "--keep-unit", "--pipe", "--bind-ro=" + ROOT + ":/src",
            "--setenv=DEBIAN_FRONTEND=noninteractive", "/bin/bash", "-c", command]
    with open(log, "w") as f:
        code = subprocess.run(full, stdin=subprocess.DEVNULL, stdout=f, stderr=subprocess.STDOUT).returncode
    return code, time.monotonic() - started


def main():
    only = sys.argv[sys.argv.index("--only") + 1] if "--only" in sys.argv else None
    need("debootstrap", "systemd-nspawn", "git")
    work = tempfile.mkdtemp(prefix="warm-bare-", dir="/var/tmp")
    tree, bad = work + "/tree", []
    try:
        make_tree(tree)
        copy_apt_settings(tree)
        steps = [("git", "apt-get update -qq && apt-get install -y -qq --no-install-recommends git ca-certificates"),
                 ("clone", "git config --global --add safe.directory '*' && git clone -q /src /root/warmd"),
                 ("try", "cd /root/warmd && tools/try"), ("try again", "cd /root/warmd && tools/try"), ("test", "cd /root/warmd && tools/test")]
        for name, command in steps:
            if only and name.startswith(("try", "test")) and not name.startswith(only):
                continue
            log = work + "/" + name.replace(" ", "-") + ".log"
            code, seconds = inside(tree, command, log)
            with open(log, errors="replace") as f:
                tail = f.read().rstrip().split("\n")
            print(f"{name}: exit {code}, {seconds:.0f} s", flush=True)
            if code or name in ("try", "test"):
                print("    " + "\n    ".join(tail[-(TAIL_FAILED if code else 40 if name == "try" else TAIL):]), flush=True)
            bad += [log] if code else []
            if code and name in ("git", "clone"):
                break
    finally:
        if "--keep" in sys.argv:
            print("kept: " + work)
        else:
            shutil.rmtree(tree if bad else work, ignore_errors=True)
        for log in bad:
            print("the whole log: " + log)
    sys.exit(1 if bad else 0)


main()
