/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults of a GPU, made while the CUDA backend works on a real one.
 *
 * The linker puts what is here between the backend and CUDA's runtime (--wrap, inject_wraps in meson.build): the backend
 * under test is what ships, and what ships can be told to fail by nobody. A program that links inject.c with those
 * options gets its faults by inject(); the whole daemon can be linked so.
 *
 * Thread: the engine's; allocations of other threads count too.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum inject_kind {
        INJECT_NONE,
        INJECT_MEMORY, /* an allocation on the device or of pinned memory fails, and all after it */
        INJECT_TRAP,   /* a kernel in front of a step's traps: the context is broken for good */
        INJECT_LOST_IN_SUBMIT, /* launches of a step, and what is asked later, report a lost device */
        INJECT_LOST_IN_POLL,   /* a step is launched and never ends, then the same */
        INJECT_HANG,           /* a kernel in front of a step's spins until inject_release() */
};

/*
 * Let it happen once. Takes back what was asked for before, not what has happened.
 *
 * @param after steps (of INJECT_MEMORY: allocations) that still go well
 */
void inject(enum inject_kind kind, uint32_t after);

/* Whether it has happened since. */
bool inject_happened(void);

/* End the kernel that spins, if there is one: its step goes on. */
void inject_release(void);
