/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CUDA backend's table of operations; the work is in load.c, kv.c, step.c, launch.c and measure.c.
 *
 * A step that ends writes its ticket into host memory. Waiting for it costs no core and little time: a timer becomes
 * readable shortly before the step should be done, by what its kind took last, and from then on polls look at the
 * ticket for SPIN_NS each.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "gpu.h"

#define SPIN_NS 60000U /* of a poll; untuned guess */
#define EARLY_NS                                                                                   \
        120000U /* the timer runs out this much before the step should end: a thread wakes up in 50 us */

static struct warm_cuda_backend *cuda(struct warm_backend *b) {
        return (struct warm_cuda_backend *) b; /* base is the first member */
}

static uint64_t now_ns(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t) t.tv_sec * 1000000000U + (uint64_t) t.tv_nsec;
}

int warm_cuda_lost(struct warm_cuda_backend *b, int error, const char *where) {
        if (error == 0)
                error = (int) cudaPeekAtLastError();
        if (!b->lost) {
                b->lost = error ? error : (int) cudaErrorUnknown;
                snprintf(b->fault, sizeof(b->fault), "%s in %s",
                         cudaGetErrorName((cudaError_t) b->lost), where);
        }
        return WARM_BACKEND_E_LOST;
}

static void *cuda_free(struct warm_backend *backend) {
        struct warm_cuda_backend *b = cuda(backend);

        warm_cuda_blocks_deinit(&b->blocks);
        if (b->done)
                (void) cudaFreeHost(b->done);
        if (b->stream)
                (void) cudaStreamDestroy(b->stream);
        if (b->timer_fd >= 0)
                close(b->timer_fd);
        free(b);
        return NULL;
}

static void cuda_info(struct warm_backend *backend, struct warm_backend_info *ret_info) {
        struct warm_cuda_backend *b = cuda(backend);
        size_t free_bytes = 0, total = 0;
        struct warm_backend_info info = {
                .name = "cuda",
                .numerics = WARM_CUDA_NUMERICS,
                .kv_layout = WARM_CUDA_KV_LAYOUT,
                .memory_total = b->device.memory_total,
                .scratch_bytes = b->scratch_bytes,
        };
        uint64_t used, own = b->held_bytes + b->context_bytes;

        if (!b->lost && cudaMemGetInfo(&free_bytes, &total) == cudaSuccess) {
                info.memory_total = total;
                info.memory_free = free_bytes;
        }
        used = info.memory_total - info.memory_free;
        info.memory_others = used > own ? used - own : 0;
        snprintf(info.description, sizeof(info.description), "%.60s (sm_%d, %u multiprocessors)",
                 b->device.name, b->device.capability, b->n_sms);
        *ret_info = info;
}

static int cuda_load(struct warm_backend *b, const struct warm_plan *plan,
                     struct warm_weights **ret_weights, char **ret_why) {
        return cuda(b)->lost ? WARM_BACKEND_E_LOST
                             : warm_cuda_load(cuda(b), plan, ret_weights, ret_why);
}

static void *cuda_weights_free(struct warm_backend *b, struct warm_weights *w) {
        return warm_cuda_weights_free(cuda(b), w);
}

static uint64_t cuda_weights_bytes(struct warm_backend *b, struct warm_weights *w) {
        (void) b;
        return w->weights_bytes;
}

static int cuda_kv_init(struct warm_backend *b, struct warm_weights *w,
                        const struct warm_kv_config *config, struct warm_kv_info *ret_info) {
        int r = warm_cuda_kv_setup(&w->kv, &cuda(b)->memory, cuda(b)->stream, config, w->n_groups,
                                   w->limits.block_values, ret_info);

        if (r == 0)
                w->limits.kv = &w->kv;
        return r;
}

static int cuda_kv_add(struct warm_backend *b, struct warm_weights *w, uint32_t group,
                       uint32_t chunk_index) {
        int r = warm_cuda_kv_chunk_add(&w->kv, group, chunk_index);

        if (r == 0)
                cuda(b)->held_bytes += w->kv.groups[group].range.chunk_bytes;
        return r;
}

static int cuda_kv_remove(struct warm_backend *b, struct warm_weights *w, uint32_t group,
                          uint32_t chunk_index) {
        int r = warm_cuda_kv_chunk_remove(&w->kv, group, chunk_index);

        if (r == 0)
                cuda(b)->held_bytes -= w->kv.groups[group].range.chunk_bytes;
        return r;
}

