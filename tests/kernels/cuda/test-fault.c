/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CUDA backend on a GPU that fails (inject.h). A device that is lost or broken: a code and words, no result of the
 * step, nothing more is computed. A kernel that hangs: the backend stays pending, and its caller is not kept. No memory:
 * a code, and the backend goes on.
 *
 * A case has a process of its own, for a broken context lasts as long as its process. It ends as the daemon would, and
 * must be gone within a second, whatever the device is doing.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../runner.h"
#include "inject.h"
#include "skip.h"

#define NARROW     3U /* rows of a step */
#define WIDE       200U
#define CASE_S     120U   /* a case takes longer: it hangs where it must not */
#define STEP_MS    10000U /* a step that is not done by then never will be */
#define HANG_MS    1500U
#define PROMPT_MS  100U /* what the backend may keep its caller for */
#define GONE_MS    1000U
#define SWEEP_MOST 200U /* allocations a call makes at most */

static bool failed; /* the case that runs */

#define CHECK(condition)                                                                           \
        do {                                                                                       \
                if (!(condition)) {                                                                \
                        printf("# %s:%d: %s\n", __func__, __LINE__, #condition);                   \
                        failed = true;                                                             \
                }                                                                                  \
        } while (0)

static uint64_t now_ms(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t) t.tv_sec * 1000 + (uint64_t) t.tv_nsec / 1000000;
}

/* A prompt from slot 0 on, of which the last row wants something: the same every time. */
struct prompt {
        struct warm_row rows[WIDE];
        struct warm_sampling sampling;
        struct warm_result result, untouched;
        struct warm_step step;
};

static void prompt_init(struct prompt *p, const struct runner *r, uint32_t n_rows) {
        struct warm_row *last = &p->rows[n_rows - 1];

        memset(p, 0, sizeof(*p));
        memset(&p->untouched, 0x5a, sizeof(p->untouched));
        p->result = p->untouched;
        p->sampling.top_p = 1;
        for (uint32_t i = 0; i < n_rows; i++)
                p->rows[i] = runner_row((int32_t) (i * 7 % r->n_vocab), i);
        last->want = WARM_WANT_TOKEN | WARM_WANT_TOP;
        last->n_top = 3;
        last->sampling = &p->sampling;
        last->result = &p->result;
        p->step = (struct warm_step){
                .sequences = &r->sequence, .n_sequences = 1, .rows = p->rows, .n_rows = n_rows
        };
}

static bool results_are_same(const struct warm_result *a, const struct warm_result *b) {
        return memcmp(a, b, sizeof(*a)) == 0;
}

static int wait_for(struct runner *r, uint64_t ticket, uint32_t limit_ms) {
        const uint64_t begin = now_ms();
        int e;

        while ((e = warm_step_poll(r->backend, ticket)) == WARM_BACKEND_E_PENDING &&
               now_ms() - begin < limit_ms) {
                struct pollfd fd = { .fd = warm_backend_event_fd(r->backend), .events = POLLIN };

                poll(&fd, 1, 100);
        }
        return e;
}

static int run(struct prompt *p, struct runner *r, uint32_t n_rows) {
        uint64_t ticket;
        int e;

        prompt_init(p, r, n_rows);
        e = warm_step_submit(r->backend, r->weights, &p->step, &ticket);
        return e ? e : wait_for(r, ticket, STEP_MS);
}

static bool runs_as(const struct warm_result *expected, struct runner *r, uint32_t n_rows) {
        static struct prompt p;

        return run(&p, r, n_rows) == 0 && results_are_same(&p.result, expected) &&
               !warm_backend_fault(r->backend);
}

/* A backend that has computed such a step: kernels are loaded, the graph is captured. */
static void setup(struct runner *r, struct tiny **ret_tiny, uint32_t n_rows,
                  struct warm_result *ret_expected) {
        static struct prompt p;

        *ret_tiny = tiny_new(&tiny_shapes[0], 21);
        runner_init_on(r, gpu_or_skip(), &(*ret_tiny)->plan, WARM_TYPE_F16, 0);
        CHECK(run(&p, r, n_rows) == 0);
        CHECK(p.result.token >= 0 && p.result.n_top == 3);
        *ret_expected = p.result;
        CHECK(runs_as(ret_expected, r, n_rows));
}

