/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A step held against what exists, the same for every backend: after it a backend checks nothing.
 * Pure function, any thread.
 */
#pragma once

#include "backend.h"

/* What exists. */
struct warm_step_limits {
        uint32_t n_vocab, n_context, n_groups;
        uint32_t group_windows[WARM_PLAN_GROUPS_MAX]; /* slots a row may see; UINT32_MAX: all */
        uint64_t block_values[WARM_PLAN_GROUPS_MAX];  /* 0: no layer uses the group */
        const void *kv;                               /* NULL: KV memory was never set up */
        /* Whether memory stands behind a block of a group below n_groups. */
        bool (*has)(const void *kv, uint32_t group, uint32_t block);
};

/* Return: 0; -EINVAL: something in the step is outside what exists. */
int warm_step_check(const struct warm_step_limits *limits, const struct warm_step *step);
