/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/memfd.h"
#include "twin.h"

#define N_TEXTS 60U
#define N_TEXT  200U

static uint64_t state_of_random = 7;

static uint32_t below(uint32_t n) {
        state_of_random = state_of_random * 6364136223846793005ULL + 1442695040888963407ULL;
        return (uint32_t) (((state_of_random >> 33) * n) >> 31);
}

static const struct warm_cache_config plain = { .n_groups = 1, .n_blocks_max = { 256 } };
static const struct warm_cache_config windowed = { .n_groups = 2,
                                                   .groups = { { .window = 0 }, { .window = 64 } },
                                                   .n_blocks_max = { 256, 128 } };
static const struct warm_cache_config stateful = { .n_groups = 2,
                                                   .groups = { { .window = 0 }, { .state = true } },
                                                   .n_blocks_max = { 256, 128 } };

static int32_t texts[N_TEXTS][N_TEXT];

static void write_texts(void) {
        for (uint32_t i = 0; i < N_TEXTS; i++) {
                uint32_t n_same = i > 0 ? below(N_TEXT) : 0;

                if (n_same > 0)
                        memcpy(texts[i], texts[below(i)], n_same * sizeof(int32_t));
                for (uint32_t k = n_same; k < N_TEXT; k++)
                        texts[i][k] = (int32_t) below(5);
        }
}

static void add_all(struct warm_cache *c) {
        for (uint32_t g = 0; g < c->config.n_groups; g++)
                assert_int_equal(warm_cache_add_blocks(c, g, 0, c->config.n_blocks_max[g]), 0);
}

static void run_up_to(struct warm_cache_sequence *s, const int32_t *text, uint32_t n) {
        if (n <= s->n_tokens)
                return;
        warm_cache_begin(s, n - s->n_tokens);
        warm_cache_commit(s, text + s->n_tokens, n - s->n_tokens);
}

/* Run every text once. Return: the records, the cache is gone. */
static int leave(const struct warm_cache_config *config, bool die_writing,
                 struct warm_cache_hit *hits) {
        struct warm_cache_sequence *s;
        struct warm_cache_hit hit;
        struct warm_cache *c;
        int fd;

        assert_int_equal(warm_cache_new(config, &c), 0);
        add_all(c);
        write_texts();
        for (uint32_t i = 0; i < N_TEXTS; i++) {
                uint32_t n = 1 + below(N_TEXT - 1);

                assert_int_equal(warm_cache_open(c, 5 + i % 2, texts[i], n, N_TEXT, &s, &hit), 0);
                run_up_to(s, texts[i], n / WARM_BLOCK_TOKENS * WARM_BLOCK_TOKENS);
                if (s->n_tokens > 0 && s->n_tokens % WARM_BLOCK_TOKENS == 0)
                        assert_int_equal(warm_cache_snapshot(s), 0);
                run_up_to(s, texts[i], n);
                warm_cache_close(s);
        }
        for (uint32_t i = 0; i < N_TEXTS; i++)
                warm_cache_lookup(c, 5 + i % 2, texts[i], N_TEXT, &hits[i]);
        if (die_writing) {
                assert_int_equal(warm_cache_open(c, 5, texts[0], N_TEXT, N_TEXT, &s, &hit), 0);
                warm_cache_begin(s, N_TEXT - s->n_tokens);
        }
        fd = dup(warm_cache_records_fd(c));
        assert_true(fd >= 0);
        if (die_writing) {
                /* As a killed process leaves it: copy the bytes while they say WRITING. */
                int copy;
                void *to;

                assert_int_equal(
                        warm_memfd_new("copy", c->map_bytes, WARM_MEMFD_SEALS_STATE, &copy, &to),
                        0);
                memcpy(to, c->header, c->map_bytes);
                munmap(to, c->map_bytes);
                close(fd);
                fd = copy;
                warm_cache_close(s);
        }
        warm_cache_free(c);
        return fd;
}

static void check_rebuilt(const struct warm_cache_config *config) {
        struct warm_cache_hit before[N_TEXTS], after;
        struct warm_cache_stats stats;
        struct warm_cache *c;
        int fd = leave(config, false, before);
        uint32_t n;

        assert_int_equal(warm_cache_adopt(config, fd, &c), 0);
        add_all(c);
        n = warm_cache_rebuild(c);
        warm_cache_check(c);
        warm_cache_stats(c, &stats);
        assert_int_equal(stats.n_cached, n);
        assert_true(n > 100);
        for (uint32_t i = 0; i < N_TEXTS; i++) {
                warm_cache_lookup(c, 5 + i % 2, texts[i], N_TEXT, &after);
                assert_int_equal(after.n_tokens, before[i].n_tokens);
        }
        warm_cache_trim(c, (uid_t) -1);
        warm_cache_check(c);
        warm_cache_free(c);
}

static void a_rebuilt_cache_answers_lookups_as_before(void **state) {
        (void) state;
        check_rebuilt(&plain);
}

static void a_rebuilt_cache_keeps_its_window_blocks(void **state) {
        (void) state;
        check_rebuilt(&windowed);
}

static void a_rebuilt_cache_keeps_its_snapshots(void **state) {
        (void) state;
        check_rebuilt(&stateful);
}