/* Everything of a lost backend refuses, in the same words. */
static void check_lost(struct runner *r, const struct tiny *t, uint32_t n_rows) {
        const char *words = warm_backend_fault(r->backend);
        static struct prompt late;
        struct warm_weights *w = NULL;
        struct warm_backend_info info;
        double copy = -1, flop = -1;
        char first[200];

        CHECK(words && strncmp(words, "cudaError", 9) == 0 && strstr(words, " in "));
        snprintf(first, sizeof(first), "%s", words ? words : "");
        printf("# the backend says: %s\n", first);
        for (int i = 0; i < 3; i++) {
                CHECK(run(&late, r, n_rows) == WARM_BACKEND_E_LOST);
                CHECK(results_are_same(&late.result, &late.untouched));
        }
        CHECK(warm_backend_load(r->backend, &t->plan, &w, NULL) == WARM_BACKEND_E_LOST && !w);
        CHECK(warm_backend_measure(r->backend, &copy, &flop) == WARM_BACKEND_E_LOST);
        CHECK(copy == -1 && flop == -1);
        warm_backend_info(r->backend, &info);
        CHECK(words && strcmp(warm_backend_fault(r->backend), first) == 0);
}

static void lose(enum inject_kind kind, uint32_t n_rows) {
        static struct prompt p;
        struct warm_result expected;
        uint64_t ticket = UINT64_MAX;
        struct tiny *t;
        struct runner r;
        int e;

        setup(&r, &t, n_rows, &expected);
        inject(kind, 2);
        CHECK(runs_as(&expected, &r, n_rows));
        CHECK(runs_as(&expected, &r, n_rows));
        CHECK(!inject_happened());
        prompt_init(&p, &r, n_rows);
        e = warm_step_submit(r.backend, r.weights, &p.step, &ticket);
        CHECK(kind == INJECT_TRAP || e == (kind == INJECT_LOST_IN_POLL ? 0 : WARM_BACKEND_E_LOST));
        CHECK((ticket == UINT64_MAX) == (e != 0));
        e = e ? e : wait_for(&r, ticket, STEP_MS);
        CHECK(e == WARM_BACKEND_E_LOST && inject_happened());
        CHECK(warm_step_poll(r.backend, ticket) == WARM_BACKEND_E_LOST);
        CHECK(results_are_same(&p.result, &p.untouched));
        check_lost(&r, t, n_rows);
        CHECK(results_are_same(&p.result, &p.untouched));
        if (n_rows == WIDE) /* the other way to end: with all that it holds, as the daemon does */
                return;
        runner_deinit(&r);
        tiny_free(t);
}

/* A step that never ends keeps nobody. @param ret_ticket of the step */
static void hang(struct runner *r, struct prompt *p, uint32_t n_rows, uint64_t *ret_ticket) {
        static struct prompt late;
        uint64_t begin = now_ms(), longest = 0, ticket = 0;
        uint32_t n_polls = 0;

        inject(INJECT_HANG, 0);
        prompt_init(p, r, n_rows);
        prompt_init(&late, r, n_rows);
        CHECK(warm_step_submit(r->backend, r->weights, &p->step, ret_ticket) == 0);
        CHECK(inject_happened() && now_ms() - begin < PROMPT_MS);
        for (begin = now_ms(); now_ms() - begin < HANG_MS; n_polls++) {
                struct pollfd fd = { .fd = warm_backend_event_fd(r->backend), .events = POLLIN };
                uint64_t at;

                poll(&fd, 1, 50);
                at = now_ms();
                if (warm_step_poll(r->backend, *ret_ticket) != WARM_BACKEND_E_PENDING)
                        break;
                longest = now_ms() - at > longest ? now_ms() - at : longest;
        }
        CHECK(now_ms() - begin >= HANG_MS);
        CHECK(longest < PROMPT_MS);
        printf("# %u polls in %u ms, the longest %u ms\n", n_polls, HANG_MS, (unsigned) longest);
        CHECK(warm_step_submit(r->backend, r->weights, &late.step, &ticket) == -EINVAL);
        CHECK(!warm_backend_fault(r->backend));
        CHECK(results_are_same(&p->result, &p->untouched));
        CHECK(results_are_same(&late.result, &late.untouched));
}

