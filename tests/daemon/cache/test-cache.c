/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "twin.h"

#define ME    1000
#define OTHER 1001

static int n_allocations_left = -1; /* -1: all succeed */

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);

static bool fails(void) {
        return n_allocations_left >= 0 && n_allocations_left-- == 0;
}

void *__wrap_malloc(size_t n) {
        return fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size) {
        return fails() ? NULL : __real_calloc(n, size);
}

static struct warm_cache *make(uint32_t n_blocks, uint32_t min_share_blocks) {
        struct warm_cache_config config = { .n_groups = 1,
                                            .n_blocks_max = { n_blocks },
                                            .min_share_blocks = min_share_blocks };
        struct warm_cache *c;

        assert_int_equal(warm_cache_new(&config, &c), 0);
        assert_int_equal(warm_cache_add_blocks(c, 0, 0, n_blocks), 0);
        return c;
}

static void count_up(int32_t *t, uint32_t n, int32_t from) {
        for (uint32_t i = 0; i < n; i++)
                t[i] = from + (int32_t) i;
}

static struct warm_cache_sequence *open_at(struct warm_cache *c, uid_t uid, const int32_t *t,
                                           uint32_t n, uint32_t n_max, uint32_t n_hit) {
        struct warm_cache_sequence *s;
        struct warm_cache_hit hit;

        assert_int_equal(warm_cache_open(c, uid, t, n, n_max, &s, &hit), 0);
        assert_int_equal(hit.n_tokens, n_hit);
        return s;
}

static void write_up_to(struct warm_cache_sequence *s, const int32_t *t, uint32_t n) {
        warm_cache_begin(s, n - s->n_tokens);
        warm_cache_commit(s, t + s->n_tokens, n - s->n_tokens);
}

static void cache_text(struct warm_cache *c, uid_t uid, const int32_t *t, uint32_t n) {
        struct warm_cache_hit hit;
        struct warm_cache_sequence *s;

        warm_cache_lookup(c, uid, t, n, &hit);
        s = open_at(c, uid, t, n, n, hit.n_tokens);
        write_up_to(s, t, n);
        warm_cache_close(s);
        warm_cache_check(c);
}

static void expect(struct warm_cache *c, uid_t uid, const int32_t *t, uint32_t n, uint32_t n_hit,
                   enum warm_miss miss) {
        struct warm_cache_hit hit;

        warm_cache_lookup(c, uid, t, n, &hit);
        assert_int_equal(hit.n_tokens, n_hit);
        assert_string_equal(warm_miss_name(hit.miss), warm_miss_name(miss));
        assert_int_equal(hit.at, n_hit);
}

static void each_lookup_says_why_it_stopped(void **state) {
        struct warm_cache *c = make(16, 0);
        int32_t t[400], u[400];

        (void) state;
        count_up(t, 400, 0);
        expect(c, ME, t, 100, 0, WARM_MISS_NEW);
        assert_false(warm_cache_holds(c, ME));
        cache_text(c, ME, t, 70);
        assert_true(warm_cache_holds(c, ME));
        expect(c, ME, t, 70, 69, WARM_MISS_NONE);
        expect(c, ME, t, 100, 70, WARM_MISS_SHORTER);
        memcpy(u, t, sizeof(t));
        u[67] = 9999;
        expect(c, ME, u, 100, 67, WARM_MISS_DIFFERENT);
        u[40] = 9999;
        expect(c, ME, u, 100, 40, WARM_MISS_DIFFERENT);
        u[0] = 9999;
        expect(c, ME, u, 100, 0, WARM_MISS_DIFFERENT);
        expect(c, OTHER, t, 100, 0, WARM_MISS_NEW);
        assert_int_equal(warm_cache_trim(c, OTHER), 0);
        assert_int_equal(warm_cache_trim(c, ME), 3);
        expect(c, ME, t, 70, 0, WARM_MISS_EVICTED);
        expect(c, ME, t, 1, 0, WARM_MISS_NONE);
        warm_cache_free(c);
}