static void arm(struct warm_cuda_backend *b, uint64_t in_ns) {
        struct itimerspec t = { .it_value = { .tv_sec = (time_t) (in_ns / 1000000000U),
                                              .tv_nsec = (long) (in_ns % 1000000000U) } };

        if (in_ns == 0)
                t.it_value.tv_nsec = 1; /* 0 would disarm it */
        (void) timerfd_settime(b->timer_fd, 0, &t, NULL);
}

static int cuda_submit(struct warm_backend *backend, struct warm_weights *w,
                       const struct warm_step *step, uint64_t *ret_ticket) {
        struct warm_cuda_backend *b = cuda(backend);
        uint64_t begun = now_ns(), expected, now;
        int r;

        if (b->lost)
                return WARM_BACKEND_E_LOST;
        if (b->pending.weights)
                return -EINVAL; /* one step at a time: the contract's caller waits */
        r = warm_step_check(&w->limits, step);
        if (r < 0)
                return r;
        r = warm_cuda_step_submit(b, w, step, b->n_tickets + 1);
        if (r)
                return r;
        b->pending.submitted_ns = begun;
        b->pending.ticket = *ret_ticket = ++b->n_tickets;
        b->pending.weights = w;
        b->pending.step = step;
        expected = warm_cuda_expected_ns(b->pending.expected, b->pending.expected_rows);
        expected = expected > EARLY_NS ? expected - EARLY_NS : 0;
        b->pending.look_ns = begun + expected;
        now = now_ns();
        arm(b, now < b->pending.look_ns ? b->pending.look_ns - now : 0);
        return 0;
}

/* Results of a step that has ended. @param on_time its end was waited for, not found */
static void collect(struct warm_cuda_backend *b, bool on_time) {
        struct warm_cuda_pending *p = &b->pending;
        uint64_t took = now_ns() - p->submitted_ns;
        uint32_t n = 0;

        for (uint32_t i = 0; i < p->step->n_rows; i++) {
                const struct warm_row *row = &p->step->rows[i];
                const struct warm_cuda_answer *a = &p->weights->answers[n];

                if (row->want == 0)
                        continue;
                n++;
                if (row->want & WARM_WANT_TOKEN) {
                        row->result->token = a->token;
                        row->result->logprob = a->logprob;
                }
                if (row->want & WARM_WANT_LOGPROB)
                        row->result->scored_logprob = a->scored_logprob;
                if (row->want & WARM_WANT_TOP) {
                        row->result->n_top = a->n_top;
                        memcpy(row->result->top, a->top, a->n_top * sizeof(*a->top));
                }
        }
        warm_cuda_took(p->expected, p->expected_rows, took, on_time);
        *p = (struct warm_cuda_pending){};
}

static int cuda_poll(struct warm_backend *backend, uint64_t ticket) {
        struct warm_cuda_backend *b = cuda(backend);
        uint64_t ignored, now = now_ns(), until = now + SPIN_NS;
        bool on_time = false;
        cudaError_t e;

        if (b->lost)
                return WARM_BACKEND_E_LOST;
        if (!b->pending.weights || ticket < b->pending.ticket)
                return 0;
        (void) !read(b->timer_fd, &ignored, sizeof(ignored)); /* EAGAIN: it has not run out */
        do {
                if (__atomic_load_n(b->done, __ATOMIC_ACQUIRE) >= ticket) {
                        collect(b, on_time);
                        return 0;
                }
                if (now < b->pending.look_ns)
                        return WARM_BACKEND_E_PENDING; /* the timer says when to look again */
                on_time = true;
                now = now_ns();
        } while (now < until);
        e = cudaStreamQuery(b->stream);
        if (e != cudaSuccess && e != cudaErrorNotReady)
                return warm_cuda_lost(b, (int) e, "a step");
        arm(b, 0);
        return WARM_BACKEND_E_PENDING;
}

static int cuda_event_fd(struct warm_backend *b) {
        return cuda(b)->timer_fd;
}

static int cuda_sum_block(struct warm_backend *backend, struct warm_weights *w, uint32_t group,
                          uint32_t block, uint64_t *ret_sum) {
        struct warm_cuda_backend *b = cuda(backend);
        struct warm_cuda_kv kv;

        if (group >= w->n_groups || !w->kv.ready || !warm_cuda_kv_has(&w->kv, group, block))
                return -ENOENT;
        kv = warm_cuda_kv_get(&w->kv, group);
        return warm_cuda_blocks_sum(&b->blocks, &kv, &block, 1, ret_sum)
                       ? warm_cuda_lost(b, 0, "summing a block")
                       : 0;
}

