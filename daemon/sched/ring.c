/* SPDX-License-Identifier: Apache-2.0 */
/*
 * No wake-up is lost: the producer stores n_pushed, then sets `told`; the consumer that found nothing clears `told`,
 * then looks at n_pushed again. All four are sequentially consistent, so one of the two sees the other. A wake-up
 * too many is possible (the producer writes the fd after the message was popped) and harmless: the next pop of the
 * empty ring reads it away.
 */
#include "sched/ring.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

int warm_ring_init(struct warm_ring *r, uint32_t capacity) {
        assert(capacity > 0 && (capacity & (capacity - 1)) == 0);
        *r = (struct warm_ring){ .fd = -1, .capacity = capacity };
        r->messages = calloc(capacity, sizeof(*r->messages));
        if (!r->messages)
                return -ENOMEM;
        r->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (r->fd < 0) {
                int error = -errno;

                free(r->messages);
                r->messages = NULL;
                return error;
        }
        return 0;
}

void warm_ring_deinit(struct warm_ring *r) {
        if (!r->messages)
                return;
        close(r->fd);
        free(r->messages);
        *r = (struct warm_ring){ .fd = -1 };
}

void warm_ring_wake(struct warm_ring *r) {
        uint64_t one = 1;
        ssize_t n;

        if (atomic_exchange(&r->told, true))
                return;
        n = write(r->fd, &one, sizeof(one));
        /* Only a counter at its limit (2^64 - 2) or a foreign fd could refuse. */
        assert(n == (ssize_t) sizeof(one));
}

int warm_ring_push(struct warm_ring *r, struct warm_message message) {
        uint64_t at = atomic_load_explicit(&r->n_pushed, memory_order_relaxed);

        if (at - atomic_load_explicit(&r->n_popped, memory_order_acquire) == r->capacity)
                return WARM_RING_E_FULL;
        r->messages[at & (r->capacity - 1)] = message;
        atomic_store(&r->n_pushed, at + 1);
        warm_ring_wake(r);
        return 0;
}

bool warm_ring_is_empty(const struct warm_ring *r) {
        return atomic_load_explicit(&r->n_popped, memory_order_acquire) ==
               atomic_load_explicit(&r->n_pushed, memory_order_acquire);
}

bool warm_ring_pop(struct warm_ring *r, struct warm_message *ret_message) {
        uint64_t at = atomic_load_explicit(&r->n_popped, memory_order_relaxed);

        if (at == atomic_load(&r->n_pushed)) {
                uint64_t count;
                ssize_t n = read(r->fd, &count, sizeof(count));

                assert(n == (ssize_t) sizeof(count) || errno == EAGAIN);
                atomic_store(&r->told, false);
                if (at == atomic_load(&r->n_pushed))
                        return false;
                /* It came in between: who pops only this one must still find the fd readable. */
                warm_ring_wake(r);
        }
        *ret_message = r->messages[at & (r->capacity - 1)];
        atomic_store_explicit(&r->n_popped, at + 1, memory_order_release);
        return true;
}