static void hang_and_go_on(enum inject_kind kind, uint32_t n_rows) {
        static struct prompt p;
        struct warm_result expected;
        uint64_t ticket = 0;
        struct tiny *t;
        struct runner r;

        (void) kind;
        setup(&r, &t, n_rows, &expected);
        hang(&r, &p, n_rows, &ticket);
        inject_release();
        CHECK(wait_for(&r, ticket, STEP_MS) == 0);
        CHECK(results_are_same(&p.result, &expected));
        CHECK(runs_as(&expected, &r, n_rows));
        runner_deinit(&r);
        tiny_free(t);
}

static void hang_and_leave(enum inject_kind kind, uint32_t n_rows) {
        static struct prompt p;
        struct warm_result expected;
        uint64_t ticket = 0;
        struct tiny *t;
        struct runner r;

        (void) kind;
        setup(&r, &t, n_rows, &expected);
        hang(&r, &p, n_rows, &ticket);
}

/* A call that is repeated with its n-th allocation failing, n = 1, 2, ... until it goes well. */
#define SWEEP(n_failed, result, call, check_failure)                                               \
        for ((n_failed) = 0; (n_failed) < SWEEP_MOST; (n_failed)++) {                              \
                inject(INJECT_MEMORY, (n_failed));                                                 \
                (result) = (call);                                                                 \
                inject(INJECT_NONE, 0);                                                            \
                if ((result) == 0)                                                                 \
                        break;                                                                     \
                CHECK((result) == WARM_BACKEND_E_MEMORY || (result) == -ENOMEM);                   \
                check_failure;                                                                     \
        }                                                                                          \
        CHECK((result) == 0)

static struct warm_backend *start_short_of_memory(void) {
        struct warm_backend_config config = { .device = -1 };
        struct warm_backend *b = NULL;
        char *why = NULL;
        uint32_t n;
        int e;

        SWEEP(n, e, warm_cuda_backend_new(&config, &b, &why), {
                CHECK(!b && (e == -ENOMEM || why));
                free(why);
                why = NULL;
        });
        printf("# %u allocations at the start\n", n);
        CHECK(n >= 3);
        return b;
}

static void load_short_of_memory(struct warm_backend *b, const struct tiny *t) {
        struct warm_backend_info before, after;
        struct warm_weights *w = NULL;
        uint32_t n;
        int e;

        warm_backend_info(b, &before);
        SWEEP(n, e, warm_backend_load(b, &t->plan, &w, NULL), {
                warm_backend_info(b, &after);
                CHECK(!w && before.scratch_bytes == after.scratch_bytes);
        });
        printf("# %u allocations of a load\n", n);
        CHECK(n >= 6); /* weights, scratch, three buffers, the loader's threads */
        warm_weights_free(b, w);
        warm_backend_info(b, &after);
        CHECK(before.scratch_bytes == after.scratch_bytes);
}

static void measure_short_of_memory(struct warm_backend *b) {
        double copy = -1, flop = -1;
        uint32_t n;
        int e;

        SWEEP(n, e, warm_backend_measure(b, &copy, &flop), CHECK(copy == -1 && flop == -1));
        printf("# %u allocations of a measurement\n", n);
        CHECK(n >= 2 && copy > 0 && flop > 0);
}

static void be_short_of_memory(enum inject_kind kind, uint32_t n_rows) {
        struct tiny *t = tiny_new(&tiny_shapes[0], 21);
        struct warm_backend_info before, after;
        static struct prompt p;
        struct warm_backend *b;
        struct runner r;
        uint32_t chunk;

        (void) kind;
        warm_backend_free(gpu_or_skip()); /* or there is none */
        b = start_short_of_memory();
        if (!b)
                return;
        load_short_of_memory(b, t);
        runner_init_on(&r, b, &t->plan, WARM_TYPE_F16, 0);
        CHECK(run(&p, &r, n_rows) == 0);
        chunk = (RUNNER_BLOCKS - 1) / r.info.blocks_per_chunk[0];
        CHECK(chunk > 0 && warm_kv_remove(b, r.weights, 0, chunk) == 0);
        inject(INJECT_MEMORY, 0);
        CHECK(warm_kv_add(b, r.weights, 0, chunk) == WARM_BACKEND_E_MEMORY && inject_happened());
        inject(INJECT_MEMORY, 0);
        CHECK(runs_as(&p.result, &r, n_rows)); /* a step allocates nothing */
        CHECK(!inject_happened());
        inject(INJECT_NONE, 0);
        CHECK(warm_kv_add(b, r.weights, 0, chunk) == 0);
        measure_short_of_memory(b);
        warm_backend_info(b, &before);
        measure_short_of_memory(b);
        warm_backend_info(b, &after);
        CHECK(after.memory_free + (64ULL << 20) > before.memory_free);
        CHECK(runs_as(&p.result, &r, n_rows));
        runner_deinit(&r);
        tiny_free(t);
}

