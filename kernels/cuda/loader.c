/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/thread.h"
#include "loader.h"
#include "memory.h"

#define N_SLOTS        2U /* buffers a thread; three were no faster (H100) */
#define THREADS_WANTED 8U
#define HUGE_BYTES     (2ULL << 20)
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* linux/mman.h of Linux 5.14 */
#endif

struct job {
        const uint8_t *src;
        uint64_t row_bytes;
        uint64_t n_rows;
        uint64_t piece_rows;
        uint64_t next_row; /* the first that no thread took */
        warm_cuda_loader_fn consume;
        void *userdata;
};

/* A job's rows on one thread. */
struct piece {
        struct job job;
        uint64_t first_row;
        uint64_t n_rows;
};

/* Pinned memory with its like on the device; `done` is recorded behind the last use of both. */
struct slot {
        uint8_t *pinned; /* [piece_bytes], in the loader's */
        uint8_t *d_raw;  /* [piece_bytes], in the loader's */
        cudaStream_t stream;
        cudaEvent_t done;
        bool busy;
};

struct worker {
        struct warm_cuda_loader *loader;
        pthread_t thread;
        bool started;
        bool registered; /* its part of the pinned memory */
        struct slot slots[N_SLOTS];
};

struct warm_cuda_loader {
        int device;
        uint32_t n_workers;
        uint64_t piece_bytes; /* a multiple of HUGE_BYTES */
        uint8_t *mapping;     /* [mapping_bytes], holds the pinned memory at the next HUGE_BYTES */
        uint64_t mapping_bytes;
        uint8_t *d_raw;
        struct worker workers[WARM_CUDA_LOADER_THREADS_MAX];

        pthread_mutex_t consume_lock; /* held while consume() runs; no other is taken under it */
        pthread_mutex_t lock;         /* holds all below */
        pthread_cond_t work;          /* a job came, or the end */
        pthread_cond_t progress; /* a job is taken whole, a buffer is free, a thread is ready */
        struct job jobs[WARM_CUDA_LOADER_JOBS_MAX];
        uint64_t
                n_taken; /* jobs taken whole: the oldest is jobs[n_taken % WARM_CUDA_LOADER_JOBS_MAX] */
        uint64_t n_given;
        uint32_t n_open; /* pieces taken that are not done */
        uint32_t n_ready;
        bool stop;
        int result; /* the first error since the last finish() */
};

static uint8_t *page_floor(const uint8_t *at) {
        return (uint8_t *) ((uintptr_t) at & ~((uintptr_t) sysconf(_SC_PAGESIZE) - 1));
}

/* Wait until a slot's last use is over. Return: pieces that came to an end by it. */
static uint32_t slot_settle(struct slot *slot, int *result) {
        int r;

        if (!slot->busy)
                return 0;
        slot->busy = false;
        r = warm_cuda_error((int) cudaEventSynchronize(slot->done));
        if (r && *result == 0)
                *result = r;
        return 1;
}

/*
 * Read a piece's pages and map them in one call each: it tells an unreadable page by a code, where the copy would
 * raise SIGBUS. Kernels without it, and memory that is no file, leave it to page faults.
 */
static int pages_read(const uint8_t *src, uint64_t bytes) {
        uint8_t *first = page_floor(src);
        uint64_t span = (uint64_t) (src + bytes - first);

        (void) madvise(first, span, MADV_WILLNEED);
        if (madvise(first, span, MADV_POPULATE_READ) < 0 && (errno == EFAULT || errno == EHWPOISON))
                return -EIO;
        return 0;
}

/* Fill a free slot and send it on its way. Busy from the first thing queued. */
static int piece_send(struct warm_cuda_loader *l, const struct piece *piece, struct slot *slot) {
        const uint8_t *src = piece->job.src + piece->first_row * piece->job.row_bytes;
        uint64_t bytes = piece->n_rows * piece->job.row_bytes;
        cudaError_t e;
        int r = pages_read(src, bytes);

        if (r)
                return r;
        memcpy(slot->pinned, src, bytes);
        e = cudaMemcpyAsync(slot->d_raw, slot->pinned, bytes, cudaMemcpyHostToDevice, slot->stream);
        if (e != cudaSuccess)
                return warm_cuda_error((int) e);
        pthread_mutex_lock(&l->consume_lock);
        r = piece->job.consume(piece->job.userdata, slot->d_raw, piece->first_row, piece->n_rows,
                               slot->stream);
        pthread_mutex_unlock(&l->consume_lock);
        e = cudaEventRecord(slot->done, slot->stream);
        if (e == cudaSuccess)
                slot->busy = true;
        else
                (void) cudaStreamSynchronize(slot->stream);
        return r ? r : warm_cuda_error((int) e);
}

