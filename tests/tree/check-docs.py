#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""check-docs.py ROOT: every option and command of the programs stands in its help, man page and shell completions."""
import re, sys

root = sys.argv[1]
read = lambda p: open(f"{root}/{p}", encoding="utf-8").read()
errors, n = [], 0
for source, page, programs in (("client/warmctl/main.c", "docs/man/warmctl.1.scd", "warmctl"), ("daemon/sys/options.c", "docs/man/warmd.8.scd", "warmd")):
    text = read(source)
    options = re.findall(r'^\s*\{ "([a-z-]+)", (?:no|required)_argument', text, re.M)
    commands = re.findall(r'^\s*\{ "([a-z]+)", warmctl_', text, re.M)
    if not options:
        errors.append(f"{source}: no options found")
    for word in ["--" + o for o in options] + commands:
        n += 1
        for place in (page, "client/completion/warmctl.bash", "client/completion/_warmctl"):
            if word not in read(place):
                errors.append(f"{place}: {programs}'s {word} is missing")
        if word not in re.sub(r"\{ .*", "", text) and word not in "".join(re.findall(r'"([^"]*)\\n"', text)):
            errors.append(f"{source}: {word} is not in --help")
print("\n".join(errors) if errors else f"{n} options and commands are documented in three places")
sys.exit(1 if errors else 0)
