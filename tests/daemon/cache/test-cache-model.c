/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seeded random scripts against the slow twin. Usage: test-cache-model [SEED [OPERATIONS]]
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "twin.h"

#define N_OPEN_MAX 8U
#define N_TEXT_MAX 400U
#define N_UIDS     3U

static uint64_t seed = 1;
static uint32_t n_operations = 150000;

static uint32_t random_below(uint64_t *state, uint32_t n) {
        *state += 0x9e3779b97f4a7c15ULL;
        uint64_t x = *state;
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
        return (uint32_t) (((x >> 32) * n) >> 32);
}

struct script {
        uint64_t random;
        struct warm_cache *cache;
        struct twin *twin;
        struct warm_cache_config config;
        struct warm_cache_sequence *open[N_OPEN_MAX];
        int32_t text[N_UIDS][4][N_TEXT_MAX]; /* documents that get edited */
        uint32_t n_text[N_UIDS][4];
        uint64_t n_by_miss[_WARM_MISS_N], n_full, n_hit, n_prompt, n_forks, n_rollbacks, n_removed;
        uint64_t n_sums;
        uint64_t n_refused; /* snapshots for which there was no block */
};

static uint32_t below(struct script *x, uint32_t n) {
        return random_below(&x->random, n);
}

/* Type, delete, change in the middle: mostly few different tokens, so that texts meet again. */
static void edit(struct script *x, uint32_t u, uint32_t d) {
        uint32_t *n = &x->n_text[u][d];
        int32_t *t = x->text[u][d];

        switch (below(x, 8)) {
        case 0:
                *n = 1 + below(x, *n);
                break;
        case 1:
                t[below(x, *n)] = (int32_t) below(x, 3);
                break;
        case 2: /* as another document starts */
                memcpy(t, x->text[below(x, N_UIDS)][below(x, 4)],
                       (1 + below(x, *n)) * sizeof(int32_t));
                break;
        default:
                for (uint32_t k = 1 + below(x, 40); k > 0 && *n < N_TEXT_MAX - 80; k--)
                        t[(*n)++] = (int32_t) (below(x, 10) < 8 ? 7 : below(x, 3));
        }
}

static void try_open(struct script *x, uint32_t at) {
        uint32_t u = below(x, N_UIDS), d = below(x, 4), n, n_max, longest;
        struct warm_cache_hit looked, hit;
        int r;

        edit(x, u, d);
        n = x->n_text[u][d];
        n_max = n + below(x, 80);
        warm_cache_lookup(x->cache, 1000 + u, x->text[u][d], n, &looked);
        longest = twin_longest(x->cache, 1000 + u, x->text[u][d], n);
        r = warm_cache_open(x->cache, 1000 + u, x->text[u][d], n, n_max, &x->open[at], &hit);
        assert_true(r == 0 || r == WARM_CACHE_E_FULL);
        if (r != 0) {
                x->n_full++;
                return;
        }
        assert_true(hit.n_tokens <= n - 1);
        assert_int_equal(hit.at, hit.n_tokens);
        assert_int_equal(x->open[at]->n_tokens, hit.n_tokens);
        assert_true(hit.n_tokens <= looked.n_tokens);
        assert_true((hit.miss == WARM_MISS_NONE) == (hit.n_tokens == n - 1));
        if (x->config.n_groups == 1)
                assert_int_equal(looked.n_tokens, longest);
        else if (x->config.n_groups == 2 && x->config.groups[1].state)
                assert_int_equal(looked.n_tokens,
                                 twin_longest_snapshot(x->cache, 1000 + u, x->text[u][d], n, 1));
        else
                assert_true(looked.n_tokens <= longest);
        /* Less only if there was no room to copy the last part into. */
        assert_true(looked.n_tokens - hit.n_tokens < WARM_BLOCK_TOKENS || x->config.n_groups > 1);
        x->n_by_miss[hit.miss]++;
        x->n_hit += hit.n_tokens;
        x->n_prompt += n;
}