static void blocks_whose_memory_is_gone_are_dropped_with_what_follows(void **state) {
        struct warm_cache_hit hits[N_TEXTS], after;
        struct warm_cache *c;
        int fd = leave(&plain, false, hits);

        (void) state;
        assert_int_equal(warm_cache_adopt(&plain, fd, &c), 0);
        assert_int_equal(warm_cache_add_blocks(c, 0, 0, 100), 0);
        assert_true(warm_cache_rebuild(c) <= 100);
        warm_cache_check(c);
        for (uint32_t i = 0; i < N_TEXTS; i++) {
                warm_cache_lookup(c, 5 + i % 2, texts[i], N_TEXT, &after);
                assert_true(after.n_tokens <= hits[i].n_tokens);
                assert_int_equal(after.n_tokens, twin_longest(c, 5 + i % 2, texts[i], N_TEXT));
        }
        /* The rest comes back empty. */
        assert_int_equal(warm_cache_add_blocks(c, 0, 100, 156), 0);
        warm_cache_check(c);
        warm_cache_free(c);
}

static void what_was_being_written_is_dropped(void **state) {
        struct warm_cache_hit hits[N_TEXTS];
        struct warm_cache *c;
        int fd = leave(&plain, true, hits);

        (void) state;
        assert_int_equal(warm_cache_adopt(&plain, fd, &c), 0);
        add_all(c);
        assert_true(warm_cache_rebuild(c) > 100);
        warm_cache_check(c);
        for (uint32_t i = 0; i < 256; i++)
                assert_int_not_equal(c->records[i].state, WARM_RECORD_WRITING);
        warm_cache_free(c);
}

static void damage(struct warm_record *r, uint32_t n_records) {
        struct warm_record *victim = &r[below(n_records)];
        uint32_t *fields = (uint32_t *) (void *) victim;

        switch (below(6)) {
        case 0:
                fields[below(sizeof(*r) / 4)] = below(4);
                break;
        case 1:
                fields[below(16)] ^= 1U << below(31);
                break;
        case 2:
                fields[below(16)] = UINT32_MAX;
                break;
        case 3: /* a cycle, or a foreign parent */
                victim->parent = below(256);
                victim->parent_generation = r[victim->parent].generation;
                break;
        case 4: /* a twin */
                *victim = r[below(n_records)];
                break;
        default:
                victim->n_ready = below(40);
        }
}

static void hostile_records_never_break_an_invariant(void **state) {
        (void) state;
        for (uint32_t round = 0; round < 300; round++) {
                const struct warm_cache_config *config = round % 3 == 0   ? &plain
                                                         : round % 3 == 1 ? &windowed
                                                                          : &stateful;
                struct warm_cache_hit hits[N_TEXTS], hit;
                struct warm_cache *c;
                uint32_t n = config->n_blocks_max[0] + config->n_blocks_max[1];
                int fd = leave(config, false, hits);
                uint64_t bytes;
                void *map;

                assert_true(warm_record_bytes(n, &bytes));
                assert_int_equal(warm_memfd_map(fd, WARM_MEMFD_SEALS_STATE, bytes,
                                                PROT_READ | PROT_WRITE, &map),
                                 0);
                for (uint32_t k = below(200); k > 0; k--)
                        damage((struct warm_record *) ((struct warm_record_header *) map + 1), n);
                munmap(map, bytes);
                assert_int_equal(warm_cache_adopt(config, fd, &c), 0);
                add_all(c);
                warm_cache_rebuild(c);
                warm_cache_check(c);
                for (uint32_t i = 0; i < N_TEXTS; i++) {
                        warm_cache_lookup(c, 5 + i % 2, texts[i], N_TEXT, &hit);
                        assert_true(hit.n_tokens <= twin_longest(c, 5 + i % 2, texts[i], N_TEXT));
                }
                warm_cache_trim(c, (uid_t) -1);
                warm_cache_check(c);
                warm_cache_free(c);
        }
}

static void another_configuration_or_an_unsealed_file_is_refused(void **state) {
        struct warm_cache_config other = plain;
        struct warm_cache_hit hits[N_TEXTS];
        struct warm_cache *c;
        int fd = leave(&plain, false, hits), plain_fd;

        (void) state;
        other.fingerprint[3] = 1;
        assert_int_equal(warm_cache_adopt(&other, fd, &c), WARM_CACHE_E_FOREIGN);
        assert_int_equal(warm_cache_adopt(&windowed, fd, &c), WARM_CACHE_E_FOREIGN);
        plain_fd = memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        assert_int_equal(ftruncate(plain_fd, 64 + 256 * 192), 0);
        assert_int_equal(warm_cache_adopt(&plain, plain_fd, &c), WARM_CACHE_E_FOREIGN);
        close(plain_fd);
        close(fd);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_rebuilt_cache_answers_lookups_as_before),
                cmocka_unit_test(a_rebuilt_cache_keeps_its_window_blocks),
                cmocka_unit_test(a_rebuilt_cache_keeps_its_snapshots),
                cmocka_unit_test(blocks_whose_memory_is_gone_are_dropped_with_what_follows),
                cmocka_unit_test(what_was_being_written_is_dropped),
                cmocka_unit_test(hostile_records_never_break_an_invariant),
                cmocka_unit_test(another_configuration_or_an_unsealed_file_is_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
