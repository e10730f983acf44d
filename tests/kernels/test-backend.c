/* SPDX-License-Identifier: Apache-2.0 */
/* The contract beside the numbers: what is refused, memory that comes and goes, copies, visibility, KV handed on. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/cpu/cpu.h"
#include "runner.h"

#define N_TOKENS 70U

static struct tiny *model;
static struct runner runner;
static int32_t tokens[N_TOKENS];

static int set_up(void **state) {
        uint64_t random = 5;

        (void) state;
        model = tiny_new(&tiny_shapes[0], 17);
        for (uint32_t i = 0; i < N_TOKENS; i++)
                tokens[i] = (int32_t) (tiny_random_bits(&random) % model->plan.n_vocab);
        runner_init(&runner, &model->plan, _WARM_ISA_N, 2, WARM_TYPE_F16, 3);
        return 0;
}

static int tear_down(void **state) {
        (void) state;
        runner_deinit(&runner);
        model = tiny_free(model);
        return 0;
}

static float *logits_new(uint32_t n_rows) {
        float *logits = calloc((size_t) n_rows * model->plan.n_vocab, sizeof(*logits));

        assert_non_null(logits);
        return logits;
}

static int submit(const struct warm_row *rows, uint32_t n) {
        struct warm_step step = {
                .sequences = &runner.sequence,
                .n_sequences = 1,
                .rows = rows,
                .n_rows = n,
        };
        uint64_t ticket;

        return warm_step_submit(runner.backend, runner.weights, &step, &ticket);
}

/* What the next row computes at slot N_TOKENS - 1, after the others. */
static void logits_of_last(const struct warm_row *change, float *ret_logits) {
        struct warm_row row = change ? *change : runner_row(tokens[N_TOKENS - 1], N_TOKENS - 1);
        struct warm_result result = { .logits = ret_logits };

        row.want = WARM_WANT_LOGITS;
        row.result = &result;
        assert_int_equal(submit(&row, 1), 0);
}

static void a_backend_says_what_it_is(void **state) {
        struct warm_backend_info info;

        (void) state;
        warm_backend_info(runner.backend, &info);
        assert_string_equal(info.name, "cpu");
        assert_non_null(strstr(info.description, ", 2 threads"));
        assert_true(info.memory_total >= info.memory_free && info.memory_free > 0);
        assert_true(info.scratch_bytes > 0);
        assert_true(warm_weights_bytes(runner.backend, runner.weights) >
                    model->plan.embedding.bytes);
        assert_int_equal(warm_backend_event_fd(runner.backend), -EOPNOTSUPP);
}

static void a_row_outside_what_exists_is_refused(void **state) {
        struct warm_result result = { 0 };
        struct warm_sampling sampling = { .top_p = 1 }, bad_sampling = { .top_p = 0 };
        struct warm_row good = runner_row(1, 0), row;

        (void) state;
        good.want = WARM_WANT_TOKEN;
        good.result = &result;
        good.sampling = &sampling;
        assert_int_equal(submit(&good, 1), 0);
#define REFUSED(field, value)                                                                      \
        row = good;                                                                                \
        row.field = value;                                                                         \
        result.token = -77;                                                                        \
        assert_int_equal(submit(&row, 1), -EINVAL);                                                \
        assert_int_equal(result.token, -77)
        REFUSED(token, -1);
        REFUSED(token, (int32_t) model->plan.n_vocab);
        REFUSED(position, model->plan.n_context);
        REFUSED(slot, RUNNER_BLOCKS * WARM_BLOCK_TOKENS);
        REFUSED(slot, UINT32_MAX);
        REFUSED(hi, 0);
        REFUSED(hi, 2); /* above its own slot */
        REFUSED(lo, 1);
        REFUSED(sequence, 1);
        REFUSED(adapter, 1);
        REFUSED(kind, WARM_ROW_SAMPLED + 1);
        REFUSED(want, 0x80);
        REFUSED(sampling, NULL);
        REFUSED(sampling, &bad_sampling);
        bad_sampling = (struct warm_sampling){ .top_p = 1, .temperature = -1 };
        REFUSED(sampling, &bad_sampling);
        bad_sampling = (struct warm_sampling){ .top_p = 1, .min_p = 1 };
        REFUSED(sampling, &bad_sampling);
        bad_sampling = (struct warm_sampling){ .top_p = 1, .n_banned = 1 };
        REFUSED(sampling, &bad_sampling);
        REFUSED(result, NULL);
        REFUSED(want, WARM_WANT_LOGITS); /* nowhere to put them */
        row = good;
        row.want = WARM_WANT_LOGPROB;
        row.scored = (int32_t) model->plan.n_vocab;
        assert_int_equal(submit(&row, 1), -EINVAL);
        row.want = WARM_WANT_TOP;
        row.n_top = WARM_TOP_N_MAX + 1;
        assert_int_equal(submit(&row, 1), -EINVAL);
        row.n_top = WARM_TOP_N_MAX;
        assert_int_equal(submit(&row, 1), 0);
}

