/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When a step should be done, by what steps of its kind took, so that who waits may sleep until shortly before. Too
 * early costs a core some time, too late somebody's text: so it is the least that a step may take, not the likeliest.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define WARM_CUDA_WIDTHS 12U /* of wide steps: powers of two up to WARM_STEP_ROWS_MAX */

struct warm_cuda_expected {
        uint64_t ns;     /* 0: nothing is known */
        uint32_t n_rows; /* of the step that took it */
};

/* Wide steps are told apart by the power of two below their rows: a row costs less in company. */
static inline uint32_t warm_cuda_width(uint32_t n_rows) {
        return 31 - (uint32_t) __builtin_clz(n_rows | 1);
}

/* A step of more rows takes as long at least, one of fewer its share. @param n_rows at least 1 */
static inline uint64_t warm_cuda_expected_ns(const struct warm_cuda_expected *e, uint32_t n_rows) {
        return n_rows < e->n_rows ? e->ns * n_rows / e->n_rows : e->ns;
}

/*
 * A step took so long. The first of a kind finds its code in nobody's cache: the next may be done in half the time.
 *
 * @param on_time its end was waited for; false: it was found done, nobody knows since when
 */
static inline void warm_cuda_took(struct warm_cuda_expected *e, uint32_t n_rows, uint64_t ns,
                                  bool on_time) {
        if (!on_time)
                e->ns /= 2;
        else
                *e = (struct warm_cuda_expected){ e->ns ? ns : ns / 2, n_rows };
}