static void a_tail_is_copied_unless_it_ends_exactly_there_and_is_free(void **state) {
        struct warm_cache *c = make(16, 0);
        struct warm_cache_sequence *a, *b;
        int32_t t[100], u[100];
        uint32_t tail;

        (void) state;
        count_up(t, 100, 0);
        memcpy(u, t, sizeof(t));
        u[40] = 7777;
        cache_text(c, ME, t, 50);
        a = open_at(c, ME, t, 60, 60, 50);
        assert_int_equal(a->n_copies, 0);
        tail = a->blocks[0][1];
        b = open_at(c, ME, t, 60, 60, 50);
        assert_int_equal(b->n_copies, 1);
        assert_int_equal(b->copies[0].source, tail);
        assert_int_equal(b->copies[0].target, b->blocks[0][1]);
        assert_int_not_equal(b->blocks[0][1], tail);
        assert_int_equal(b->blocks[0][0], a->blocks[0][0]);
        write_up_to(a, t, 60);
        write_up_to(b, t, 55);
        assert_int_equal(b->n_copies, 0);
        warm_cache_close(a);
        warm_cache_close(b);
        a = open_at(c, ME, u, 60, 60, 40);
        assert_int_equal(a->n_copies, 1);
        warm_cache_close(a);
        warm_cache_check(c);
        warm_cache_free(c);
}

static void no_room_changes_nothing(void **state) {
        struct warm_cache *c = make(8, 0);
        struct warm_cache_stats before, after;
        struct warm_cache_sequence *a, *s;
        struct warm_cache_hit hit;
        int32_t t[400];

        (void) state;
        count_up(t, 400, 0);
        cache_text(c, ME, t, 100);
        a = open_at(c, ME, t + 200, 32, 160, 0);
        warm_cache_stats(c, &before);
        assert_int_equal(warm_cache_open(c, ME, t + 300, 32, 4 * 32, &s, &hit), WARM_CACHE_E_FULL);
        assert_int_equal(warm_cache_open(c, OTHER, t, 32, 4 * 32, &s, &hit), WARM_CACHE_E_FULL);
        warm_cache_stats(c, &after);
        assert_memory_equal(&before, &after, sizeof(before));
        warm_cache_check(c);
        expect(c, ME, t, 100, 96, WARM_MISS_EVICTED);
        /* Three blocks are left, and full: the part of the third that it could copy has to go for the copy. */
        s = open_at(c, ME, t, 96, 96, 64);
        warm_cache_close(s);
        warm_cache_close(a);
        warm_cache_free(c);
}

static void a_uid_keeps_its_share_whatever_others_want(void **state) {
        struct warm_cache *c = make(32, 6);
        struct warm_cache_sequence *s;
        struct warm_cache_hit hit;
        int32_t t[1200];

        (void) state;
        count_up(t, 1200, 0);
        cache_text(c, ME, t, 12 * 32);
        for (uint32_t i = 0; i < 8; i++)
                cache_text(c, OTHER, t + i, 20 * 32);
        expect(c, ME, t, 12 * 32, 6 * 32, WARM_MISS_EVICTED);
        assert_int_equal(warm_cache_open(c, OTHER, t, 27 * 32, 27 * 32, &s, &hit),
                         WARM_CACHE_E_FULL);
        expect(c, ME, t, 12 * 32, 6 * 32, WARM_MISS_EVICTED);
        warm_cache_free(c);
}

static void the_tail_goes_first_and_the_oldest_before_it(void **state) {
        struct warm_cache *c = make(8, 0);
        int32_t t[1000];

        (void) state;
        count_up(t, 1000, 0);
        cache_text(c, ME, t, 96);
        for (uint32_t i = 0; i < 40; i++)
                cache_text(c, ME, t + 300, 96);
        cache_text(c, ME, t + 600, 96);
        expect(c, ME, t, 97, 64, WARM_MISS_EVICTED);
        expect(c, ME, t + 300, 97, 96, WARM_MISS_NONE);
        warm_cache_free(c);
}

static void thousands_of_children_are_found_by_their_tokens(void **state) {
        struct warm_cache *c = make(5000, 0);
        int32_t t[20] = { 1, 2, 3 };

        (void) state;
        for (int32_t i = 0; i < 4000; i++) {
                t[3] = i * 7 % 4000 * 2;
                t[10] = i;
                struct warm_cache_sequence *s;
                struct warm_cache_hit hit;

                assert_int_equal(warm_cache_open(c, ME, t, 20, 20, &s, &hit), 0);
                write_up_to(s, t, 20);
                warm_cache_close(s);
        }
        warm_cache_check(c);
        for (int32_t i = 0; i < 4000; i++) {
                t[3] = i * 7 % 4000 * 2;
                t[10] = i;
                t[15] = 99;
                expect(c, ME, t, 20, 15, WARM_MISS_DIFFERENT);
                t[15] = 0;
        }
        t[3] = 1;
        expect(c, ME, t, 20, 3, WARM_MISS_DIFFERENT);
        warm_cache_free(c);
}

