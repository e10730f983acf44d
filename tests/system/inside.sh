#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs inside the booted tree, as root, from warm-check.service. Prints "ok NAME" or "not ok NAME: why", one a line.
set -u
marker=zebraquagga
check() { # NAME COMMAND...: ok if the command succeeds
        name=$1; shift
        if "$@" >/tmp/out 2>&1; then echo "ok $name"; else echo "not ok $name: $(tail -n 3 /tmp/out | tr '\n' ' ')"; fi
}
is() { [ "$1" = "$2" ] || { echo "got '$1', wanted '$2'"; return 1; }; }
property() { systemctl show -P "$1" "${2:-warmd.service}"; }
complete() { # as an ordinary user
        runuser -u somebody -- timeout 20 warmctl complete /srv/sample.c:9:9
}
answers() { text=$(complete) && [ -n "$text" ] || { echo "no text: $text"; return 1; }; }
wait_for() { # SECONDS COMMAND...
        n=$(( $1 * 10 )); shift
        while [ $n -gt 0 ]; do "$@" >/dev/null 2>&1 && return 0; sleep 0.1; n=$((n - 1)); done
        echo "waited in vain for: $*"; return 1
}
restarted() { [ "$(property NRestarts)" -gt "$1" ] && [ "$(property ActiveState)" = active ]; }

# What a package's postinst does.
ldconfig
systemd-sysusers
journalctl --update-catalog
systemctl daemon-reload
useradd -m somebody
cat >/srv/sample.c <<EOF
#include <stdio.h>
#include <string.h>

/* $marker: adds two numbers. */
static int add_$marker(int a, int b) {
        int sum;

        sum = a + b;
        return
}

int main(void) {
        printf("%d\n", add_$marker(1, 2));
        return 0;
}
EOF
chmod 644 /srv/sample.c

check "the units verify without a word" sh -c 'out=$(systemd-analyze verify --man=no warmd.service warmd.socket 2>&1); echo "$out"; [ -z "$out" ]'
check "the user units verify without a word" sh -c 'out=$(systemd-analyze --user verify --man=no /usr/lib/systemd/user/warmd.service /usr/lib/systemd/user/warmd.socket 2>&1 | grep warmd); echo "$out"; [ -z "$out" ]'
check "the manual pages that they name are installed" sh -c 'test -e /usr/share/man/man8/warmd.8 && test -e /usr/share/man/man1/warmctl.1'
check "the exposure is at most 0.6" sh -c 'level=$(systemd-analyze security warmd.service | sed -n "s/.*Overall exposure level.*: \([0-9.]*\) .*/\1/p"); echo "exposure $level"; [ -n "$level" ] && [ "$(echo "$level" | tr -d .)" -le 6 ]'
systemctl enable --now warmd.socket
check "the socket is there before the daemon" is "$(property ActiveState)" inactive
check "the first connection starts it and it completes" answers
check "it runs as its own user" is "$(ps -o user= -p "$(property MainPID)")" warmd
check "systemd is told what it holds" sh -c 'systemctl show -P StatusText warmd.service | grep -q warm-nano'

before=$(property NRestarts)
kill -9 "$(property MainPID)"
check "a killed daemon is back" wait_for 5 restarted "$before"
check "and completes" answers

mkdir -p /run/systemd/system/warmd.service.d
printf '[Service]\nWatchdogSec=2\n' >/run/systemd/system/warmd.service.d/50-watchdog.conf
systemctl daemon-reload
systemctl restart warmd.service
answers >/dev/null
before=$(property NRestarts)
stop-thread "$(property MainPID)" engine 20 >/tmp/hold 2>&1 &
wait_for 2 grep -q holding /tmp/hold
(complete >/dev/null 2>&1 &)
check "a hang of the engine is caught by the watchdog" wait_for 15 restarted "$before"
check "the journal says that the watchdog acted" sh -c 'journalctl -u warmd.service | grep -q -i watchdog'
check "after the hang it completes" answers

# Ticks (10 ms) that the daemon's threads ran, by /proc: a container may lack systemd's own accounting.
ticks() { awk '{ print $14 + $15 }' "/proc/$(property MainPID)/stat"; }
idle() { a=$(ticks); sleep 3; b=$(ticks); echo "$((b - a)) ticks in 3 s"; [ $((b - a)) -le 1 ]; }
check "an idle daemon uses no CPU" idle

check "its entries carry ids and fields" sh -c 'journalctl -u warmd.service MESSAGE_ID=42998d8c0bac48c4a0f46ce7a7bd6169 -o json | grep -q WARM_MODELS && journalctl -u warmd.service MESSAGE_ID=6287bbcc28194753bffb57ec7ed8f5a0 -o json | grep -q WARM_WEIGHTS_BYTES'
check "the catalog explains them" sh -c 'journalctl -x -u warmd.service MESSAGE_ID=42998d8c0bac48c4a0f46ce7a7bd6169 | grep -q "answers on its socket"'
check "no word of anybody's text is in the journal" sh -c '! journalctl -o export | grep -a -v "^_CMDLINE\|^_AUDIT" | grep -a -q '"$marker"
systemctl stop warmd.service warmd.socket
check "a stop is clean" is "$(property Result)" success
check "and leaves no socket" sh -c '! test -e /run/warmd/warmd.sock'

runuser -u somebody -- sh -c 'XDG_RUNTIME_DIR=/tmp/nowhere warmctl status' >/tmp/out 2>&1
check "without a daemon warmctl says so and exits 3" is "$?" 3
echo "done"
journalctl -u warmd.service -u warmd.socket --no-pager >/journal.txt 2>&1