static void a_step_outside_what_exists_is_refused(void **state) {
        struct warm_block_copy copy = { 0 };
        struct warm_row rows[2] = { runner_row(1, 1), runner_row(1, 0) };
        uint32_t missing[2] = { 0, RUNNER_BLOCKS };
        struct warm_step_sequence sequence = { .blocks = { missing }, .n_blocks = 2 };
        struct warm_step step = {
                .copies = &copy,
                .sequences = &runner.sequence,
                .n_sequences = 1,
                .rows = rows,
                .n_rows = 1,
        };
        uint64_t ticket;

        (void) state;
        assert_int_equal(submit(rows, 2), -EINVAL); /* slots descend */
        rows[1].slot = 1;
        assert_int_equal(submit(rows, 2), -EINVAL); /* the same slot twice */
        assert_int_equal(submit(rows, WARM_STEP_ROWS_MAX + 1), -EINVAL);
        step.n_copies = 1;
        assert_int_equal(warm_step_submit(runner.backend, runner.weights, &step, &ticket), 0);
        copy.group = 1;
        assert_int_equal(warm_step_submit(runner.backend, runner.weights, &step, &ticket), -EINVAL);
        copy = (struct warm_block_copy){ .source = RUNNER_BLOCKS };
        assert_int_equal(warm_step_submit(runner.backend, runner.weights, &step, &ticket), -EINVAL);
        copy = (struct warm_block_copy){ .target = UINT32_MAX };
        assert_int_equal(warm_step_submit(runner.backend, runner.weights, &step, &ticket), -EINVAL);
        step.n_copies = WARM_STEP_COPIES_MAX + 1;
        assert_int_equal(warm_step_submit(runner.backend, runner.weights, &step, &ticket), -EINVAL);
        step.n_copies = 0;
        step.n_sequences = WARM_STEP_SEQUENCES_MAX + 1;
        assert_int_equal(warm_step_submit(runner.backend, runner.weights, &step, &ticket), -EINVAL);

        /* a block without memory matters only where a row looks */
        step.n_sequences = 1;
        step.sequences = &sequence;
        rows[0] = runner_row(1, 5);
        assert_int_equal(warm_step_submit(runner.backend, runner.weights, &step, &ticket), 0);
        rows[0] = runner_row(1, 40);
        assert_int_equal(warm_step_submit(runner.backend, runner.weights, &step, &ticket), -EINVAL);
        missing[1] = 1;
        missing[0] = UINT32_MAX;
        assert_int_equal(warm_step_submit(runner.backend, runner.weights, &step, &ticket), -EINVAL);
        rows[0].lo = 32;
        assert_int_equal(warm_step_submit(runner.backend, runner.weights, &step, &ticket), 0);
        sequence.blocks[0] = NULL;
        assert_int_equal(warm_step_submit(runner.backend, runner.weights, &step, &ticket), -EINVAL);
}

