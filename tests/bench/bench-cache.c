/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the prefix cache costs. Usage: bench-cache [BLOCKS...]; default 1000 and 1000000.
 * Chains of 64 blocks fill the pool; each lookup goes to another chain, so at 10^6 blocks every line is cold.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cache/internal.h"

#define CHAIN    64U
#define N_TOKENS (CHAIN * WARM_BLOCK_TOKENS + 1U)
#define N_ROUNDS 2000U

static uint64_t now_ns(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t) t.tv_sec * 1000000000ULL + (uint64_t) t.tv_nsec;
}

static int by_value(const void *a, const void *b) {
        uint64_t x = *(const uint64_t *) a, y = *(const uint64_t *) b;

        return x < y ? -1 : x > y;
}

static void print(uint32_t n_blocks, const char *what, uint64_t *ns) {
        qsort(ns, N_ROUNDS, sizeof(*ns), by_value);
        printf("%9u  %-28s %9.2f %9.2f\n", n_blocks, what, (double) ns[N_ROUNDS / 2] / 1e3,
               (double) ns[N_ROUNDS * 99 / 100] / 1e3);
}

static void write_text(int32_t *t, uint64_t chain) {
        uint64_t x = chain * 0x9e3779b97f4a7c15ULL + 1;

        for (uint32_t i = 0; i < N_TOKENS; i++) {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                t[i] = (int32_t) (x >> 34);
        }
        t[0] = 1; /* every prompt starts with the same mark */
}

static struct warm_cache_sequence *run(struct warm_cache *c, const int32_t *t, uint32_t n,
                                       uint32_t n_max) {
        struct warm_cache_sequence *s;
        struct warm_cache_hit hit;
        int r = warm_cache_open(c, 1000, t, n, n_max, &s, &hit);

        assert(r == 0);
        return s;
}

static void rounds(struct warm_cache *c, uint32_t n_blocks, uint32_t n_chains, uint64_t *ns) {
        struct warm_cache_sequence *s;
        struct warm_cache_hit hit;
        int32_t t[N_TOKENS];
        uint64_t start;

        for (uint32_t i = 0; i < N_ROUNDS; i++) {
                write_text(t, i * 7919ULL % n_chains);
                start = now_ns();
                warm_cache_lookup(c, 1000, t, N_TOKENS, &hit);
                ns[i] = now_ns() - start;
                assert(hit.n_tokens == N_TOKENS - 1);
        }
        print(n_blocks, "lookup, 64 blocks", ns);
        for (uint32_t i = 0; i < N_ROUNDS; i++) {
                write_text(t, 1ULL << 40 | i);
                start = now_ns();
                warm_cache_lookup(c, 1000, t, N_TOKENS, &hit);
                ns[i] = now_ns() - start;
        }
        print(n_blocks, "lookup, nothing known", ns);
        for (uint32_t i = 0; i < N_ROUNDS; i++) {
                write_text(t, i * 7919ULL % n_chains);
                start = now_ns();
                s = run(c, t, N_TOKENS, N_TOKENS + 64);
                warm_cache_close(s);
                ns[i] = now_ns() - start;
        }
        print(n_blocks, "open and close, 64 blocks", ns);
        write_text(t, 0);
        s = run(c, t, N_TOKENS, N_TOKENS + N_ROUNDS);
        for (uint32_t i = 0; i < N_ROUNDS; i++) {
                int32_t token = (int32_t) i;

                start = now_ns();
                warm_cache_begin(s, 1);
                warm_cache_commit(s, &token, 1);
                ns[i] = now_ns() - start;
        }
        warm_cache_close(s);
        print(n_blocks, "begin and commit, 1 token", ns);
}

static void bench(uint32_t n_blocks) {
        /* Some room: as many blocks as the sequence that decodes needs. */
        struct warm_cache_config config = { .n_groups = 1, .n_blocks_max = { n_blocks + 256 } };
        uint64_t *ns = malloc(N_ROUNDS * sizeof(*ns));
        uint32_t n_chains = n_blocks / CHAIN;
        struct warm_cache_stats stats;
        struct warm_cache *c;
        int32_t t[N_TOKENS];

        assert(ns && n_chains > 0);
        if (warm_cache_new(&config, &c) < 0 || warm_cache_add_blocks(c, 0, 0, n_blocks + 256) != 0)
                exit(1);
        for (uint32_t i = 0; i < n_chains; i++) {
                struct warm_cache_sequence *s;

                write_text(t, i);
                s = run(c, t, N_TOKENS - 1, N_TOKENS - 1);
                warm_cache_begin(s, N_TOKENS - 1 - s->n_tokens);
                warm_cache_commit(s, t + s->n_tokens, N_TOKENS - 1 - s->n_tokens);
                warm_cache_close(s);
        }
        rounds(c, n_blocks, n_chains, ns);
        warm_cache_stats(c, &stats);
        printf("%9u  bytes a block: %.1f\n", n_blocks,
               (double) stats.memory_bytes / (double) stats.n_blocks);
        warm_cache_trim(c, (uid_t) -1);
        warm_cache_free(c);
        free(ns);
}

int main(int argc, char **argv) {
        printf("   blocks  what                         median us    p99 us\n");
        for (int i = 1; i < argc; i++)
                bench((uint32_t) strtoul(argv[i], NULL, 0));
        if (argc == 1) {
                bench(1000);
                bench(1000000);
        }
        return 0;
}
