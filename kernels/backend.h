/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The backend contract: everything above it is the same for every device.
 *
 * A backend turns a plan into weights of its own form, keeps KV memory in blocks that the caller numbers, and
 * computes steps. Only the backend sees addresses. All calls come from one thread, the engine's; nothing here
 * locks. A backend never logs and never exits.
 *
 * Numbers: a row's result is a function of its own inputs alone (its token, position, visible KV, sampling
 * parameters): never of what else is in the step, its place in it, or how a prompt was cut into steps.
 *
 * KV memory: per weights one address range is reserved for each group; memory comes in chunks of blocks, added and
 * released singly. Block b of a group lies in chunk b / blocks_per_chunk; no block crosses a border. A block is one
 * contiguous range, [layer of the group][K, V][kv_head] tiles of 32 tokens; the order inside a tile is the backend's.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "plan.h"
#include "quant.h"

#define WARM_STEP_ROWS_MAX      2048U /* rows a step may hold (untuned guess) */
#define WARM_STEP_SEQUENCES_MAX 64U
#define WARM_STEP_COPIES_MAX    256U
#define WARM_TOP_N_MAX          32U
#define WARM_KV_CHUNK_BYTES     (256ULL << 20) /* untuned guess; smaller pools use smaller chunks */
#define WARM_STATE_NONE         UINT32_MAX

struct warm_backend;
struct warm_weights;

enum {
        /* Expected outcomes (positive; the direct caller handles them). */
        WARM_BACKEND_E_PENDING = 1, /* poll: the step still runs */
        WARM_BACKEND_E_MEMORY,      /* no memory on the device for this */
        WARM_BACKEND_E_LOST,        /* the device or its context is gone: end the process */
};

/*
 * How far warm_backend_load() is, in bytes of weights in the backend's own form. done_bytes never falls, and is total_bytes
 * once. Thread: the one that loads, within the call; so it must be quick.
 */
typedef void (*warm_progress_fn)(void *userdata, uint64_t done_bytes, uint64_t total_bytes);

struct warm_backend_config {
        uint32_t
                n_threads; /* CPU: workers, the caller included; 0: one for each core this process may use */
        int device;                     /* CUDA: index; -1: the first with room */
        uint64_t needed_bytes;          /* CUDA: free memory that the device must have now */
        warm_progress_fn load_progress; /* or NULL */
        void *load_userdata;            /* borrowed, until the backend is freed */
};

struct warm_backend_info {
        const char *name;     /* "cpu", "cuda" */
        char description[96]; /* "AVX-512 VNNI, 2 threads" */
        uint32_t numerics;    /* changes when any result may change; goes into the fingerprint */
        uint32_t kv_layout;   /* changes when the order inside a tile does */
        uint64_t memory_total;
        uint64_t memory_free;
        uint64_t memory_others; /* of the device, held by other processes; 0: not told (the CPU) */
        uint64_t scratch_bytes; /* what the backend itself holds now, beside weights and KV */
};

struct warm_kv_config {
        enum warm_type type; /* F16, BF16, F32 */
        uint32_t n_blocks_max
                [WARM_PLAN_GROUPS_MAX]; /* address range to reserve, per group, in blocks */
};

struct warm_kv_info {
        uint64_t block_bytes[WARM_PLAN_GROUPS_MAX];
        uint32_t blocks_per_chunk[WARM_PLAN_GROUPS_MAX];
};

#define WARM_KV_CHUNKS_WANTED                                                                      \
        8U /* of a small pool, so that a part can be given back; untuned guess */

/* log2 of the blocks a chunk: the most within WARM_KV_CHUNK_BYTES that leave WARM_KV_CHUNKS_WANTED chunks. */
static inline uint32_t warm_kv_chunk_shift(uint64_t block_bytes, uint32_t n_blocks_max) {
        uint32_t shift = 0;

        while (shift < 30 && (block_bytes << (shift + 1)) <= WARM_KV_CHUNK_BYTES &&
               (uint64_t) WARM_KV_CHUNKS_WANTED << (shift + 1) <= n_blocks_max)
                shift++;
        return shift;
}

enum warm_row_kind {
        WARM_ROW_GIVEN,   /* a token of the prompt */
        WARM_ROW_SAMPLED, /* a token the model chose: decode kernels */
};

/* What a row gives back beside its KV. */
enum {
        WARM_WANT_TOKEN = 1 << 0,   /* sample the next token (sampling parameters apply) */
        WARM_WANT_TOP = 1 << 1,     /* the n_top most likely next tokens, raw log-probabilities */
        WARM_WANT_LOGPROB = 1 << 2, /* raw log-probability of the token `scored` as the next one */
        WARM_WANT_LOGITS = 1 << 3,  /* all raw logits (tests, tools): into result.logits */
};

