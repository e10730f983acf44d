/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sequence lock over 8-byte words in shared memory: one writer, any number of readers that may only read.
 *
 * Readers never block the writer and write nothing. The sequence is odd while a write runs. A reader loads
 * each word with acquire and then the sequence again: if a word came from a newer write, the release store of that
 * word makes the writer's odd sequence visible to the load after it. So no fences are needed (H.-J. Boehm, "Can seqlocks
 * get along with programming language memory models?", MSPC 2012, section 4), and a data race never exists:
 * every word is an atomic.
 *
 * A reader gives up after some tries: a writer that died in mid-write leaves the sequence odd for ever.
 */
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WARM_SEQLOCK_TRIES 16U /* untuned guess */

static_assert(sizeof(uint64_t) == 8 && __atomic_always_lock_free(sizeof(uint64_t), 0),
              "words must be lock-free: a mapping without write permission allows nothing else");

/*
 * Publish n words. Thread: the only writer's.
 * @param sequence 8-byte aligned, in the mapping, starts 0
 * @param words [n] in the mapping
 * @param from [n]
 */
static inline void warm_seqlock_write(uint64_t *sequence, uint64_t *words, const uint64_t *from,
                                      size_t n) {
        uint64_t before = __atomic_load_n(sequence, __ATOMIC_RELAXED);

        assert((before & 1) == 0);
        __atomic_store_n(sequence, before + 1, __ATOMIC_RELAXED);
        /* Release on each word orders the odd sequence before it. */
        for (size_t i = 0; i < n; i++)
                __atomic_store_n(&words[i], from[i], __ATOMIC_RELEASE);
        __atomic_store_n(sequence, before + 2, __ATOMIC_RELEASE);
}

/*
 * After a crash: make a sequence that was left odd even again. The words are then whatever they are; write them.
 */
static inline void warm_seqlock_repair(uint64_t *sequence) {
        uint64_t now = __atomic_load_n(sequence, __ATOMIC_RELAXED);

        __atomic_store_n(sequence, now + (now & 1), __ATOMIC_RELEASE);
}

/*
 * Read n words as one write left them.
 * @param ret_words [n]; garbage on false
 * @param ret_sequence even: changes with each write
 * Return: false: a writer was in the way WARM_SEQLOCK_TRIES times.
 */
static inline bool warm_seqlock_read(const uint64_t *sequence, const uint64_t *words, size_t n,
                                     uint64_t *ret_words, uint64_t *ret_sequence) {
        for (unsigned k = 0; k < WARM_SEQLOCK_TRIES; k++) {
                uint64_t before = __atomic_load_n(sequence, __ATOMIC_ACQUIRE);

                if (before & 1)
                        continue;
                for (size_t i = 0; i < n; i++)
                        ret_words[i] = __atomic_load_n(&words[i], __ATOMIC_ACQUIRE);
                if (__atomic_load_n(sequence, __ATOMIC_RELAXED) == before) {
                        *ret_sequence = before;
                        return true;
                }
        }
        return false;
}