static bool has_state(const struct script *x) {
        return warm_cache_has_state(x->cache);
}

/* Snapshots are taken at whole blocks: half of the steps end there. */
static uint32_t cut_at_block(struct script *x, const struct warm_cache_sequence *s, uint32_t n) {
        uint32_t end = (s->n_tokens + n) / WARM_BLOCK_TOKENS * WARM_BLOCK_TOKENS;

        return has_state(x) && end > s->n_tokens && below(x, 2) ? end - s->n_tokens : n;
}

static void try_snapshot(struct script *x, struct warm_cache_sequence *s) {
        struct warm_cache_stats before, after;
        int r;

        if (!has_state(x) || s->n_tokens == 0 || s->n_tokens % WARM_BLOCK_TOKENS || below(x, 2))
                return;
        warm_cache_stats(x->cache, &before);
        r = warm_cache_snapshot(s);
        assert_true(r == 0 || r == WARM_CACHE_E_FULL);
        warm_cache_stats(x->cache, &after);
        if (r != 0)
                assert_memory_equal(&before, &after, sizeof(before));
        x->n_refused += r != 0;
}

static void step(struct script *x, struct warm_cache_sequence *s) {
        int32_t tokens[96];
        uint32_t n = s->n_tokens_max - s->n_tokens, k;

        if (n == 0)
                return;
        n = 1 + below(x, n < 96 ? n : 96);
        if (below(x, 3) == 0)
                n = 1;
        n = cut_at_block(x, s, n);
        for (uint32_t i = 0; i < n; i++)
                tokens[i] = (int32_t) (below(x, 10) < 8 ? 7 : below(x, 3));
        warm_cache_begin(s, n);
        switch (below(x, 10)) {
        case 0:
                if (below(x, 2)) /* computed, and then rejected */
                        twin_step(x->twin, s, tokens, n);
                warm_cache_rollback(s, s->n_tokens);
                break;
        case 1:
                twin_step(x->twin, s, tokens, n);
                k = below(x, n + 1);
                warm_cache_commit(s, tokens, k);
                break;
        default:
                twin_step(x->twin, s, tokens, n);
                warm_cache_commit(s, tokens, n);
                try_snapshot(x, s);
        }
}

/* As a prompt is run: the tokens of the document that the sequence was opened for. */
static void prefill(struct script *x, struct warm_cache_sequence *s) {
        uint32_t u = s->uid - 1000, d = below(x, 4), n = x->n_text[u][d];

        if (s->n_tokens >= n || n > s->n_tokens_max ||
            memcmp(s->tokens, x->text[u][d], s->n_tokens * sizeof(int32_t)) != 0)
                return;
        n = cut_at_block(x, s, 1 + below(x, n - s->n_tokens));
        warm_cache_begin(s, n);
        twin_step(x->twin, s, x->text[u][d] + s->n_tokens, n);
        warm_cache_commit(s, x->text[u][d] + s->n_tokens, n);
        try_snapshot(x, s);
}

static void try_fork(struct script *x, struct warm_cache_sequence *s, uint32_t at) {
        uint32_t n = below(x, s->n_tokens + 1);
        int r;

        if (below(x, 2))
                n = s->n_tokens;
        r = warm_cache_fork(s, n, n + 1 + below(x, 64), &x->open[at]);
        assert_true(r == 0 || r == WARM_CACHE_E_FULL);
        if (r != 0)
                return;
        assert_true(x->open[at]->n_tokens <= n);
        x->n_forks++;
}

/* Take a chunk of four blocks away, or give it back. */
static void change_pool(struct script *x) {
        uint32_t g = below(x, x->config.n_groups), first = below(x, 4) * 4;
        uint32_t n_before = x->cache->n_added[g];

        if (x->cache->blocks[x->cache->base[g] + first].place == WARM_PLACE_ABSENT) {
                assert_int_equal(warm_cache_add_blocks(x->cache, g, first, 4), 0);
        } else if (warm_cache_remove_blocks(x->cache, g, first, 4) == 0) {
                assert_int_equal(x->cache->n_added[g], n_before - 4);
                x->n_removed++;
        }
}