/* Take the next piece. Called with the lock held. Return: false: there is none. */
static bool piece_take(struct warm_cuda_loader *l, struct piece *ret_piece) {
        struct job *job;
        uint64_t rest;

        if (l->result) /* the load has failed: drop what is left */
                l->n_taken = l->n_given;
        if (l->n_taken == l->n_given)
                return false;
        job = &l->jobs[l->n_taken % WARM_CUDA_LOADER_JOBS_MAX];
        rest = job->n_rows - job->next_row;
        *ret_piece = (struct piece){
                .job = *job,
                .first_row = job->next_row,
                .n_rows = rest < job->piece_rows ? rest : job->piece_rows,
        };
        job->next_row += ret_piece->n_rows;
        if (job->next_row == job->n_rows) {
                l->n_taken++;
                pthread_cond_broadcast(&l->progress);
        }
        l->n_open++;
        return true;
}

/* Say that pieces came to an end. Called with the lock held. */
static void pieces_end(struct warm_cuda_loader *l, uint32_t n, int result) {
        assert(n <= l->n_open);
        l->n_open -= n;
        if (result && l->result == 0)
                l->result = result;
        pthread_cond_broadcast(&l->progress);
}

/* Pin this thread's buffers, after their pages are there: pages come side by side on all threads. */
static int worker_setup(struct worker *w) {
        uint64_t bytes = N_SLOTS * w->loader->piece_bytes;
        cudaError_t e = cudaSetDevice(w->loader->device);

        if (e != cudaSuccess)
                return warm_cuda_error((int) e);
        memset(w->slots[0].pinned, 0, bytes);
        e = cudaHostRegister(w->slots[0].pinned, bytes, cudaHostRegisterDefault);
        if (e == cudaErrorMemoryAllocation)
                return -ENOMEM;
        w->registered = e == cudaSuccess;
        for (uint32_t i = 0; i < N_SLOTS && e == cudaSuccess; i++) {
                e = cudaStreamCreateWithFlags(&w->slots[i].stream, cudaStreamNonBlocking);
                if (e == cudaSuccess)
                        e = cudaEventCreateWithFlags(
                                &w->slots[i].done, cudaEventDisableTiming | cudaEventBlockingSync);
        }
        return warm_cuda_error((int) e);
}

static bool worker_is_busy(const struct worker *w) {
        for (uint32_t i = 0; i < N_SLOTS; i++)
                if (w->slots[i].busy)
                        return true;
        return false;
}

static void *worker_main(void *arg) {
        struct worker *w = arg;
        struct warm_cuda_loader *l = w->loader;
        int r = worker_setup(w);

        pthread_mutex_lock(&l->lock);
        l->n_ready++;
        pieces_end(l, 0, r);
        for (uint32_t i = 0;; i = (i + 1) % N_SLOTS) {
                struct slot *slot = &w->slots[i];
                uint32_t n_done = 0;
                struct piece piece;
                bool taken;

                while (!(taken = piece_take(l, &piece)) && !l->stop && !worker_is_busy(w))
                        pthread_cond_wait(&l->work, &l->lock);
                if (!taken && l->stop && !worker_is_busy(w))
                        break;
                pthread_mutex_unlock(&l->lock);
                r = 0;
                n_done += slot_settle(slot, &r);
                if (taken && r == 0)
                        r = piece_send(l, &piece, slot);
                if (taken && !slot->busy)
                        n_done++;
                pthread_mutex_lock(&l->lock);
                pieces_end(l, n_done, r);
        }
        pthread_mutex_unlock(&l->lock);
        return NULL;
}

/* Start the threads, and wait until each has its buffers. */
static int workers_start(struct warm_cuda_loader *l) {
        uint8_t *pinned = (uint8_t *) (((uintptr_t) l->mapping + HUGE_BYTES - 1) &
                                       ~(uintptr_t) (HUGE_BYTES - 1));
        uint32_t n_started = 0;
        int r = 0;

        for (uint32_t i = 0; i < l->n_workers && r == 0; i++) {
                struct worker *w = &l->workers[i];

                w->loader = l;
                for (uint32_t k = 0; k < N_SLOTS; k++) {
                        uint64_t at = (i * N_SLOTS + k) * l->piece_bytes;

                        w->slots[k].pinned = pinned + at;
                        w->slots[k].d_raw = l->d_raw + at;
                }
                r = warm_thread_start(&w->thread, worker_main, w);
                w->started = r == 0;
                n_started += w->started;
        }
        pthread_mutex_lock(&l->lock);
        while (l->n_ready < n_started)
                pthread_cond_wait(&l->progress, &l->lock);
        if (r == 0)
                r = l->result;
        pthread_mutex_unlock(&l->lock);
        return r;
}