static const struct {
        const char *sentence;
        void (*test)(enum inject_kind kind, uint32_t n_rows);
        enum inject_kind kind;
        uint32_t n_rows;
} cases[] = {
        { "without memory a call fails whole, and the backend goes on", be_short_of_memory,
          INJECT_MEMORY, NARROW },
        { "a kernel that traps in a narrow step breaks the backend", lose, INJECT_TRAP, NARROW },
        { "a kernel that traps in a wide step breaks the backend", lose, INJECT_TRAP, WIDE },
        { "a device lost before a narrow step is told", lose, INJECT_LOST_IN_SUBMIT, NARROW },
        { "a device lost before a wide step is told", lose, INJECT_LOST_IN_SUBMIT, WIDE },
        { "a device lost in a narrow step is told", lose, INJECT_LOST_IN_POLL, NARROW },
        { "a device lost in a wide step is told", lose, INJECT_LOST_IN_POLL, WIDE },
        { "a narrow step that hangs keeps nobody, and one that goes on is whole", hang_and_go_on,
          INJECT_HANG, NARROW },
        { "a wide step that hangs keeps nobody, and one that goes on is whole", hang_and_go_on,
          INJECT_HANG, WIDE },
        { "a process leaves a kernel that hangs", hang_and_leave, INJECT_HANG, NARROW },
};

#define N_CASES (sizeof(cases) / sizeof(*cases))

/* In the case's process. @param fd is told when it leaves */
static void run_case(uint32_t index, int fd) {
        uint64_t now;

        alarm(CASE_S);
        cases[index].test(cases[index].kind, cases[index].n_rows);
        fflush(stdout);
        now = now_ms();
        if (write(fd, &now, sizeof(now)) != sizeof(now))
                _exit(2);
        _exit(failed);
}

/* Return: 0; 1: it failed; 77: there is no GPU. */
static int start_case(uint32_t index) {
        uint64_t left = 0, now;
        char number[16], fd[16];
        int fds[2], status;
        pid_t pid;

        if (pipe(fds))
                return 1;
        pid = fork();
        if (pid == 0) {
                snprintf(number, sizeof(number), "%u", index);
                snprintf(fd, sizeof(fd), "%d", fds[1]);
                execl("/proc/self/exe", "test-fault", number, fd, (char *) NULL);
                _exit(2);
        }
        close(fds[1]);
        if (pid < 0 || waitpid(pid, &status, 0) != pid)
                return 1;
        now = now_ms();
        if (read(fds[0], &left, sizeof(left)) != sizeof(left))
                left = 0;
        close(fds[0]);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
                return 77;
        if (WIFSIGNALED(status))
                printf("# ended by signal %d\n", WTERMSIG(status));
        printf("# gone %u ms after it left\n", left ? (unsigned) (now - left) : 0);
        return left == 0 || now - left >= GONE_MS || !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

/* test-fault [CASE FD] */
int main(int argc, char **argv) {
        int failures = 0;

        if (argc == 3 && (uint32_t) atoi(argv[1]) < N_CASES)
                run_case((uint32_t) atoi(argv[1]), atoi(argv[2]));
        for (uint32_t i = 0; i < N_CASES; i++) {
                int e;

                fflush(stdout);
                e = start_case(i);
                if (e == 77)
                        return 77;
                printf("%s - %s\n", e ? "not ok" : "ok", cases[i].sentence);
                failures += e != 0;
        }
        return failures != 0;
}
