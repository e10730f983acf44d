/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Confine this process as the unit will: an unprivileged user, PR_SET_DUMPABLE 0, no memory that is writable and
 * executable (PR_SET_MDWE and a filter), sockets of AF_UNIX only, and no ptrace, mount, keyctl, bpf, perf_event_open,
 * io_uring_setup or userfaultfd. Driver 580 tries none of it. Before CUDA is there; exits with 1 if it cannot be proved.
 */
void confine(void);