static void a_copied_block_reads_like_the_first(void **state) {
        float *first = logits_new(1), *second = logits_new(1);
        struct warm_result result = { .logits = second };
        struct warm_row row = runner_row(tokens[N_TOKENS - 1], N_TOKENS - 1);
        uint32_t table[3];
        struct warm_step_sequence copied = { .blocks = { table }, .n_blocks = 3 };
        struct warm_block_copy copies[4];
        struct warm_step step = {
                .copies = copies,
                .n_copies = 4,
                .sequences = &copied,
                .n_sequences = 1,
                .rows = &row,
                .n_rows = 1,
        };
        uint64_t ticket, sums[2];

        (void) state;
        for (uint32_t i = 0; i < 3; i++)
                table[i] = runner.table[0][10 + i]; /* not used by the sequence so far */
        runner_step(&runner, tokens, 0, N_TOKENS - 1, NULL);
        for (uint32_t i = 0; i < 3; i++)
                copies[i + 1] = (struct warm_block_copy){ 0, runner.table[0][i], table[i] };
        copies[0] = (struct warm_block_copy){ 0, runner.table[0][2],
                                              table[0] }; /* overwritten in order */
        row.want = WARM_WANT_LOGITS;
        row.result = &result;
        assert_int_equal(warm_step_submit(runner.backend, runner.weights, &step, &ticket), 0);
        logits_of_last(NULL, first);
        assert_memory_equal(first, second, runner.n_vocab * sizeof(float));
        for (uint32_t i = 0; i < 3; i++) {
                assert_int_equal(warm_block_sum(runner.backend, runner.weights, 0,
                                                runner.table[0][i], &sums[0]),
                                 0);
                assert_int_equal(
                        warm_block_sum(runner.backend, runner.weights, 0, table[i], &sums[1]), 0);
                assert_true(sums[0] == sums[1]);
        }
        runner_step(&runner, tokens, 3, 4, NULL); /* writes the same again */
        assert_int_equal(
                warm_block_sum(runner.backend, runner.weights, 0, runner.table[0][0], &sums[0]), 0);
        assert_int_equal(warm_block_sum(runner.backend, runner.weights, 0, table[0], &sums[1]), 0);
        assert_true(sums[0] == sums[1]);
        runner_step(&runner, tokens + 1, 3, 4, NULL); /* another token */
        assert_int_equal(
                warm_block_sum(runner.backend, runner.weights, 0, runner.table[0][0], &sums[0]), 0);
        assert_true(sums[0] != sums[1]);
        free(first);
        free(second);
}

/* A draft tree: two continuations of slot 40 at slots 41 and 42, the second masked to not see the first. */
static void what_the_mask_hides_adds_nothing(void **state) {
        float *hidden = logits_new(1), *without = logits_new(1);
        struct warm_result result = { .logits = hidden };
        struct warm_row rows[2];

        (void) state;
        runner_step(&runner, tokens, 0, 41, NULL);
        rows[0] = runner_row(tokens[41], 41);
        rows[1] = runner_row(tokens[42], 42);
        rows[1].position = 41;
        rows[1].mask = ~2ULL; /* slot 42 - 1 */
        rows[1].want = WARM_WANT_LOGITS;
        rows[1].result = &result;
        assert_int_equal(submit(rows, 2), 0);

        result.logits = without;
        rows[0].token = tokens[50]; /* another sibling, other KV at slot 41 */
        assert_int_equal(submit(rows, 2), 0);
        assert_memory_equal(hidden, without, runner.n_vocab * sizeof(float));

        rows[1].mask = UINT64_MAX;
        assert_int_equal(submit(rows, 2), 0);
        assert_true(memcmp(hidden, without, runner.n_vocab * sizeof(float)) != 0);
        free(hidden);
        free(without);
}

static void a_row_sees_from_lo_on(void **state) {
        float *first = logits_new(1), *second = logits_new(1);
        struct warm_row row = runner_row(tokens[N_TOKENS - 1], N_TOKENS - 1);

        (void) state;
        runner_step(&runner, tokens, 0, N_TOKENS - 1, NULL);
        row.lo = 37;
        logits_of_last(&row, first);
        runner_step(&runner, tokens + 10, 0, 37, NULL); /* other KV below lo */
        logits_of_last(&row, second);
        assert_memory_equal(first, second, runner.n_vocab * sizeof(float));
        row.lo = 36;
        logits_of_last(&row, second);
        assert_true(memcmp(first, second, runner.n_vocab * sizeof(float)) != 0);
        free(first);
        free(second);
}

static void chunks_come_and_go_singly(void **state) {
        uint32_t per = runner.info.blocks_per_chunk[0], n = (RUNNER_BLOCKS - 1) / per + 1;
        uint64_t sum, zeros;
        struct warm_row row = runner_row(1, 0);

        (void) state;
        assert_true(n >= 2 && (per & (per - 1)) == 0);
        assert_int_equal(warm_kv_add(runner.backend, runner.weights, 0, 0), -EEXIST);
        assert_int_equal(warm_kv_add(runner.backend, runner.weights, 0, n), -ERANGE);
        assert_int_equal(warm_kv_add(runner.backend, runner.weights, 1, 0), -ERANGE);
        assert_int_equal(warm_kv_remove(runner.backend, runner.weights, 0, n), -ENOENT);
        assert_int_equal(warm_kv_remove(runner.backend, runner.weights, 1, 0), -ENOENT);

        runner.table[0][0] = 0;
        assert_int_equal(submit(&row, 1), 0);
        assert_int_equal(warm_kv_remove(runner.backend, runner.weights, 0, 0), 0);
        assert_int_equal(warm_kv_remove(runner.backend, runner.weights, 0, 0), -ENOENT);
        assert_int_equal(submit(&row, 1), -EINVAL);
        assert_int_equal(warm_block_sum(runner.backend, runner.weights, 0, 0, &sum), -ENOENT);
        runner.table[0][0] = per; /* its neighbour is still there */
        assert_int_equal(submit(&row, 1), 0);

        assert_int_equal(warm_kv_add(runner.backend, runner.weights, 0, 0), 0);
        assert_int_equal(warm_block_sum(runner.backend, runner.weights, 0, 0, &sum), 0);
        assert_int_equal(warm_block_sum(runner.backend, runner.weights, 0, per - 1, &zeros), 0);
        assert_true(sum == zeros);
        assert_int_equal(warm_block_sum(runner.backend, runner.weights, 0, RUNNER_BLOCKS, &sum),
                         -ENOENT);
        assert_int_equal(warm_block_sum(runner.backend, runner.weights, 9, 0, &sum), -ENOENT);
}