static void record_sums(struct script *x) {
        uint32_t g, block;

        for (uint32_t n = below(x, 20); n > 0 && warm_cache_unsummed(x->cache, &g, &block); n--) {
                warm_cache_set_sum(x->cache, g, block, twin_sum(x->twin, g, block));
                x->n_sums++;
        }
        twin_verify_sums(x->twin, x->cache);
}

/* With the ring emptied, whatever rests has its sum. */
static void check_all_summed(struct script *x) {
        uint32_t g, block, n = x->cache->base[x->cache->config.n_groups];

        while (warm_cache_unsummed(x->cache, &g, &block))
                warm_cache_set_sum(x->cache, g, block, twin_sum(x->twin, g, block));
        for (uint32_t ref = 0; ref < n; ref++)
                if (x->cache->blocks[ref].place == WARM_PLACE_LINKED)
                        assert_int_not_equal(x->cache->records[ref].sum, 0);
        twin_verify_sums(x->twin, x->cache);
}

static void operation(struct script *x) {
        uint32_t at = below(x, N_OPEN_MAX), other = below(x, N_OPEN_MAX), k = below(x, 100);
        struct warm_cache_sequence *s = x->open[at];

        if (k < 1) {
                warm_cache_trim(x->cache, below(x, 2) ? (uid_t) -1 : 1000 + below(x, N_UIDS));
        } else if (k < 3) {
                change_pool(x);
        } else if (k < 4) {
                record_sums(x);
        } else if (!s) {
                if (x->open[other] && k < 20)
                        try_fork(x, x->open[other], at);
                else
                        try_open(x, at);
        } else if (k < 20) {
                x->open[at] = warm_cache_close(s);
        } else if (k < 25) {
                uint32_t n = below(x, s->n_tokens + 1);

                warm_cache_rollback(s, n);
                assert_true(s->n_tokens <= n && s->n_tokens <= s->n_tokens_max);
                x->n_rollbacks++;
        } else if (k < 60) {
                prefill(x, s);
        } else {
                step(x, s);
        }
}

static void finish(struct script *x) {
        struct warm_cache_stats stats;

        for (uint32_t i = 0; i < N_OPEN_MAX; i++)
                x->open[i] = warm_cache_close(x->open[i]);
        warm_cache_check(x->cache);
        check_all_summed(x);
        warm_cache_stats(x->cache, &stats);
        assert_int_equal(stats.n_pinned, 0);
        assert_int_equal(stats.n_sequences, 0);
        warm_cache_trim(x->cache, (uid_t) -1);
        warm_cache_check(x->cache);
        warm_cache_stats(x->cache, &stats);
        assert_int_equal(stats.n_free, stats.n_blocks);
        assert_int_equal(stats.n_cached, 0);
        printf("  seed %llu: %llu of %llu prompt tokens hit, %llu full, %llu forks, %llu "
               "rollbacks, %llu chunks removed, %llu evicted; misses:",
               (unsigned long long) seed, (unsigned long long) x->n_hit,
               (unsigned long long) x->n_prompt, (unsigned long long) x->n_full,
               (unsigned long long) x->n_forks, (unsigned long long) x->n_rollbacks,
               (unsigned long long) x->n_removed, (unsigned long long) stats.n_evicted);
        for (int m = 0; m < _WARM_MISS_N; m++)
                printf(" %s %llu", warm_miss_name((enum warm_miss) m),
                       (unsigned long long) x->n_by_miss[m]);
        printf("; %llu sums; snapshots: %llu taken, %llu evicted, %llu refused\n",
               (unsigned long long) x->n_sums, (unsigned long long) stats.n_snapshots_taken,
               (unsigned long long) stats.n_snapshots_evicted, (unsigned long long) x->n_refused);
        warm_cache_free(x->cache);
        twin_free(x->twin);
        free(x);
}