/*
 * How the next token is chosen. The rule, the same on every device: raw logits l -> tokens not allowed drop out ->
 * temperature 0: the largest l, the lowest id among equals. Else sort by (l descending, id ascending); keep top_k;
 * softmax(l / temperature) in ascending rank; keep the shortest head whose mass >= top_p; drop p < min_p * p_max;
 * renormalise; take the first rank whose cumulative mass exceeds u, u = warm_uniform(seed, position of the token
 * to come). Defined in kernels/sample.h.
 */
struct warm_sampling {
        float temperature; /* >= 0; 0: greedy */
        float top_p;       /* (0, 1]; 1: off */
        float min_p;       /* [0, 1); 0: off */
        uint32_t top_k;    /* 0: off */
        uint64_t seed;
        const uint64_t *allowed; /* bitmap, one bit a token, [ceil(n_vocab / 64)], or NULL: all */
        const int32_t *banned;   /* [n_banned] ids never sampled; or NULL */
        uint32_t n_banned;
};

struct warm_row {
        int32_t token;     /* id */
        uint32_t position; /* for RoPE */
        uint32_t slot;     /* index of its KV in the sequence: block slot / 32, place slot % 32 */
        uint32_t lo, hi;   /* visible slots [lo, hi): hi <= slot + 1 when causal */
        uint64_t mask; /* over the last 64 visible slots (bit i: slot hi - 1 - i); all ones: all */
        uint16_t sequence; /* index into step.sequences */
        uint8_t kind;      /* enum warm_row_kind */
        uint8_t want;      /* WARM_WANT_* */
        uint32_t n_top;    /* <= WARM_TOP_N_MAX */
        int32_t scored;
        uint32_t adapter; /* 0: none */
        const struct warm_sampling
                *sampling; /* needed for WARM_WANT_TOKEN; borrowed until the step is done */
        struct warm_result *
                result; /* needed if want != 0; owned by the caller, written when the step is done */
};

struct warm_top {
        int32_t token;
        float logprob;
};

struct warm_result {
        int32_t token; /* the sampled next token; -1 if nothing was allowed */
        float logprob; /* of it, natural log, from the raw logits over the whole vocabulary */
        float scored_logprob;
        uint32_t n_top;
        struct warm_top top[WARM_TOP_N_MAX]; /* descending; lowest id first among equals */
        float *logits;                       /* [n_vocab], the caller's, for WARM_WANT_LOGITS */
};

struct warm_block_copy {
        uint32_t group;
        uint32_t source;
        uint32_t target;
};

/*
 * State groups have no slots: a block of theirs is one state, that of all their layers after so many tokens. A step
 * reads state_in, the state before the sequence's first row, and leaves the state after its last row in state_out.
 * The two may be one block. Where they are not, state_in stays as it is: so a snapshot costs a block and no copy.
 * Entries of other groups mean nothing.
 */
struct warm_step_sequence {
        const uint32_t
                *blocks[WARM_PLAN_GROUPS_MAX]; /* block table of each group; blocks[g][slot / 32] */
        uint32_t n_blocks;
        uint32_t state_in[WARM_PLAN_GROUPS_MAX];  /* block; WARM_STATE_NONE: zeros, before slot 0 */
        uint32_t state_out[WARM_PLAN_GROUPS_MAX]; /* block */
};

/*
 * One step of one model. Copies run first, in order, then all rows; rows of one sequence stand in ascending
 * slot order and see the KV of earlier rows of the same step. Borrowed whole until the step is done.
 */
struct warm_step {
        const struct warm_block_copy *copies;
        uint32_t n_copies;
        const struct warm_step_sequence *sequences;
        uint32_t n_sequences;
        const struct warm_row *rows;
        uint32_t n_rows; /* <= WARM_STEP_ROWS_MAX */
};

