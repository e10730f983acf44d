/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "index.h"

int warm_index_init(struct warm_index *x, uint32_t n_max) {
        uint64_t n = 16;

        assert(x);
        assert(n_max <= UINT32_MAX / 4);
        while (n < (uint64_t) n_max + n_max / 2)
                n *= 2;
        x->slots = malloc(n * sizeof(*x->slots));
        if (!x->slots)
                return -ENOMEM;
        memset(x->slots, 0xff, n * sizeof(*x->slots));
        x->mask = (uint32_t) (n - 1);
        x->n = 0;
        return 0;
}

void warm_index_deinit(struct warm_index *x) {
        free(x->slots);
        x->slots = NULL;
}

void warm_index_insert(struct warm_index *x, uint64_t key, uint32_t ref) {
        uint32_t i = (uint32_t) key & x->mask;

        assert(ref != UINT32_MAX);
        assert(x->n < x->mask);
        while (x->slots[i].ref != UINT32_MAX)
                i = (i + 1) & x->mask;
        x->slots[i] = (struct warm_index_slot){ (uint32_t) key, ref };
        x->n++;
}

bool warm_index_remove(struct warm_index *x, uint64_t key, uint32_t ref) {
        uint32_t i, hole;

        for (i = (uint32_t) key & x->mask; x->slots[i].ref != ref; i = (i + 1) & x->mask)
                if (x->slots[i].ref == UINT32_MAX)
                        return false;
        assert(x->slots[i].tag == (uint32_t) key);
        hole = i;
        for (i = (i + 1) & x->mask; x->slots[i].ref != UINT32_MAX; i = (i + 1) & x->mask) {
                uint32_t home = x->slots[i].tag & x->mask;

                /* Move it back only if that does not put it before its home. */
                if (((i - home) & x->mask) >= ((i - hole) & x->mask)) {
                        x->slots[hole] = x->slots[i];
                        hole = i;
                }
        }
        x->slots[hole] = (struct warm_index_slot){ UINT32_MAX, UINT32_MAX };
        assert(x->n > 0);
        x->n--;
        return true;
}
