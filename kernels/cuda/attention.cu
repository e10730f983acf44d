/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which kernels a step's attention is, and how its scratch is divided. Definition: attention.h.
 */
#include "attention-cluster.cuh"

#define SCRATCH_PARTS_MAX                                                                          \
        (48ULL << 20) /* bytes; with fewer parts runs are whole spans (untuned guess) */

static uint64_t smaller(uint64_t a, uint64_t b) {
        return a < b ? a : b;
}

static uint64_t larger(uint64_t a, uint64_t b) {
        return a > b ? a : b;
}

static uint64_t part_bytes(uint32_t head_dim_v) {
        return head_dim_v * sizeof(float) + sizeof(float2);
}

static uint64_t q_bytes(uint32_t n_rows, uint32_t n_heads, uint32_t head_dim_k) {
        return ((uint64_t) n_rows * n_heads * head_dim_k * 2 + 255) / 256 * 256;
}

uint64_t warm_cuda_attention_scratch_bytes(uint32_t n_heads, uint32_t n_kv_heads,
                                           uint32_t head_dim_k, uint32_t head_dim_v,
                                           uint32_t n_rows_max, uint32_t n_slots_max) {
        uint64_t pairs = smaller(n_rows_max, WARM_CUDA_NARROW) * n_heads;
        uint64_t by_chunks = pairs * (n_slots_max / WARM_CUDA_CHUNK + 2) * part_bytes(head_dim_v);
        uint64_t by_spans = pairs * (n_slots_max / WARM_CUDA_SPAN + 2) * part_bytes(head_dim_v);
        uint64_t narrow = larger(smaller(by_chunks, SCRATCH_PARTS_MAX), by_spans) +
                          q_bytes(WARM_CUDA_NARROW, n_heads, head_dim_k);
        uint64_t wide = 0;

        (void) n_kv_heads;
        if (n_rows_max > WARM_CUDA_NARROW)
                wide = q_bytes(n_rows_max, n_heads, head_dim_k) +
                       (uint64_t) n_rows_max * n_heads * 256 * sizeof(float);
        return larger(narrow, wide) + 4096;
}

struct device {
        bool asked, clusters;
        uint32_t n_processors;
};

/* Of the current device; asked once. */
static struct device device_has(void) {
        static struct device d;
        int device, n = 0, clusters = 0;

        if (d.asked)
                return d;
        if (cudaGetDevice(&device) == cudaSuccess) {
                (void) cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, device);
                (void) cudaDeviceGetAttribute(&clusters, cudaDevAttrClusterLaunch, device);
        }
        d = { true, clusters != 0, n > 0 ? (uint32_t) n : 132U };
        return d;
}

/* Room for parts in what is left of the scratch: marks, then sums. */
static void divide(struct warm_job *job, uint8_t *d_scratch, uint64_t bytes) {
        uint64_t n = smaller((bytes - 256) / part_bytes(job->a.head_dim_v), UINT32_MAX);

        job->d_marks = (float2 *) d_scratch;
        job->d_sums = (float *) (d_scratch + (n * sizeof(float2) + 255) / 256 * 256);
        job->n_parts = (uint32_t) n;
}

static bool clusters_allowed = true;

void warm_cuda_attention_clusters(bool allowed) {
        clusters_allowed = allowed;
}

/* How deep a step clusters are for. */
static void prepare_cluster(struct warm_job *job) {
        uint32_t n = (job->a.n_slots_max + WARM_CUDA_CHUNK - 1) / WARM_CUDA_CHUNK;

        job->clusters = clusters_allowed && device_has().clusters && job->n_tiles == 1 &&
                        n <= WARM_CLUSTER_BLOCKS;
}

