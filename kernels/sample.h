/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The random number of a token: a counter-based function of (seed, position), the same on every backend.
 */
#pragma once

#include <stdint.h>

/*
 * SplitMix64's finaliser (Steele, Lea, Flood 2014) over two mixed words.
 * Return: uniform in [0, 1), a multiple of 2^-24, so that float holds it exactly.
 */
static inline float warm_uniform(uint64_t seed, uint64_t position) {
        uint64_t x = seed + (position + 1) * 0x9e3779b97f4a7c15ULL;

        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
        x ^= x >> 31;
        return (float) (x >> 40) * 0x1p-24f;
}
