/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What test-attention.cu stands on: device memory, sequences with random q, K and V (a world), and steps over them on
 * the GPU (a runner). One test includes it.
 */
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/attention.h"

#define CHECK(x)                                                                                   \
        do {                                                                                       \
                int r_ = (int) (x);                                                                \
                if (r_) {                                                                          \
                        printf("not ok - %s: %s (line %d)\n", #x,                                  \
                               cudaGetErrorString((cudaError_t) r_), __LINE__);                    \
                        exit(1);                                                                   \
                }                                                                                  \
        } while (0)

static std::mt19937_64 dice;
static int n_failed;

static float normal() {
        return std::normal_distribution<float>()(dice);
}

static uint32_t below(uint32_t n) {
        return (uint32_t) (dice() % n);
}

static void report(bool ok, const char *what) {
        printf("%s - %s\n", ok ? "ok" : "not ok", what);
        fflush(stdout);
        n_failed += !ok;
}

/* Device memory that lives as long as the object. */
template <typename T> struct memory {
        T *d = NULL;
        size_t n;

        explicit memory(size_t count) : n(count ? count : 1) {
                CHECK(cudaMalloc(&d, n * sizeof(T)));
        }
        explicit memory(const std::vector<T> &v) : memory(v.size()) { put(v); }
        memory(const memory &) = delete;
        ~memory() { cudaFree(d); }
        void put(const std::vector<T> &v) {
                CHECK(cudaMemcpy(d, v.data(), v.size() * sizeof(T), cudaMemcpyHostToDevice));
        }
        std::vector<T> get() const {
                std::vector<T> v(n);

                CHECK(cudaMemcpy(v.data(), d, n * sizeof(T), cudaMemcpyDeviceToHost));
                return v;
        }
};

struct shape {
        const char *name;
        uint32_t n_heads, n_kv_heads, dim_k, dim_v;
        enum warm_type type;
        uint32_t n_pairs;
        bool halves, norms;
        uint32_t window; /* 0: all */
        float soft_cap;
        float sharp; /* scale = sharp / sqrt(dim_k) */
};

enum sight { CAUSAL, HOLES, BOTH_WAYS };

/* Sequences of rows; row i of a sequence has slot i. The first n_stored ones are put in memory by the host. */
struct sequence {
        uint32_t n, n_stored;
        std::vector<float> qkv;                 /* [n - n_stored][ld] */
        std::vector<struct warm_cuda_row> rows; /* [n] */
        std::vector<uint32_t> blocks;
};

struct piece {
        uint32_t sequence, first, n;
};

static float scale_of(const struct shape &s) {
        return s.sharp / sqrtf((float) s.dim_k);
}

static uint32_t width_of(const struct shape &s) {
        return (s.n_heads + s.n_kv_heads) * s.dim_k + s.n_kv_heads * s.dim_v;
}