/* The contract as a table; callers use the inline functions below it. */
struct warm_backend_ops {
        void *(*free)(struct warm_backend *b);
        void (*info)(struct warm_backend *b, struct warm_backend_info *ret_info);
        int (*load)(struct warm_backend *b, const struct warm_plan *plan,
                    struct warm_weights **ret_weights, char **ret_why);
        void *(*weights_free)(struct warm_backend *b, struct warm_weights *w);
        uint64_t (*weights_bytes)(struct warm_backend *b, struct warm_weights *w);
        int (*kv_init)(struct warm_backend *b, struct warm_weights *w,
                       const struct warm_kv_config *config, struct warm_kv_info *ret_info);
        int (*kv_add)(struct warm_backend *b, struct warm_weights *w, uint32_t group,
                      uint32_t chunk_index);
        int (*kv_remove)(struct warm_backend *b, struct warm_weights *w, uint32_t group,
                         uint32_t chunk_index);
        int (*submit)(struct warm_backend *b, struct warm_weights *w, const struct warm_step *step,
                      uint64_t *ret_ticket);
        int (*poll)(struct warm_backend *b, uint64_t ticket);
        int (*event_fd)(struct warm_backend *b);
        int (*sum_block)(struct warm_backend *b, struct warm_weights *w, uint32_t group,
                         uint32_t block, uint64_t *ret_sum);
        int (*export_fds)(struct warm_backend *b, struct warm_weights *w, int *fds,
                          uint32_t n_fds_max, uint32_t *ret_n_fds);
        int (*import_fds)(struct warm_backend *b, struct warm_weights *w, const int *fds,
                          uint32_t n_fds);
        const char *(*fault)(struct warm_backend *b); /* may be NULL */
        int (*measure)(struct warm_backend *b, double *ret_copy_bytes_per_s,
                       double *ret_flop_per_s); /* may be NULL */
};

/* Embedded as the first member of each backend's own struct. */
struct warm_backend {
        const struct warm_backend_ops *ops;
};

/*
 * Make the CPU backend: complete, threaded, the oracle for every other.
 * Return: 0; -ENOMEM; -EAGAIN (threads).
 */
int warm_cpu_backend_new(const struct warm_backend_config *config,
                         struct warm_backend **ret_backend);

/*
 * Make the CUDA backend, on config->device or on the first GPU with config->needed_bytes free. Defined where
 * WARM_HAVE_CUDA is (build-config.h). Needs no driver to be called: where there is none it says so.
 *
 * @param ret_why on -ENODEV and WARM_BACKEND_E_MEMORY a malloc'd sentence that says what is in the way and what to do;
 *        may be NULL
 * Return: 0; -ENOMEM; -ENODEV: no GPU that can be used; WARM_BACKEND_E_MEMORY: one that could, with too little memory
 * free: it may be worth waiting.
 */
int warm_cuda_backend_new(const struct warm_backend_config *config,
                          struct warm_backend **ret_backend, char **ret_why);

/*
 * The most free memory that a GPU has which could be used, or that `device` (not -1) has; makes nothing of it.
 * Return: 0; -ENOMEM; -ENODEV with *ret_why as above.
 */
int warm_cuda_room(int device, uint64_t *ret_free_bytes, char **ret_why);

/* Free a backend; its weights must be freed before. Takes NULL, returns NULL. */
static inline struct warm_backend *warm_backend_free(struct warm_backend *b) {
        if (b)
                b->ops->free(b);
        return NULL;
}

static inline void warm_backend_info(struct warm_backend *b, struct warm_backend_info *ret_info) {
        b->ops->info(b, ret_info);
}

/*
 * Turn a plan into weights. The plan's tensors are read once and not needed afterwards.
 *
 * @param ret_why on -EOPNOTSUPP and -EINVAL a malloc'd sentence naming what is not supported; may be NULL
 * Return: 0; -ENOMEM; WARM_BACKEND_E_MEMORY; -EOPNOTSUPP: the plan asks for what is not built; -EINVAL: the plan is
 * not coherent (shapes).
 */
static inline int warm_backend_load(struct warm_backend *b, const struct warm_plan *plan,
                                    struct warm_weights **ret_weights, char **ret_why) {
        return b->ops->load(b, plan, ret_weights, ret_why);
}

/* Free weights with their KV memory. No step may be pending. Takes NULL, returns NULL. */
static inline struct warm_weights *warm_weights_free(struct warm_backend *b,
                                                     struct warm_weights *w) {
        if (w)
                b->ops->weights_free(b, w);
        return NULL;
}

static inline uint64_t warm_weights_bytes(struct warm_backend *b, struct warm_weights *w) {
        return b->ops->weights_bytes(b, w);
}

/*
 * Reserve KV address ranges, once per weights. blocks_per_chunk is a power of two.
 * Return: 0; -ENOMEM; -EINVAL: the type cannot hold KV; -EEXIST: done before.
 */
static inline int warm_kv_init(struct warm_backend *b, struct warm_weights *w,
                               const struct warm_kv_config *config, struct warm_kv_info *ret_info) {
        return b->ops->kv_init(b, w, config, ret_info);
}

/* Back chunk chunk_index of a group with memory (zeroed). Return: 0; WARM_BACKEND_E_MEMORY; -ERANGE; -EEXIST. */
static inline int warm_kv_add(struct warm_backend *b, struct warm_weights *w, uint32_t group,
                              uint32_t chunk_index) {
        return b->ops->kv_add(b, w, group, chunk_index);
}