static void kv_has_a_type_and_is_reserved_once(void **state) {
        struct warm_kv_config config = { .type = WARM_TYPE_F16, .n_blocks_max = { 8 } };
        struct warm_weights *w;
        struct warm_kv_info info;
        struct warm_row row = runner_row(1, 0);
        struct warm_step step = {
                .sequences = &runner.sequence,
                .n_sequences = 1,
                .rows = &row,
                .n_rows = 1,
        };
        uint64_t ticket;

        (void) state;
        assert_int_equal(warm_kv_init(runner.backend, runner.weights, &config, &info), -EEXIST);
        assert_int_equal(warm_backend_load(runner.backend, &model->plan, &w, NULL), 0);
        assert_int_equal(warm_step_submit(runner.backend, w, &step, &ticket), -EINVAL);
        config.type = WARM_TYPE_Q8_0;
        assert_int_equal(warm_kv_init(runner.backend, w, &config, &info), -EINVAL);
        config.type = WARM_TYPE_F32;
        assert_int_equal(warm_kv_init(runner.backend, w, &config, &info), 0);
        assert_int_equal(info.block_bytes[0], 2 * runner.info.block_bytes[0]);
        assert_int_equal(info.block_bytes[0], /* layers, heads, K and V, tokens, bytes */
                         2 * 2 * (32 + 32) * 32 * 4);
        warm_weights_free(runner.backend, w);
}

/* The child makes KV and dies; its chunks live on in the fds and serve here bit for bit. */
static void another_process_takes_over_what_was_computed(void **state) {
        enum { MOST = 128 };
        uint32_t per = runner.info.blocks_per_chunk[0], n = (RUNNER_BLOCKS - 1) / per + 1, got;
        int fds[MOST], pair[2], small[2], status;
        uint64_t sums[3], sum;
        float *mine = logits_new(1), *theirs = logits_new(1);
        char control[CMSG_SPACE(sizeof(fds))];
        struct iovec io = { sums, sizeof(sums) };
        struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = control };
        struct cmsghdr *c;
        struct runner other;
        pid_t pid;

        (void) state;
        runner_step(&runner, tokens, 0, N_TOKENS - 1, NULL);
        logits_of_last(NULL, mine);
        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
        pid = fork();
        assert_true(pid >= 0);
        m.msg_controllen = CMSG_SPACE(n * sizeof(int));
        if (pid == 0) { /* the threads are not here: a backend of its own */
                runner_init(&other, &model->plan, _WARM_ISA_N, 1, WARM_TYPE_F16, 3);
                runner_step(&other, tokens, 0, N_TOKENS - 1, NULL);
                for (uint32_t i = 0; i < 3; i++)
                        if (warm_block_sum(other.backend, other.weights, 0, other.table[0][i],
                                           &sums[i]))
                                _exit(2);
                if (warm_kv_export(other.backend, other.weights, fds, n - 1, &got) != -ENOSPC ||
                    warm_kv_export(other.backend, other.weights, fds, MOST, &got) || got != n)
                        _exit(3);
                c = CMSG_FIRSTHDR(&m);
                *c = (struct cmsghdr){ CMSG_LEN(n * sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
                memcpy(CMSG_DATA(c), fds, n * sizeof(int));
                _exit(sendmsg(pair[1], &m, 0) == (ssize_t) sizeof(sums) ? 0 : 4);
        }
        assert_int_equal(recvmsg(pair[0], &m, MSG_CMSG_CLOEXEC), sizeof(sums));
        memcpy(fds, CMSG_DATA(CMSG_FIRSTHDR(&m)), n * sizeof(int));
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);

        assert_int_equal(warm_kv_import(runner.backend, runner.weights, fds, n), -EEXIST);
        for (uint32_t i = 0; i < n; i++)
                assert_int_equal(warm_kv_remove(runner.backend, runner.weights, 0, i), 0);
        assert_int_equal(warm_kv_import(runner.backend, runner.weights, fds, n - 1), -EINVAL);
        assert_int_equal(warm_kv_import(runner.backend, runner.weights, fds, n + 1), -EINVAL);
        small[0] = fds[n - 1];
        fds[n - 1] = memfd_create("other", MFD_CLOEXEC); /* neither sealed nor of that size */
        assert_int_equal(warm_kv_import(runner.backend, runner.weights, fds, n), -EINVAL);
        assert_int_equal(ftruncate(fds[n - 1], lseek(fds[0], 0, SEEK_END)), 0);
        assert_int_equal(warm_kv_import(runner.backend, runner.weights, fds, n), -EINVAL);
        close(fds[n - 1]);
        fds[n - 1] = small[0];
        assert_int_equal(warm_block_sum(runner.backend, runner.weights, 0, 0, &sum), -ENOENT);
        assert_int_equal(warm_kv_import(runner.backend, runner.weights, fds, n), 0);
        for (uint32_t i = 0; i < n; i++)
                close(fds[i]);
        for (uint32_t i = 0; i < 3; i++) {
                assert_int_equal(
                        warm_block_sum(runner.backend, runner.weights, 0, runner.table[0][i], &sum),
                        0);
                assert_true(sum == sums[i]);
        }
        logits_of_last(NULL, theirs);
        assert_memory_equal(mine, theirs, runner.n_vocab * sizeof(float));
        close(pair[0]);
        close(pair[1]);
        free(mine);
        free(theirs);
}