static void prepare_narrow(struct warm_job *job) {
        const struct warm_cuda_attention *a = &job->a;
        uint32_t n_groups, n_pairs = a->n_unit_rows_max * job->ratio,
                           n_spans = (a->n_slots_max + WARM_CUDA_SPAN - 1) / WARM_CUDA_SPAN;
        uint64_t n_work, bytes = q_bytes(a->n_rows_max, a->n_heads, a->head_dim_k);

        job->d_q = (uint16_t *) a->d_scratch;
        divide(job, (uint8_t *) a->d_scratch + bytes, a->scratch_bytes - bytes);
        job->n_tiles = n_pairs <= 16 ? 1 : n_pairs <= 32 || warm_attention_dims(*a) == 256 ? 2 : 4;
        n_groups = (n_pairs + job->n_tiles * 16 - 1) / (job->n_tiles * 16);
        n_work = (uint64_t) a->n_units_max * a->n_kv_heads * n_groups *
                 (a->n_slots_max / WARM_CUDA_CHUNK + 1);
        job->n_runs = (uint32_t) smaller(2 * device_has().n_processors, n_work);
        job->n_blocks = a->n_units_max * a->n_kv_heads * n_groups;
        job->n_blocks = job->n_blocks > job->n_runs ? job->n_blocks : job->n_runs;
        prepare_cluster(job);
        job->n_threads = 32 * (uint32_t) smaller(n_spans, 16);
}

/* Blocks of a wide step whose warps have so many tiles. */
static uint64_t wide_blocks(const struct warm_job *job, uint32_t n_warp_tiles) {
        uint32_t pairs = WARM_WIDE_PAIRS * n_warp_tiles;

        return ((uint64_t) job->a.n_rows_max * job->ratio + pairs - 1) / pairs * job->a.n_kv_heads;
}

/*
 * A block that goes through all its spans is as slow as the longest row, and few of them leave a GPU idle; a block a
 * span costs the parts. Where parts pay, and two tiles a warp, is measured: 1.5B and 7B shapes on an H200, 2026-11.
 */
static void prepare_wide(struct warm_job *job) {
        const struct warm_cuda_attention *a = &job->a;
        uint64_t few = 4 * device_has().n_processors;
        uint64_t n_spans = (a->n_slots_max + WARM_CUDA_SPAN - 1) / WARM_CUDA_SPAN;
        uint64_t bytes = q_bytes(a->n_rows_max, a->n_heads, a->head_dim_k);
        bool parts;

        job->d_q = (uint16_t *) a->d_scratch;
        divide(job, (uint8_t *) a->d_scratch + bytes, a->scratch_bytes - bytes);
        parts = n_spans > 1 && a->n_rows_max * a->n_heads * n_spans <= job->n_parts;
        job->n_warp_tiles = warm_attention_warp_tiles(warm_attention_dims(*a));
        if (wide_blocks(job, 1) * (parts ? n_spans : 1) < 6 * device_has().n_processors)
                job->n_warp_tiles = 1;
        if (parts && wide_blocks(job, job->n_warp_tiles) < few)
                job->n_spans = (uint32_t) n_spans;
        else
                job->d_sums = (float *) ((uint8_t *) a->d_scratch + bytes);
}

static struct warm_job prepare(const struct warm_cuda_attention *a) {
        struct warm_job job = {};

        job.a = *a;
        job.ratio = a->n_heads / a->n_kv_heads;
        job.q_factor = a->soft_cap != 0 ? a->scale / a->soft_cap : a->scale * WARM_LOG2E;
        job.cap = a->soft_cap * WARM_LOG2E;
        if (a->n_rows_max <= WARM_CUDA_NARROW)
                prepare_narrow(&job);
        else
                prepare_wide(&job);
        return job;
}

static const struct warm_attention_launcher *launcher(const struct warm_cuda_attention *a) {
        return a->kv.type == WARM_TYPE_BF16 ? &warm_attention_bf16 : &warm_attention_f16;
}

int warm_cuda_attention_store(const struct warm_cuda_attention *a, cudaStream_t stream) {
        struct warm_job job = prepare(a);

        if (job.n_tiles == 1)
                return 0;
        return launcher(a)->store(job, stream);
}

int warm_cuda_attention_run(const struct warm_cuda_attention *a, cudaStream_t stream) {
        if (a->n_rows_max <= WARM_CUDA_NARROW)
                return launcher(a)->narrow(prepare(a), stream);
        return launcher(a)->wide(prepare(a), stream);
}