/* Give a chunk's memory back; its blocks must not be used again. Return: 0; -ENOENT. */
static inline int warm_kv_remove(struct warm_backend *b, struct warm_weights *w, uint32_t group,
                                 uint32_t chunk_index) {
        return b->ops->kv_remove(b, w, group, chunk_index);
}

/*
 * Start a step. The CPU computes it in the calling thread (which is worker 0) and is done on return.
 * Return: 0 and *ret_ticket; -EINVAL: a row or copy outside what exists (nothing was computed);
 * WARM_BACKEND_E_LOST.
 */
static inline int warm_step_submit(struct warm_backend *b, struct warm_weights *w,
                                   const struct warm_step *step, uint64_t *ret_ticket) {
        return b->ops->submit(b, w, step, ret_ticket);
}

/* Return: 0: done, results are written; WARM_BACKEND_E_PENDING; WARM_BACKEND_E_LOST. */
static inline int warm_step_poll(struct warm_backend *b, uint64_t ticket) {
        return b->ops->poll(b, ticket);
}

/*
 * What happened to a backend that said WARM_BACKEND_E_LOST, for the journal: "CUDA_ERROR_ILLEGAL_ADDRESS in a step".
 * Borrowed until the backend is freed. Return: the words; NULL: it cannot tell.
 */
static inline const char *warm_backend_fault(struct warm_backend *b) {
        return b->ops->fault ? b->ops->fault(b) : NULL;
}

/*
 * Measure what the device can do at most, for floors to hold a step's time against; for about half a second all of the
 * device, and some hundred MiB of its memory (CUDA: half of what is free, 2 GiB at most). No step may be pending.
 *
 * @param ret_copy_bytes_per_s a copy inside the device's memory, bytes read and bytes written both counted: the
 *        yardstick for what only reads, which may be a little faster
 * @param ret_flop_per_s the fastest matrix product that the backend has; a multiply and an add are two operations
 *        Each is 0 where the backend cannot tell; both, where its `measure` is NULL.
 * Return: 0; -ENOMEM; WARM_BACKEND_E_MEMORY; WARM_BACKEND_E_LOST.
 */
static inline int warm_backend_measure(struct warm_backend *b, double *ret_copy_bytes_per_s,
                                       double *ret_flop_per_s) {
        if (b->ops->measure)
                return b->ops->measure(b, ret_copy_bytes_per_s, ret_flop_per_s);
        *ret_copy_bytes_per_s = *ret_flop_per_s = 0;
        return 0;
}

/*
 * A file descriptor that becomes readable when a step is done; borrowed, the backend reads it in warm_step_poll().
 * When the device is lost it may stay quiet: who waits looks with warm_step_poll() now and then all the same.
 * Return: the fd; -EOPNOTSUPP: a step is done when submit returns, there is nothing to wait for (the CPU).
 */
static inline int warm_backend_event_fd(struct warm_backend *b) {
        return b->ops->event_fd(b);
}

/*
 * Sum of a block's bytes: tells a block that is whole from one that is not, across processes with the same
 * kv_layout. Not cryptographic. No step that writes the block may be pending.
 *
 * Return: 0; -ENOENT: no memory behind the block.
 */
static inline int warm_block_sum(struct warm_backend *b, struct warm_weights *w, uint32_t group,
                                 uint32_t block, uint64_t *ret_sum) {
        return b->ops->sum_block(b, w, group, block, ret_sum);
}

/*
 * Handles of the KV memory that outlive the process: one for each chunk that could exist, groups in order, chunks
 * ascending within a group (ceil(n_blocks_max / blocks_per_chunk) each); -1 where no memory was added. The caller
 * owns the fds (CLOEXEC). On the CPU they are memfds sealed against any change of size.
 *
 * @param fds [n_fds_max]
 * Return: 0; -ENOSPC: n_fds_max is too small; -EMFILE, -ENFILE.
 */
static inline int warm_kv_export(struct warm_backend *b, struct warm_weights *w, int *fds,
                                 uint32_t n_fds_max, uint32_t *ret_n_fds) {
        return b->ops->export_fds(b, w, fds, n_fds_max, ret_n_fds);
}

/*
 * Take over chunks that another process exported, with the same plan and the same KV configuration: they stand in
 * the place of warm_kv_add(). What the blocks hold is for the caller to prove (warm_block_sum). On an error nothing
 * was taken.
 *
 * @param fds as exported, -1: leave that chunk alone; borrowed, the caller closes them
 * Return: 0; -EINVAL: not as many chunks as this configuration has, or a file that is not such a chunk;
 * -EEXIST: memory is there already; WARM_BACKEND_E_MEMORY; -EMFILE, -ENFILE.
 */
static inline int warm_kv_import(struct warm_backend *b, struct warm_weights *w, const int *fds,
                                 uint32_t n_fds) {
        return b->ops->import_fds(b, w, fds, n_fds);
}
