#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""check-catalog.py ROOT: every MESSAGE_ID of daemon/sys/journal.c has a catalog entry, and no entry is left over."""
import re, sys

root = sys.argv[1]
ids = re.findall(r'\] = "([0-9a-f]{32})"', open(root + "/daemon/sys/journal.c").read())
entries = re.findall(r"^-- ([0-9a-f]{32})$", open(root + "/systemd/warmd.catalog").read(), re.M)
assert ids and len(set(ids)) == len(ids), "ids are missing or used twice"
missing, left = set(ids) - set(entries), set(entries) - set(ids)
print(f"{len(ids)} events; without an entry: {sorted(missing)}; entries without an event: {sorted(left)}")
sys.exit(1 if missing or left or len(entries) != len(set(entries)) else 0)