static int buffers_new(struct warm_cuda_loader *l) {
        uint64_t bytes = (uint64_t) l->n_workers * N_SLOTS * l->piece_bytes;
        void *at = mmap(NULL, bytes + HUGE_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (at == MAP_FAILED)
                return -ENOMEM;
        l->mapping = at;
        l->mapping_bytes = bytes + HUGE_BYTES;
        (void) madvise(l->mapping, l->mapping_bytes, MADV_HUGEPAGE);
        return warm_cuda_error((int) cudaMalloc((void **) &l->d_raw, bytes));
}

int warm_cuda_loader_new(const struct warm_cuda_loader_config *config,
                         struct warm_cuda_loader **ret_loader) {
        uint64_t piece_bytes =
                config->piece_bytes ? config->piece_bytes : WARM_CUDA_LOADER_PIECE_BYTES;
        struct warm_cuda_loader *l;
        int r;

        if (config->n_threads > WARM_CUDA_LOADER_THREADS_MAX)
                return -EINVAL;
        if (piece_bytes > (1ULL << 32)) /* far beyond use, and no product overflows */
                return -ENOMEM;
        l = calloc(1, sizeof(*l));
        if (!l)
                return -ENOMEM;
        l->device = config->device;
        l->piece_bytes = (piece_bytes + HUGE_BYTES - 1) & ~(HUGE_BYTES - 1);
        l->n_workers = config->n_threads;
        if (l->n_workers == 0)
                l->n_workers = warm_cores(THREADS_WANTED);
        pthread_mutex_init(&l->consume_lock, NULL);
        pthread_mutex_init(&l->lock, NULL);
        pthread_cond_init(&l->work, NULL);
        pthread_cond_init(&l->progress, NULL);
        r = buffers_new(l);
        if (r == 0)
                r = workers_start(l);
        if (r) {
                warm_cuda_loader_free(l);
                return r;
        }
        *ret_loader = l;
        return 0;
}

struct warm_cuda_loader *warm_cuda_loader_free(struct warm_cuda_loader *l) {
        if (!l)
                return NULL;
        pthread_mutex_lock(&l->lock);
        l->stop = true;
        pthread_cond_broadcast(&l->work);
        pthread_mutex_unlock(&l->lock);
        for (uint32_t i = 0; i < l->n_workers; i++) {
                struct worker *w = &l->workers[i];

                if (w->started)
                        pthread_join(w->thread, NULL);
                for (uint32_t k = 0; k < N_SLOTS; k++) {
                        if (w->slots[k].done)
                                (void) cudaEventDestroy(w->slots[k].done);
                        if (w->slots[k].stream)
                                (void) cudaStreamDestroy(w->slots[k].stream);
                }
                if (w->registered)
                        (void) cudaHostUnregister(w->slots[0].pinned);
        }
        (void) cudaFree(l->d_raw);
        if (l->mapping)
                munmap(l->mapping, l->mapping_bytes);
        pthread_cond_destroy(&l->progress);
        pthread_cond_destroy(&l->work);
        pthread_mutex_destroy(&l->lock);
        pthread_mutex_destroy(&l->consume_lock);
        free(l);
        return NULL;
}

int warm_cuda_loader_rows(struct warm_cuda_loader *l, const void *src, uint64_t row_bytes,
                          uint64_t n_rows, uint32_t rows_step, warm_cuda_loader_fn consume,
                          void *userdata) {
        uint64_t step_bytes, bytes;
        int r;

        if (row_bytes == 0 || n_rows == 0 || rows_step == 0 ||
            __builtin_mul_overflow(row_bytes, n_rows, &bytes) || bytes > INT64_MAX)
                return -EINVAL;
        /* a tensor of fewer rows than a step is one piece */
        if (__builtin_mul_overflow(row_bytes, n_rows < rows_step ? n_rows : rows_step,
                                   &step_bytes) ||
            step_bytes > l->piece_bytes)
                return -EMSGSIZE;
        pthread_mutex_lock(&l->lock);
        while (l->result == 0 && l->n_given - l->n_taken == WARM_CUDA_LOADER_JOBS_MAX)
                pthread_cond_wait(&l->progress, &l->lock);
        r = l->result;
        if (r == 0) {
                uint64_t steps = l->piece_bytes / row_bytes / rows_step;

                l->jobs[l->n_given++ % WARM_CUDA_LOADER_JOBS_MAX] = (struct job){
                        .src = src,
                        .row_bytes = row_bytes,
                        .n_rows = n_rows,
                        .piece_rows = steps ? steps * rows_step : n_rows,
                        .consume = consume,
                        .userdata = userdata,
                };
                pthread_cond_broadcast(&l->work);
        }
        pthread_mutex_unlock(&l->lock);
        return r;
}

int warm_cuda_loader_finish(struct warm_cuda_loader *l) {
        int r;

        pthread_mutex_lock(&l->lock);
        if (l->result) /* nobody may be awake to drop them */
                l->n_taken = l->n_given;
        while (l->n_open > 0 || l->n_taken != l->n_given) {
                pthread_cond_wait(&l->progress, &l->lock);
                if (l->result)
                        l->n_taken = l->n_given;
        }
        r = l->result;
        l->result = 0;
        pthread_mutex_unlock(&l->lock);
        return r;
}
