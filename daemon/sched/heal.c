/* SPDX-License-Identifier: Apache-2.0 */
#include "sched/heal.h"

#include <assert.h>
#include <string.h>

uint32_t warm_heal_allow(const struct warm_heal *h, const struct warm_vocab *v, uint64_t *bitmap) {
        assert(warm_heal_left(h) > 0);
        return warm_vocab_allow(v, h->prompt->heal + h->n_spelled, warm_heal_left(h), bitmap);
}

void warm_heal_take(struct warm_heal *h, struct warm_string text) {
        uint32_t left = warm_heal_left(h);
        uint32_t n = text.n < left ? (uint32_t) text.n : left;

        assert(n == 0 || memcmp(h->prompt->heal + h->n_spelled, text.data, n) == 0);
        h->n_spelled += n;
}

bool warm_heal_canonical(const struct warm_heal *h, const struct warm_vocab *v,
                         uint32_t *ret_first) {
        const struct warm_prompt *p = h->prompt;
        uint32_t left = warm_heal_left(h), i = p->n_heal_ids;

        /* Backwards: in front the vocabulary may add a space that the piece does not have. */
        while (left > 0 && i > 0) {
                struct warm_string text = warm_vocab_text(v, p->heal_ids[--i]);

                if (text.n > left || text.n == 0 ||
                    memcmp(p->heal + h->n_spelled + left - text.n, text.data, text.n) != 0)
                        return false;
                left -= (uint32_t) text.n;
        }
        if (left > 0)
                return false;
        *ret_first = i;
        return true;
}
