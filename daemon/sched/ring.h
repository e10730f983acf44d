/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bounded ring of fixed-size messages from one thread to one other, with an eventfd to sleep on.
 *
 * The fd is readable while messages wait; popping an empty ring makes it quiet. A producer that pushes to a ring whose consumer was already told makes no system call. Nobody blocks and
 * nothing allocates after init.
 *
 * Owner: whoever embeds it. Threads: push one, pop the other; warm_ring_is_empty() either.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum {
        WARM_RING_E_FULL = 1, /* every place is taken; the message was not stored */
};

struct warm_message {
        uint32_t kind;
        uint64_t value;
        void *pointer;
};

struct warm_ring {
        _Alignas(64) _Atomic uint64_t n_popped; /* written by the consumer */
        _Alignas(64) _Atomic uint64_t n_pushed; /* written by the producer */
        _Alignas(64) atomic_bool told;          /* the fd was, or is just being, written */
        int fd;
        uint32_t capacity; /* a power of two */
        struct warm_message *messages;
};

/* @param capacity a power of two. Return: 0; -ENOMEM; -errno of eventfd. */
int warm_ring_init(struct warm_ring *r, uint32_t capacity);
/* Takes a zeroed ring too. No thread may use it any more. */
void warm_ring_deinit(struct warm_ring *r);

/* Thread: producer. Return: 0; WARM_RING_E_FULL. */
int warm_ring_push(struct warm_ring *r, struct warm_message message);

/* Make the fd readable without a message. Thread: any. */
void warm_ring_wake(struct warm_ring *r);

/* Thread: consumer. Return: true and *ret_message; false: empty, and the fd is quiet until the next push. */
bool warm_ring_pop(struct warm_ring *r, struct warm_message *ret_message);

/* A hint that costs no system call. Thread: consumer (exact), any (at some moment). */
bool warm_ring_is_empty(const struct warm_ring *r);
