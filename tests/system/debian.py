# SPDX-License-Identifier: Apache-2.0
"""Debian trees for the tests here: debootstrap, from the mirror that this machine's apt uses."""
import os, shutil, subprocess, sys


def skip(why):
    """This cannot run here: say so as meson wants it."""
    print(f"skipped: {why}")
    sys.exit(77)


def need(*programs):
    if os.geteuid() != 0:
        skip("making and booting a Debian tree needs root")
    for program in programs:
        if not shutil.which(program):
            skip(program + " is not installed")


def make_tree(path, packages=()):
    """A bookworm tree of the smallest kind, with these packages."""
    out = subprocess.run(["apt-get", "indextargets", "--format", "$(REPO_URI)"], capture_output=True, text=True).stdout.split()
    mirrors = [u for u in dict.fromkeys(out) if u.startswith("http") and "security" not in u]
    if not mirrors:
        skip("apt on this machine names no mirror to debootstrap from")
    more = ["--include=" + ",".join(packages)] if packages else []
    r = subprocess.run(["debootstrap", "--variant=minbase", *more, "bookworm", path, mirrors[0]], stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, text=True)
    if r.returncode:
        print(r.stdout[-2000:])
        skip("debootstrap could not make a bookworm tree here")