static void a_block_used_again_has_another_generation(void **state) {
        struct warm_cache *c = make(2, 0);
        uint64_t generation;
        int32_t t[100];

        (void) state;
        count_up(t, 100, 0);
        cache_text(c, ME, t, 20);
        generation = c->records[0].generation + c->records[1].generation;
        warm_cache_trim(c, ME);
        cache_text(c, ME, t, 64);
        assert_true(c->records[0].generation + c->records[1].generation > generation);
        warm_cache_free(c);
}

static void a_failed_allocation_changes_nothing(void **state) {
        struct warm_cache_config config = { .n_groups = 2,
                                            .groups = { { .window = 32 }, { .window = 0 } },
                                            .n_blocks_max = { 8, 8 } };
        struct warm_cache_sequence *s = NULL, *f = NULL;
        struct warm_cache_hit hit;
        struct warm_cache *c = NULL;
        int32_t t[100];
        int r, n;

        (void) state;
        count_up(t, 100, 0);
        for (n = 0;; n++) {
                n_allocations_left = n;
                r = warm_cache_new(&config, &c);
                n_allocations_left = -1;
                if (r == 0)
                        break;
                assert_int_equal(r, -ENOMEM);
        }
        assert_true(n >= 6);
        for (uint32_t g = 0; g < 2; g++)
                assert_int_equal(warm_cache_add_blocks(c, g, 0, 8), 0);
        n_allocations_left = 0;
        assert_int_equal(warm_cache_open(c, ME, t, 50, 60, &s, &hit), -ENOMEM);
        warm_cache_check(c);
        n_allocations_left = -1;
        assert_int_equal(warm_cache_open(c, ME, t, 50, 60, &s, &hit), 0);
        /* Nothing allocates on the decode path. */
        n_allocations_left = 0;
        write_up_to(s, t, 50);
        assert_int_equal(warm_cache_fork(s, 40, 60, &f), -ENOMEM);
        n_allocations_left = 0;
        for (uint32_t i = 51; i <= 60; i++)
                write_up_to(s, t, i);
        warm_cache_rollback(s, 30);
        warm_cache_close(s);
        assert_int_equal(n_allocations_left, 0);
        n_allocations_left = -1;
        warm_cache_check(c);
        warm_cache_free(c);
}

static void blocks_in_use_are_not_taken_away(void **state) {
        struct warm_cache *c = make(8, 0);
        struct warm_cache_sequence *s;
        int32_t t[100];

        (void) state;
        count_up(t, 100, 0);
        s = open_at(c, ME, t, 70, 70, 0);
        assert_int_equal(warm_cache_remove_blocks(c, 0, 0, 8), WARM_CACHE_E_BUSY);
        assert_int_equal(warm_cache_remove_blocks(c, 0, 4, 4), 0);
        assert_int_equal(warm_cache_remove_blocks(c, 0, 4, 4), -ENOENT);
        assert_int_equal(warm_cache_add_blocks(c, 0, 0, 1), -EEXIST);
        assert_int_equal(warm_cache_add_blocks(c, 0, 8, 1), -ERANGE);
        write_up_to(s, t, 70);
        warm_cache_close(s);
        assert_int_equal(warm_cache_remove_blocks(c, 0, 0, 4), 0);
        warm_cache_check(c);
        expect(c, ME, t, 70, 0, WARM_MISS_EVICTED);
        assert_int_equal(warm_cache_add_blocks(c, 0, 0, 8), 0);
        warm_cache_check(c);
        warm_cache_free(c);
}

static void more_uids_than_the_table_holds_take_turns(void **state) {
        struct warm_cache *c = make(2048, 4);
        int32_t t[40];

        (void) state;
        count_up(t, 40, 0);
        for (uid_t u = 0; u <= WARM_CACHE_UIDS_MAX; u++) {
                struct warm_cache_sequence *s = open_at(c, u, t, 40, 40, 0);

                write_up_to(s, t, 40);
                warm_cache_close(s);
        }
        warm_cache_check(c);
        expect(c, 0, t, 40, 0, WARM_MISS_EVICTED);
        expect(c, 1, t, 40, 39, WARM_MISS_NONE);
        expect(c, WARM_CACHE_UIDS_MAX, t, 40, 39, WARM_MISS_NONE);
        warm_cache_free(c);
}

/* A plain group and a state group. */
static struct warm_cache *make_with_state(uint32_t n_blocks, uint32_t n_states) {
        struct warm_cache_config config = { .n_groups = 2,
                                            .groups = { { .window = 0 }, { .state = true } },
                                            .n_blocks_max = { n_blocks, n_states } };
        struct warm_cache *c;