static uint16_t round_to(enum warm_type type, float x) {
        float most = type == WARM_TYPE_F16 ? 65504.0F : 0x1.FEp+127F;

        x = std::isfinite(x) ? x : 0;
        x = fmaxf(fminf(x, most), -most);
        if (type == WARM_TYPE_F16) {
                __half h = __float2half_rn(x);
                uint16_t bits;

                memcpy(&bits, &h, 2);
                return bits;
        }
        uint32_t u;

        memcpy(&u, &x, 4);
        return (uint16_t) ((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static float value_of(enum warm_type type, uint16_t bits) {
        if (type == WARM_TYPE_F16) {
                __half_raw h;

                h.x = bits;
                return __half2float(h);
        }
        uint32_t u = (uint32_t) bits << 16;
        float x;

        memcpy(&x, &u, 4);
        return x;
}

/* Everything a shape needs on the device, and its truth on the host. */
struct world {
        struct shape s;
        std::vector<struct sequence> sequences;
        std::vector<float> q_norm, k_norm;
        uint64_t k_offset, v_offset, block_bytes;
        uint32_t n_blocks, table_ld, n_slots, blocks_per_chunk = 4;
        std::vector<uint8_t> stored; /* KV memory before anything ran */

        world(const struct shape &shape, const std::vector<std::pair<uint32_t, uint32_t>> &lengths,
              enum sight sight);
        uint8_t *place(uint8_t *base, uint32_t seq, uint32_t slot, uint32_t kv_head, bool v) const;
        void see(struct sequence &q, enum sight sight);
        std::vector<float> turns(uint32_t position) const;
};

static const uint32_t LAYER_GAP = 96; /* bytes before and between tiles: other layers */

uint8_t *world::place(uint8_t *base, uint32_t seq, uint32_t slot, uint32_t kv_head, bool v) const {
        uint32_t dim = v ? s.dim_v : s.dim_k;

        return base + sequences[seq].blocks[slot / 32] * block_bytes + (v ? v_offset : k_offset) +
               (uint64_t) (kv_head * 32 + slot % 32) * dim * 2;
}

void world::see(struct sequence &q, enum sight sight) {
        for (uint32_t i = 0; i < q.n; i++) {
                struct warm_cuda_row &r = q.rows[i];

                r.slot = r.position = i;
                r.lo = 0;
                r.hi = i + 1;
                r.mask = UINT64_MAX;
                if (sight == BOTH_WAYS)
                        r.hi = q.n;
                if (sight == HOLES && below(3) == 0)
                        r.lo = below(i + 1);
                if (sight == HOLES && below(2) == 0)
                        r.mask = dice() | (below(4) ? 1 : 0);
                if (sight == HOLES && below(16) == 0)
                        r.mask = 0;
                if (sight == HOLES && below(16) == 0)
                        r.hi = below(i + 1);
        }
}

world::world(const struct shape &shape, const std::vector<std::pair<uint32_t, uint32_t>> &lengths,
             enum sight sight)
    : s(shape) {
        std::vector<uint32_t> order;
        uint32_t at = 0;

        n_slots = 0;
        n_blocks = 3;
        for (auto &l : lengths) {
                n_slots = std::max(n_slots, l.second);
                n_blocks += (l.second + 31) / 32;
        }
        n_blocks = (n_blocks + blocks_per_chunk - 1) / blocks_per_chunk * blocks_per_chunk;
        table_ld = (n_slots + 31) / 32;
        k_offset = LAYER_GAP;
        v_offset = (k_offset + (uint64_t) s.n_kv_heads * 32 * s.dim_k * 2 + LAYER_GAP) / 16 * 16;
        block_bytes = v_offset + (uint64_t) s.n_kv_heads * 32 * s.dim_v * 2;
        stored.assign(n_blocks * block_bytes, 0xff);
        for (uint32_t b = 0; b < n_blocks; b++)
                order.push_back(b);
        std::shuffle(order.begin(), order.end(), dice);
        for (uint32_t d = 0; s.norms && d < s.dim_k; d++) {
                q_norm.push_back(1 + 0.2f * normal());
                k_norm.push_back(1 + 0.2f * normal());
        }
        for (auto &l : lengths) {
                struct sequence q = {};

                q.n_stored = l.first;
                q.n = l.second;
                q.rows.resize(q.n);
                see(q, sight);
                for (uint32_t i = 0; i < (q.n + 31) / 32; i++)
                        q.blocks.push_back(order[at++]);
                for (size_t i = 0; i < (size_t) (q.n - q.n_stored) * width_of(s); i++)
                        q.qkv.push_back(normal());
                sequences.push_back(q);
                for (uint32_t i = 0; i < q.n_stored; i++)
                        for (uint32_t h = 0; h < s.n_kv_heads; h++)
                                for (int v = 0; v < 2; v++) {
                                        uint16_t *to = (uint16_t *) place(
                                                stored.data(), (uint32_t) sequences.size() - 1, i,
                                                h, v);

                                        for (uint32_t d = 0; d < (v ? s.dim_v : s.dim_k); d++)
                                                to[d] = round_to(s.type, normal());
                                }
        }
}

std::vector<float> world::turns(uint32_t position) const {
        std::vector<float> t;

        for (uint32_t i = 0; i < s.n_pairs; i++) {
                double a = position * pow(10000.0, -(double) i / s.n_pairs);

                t.push_back((float) cos(a));
                t.push_back((float) sin(a));
        }
        return t;
}

/* A head in float, as the definition says, but for the order of the norm's sum. */
static std::vector<float> head_of(const struct world &w, const float *x,
                                  const std::vector<float> &norm, const std::vector<float> &t) {
        std::vector<float> y(x, x + w.s.dim_k);
        uint32_t n = w.s.n_pairs;
        double sum = 0;

        for (float v : y)
                sum += (double) v * v;
        for (uint32_t d = 0; w.s.norms && d < w.s.dim_k; d++)
                y[d] = (float) (y[d] * (float) (1 / sqrt(sum / w.s.dim_k + 1e-6))) * norm[d];
        for (uint32_t i = 0; i < n; i++) {
                float &p = y[w.s.halves ? i : 2 * i], &q = y[w.s.halves ? i + n : 2 * i + 1], a = p,
                      b = q;
                volatile float ac = a * t[2 * i], bs = b * t[2 * i + 1], as = a * t[2 * i + 1],
                               bc = b * t[2 * i];

                p = ac - bs;
                q = as + bc;
        }
        return y;
}

/* Outputs as [row][column]. */
static __global__ void gather(struct warm_cuda_acts acts, uint32_t n_columns, uint16_t *d_rows) {
        for (uint32_t c = threadIdx.x; c < n_columns; c += blockDim.x)
                d_rows[blockIdx.x * n_columns + c] =
                        acts.d_values[warm_cuda_act_index(acts, blockIdx.x, c)];
}

/* A world's memory on the device, and steps over it. */
struct runner {
        const struct world &w;
        memory<uint8_t> kv, scratch;
        memory<uint32_t> tables;
        memory<float> q_norm, k_norm;
        cudaStream_t stream;
        std::vector<std::vector<uint16_t>> out; /* [sequence][row][n_heads * dim_v], f16 */

        runner(const struct world &world, uint64_t scratch_bytes);
        ~runner() { cudaStreamDestroy(stream); }
        void step(const std::vector<struct piece> &pieces, uint32_t spare_rows);
        struct warm_cuda_attention layer() const;
};

static uint64_t scratch_for(const struct world &w) {
        return warm_cuda_attention_scratch_bytes(w.s.n_heads, w.s.n_kv_heads, w.s.dim_k, w.s.dim_v,
                                                 2048, w.n_slots);
}

runner::runner(const struct world &world, uint64_t scratch_bytes)
    : w(world), kv(world.stored), scratch(scratch_bytes),
      tables(world.sequences.size() * world.table_ld), q_norm(world.q_norm), k_norm(world.k_norm) {
        std::vector<uint32_t> t(world.sequences.size() * world.table_ld, 0xffffffffU);

        for (size_t i = 0; i < world.sequences.size(); i++)
                std::copy(world.sequences[i].blocks.begin(), world.sequences[i].blocks.end(),
                          t.begin() + i * world.table_ld);
        tables.put(t);
        CHECK(cudaMemset(scratch.d, 0xff, scratch.n));
        CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
        for (auto &q : world.sequences)
                out.push_back(std::vector<uint16_t>((size_t) q.n * world.s.n_heads * world.s.dim_v,
                                                    0x7e00));
}

/* What a step's layer has whatever its rows are. */
struct warm_cuda_attention runner::layer() const {
        const struct shape &s = w.s;
        struct warm_cuda_attention a = {};

        a.n_heads = s.n_heads;
        a.n_kv_heads = s.n_kv_heads;
        a.head_dim_k = s.dim_k;
        a.head_dim_v = s.dim_v;
        a.window = s.window ? s.window : UINT32_MAX;
        a.scale = scale_of(s);
        a.soft_cap = s.soft_cap;
        a.norm_epsilon = 1e-6f;
        a.n_pairs = s.n_pairs;
        a.halves = s.halves;
        a.d_q_norm = s.norms ? q_norm.d : NULL;
        a.d_k_norm = s.norms ? k_norm.d : NULL;
        a.kv.d_base = kv.d;
        a.kv.chunk_bytes = w.blocks_per_chunk * w.block_bytes;
        a.kv.block_bytes = w.block_bytes;
        a.kv.chunk_shift = 2;
        a.kv.type = s.type;
        a.kv.d_tables = tables.d;
        a.kv.table_ld = w.table_ld;
        a.k_offset = w.k_offset;
        a.v_offset = w.v_offset;
        a.d_scratch = scratch.d;
        a.scratch_bytes = scratch.n;
        a.overlap = true;
        return a;
}

/* The rows of some pieces, and how many more a graph would allow for. */
struct batch {
        uint32_t n, n_max, hi, unit_rows_max;
        std::vector<struct warm_cuda_row> rows;
        std::vector<struct warm_cuda_unit> units;
        std::vector<uint32_t> counts;
        std::vector<float> qkv, turns;

        batch(const struct world &w, const std::vector<struct piece> &pieces, uint32_t spare_rows,
              uint32_t ld);
};

batch::batch(const struct world &w, const std::vector<struct piece> &pieces, uint32_t spare_rows,
             uint32_t ld)
    : n(0), hi(0), unit_rows_max(0) {
        uint32_t width = width_of(w.s), unit_rows;

        for (auto &p : pieces)
                n += p.n;
        n_max = n <= 64 ? std::min(n + spare_rows, 64U) : n + spare_rows;
        unit_rows =
                n_max <= WARM_CUDA_NARROW ? WARM_CUDA_UNIT_ROWS_NARROW : WARM_CUDA_UNIT_ROWS_WIDE;
        for (auto &p : pieces) {
                const struct sequence &q = w.sequences[p.sequence];

                for (uint32_t i = 0; i < p.n; i++) {
                        struct warm_cuda_row r = q.rows[p.first + i];
                        std::vector<float> t = w.turns(r.position);
                        const float *x = &q.qkv[(size_t) (p.first + i - q.n_stored) * width];

                        if (i % unit_rows == 0)
                                units.push_back(
                                        { (uint32_t) rows.size(), std::min(unit_rows, p.n - i) });
                        r.sequence = p.sequence;
                        hi = std::max(std::max(hi, r.hi), r.slot + 1);
                        rows.push_back(r);
                        turns.insert(turns.end(), t.begin(), t.end());
                        qkv.insert(qkv.end(), x, x + width);
                        qkv.insert(qkv.end(), ld - width, NAN);
                }
        }
        counts = { n, (uint32_t) units.size() };
        for (auto &u : units)
                unit_rows_max = std::max(unit_rows_max, u.n_rows);
        rows.resize(n_max);
        units.resize(std::min<size_t>(units.size() + spare_rows, n_max));
        qkv.resize((size_t) n_max * ld);
        turns.resize((size_t) n_max * w.s.n_pairs * 2);
}

static uint32_t n8_of(uint32_t n_rows) {
        return n_rows <= 8                  ? 1U
               : n_rows <= 16               ? 2U
               : n_rows <= 32               ? 4U
               : n_rows <= WARM_CUDA_NARROW ? 8U
                                            : 0U;
}

void runner::step(const std::vector<struct piece> &pieces, uint32_t spare_rows) {
        uint32_t ld = (width_of(w.s) + 3) / 4 * 4 + 4, columns = w.s.n_heads * w.s.dim_v, r = 0;
        struct batch b(w, pieces, spare_rows, ld);
        memory<struct warm_cuda_row> d_rows(b.rows);
        memory<struct warm_cuda_unit> d_units(b.units);
        memory<uint32_t> d_counts(b.counts);
        memory<float> d_qkv(b.qkv), d_turns(b.turns);
        struct warm_cuda_acts acts = { NULL, n8_of(b.n_max), (columns + 63) / 64 * 64 };
        memory<uint16_t> d_out((size_t) (acts.n8 ? acts.n8 * 8 : (b.n_max + 127) / 128 * 128) *
                               acts.k_padded);
        memory<uint16_t> d_gathered((size_t) b.n * columns);
        struct warm_cuda_attention a = layer();

        CHECK(cudaMemset(d_out.d, 0xff, d_out.n * 2));
        acts.d_values = d_out.d;
        a.d_turns = d_turns.d;
        a.d_rows = d_rows.d;
        a.d_counts = d_counts.d;
        a.d_units = d_units.d;
        a.n_rows_max = b.n_max;
        a.n_units_max = (uint32_t) b.units.size();
        a.n_unit_rows_max = b.unit_rows_max;
        a.n_slots_max = spare_rows ? w.n_slots : b.hi;
        a.d_qkv = d_qkv.d;
        a.ld_qkv = ld;
        a.out = acts;
        CHECK(warm_cuda_attention_store(&a, stream));
        CHECK(warm_cuda_attention_run(&a, stream));
        gather<<<b.n, 256, 0, stream>>>(acts, columns, d_gathered.d);
        CHECK(cudaStreamSynchronize(stream));

        std::vector<uint16_t> values = d_gathered.get();

        for (auto &p : pieces)
                for (uint32_t i = 0; i < p.n; i++, r++)
                        std::copy(values.begin() + (size_t) r * columns,
                                  values.begin() + (size_t) (r + 1) * columns,
                                  out[p.sequence].begin() + (size_t) (p.first + i) * columns);
}