static int cuda_export(struct warm_backend *b, struct warm_weights *w, int *fds, uint32_t n_fds_max,
                       uint32_t *ret_n_fds) {
        (void) cudaStreamSynchronize(cuda(b)->stream); /* what is exported is there */
        return warm_cuda_kv_export_fds(&w->kv, fds, n_fds_max, ret_n_fds);
}

static int cuda_import(struct warm_backend *b, struct warm_weights *w, const int *fds,
                       uint32_t n_fds) {
        (void) b;
        return warm_cuda_kv_import_fds(&w->kv, fds, n_fds);
}

static const char *cuda_fault(struct warm_backend *b) {
        return cuda(b)->lost ? cuda(b)->fault : NULL;
}

static int cuda_measure(struct warm_backend *b, double *ret_copy_bytes_per_s,
                        double *ret_flop_per_s) {
        return warm_cuda_measure(cuda(b), ret_copy_bytes_per_s, ret_flop_per_s);
}

static const struct warm_backend_ops cuda_ops = {
        .free = cuda_free,
        .info = cuda_info,
        .load = cuda_load,
        .weights_free = cuda_weights_free,
        .weights_bytes = cuda_weights_bytes,
        .kv_init = cuda_kv_init,
        .kv_add = cuda_kv_add,
        .kv_remove = cuda_kv_remove,
        .submit = cuda_submit,
        .poll = cuda_poll,
        .event_fd = cuda_event_fd,
        .sum_block = cuda_sum_block,
        .export_fds = cuda_export,
        .import_fds = cuda_import,
        .fault = cuda_fault,
        .measure = cuda_measure,
};

static int start(struct warm_cuda_backend *b) {
        size_t free_bytes = 0, total = 0;
        int r = warm_cuda_memory_init(&b->memory, b->device.index);

        if (r == 0 && b->device.free_known && cudaMemGetInfo(&free_bytes, &total) == cudaSuccess &&
            free_bytes < b->device.memory_free)
                b->context_bytes = b->device.memory_free - free_bytes;
        if (r == 0)
                r = warm_cuda_error(
                        (int) cudaStreamCreateWithFlags(&b->stream, cudaStreamNonBlocking));
        if (r == 0)
                r = warm_cuda_blocks_init(&b->blocks, b->stream);
        if (r == 0)
                r = warm_cuda_error((int) cudaHostAlloc((void **) &b->done, sizeof(*b->done),
                                                        cudaHostAllocMapped));
        if (r == 0) {
                *b->done = 0;
                r = warm_cuda_error(
                        (int) cudaHostGetDevicePointer((void **) &b->mapped_done, b->done, 0));
        }
        if (r == 0 &&
            (b->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)) < 0)
                r = -errno;
        return r;
}

int warm_cuda_backend_new(const struct warm_backend_config *config,
                          struct warm_backend **ret_backend, char **ret_why) {
        struct warm_cuda_backend *b = calloc(1, sizeof(*b));
        int r;

        if (!b)
                return -ENOMEM;
        b->base.ops = &cuda_ops;
        b->timer_fd = -1;
        b->load_progress = config->load_progress;
        b->load_userdata = config->load_userdata;
        r = warm_cuda_device_pick(config->device, config->needed_bytes, &b->device, ret_why);
        if (r) {
                cuda_free(&b->base);
                return r;
        }
        b->n_sms = b->device.n_sms;
        b->overlap = b->device.capability >= 90;
#ifdef WARM_CUDA_SM90A
        b->wgmma = b->device.capability == 90;
#endif
        r = start(b);
        if (r) {
                if (ret_why && r != -ENOMEM &&
                    asprintf(ret_why,
                             "%s (GPU %d) does not start: %s; use --device cpu, and see 'warmctl "
                             "doctor'",
                             b->device.name, b->device.index,
                             cudaGetErrorString(cudaPeekAtLastError())) < 0)
                        *ret_why = NULL;
                cuda_free(&b->base);
                return r == WARM_BACKEND_E_MEMORY || r == -ENOMEM ? r : -ENODEV;
        }
        *ret_backend = &b->base;
        return 0;
}