        assert_int_equal(warm_cache_new(&config, &c), 0);
        assert_int_equal(warm_cache_add_blocks(c, 0, 0, n_blocks), 0);
        assert_int_equal(warm_cache_add_blocks(c, 1, 0, n_states), 0);
        return c;
}

static void a_state_is_resumed_from_its_last_snapshot_only(void **state) {
        struct warm_cache *c = make_with_state(32, 8);
        struct warm_cache_stats stats;
        struct warm_cache_sequence *s;
        uint32_t live, snapshot;
        int32_t t[200];

        (void) state;
        count_up(t, 200, 0);
        s = open_at(c, ME, t, 150, 150, 0);
        assert_int_equal(s->state_in[1], WARM_STATE_NONE);
        write_up_to(s, t, 64);
        live = s->blocks[1][0];
        assert_int_equal(s->state_in[1], live);
        assert_int_equal(warm_cache_snapshot(s), 0);
        /* Nothing is copied: the state stays where it is, the next one goes elsewhere. */
        assert_int_equal(s->n_copies, 0);
        assert_int_equal(s->state_in[1], live);
        assert_int_not_equal(s->blocks[1][0], live);
        assert_int_equal(warm_cache_snapshot(s), 0);
        warm_cache_check(c);
        write_up_to(s, t, 150);
        assert_int_equal(s->state_in[1], s->blocks[1][0]);
        warm_cache_close(s);
        warm_cache_stats(c, &stats);
        assert_int_equal(stats.n_snapshots, 1);
        assert_int_equal(stats.n_snapshots_taken, 1);
        snapshot = live;
        expect(c, ME, t, 64, 0, WARM_MISS_GROUP); /* the last token is always computed */
        expect(c, ME, t, 65, 64, WARM_MISS_NONE);
        expect(c, ME, t, 150, 64, WARM_MISS_GROUP);
        t[70] = 9999;
        expect(c, ME, t, 150, 64, WARM_MISS_GROUP);
        s = open_at(c, ME, t, 150, 150, 64);
        assert_int_equal(s->state_in[1], snapshot);
        assert_int_not_equal(s->blocks[1][0], snapshot);
        warm_cache_check(c);
        warm_cache_close(s);
        warm_cache_check(c);
        assert_int_equal(warm_cache_trim(c, ME), 6);
        warm_cache_stats(c, &stats);
        assert_int_equal(stats.n_snapshots, 0);
        assert_int_equal(stats.n_snapshots_evicted, 1);
        warm_cache_free(c);
}

static void what_was_not_kept_whole_goes_back_to_a_snapshot(void **state) {
        struct warm_cache *c = make_with_state(32, 8);
        struct warm_cache_sequence *s, *f;
        int32_t t[200];

        (void) state;
        count_up(t, 200, 0);
        s = open_at(c, ME, t, 150, 150, 0);
        write_up_to(s, t, 32);
        assert_int_equal(warm_cache_snapshot(s), 0);
        /* The step failed: its state went elsewhere, so nothing is lost. */
        warm_cache_begin(s, 10);
        warm_cache_rollback(s, 32);
        assert_int_equal(s->n_tokens, 32);
        /* Four of ten tokens are kept, but the state stands behind all ten. */
        warm_cache_begin(s, 10);
        warm_cache_commit(s, t + 32, 4);
        assert_int_equal(s->n_tokens, 32);
        warm_cache_check(c);
        write_up_to(s, t, 50);
        assert_int_equal(warm_cache_fork(s, 50, 100, &f), 0);
        assert_int_equal(f->n_tokens, 32);
        assert_int_equal(f->state_in[1], s->cache->side[1][s->blocks[0][0]] - s->cache->base[1]);
        warm_cache_begin(s, 10);
        warm_cache_rollback(s, 50);
        assert_int_equal(s->n_tokens, 32);
        warm_cache_check(c);
        warm_cache_close(f);
        warm_cache_rollback(s, 31);
        assert_int_equal(s->n_tokens, 0);
        assert_int_equal(s->state_in[1], WARM_STATE_NONE);
        warm_cache_check(c);
        warm_cache_close(s);
        warm_cache_free(c);
}

