/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checked ranges and arithmetic for sizes that somebody else chose: a file, a peer, an earlier process.
 *
 * Each function says whether the answer exists; the result is written only if so.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* a + b. Return: false on overflow. */
static inline bool warm_range_add(uint64_t a, uint64_t b, uint64_t *ret_sum) {
        uint64_t sum;

        if (__builtin_add_overflow(a, b, &sum))
                return false;
        *ret_sum = sum;
        return true;
}

/* a * b. Return: false on overflow. */
static inline bool warm_range_mul(uint64_t a, uint64_t b, uint64_t *ret_product) {
        uint64_t product;

        if (__builtin_mul_overflow(a, b, &product))
                return false;
        *ret_product = product;
        return true;
}

/*
 * a rounded up to a multiple of `alignment`.
 * @param alignment a power of two
 * Return: false on overflow, or if alignment is none.
 */
static inline bool warm_range_align(uint64_t a, uint64_t alignment, uint64_t *ret_aligned) {
        uint64_t sum;

        if (alignment == 0 || (alignment & (alignment - 1)) != 0 ||
            !warm_range_add(a, alignment - 1, &sum))
                return false;
        *ret_aligned = sum & ~(alignment - 1);
        return true;
}

/* Whether [offset, offset + size) lies within [0, total). An empty range may stand at the end. */
static inline bool warm_range_within(uint64_t offset, uint64_t size, uint64_t total) {
        return offset <= total && size <= total - offset;
}

/*
 * Whether `count` elements of `element_bytes` at `offset` lie within [0, total) and start aligned.
 * @param alignment a power of two
 */
static inline bool warm_range_array(uint64_t offset, uint64_t count, uint64_t element_bytes,
                                    uint64_t alignment, uint64_t total) {
        uint64_t bytes;

        return alignment != 0 && (alignment & (alignment - 1)) == 0 &&
               (offset & (alignment - 1)) == 0 && warm_range_mul(count, element_bytes, &bytes) &&
               warm_range_within(offset, bytes, total);
}
