#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""run.py BUILD: install into a Debian 12 tree, boot it with systemd-nspawn, run inside.sh there, report.

The tree comes from debootstrap, once, from the mirror that this machine's apt uses, and is kept in WARM_SYSTEM_TREE
(default /var/tmp/warm-system-tree); each run boots a copy. Exits 77 with a word where this cannot be done.
"""
import json, os, shutil, subprocess, sys, tempfile

from debian import make_tree, need, skip

HERE = os.path.dirname(os.path.abspath(__file__))
BASE = os.environ.get("WARM_SYSTEM_TREE", "/var/tmp/warm-system-tree")
PACKAGES = ("systemd", "systemd-sysv", "dbus", "libsystemd0", "libxxhash0", "libmsgpackc2", "libinih1", "libjson-c5", "procps")
UNIT = """[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/sh /usr/local/bin/warm-inside
ExecStopPost=systemctl --no-block poweroff
StandardOutput=file:/result.txt
StandardError=file:/errors.txt
TimeoutStartSec=150
[Install]
WantedBy=multi-user.target
"""


def base_tree():
    if os.path.exists(BASE + "/.complete"):
        return
    shutil.rmtree(BASE, ignore_errors=True)
    make_tree(BASE, PACKAGES)
    open(BASE + "/.complete", "w").close()


def boot(tree, seconds):
    """Boot the tree and wait until it powers itself off."""
    command = ["systemd-nspawn", "-q", "-D", tree, "--boot", "--register=no", "--keep-unit", "--private-network", "--console=pipe",
               "--machine=warm-test", "--capability=CAP_BPF,CAP_NET_ADMIN,CAP_PERFMON,CAP_SYS_PTRACE",
               "--system-call-filter=bpf landlock_create_ruleset landlock_add_rule landlock_restrict_self"]
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              errors="replace", timeout=seconds).stdout
    except subprocess.TimeoutExpired as e:
        return (e.stdout or b"").decode(errors="replace") + "\n(did not power off in time)"


def main():
    build = sys.argv[1]
    need("debootstrap", "systemd-nspawn")
    options = json.loads(subprocess.run(["meson", "introspect", "--buildoptions", build], capture_output=True, text=True).stdout)
    if next(o["value"] for o in options if o["name"] == "prefix") != "/usr":
        skip("this build installs elsewhere: configure it with --prefix=/usr, as tools/test does")
    base_tree()
    with tempfile.TemporaryDirectory(prefix="warm-system-", dir=os.path.dirname(BASE), ignore_cleanup_errors=True) as work:
        tree = work + "/tree"
        subprocess.run(["cp", "-a", "--reflink=auto", BASE, tree], check=True)
        subprocess.run(["meson", "install", "-C", build, "--no-rebuild", "--quiet", "--destdir", tree], check=True)
        shutil.copy(HERE + "/inside.sh", tree + "/usr/local/bin/warm-inside")
        shutil.copy(build + "/tests/system/stop-thread", tree + "/usr/local/bin/stop-thread")
        unit = tree + "/etc/systemd/system/warm-check.service"
        open(unit, "w").write(UNIT)
        os.makedirs(tree + "/etc/systemd/system/multi-user.target.wants", exist_ok=True)
        os.symlink("../warm-check.service", tree + "/etc/systemd/system/multi-user.target.wants/warm-check.service")
        console = boot(tree, 170)
        if not os.path.exists(tree + "/result.txt"):
            print(console[-2000:])
            skip("systemd-nspawn cannot boot a tree on this machine")
        result = open(tree + "/result.txt").read()
        print(result)
        good = result.rstrip().endswith("done") and "not ok" not in result
        if not good:
            for name in ("/errors.txt", "/journal.txt"):
                if os.path.exists(tree + name):
                    print(f"--- {name}\n" + open(tree + name, errors="replace").read()[-6000:])
    sys.exit(0 if good else 1)


main()