static void snapshots_take_what_is_unpinned_and_never_the_last_state(void **state) {
        struct warm_cache *c = make_with_state(64, 3);
        struct warm_cache_sequence *a, *b;
        struct warm_cache_stats stats;
        int32_t t[400];

        (void) state;
        count_up(t, 400, 0);
        a = open_at(c, ME, t, 150, 150, 0);
        for (uint32_t n = 32; n <= 96; n += 32) {
                write_up_to(a, t, n);
                assert_int_equal(warm_cache_snapshot(a), 0);
        }
        warm_cache_stats(c, &stats);
        assert_int_equal(stats.n_snapshots, 2);
        assert_int_equal(stats.n_snapshots_evicted, 1);
        expect(c, ME, t, 40, 0, WARM_MISS_GROUP); /* the first one had to go */
        expect(c, ME, t, 70, 64, WARM_MISS_GROUP);
        b = open_at(c, ME, t + 200, 150, 150, 0);
        /* One block each for two running sequences, and the snapshot that one goes on from. */
        write_up_to(b, t + 200, 32);
        assert_int_equal(warm_cache_snapshot(b), WARM_CACHE_E_FULL);
        warm_cache_check(c);
        write_up_to(a, t, 100);
        assert_int_equal(warm_cache_snapshot(b), 0);
        warm_cache_check(c);
        warm_cache_close(a);
        warm_cache_close(b);
        warm_cache_check(c);
        warm_cache_free(c);
}

static void sum_all(struct warm_cache *c) {
        uint32_t g, block;

        while (warm_cache_unsummed(c, &g, &block))
                warm_cache_set_sum(c, g, block, 1);
        for (uint32_t ref = 0; ref < c->base[c->config.n_groups]; ref++)
                if (c->blocks[ref].place == WARM_PLACE_LINKED && c->blocks[ref].n_pins == 0)
                        assert_int_not_equal(c->records[ref].sum, 0);
}

/* A sequence goes back behind its tail while another waits to copy from it: the tail stays, and nobody is on it. */
static void a_tail_that_is_left_to_others_gets_its_sum(void **state) {
        struct warm_cache *c = make(16, 0);
        struct warm_cache_sequence *a, *b;
        int32_t t[100];

        (void) state;
        count_up(t, 100, 0);
        a = open_at(c, ME, t, 50, 100, 0);
        write_up_to(a, t, 50);
        b = open_at(c, ME, t, 51, 100, 50);
        warm_cache_rollback(a, 20);
        write_up_to(b, t, 60);
        warm_cache_check(c);
        sum_all(c);
        warm_cache_close(a);
        warm_cache_close(b);
        warm_cache_check(c);
        sum_all(c);
        warm_cache_free(c);
}

/* A block that fills up to what another one holds already stays, if somebody waits to copy from it. */
static void a_twin_that_is_held_gets_its_sum(void **state) {
        struct warm_cache *c = make(16, 0);
        struct warm_cache_sequence *a, *b, *copies;
        int32_t t[100];

        (void) state;
        count_up(t, 100, 0);
        a = open_at(c, ME, t, 20, 100, 0);
        write_up_to(a, t, 20);
        b = open_at(c, ME, t, 20, 100, 19);
        write_up_to(b, t, 20);
        write_up_to(b, t, 32);
        copies = open_at(c, ME, t, 21, 100,
                         20); /* of a's tail or of b's block, whose first tokens are the same */
        write_up_to(a, t, 32);
        write_up_to(copies, t, 40);
        warm_cache_check(c);
        warm_cache_close(a);
        warm_cache_close(b);
        warm_cache_close(copies);
        warm_cache_check(c);
        sum_all(c);
        warm_cache_free(c);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(each_lookup_says_why_it_stopped),
                cmocka_unit_test(a_tail_is_copied_unless_it_ends_exactly_there_and_is_free),
                cmocka_unit_test(no_room_changes_nothing),
                cmocka_unit_test(a_uid_keeps_its_share_whatever_others_want),
                cmocka_unit_test(the_tail_goes_first_and_the_oldest_before_it),
                cmocka_unit_test(thousands_of_children_are_found_by_their_tokens),
                cmocka_unit_test(a_block_used_again_has_another_generation),
                cmocka_unit_test(a_failed_allocation_changes_nothing),
                cmocka_unit_test(blocks_in_use_are_not_taken_away),
                cmocka_unit_test(more_uids_than_the_table_holds_take_turns),
                cmocka_unit_test(a_state_is_resumed_from_its_last_snapshot_only),
                cmocka_unit_test(what_was_not_kept_whole_goes_back_to_a_snapshot),
                cmocka_unit_test(snapshots_take_what_is_unpinned_and_never_the_last_state),
                cmocka_unit_test(a_tail_that_is_left_to_others_gets_its_sum),
                cmocka_unit_test(a_twin_that_is_held_gets_its_sum),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