static XXH128_hash_t constant_key(XXH128_hash_t parent, const int32_t *tokens, uint32_t n) {
        (void) parent;
        (void) tokens;
        (void) n;
        return (XXH128_hash_t){ 42, 42 };
}

static void run(const struct warm_cache_config *config, uint32_t n, warm_key_fn key) {
        struct script *x = calloc(1, sizeof(*x));

        assert_non_null(x);
        x->random = seed;
        x->config = *config;
        assert_int_equal(warm_cache_new(config, &x->cache), 0);
        if (key)
                x->cache->key = key;
        x->twin = twin_new(config);
        for (uint32_t g = 0; g < config->n_groups; g++)
                assert_int_equal(warm_cache_add_blocks(x->cache, g, 0, config->n_blocks_max[g]), 0);
        for (uint32_t u = 0; u < N_UIDS; u++)
                for (uint32_t d = 0; d < 4; d++)
                        x->n_text[u][d] = 1;
        for (uint32_t i = 0; i < n; i++) {
                operation(x);
                for (uint32_t k = 0; k < N_OPEN_MAX; k++)
                        if (x->open[k] && (i % 8 == 0 || below(x, 8) == 0))
                                twin_verify(x->twin, x->open[k]);
                if (i % 16 == 0)
                        warm_cache_check(x->cache);
        }
        finish(x);
}

static void every_slot_holds_what_its_sequence_says(void **state) {
        struct warm_cache_config config = { .n_groups = 1, .n_blocks_max = { 64 } };

        (void) state;
        run(&config, n_operations, NULL);
}

static void it_stays_right_when_shares_protect_each_uid(void **state) {
        struct warm_cache_config config = { .n_groups = 1,
                                            .n_blocks_max = { 48 },
                                            .min_share_blocks = 10 };

        (void) state;
        run(&config, n_operations / 3, NULL);
}

static void it_stays_right_when_every_hash_collides(void **state) {
        struct warm_cache_config config = { .n_groups = 1, .n_blocks_max = { 64 } };

        (void) state;
        run(&config, n_operations / 6, constant_key);
}

static void windows_never_show_a_foreign_slot(void **state) {
        struct warm_cache_config config = {
                .n_groups = 3,
                .groups = { { .window = 64 }, { .window = 0 }, { .window = 150 } },
                .n_blocks_max = { 40, 64, 50 }
        };

        (void) state;
        run(&config, n_operations / 3, NULL);
}

static void a_state_goes_on_from_exactly_where_it_was_kept(void **state) {
        struct warm_cache_config config = { .n_groups = 2,
                                            .groups = { { .window = 0 }, { .state = true } },
                                            .n_blocks_max = { 64, 24 } };

        (void) state;
        run(&config, n_operations / 3, NULL);
}

static void states_windows_and_plain_groups_agree_on_a_length(void **state) {
        struct warm_cache_config config = { .n_groups = 4,
                                            .groups = { { .state = true },
                                                        { .window = 64 },
                                                        { .window = 0 },
                                                        { .state = true } },
                                            .n_blocks_max = { 16, 40, 64, 20 },
                                            .min_share_blocks = 3 };

        (void) state;
        run(&config, n_operations / 3, NULL);
}

int main(int argc, char **argv) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(every_slot_holds_what_its_sequence_says),
                cmocka_unit_test(it_stays_right_when_shares_protect_each_uid),
                cmocka_unit_test(it_stays_right_when_every_hash_collides),
                cmocka_unit_test(windows_never_show_a_foreign_slot),
                cmocka_unit_test(a_state_goes_on_from_exactly_where_it_was_kept),
                cmocka_unit_test(states_windows_and_plain_groups_agree_on_a_length),
        };

        if (argc > 1)
                seed = strtoull(argv[1], NULL, 0);
        if (argc > 2)
                n_operations = (uint32_t) strtoul(argv[2], NULL, 0);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