struct progress {
        uint64_t done_bytes, total_bytes;
        uint32_t n;
};

static void on_progress(void *userdata, uint64_t done_bytes, uint64_t total_bytes) {
        struct progress *p = userdata;

        assert_true(done_bytes >= p->done_bytes && done_bytes <= total_bytes);
        assert_true(p->n == 0 || total_bytes == p->total_bytes);
        *p = (struct progress){ done_bytes, total_bytes, p->n + 1 };
}

static void loading_tells_how_far_it_is(void **state) {
        struct progress progress = { 0 };
        struct warm_backend_config config = { .n_threads = 2,
                                              .load_progress = on_progress,
                                              .load_userdata = &progress };
        struct warm_backend *b;
        struct warm_weights *w;

        (void) state;
        assert_int_equal(warm_cpu_backend_new(&config, &b), 0);
        assert_int_equal(warm_backend_load(b, &model->plan, &w, NULL), 0);
        assert_true(progress.n >= 1 && progress.done_bytes > 0);
        assert_int_equal(progress.done_bytes, progress.total_bytes);
        assert_true(progress.total_bytes <= warm_weights_bytes(b, w));
        warm_weights_free(b, w);
        warm_backend_free(b);
}

static void what_the_device_can_do_is_measured(void **state) {
        double copy = 0, flop = 0;

        (void) state;
        assert_int_equal(warm_backend_measure(runner.backend, &copy, &flop), 0);
        assert_true(copy > 1e6 && copy < 1e15); /* a thousandth of a slow machine; beyond any */
        assert_true(flop > 1e6 && flop < 1e18);
}

static void a_backend_that_cannot_measure_says_0(void **state) {
        struct warm_backend_ops ops = *runner.backend->ops;
        struct warm_backend b = { .ops = &ops };
        double copy = 1, flop = 1;

        (void) state;
        ops.measure = NULL;
        assert_int_equal(warm_backend_measure(&b, &copy, &flop), 0);
        assert_true(copy == 0 && flop == 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
                TEST(a_backend_says_what_it_is),
                TEST(loading_tells_how_far_it_is),
                TEST(what_the_device_can_do_is_measured),
                TEST(a_backend_that_cannot_measure_says_0),
                TEST(a_row_outside_what_exists_is_refused),
                TEST(a_step_outside_what_exists_is_refused),
                TEST(a_copied_block_reads_like_the_first),
                TEST(what_the_mask_hides_adds_nothing),
                TEST(a_row_sees_from_lo_on),
                TEST(chunks_come_and_go_singly),
                TEST(kv_has_a_type_and_is_reserved_once),
                TEST(another_process_takes_over_what_was_computed),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
