/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention on the GPU against a reference in double, and against itself bit for bit.
 *
 * The reference reads K and V back as the GPU stored them (they are checked on their own: V exactly, K to one step of
 * its type), makes q in float and rounds it as the definition says, and does the rest in double.
 *
 * Tolerance. u is half a step of the KV type at 1: 2^-11 or 2^-8.
 * - A score (natural logarithm) differs by d <= |scale| * (2^-20 * sum |q k| + 2 * 2u * max |q k|): f32 sums of up to
 *   256 products (256 * 2^-24 * 2^-4: the bound for errors that do not all have one sign, times 4), and two dimensions
 *   of q that fell to the other side of a rounding, since head norms add in another order. A soft cap shrinks it, and
 *   adds cap * 2^-20 of its own.
 * - A weight relative to its sum: twice d, twice u (its own rounding, and that of the sum), 2^-19 for exp2 and the
 *   merges' products. In f16 weights below 2^-14 lose up to 2^-25 each, 64 a chunk: 2^-19 of the largest |v|.
 * - So the output differs by (2d + 2u + 2^-19) * sum w |v| + 2^-19 max |v|, and by its own rounding: 2^-11 of it, and
 *   2^-25 / WARM_CUDA_ACT_SCALE.
 */
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "bench.cuh"
#include "fixture.cuh"
#include "kernels/cuda/attention.h"

static std::mt19937_64 dice;

static float normal() {
        return std::normal_distribution<float>()(dice);
}

static uint32_t below(uint32_t n) {
        return (uint32_t) (dice() % n);
}

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
        std::vector<float> qkv = {};                 /* [n - n_stored][ld] */
        std::vector<struct warm_cuda_row> rows = {}; /* [n] */
        std::vector<uint32_t> blocks = {};
};

struct lengths {
        uint32_t n_stored, n;
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
        return type == WARM_TYPE_F16 ? __half_as_ushort(__float2half_rn(x))
                                     : __bfloat16_as_ushort(__float2bfloat16_rn(x));
}

static float value_of(enum warm_type type, uint16_t bits) {
        return type == WARM_TYPE_F16 ? __half2float(__ushort_as_half(bits))
                                     : __bfloat162float(__ushort_as_bfloat16(bits));
}

/* What a row sees: all before it; with holes of every kind; or all of its sequence. */
static struct warm_cuda_row row_of(uint32_t i, uint32_t n, enum sight sight) {
        struct warm_cuda_row r = { UINT64_MAX, 0, i, i, 0, sight == BOTH_WAYS ? n : i + 1, 0 };

        if (sight != HOLES)
                return r;
        r.lo = below(3) ? 0 : below(i + 1);
        r.hi = below(16) ? i + 1 : below(i + 1);
        r.mask = below(2) ? UINT64_MAX : below(8) ? dice() | (below(4) ? 1 : 0) : 0;
        return r;
}

/* Everything a shape needs on the device, and its truth on the host. */
struct world {
        struct shape s;
        std::vector<struct sequence> sequences;
        std::vector<float> q_norm, k_norm;
        uint64_t k_offset, v_offset, block_bytes;
        uint32_t n_blocks = 3, table_ld, n_slots = 0, blocks_per_chunk = 4;
        std::vector<uint8_t> stored; /* KV memory before anything ran */

        world(const struct shape &shape, const std::vector<struct lengths> &all, enum sight sight);

        uint16_t *place(const std::vector<uint8_t> &kv, uint32_t seq, uint32_t slot, uint32_t head,
                        bool v) const {
                return (uint16_t *) (kv.data() + sequences[seq].blocks[slot / 32] * block_bytes +
                                     (v ? v_offset : k_offset) +
                                     (uint64_t) (head * 32 + slot % 32) * (v ? s.dim_v : s.dim_k) *
                                             2);
        }
};

world::world(const struct shape &shape, const std::vector<struct lengths> &all, enum sight sight)
    : s(shape) {
        std::vector<uint32_t> order;
        uint32_t at = 0;

        for (auto &l : all) {
                n_slots = std::max(n_slots, l.n);
                n_blocks += (l.n + 31) / 32;
        }
        n_blocks = (n_blocks + blocks_per_chunk - 1) / blocks_per_chunk * blocks_per_chunk;
        table_ld = (n_slots + 31) / 32;
        k_offset = 96; /* before and between the tiles: other layers */
        v_offset = (k_offset + (uint64_t) s.n_kv_heads * 32 * s.dim_k * 2 + 96) / 16 * 16;
        block_bytes = v_offset + (uint64_t) s.n_kv_heads * 32 * s.dim_v * 2;
        stored.assign(n_blocks * block_bytes, 0xff);
        for (uint32_t b = 0; b < n_blocks; b++)
                order.push_back(b);
        std::shuffle(order.begin(), order.end(), dice);
        for (uint32_t i = 0; s.norms && i < 2 * s.dim_k; i++)
                (i % 2 ? q_norm : k_norm).push_back(1 + 0.2f * normal());
        for (auto &l : all) {
                uint32_t seq = (uint32_t) sequences.size(), n_blocks = (l.n + 31) / 32;

                sequences.push_back({ l.n, l.n_stored });
                struct sequence &q = sequences.back();

                q.blocks.assign(order.begin() + at, order.begin() + at + n_blocks);
                q.qkv.resize((size_t) (q.n - q.n_stored) * width_of(s));
                std::generate(q.qkv.begin(), q.qkv.end(), normal);
                at += n_blocks;
                for (uint32_t i = 0; i < q.n; i++)
                        q.rows.push_back(row_of(i, q.n, sight));
                for (uint32_t i = 0; i < q.n_stored * s.n_kv_heads * 2; i++) {
                        uint16_t *to = place(stored, seq, i / 2 / s.n_kv_heads,
                                             i / 2 % s.n_kv_heads, i % 2);

                        std::generate_n(to, i % 2 ? s.dim_v : s.dim_k,
                                        [&] { return round_to(s.type, normal()); });
                }
        }
}

static std::vector<float> turns_of(const struct shape &s, uint32_t position) {
        std::vector<float> t;

        for (uint32_t i = 0; i < s.n_pairs; i++) {
                double a = position * pow(10000.0, -(double) i / s.n_pairs);

                t.insert(t.end(), { (float) cos(a), (float) sin(a) });
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

/* The rows of a step, on the host. */
struct input {
        uint32_t ld, n_pairs, n_columns, unit_rows, hi = 0;
        std::vector<struct warm_cuda_row> rows = {};
        std::vector<struct warm_cuda_unit> units = {};
        std::vector<float> qkv = {}, turns = {};

        /* @param first of its sequence in this step */
        void add(const struct warm_cuda_row &row, bool first, const float *x, uint32_t width,
                 const std::vector<float> &t) {
                if (first || units.back().n_rows == unit_rows)
                        units.push_back({ (uint32_t) rows.size(), 0 });
                units.back().n_rows++;
                hi = std::max(std::max(hi, row.hi), row.slot + 1);
                rows.push_back(row);
                turns.insert(turns.end(), t.begin(), t.end());
                qkv.insert(qkv.end(), x, x + width);
                qkv.insert(qkv.end(), ld - width, NAN);
        }
};

static struct warm_cuda_acts acts_for(uint32_t n, uint32_t n_columns) {
        uint32_t n8 = 1;

        while (n8 * 8 < n)
                n8 *= 2;
        return { NULL, n <= WARM_CUDA_NARROW ? n8 : 0, (n_columns + 63) / 64 * 64 };
}

/* And on the device, for a launch that is good for n_rows and n_units; a is described but for the layer and KV. */
struct device_input {
        memory<struct warm_cuda_row> rows;
        memory<struct warm_cuda_unit> units;
        memory<uint32_t> counts;
        memory<float> qkv, turns;
        memory<uint16_t> out;
        struct warm_cuda_attention a = {};

        device_input(const struct input &in, uint32_t n_rows, uint32_t n_units)
            : rows(n_rows), units(n_units), counts(2), qkv((size_t) n_rows * in.ld),
              turns((size_t) n_rows * in.n_pairs * 2),
              out((size_t) (n_rows + 127) / 128 * 128 * acts_for(n_rows, in.n_columns).k_padded) {
                /* What lies behind the step's rows and units is anything. */
                CHECK(cudaMemset(rows.d, 0xff, rows.n * sizeof(struct warm_cuda_row)));
                CHECK(cudaMemset(units.d, 0xff, units.n * sizeof(struct warm_cuda_unit)));
                rows.put(in.rows);
                units.put(in.units);
                counts.put({ (uint32_t) in.rows.size(), (uint32_t) in.units.size() });
                qkv.put(in.qkv);
                turns.put(in.turns);
                CHECK(cudaMemset(out.d, 0xff, out.n * 2));
                a.d_turns = turns.d;
                a.d_rows = rows.d;
                a.d_counts = counts.d;
                a.d_units = units.d;
                a.n_rows_max = n_rows;
                a.n_units_max = n_units;
                for (auto &u : in.units)
                        a.n_unit_rows_max = std::max(a.n_unit_rows_max, u.n_rows);
                a.n_slots_max = in.hi;
                a.d_qkv = qkv.d;
                a.ld_qkv = in.ld;
                a.out = acts_for(n_rows, in.n_columns);
                a.out.d_values = out.d;
                a.overlap = true;
        }
};

/* A world's memory on the device, and steps over it. */
struct runner {
        const struct world &w;
        memory<uint8_t> kv, scratch;
        memory<uint32_t> tables;
        memory<float> q_norm, k_norm;
        cudaStream_t stream;
        std::vector<std::vector<uint16_t>> out; /* [sequence][row][n_heads * dim_v], f16 */

        runner(const struct world &world, uint64_t scratch_bytes)
            : w(world), kv(w.stored), scratch(scratch_bytes),
              tables(w.sequences.size() * w.table_ld), q_norm(w.q_norm), k_norm(w.k_norm) {
                std::vector<uint32_t> t;

                for (auto &q : w.sequences) {
                        t.insert(t.end(), q.blocks.begin(), q.blocks.end());
                        t.resize(t.size() + w.table_ld - q.blocks.size(), 0xffffffffU);
                        out.push_back(std::vector<uint16_t>((size_t) q.n * w.s.n_heads * w.s.dim_v,
                                                            0x7e00));
                }
                tables.put(t);
                CHECK(cudaMemset(scratch.d, 0xff, scratch.n));
                CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
        }
        ~runner() { cudaStreamDestroy(stream); }
        void step(const std::vector<struct piece> &pieces, uint32_t spare_rows);
};

static uint64_t scratch_for(const struct world &w) {
        return warm_cuda_attention_scratch_bytes(w.s.n_heads, w.s.n_kv_heads, w.s.dim_k, w.s.dim_v,
                                                 2048, w.n_slots);
}

static bool clusters_differ; /* a step without them had other bits */

static std::vector<uint16_t> attend(const struct warm_cuda_attention &a, uint32_t n,
                                    memory<uint16_t> &d_gathered, cudaStream_t stream) {
        CHECK(cudaDeviceSynchronize()); /* fills and copies may be on their way yet, on no stream of ours */
        CHECK(warm_cuda_attention_store(&a, stream));
        CHECK(warm_cuda_attention_run(&a, stream));
        gather<<<n, 256, 0, stream>>>(a.out, a.n_heads * a.head_dim_v, d_gathered.d);
        CHECK(cudaStreamSynchronize(stream));
        return d_gathered.get();
}

void runner::step(const std::vector<struct piece> &pieces, uint32_t spare_rows) {
        const struct shape &s = w.s;
        uint32_t width = width_of(s), columns = s.n_heads * s.dim_v, n = 0, r = 0;

        for (auto &p : pieces)
                n += p.n;
        uint32_t n_max = n <= 64 ? std::min(n + spare_rows, 64U) : n + spare_rows;

        struct input in = { (width + 3) / 4 * 4 + 4, s.n_pairs, columns,
                            n_max <= WARM_CUDA_NARROW ? WARM_CUDA_UNIT_ROWS_NARROW
                                                      : WARM_CUDA_UNIT_ROWS_WIDE };

        for (auto &p : pieces)
                for (uint32_t i = p.first; i < p.first + p.n; i++) {
                        const struct sequence &q = w.sequences[p.sequence];
                        struct warm_cuda_row row = q.rows[i];

                        row.sequence = p.sequence;
                        in.add(row, i == p.first, &q.qkv[(size_t) (i - q.n_stored) * width], width,
                               turns_of(w.s, row.position));
                }
        device_input d(in, n_max, std::min((uint32_t) in.units.size() + spare_rows, n_max));
        struct warm_cuda_attention &a = d.a;
        memory<uint16_t> d_gathered((size_t) n * columns);

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
        a.kv = { kv.d,      w.blocks_per_chunk * w.block_bytes, w.block_bytes, 2, s.type, tables.d,
                 w.table_ld };
        a.k_offset = w.k_offset;
        a.v_offset = w.v_offset;
        a.d_scratch = scratch.d;
        a.scratch_bytes = scratch.n;
        a.n_slots_max = spare_rows ? w.n_slots : a.n_slots_max;
        std::vector<uint16_t> values = attend(a, n, d_gathered, stream);

        if (n_max <= WARM_CUDA_NARROW) {
                warm_cuda_attention_clusters(false);
                clusters_differ |= attend(a, n, d_gathered, stream) != values;
                warm_cuda_attention_clusters(true);
        }

        for (auto &p : pieces)
                for (uint32_t i = 0; i < p.n; i++, r++)
                        std::copy_n(values.begin() + (size_t) r * columns, columns,
                                    out[p.sequence].begin() + (size_t) (p.first + i) * columns);
}

static bool visible(const struct world &w, const struct warm_cuda_row &r, uint32_t slot) {
        uint32_t behind = w.s.window && r.slot >= w.s.window ? r.slot - w.s.window + 1 : 0;

        if (slot < std::max(r.lo, behind) || slot >= r.hi)
                return false;
        return r.hi - 1 - slot >= 64 || (r.mask >> (r.hi - 1 - slot) & 1);
}

/* Scores of a head (q times factor, rounded), -infinity where not visible; by how much the GPU's may differ. */
static std::vector<double> scores_of(const struct world &w, const std::vector<uint8_t> &kv,
                                     uint32_t seq, uint32_t row, uint32_t kv_head,
                                     const std::vector<float> &head, float factor,
                                     double *ret_off) {
        const struct shape &s = w.s;
        double u = s.type == WARM_TYPE_F16 ? 0x1p-11 : 0x1p-8, scale = scale_of(s), off = 0;
        std::vector<double> scores(w.sequences[seq].n, -INFINITY);

        for (uint32_t slot = 0; slot < scores.size(); slot++) {
                const uint16_t *k = w.place(kv, seq, slot, kv_head, false);
                double score = 0, all = 0, most = 0;

                if (!visible(w, w.sequences[seq].rows[row], slot))
                        continue;
                for (uint32_t i = 0; i < s.dim_k; i++) {
                        double p = (double) head[i] / factor * value_of(s.type, k[i]);

                        score += p;
                        all += fabs(p);
                        most = std::max(most, fabs(p));
                }
                off = std::max(off, fabs(scale) * (0x1p-20 * all + 4 * u * most));
                scores[slot] = s.soft_cap != 0 ? s.soft_cap * tanh(score * scale / s.soft_cap)
                                               : score * scale;
        }
        *ret_off = off + s.soft_cap * 0x1p-20;
        return scores;
}

/* The largest error of a row, as a part of its tolerance. */
static double check_row(const struct world &w, const std::vector<uint8_t> &kv, uint32_t seq,
                        uint32_t row, const std::vector<std::vector<uint16_t>> &out) {
        const struct shape &s = w.s;
        const struct sequence &q = w.sequences[seq];
        const float *x = &q.qkv[(size_t) (row - q.n_stored) * width_of(s)];
        double u = s.type == WARM_TYPE_F16 ? 0x1p-11 : 0x1p-8, unit = WARM_CUDA_ACT_SCALE,
               worst = 0;
        float factor = s.soft_cap != 0 ? scale_of(s) / s.soft_cap : scale_of(s) * 1.44269504f;

        for (uint32_t h = 0; h < s.n_heads; h++) {
                std::vector<float> head =
                        head_of(w, x + h * s.dim_k, w.q_norm, turns_of(w.s, q.rows[row].position));
                std::vector<double> sum(s.dim_v), size(s.dim_v), most_v(s.dim_v);
                uint32_t kv_head = h / (s.n_heads / s.n_kv_heads);
                double d, mass = 0;

                for (float &v : head)
                        v = value_of(s.type, round_to(s.type, v * factor));
                std::vector<double> scores = scores_of(w, kv, seq, row, kv_head, head, factor, &d);
                double max = *std::max_element(scores.begin(), scores.end());

                for (uint32_t slot = 0; slot < q.n; slot++) {
                        const uint16_t *v = w.place(kv, seq, slot, kv_head, true);
                        double p = exp(scores[slot] - max);

                        if (!(scores[slot] > -INFINITY))
                                continue;
                        mass += p;
                        for (uint32_t i = 0; i < s.dim_v; i++) {
                                double value = value_of(s.type, v[i]);

                                sum[i] += p * value;
                                size[i] += p * fabs(value);
                                most_v[i] = std::max(most_v[i], fabs(value));
                        }
                }
                for (uint32_t i = 0; i < s.dim_v; i++) {
                        uint16_t bits = out[seq][((size_t) row * s.n_heads + h) * s.dim_v + i];
                        double want = mass > 0 ? sum[i] / mass : 0,
                               all = mass > 0 ? size[i] / mass : 0;
                        double bound = (2 * d + 2 * u + 0x1p-19) * all + 0x1p-19 * most_v[i] +
                                       0x1p-11 * fabs(want) + 0x1p-25 / unit;
                        double off = fabs(value_of(WARM_TYPE_F16, bits) / unit - want) / bound;

                        worst = off <= worst ? worst : std::isnan(off) ? INFINITY : off;
                }
        }
        return worst;
}

/*
 * K of a stored row to one step of its type, V exactly; nothing else was written. A norm adds in another order, so K's
 * difference of two products may be off by 2^-21 of them, which is more than a step where little is left.
 */
static bool check_store(const struct world &w, std::vector<uint8_t> kv) {
        const struct shape &s = w.s;
        bool ok = true;

        for (uint32_t seq = 0; seq < w.sequences.size(); seq++) {
                const struct sequence &q = w.sequences[seq];

                for (uint32_t i = q.n_stored * s.n_kv_heads; i < q.n * s.n_kv_heads; i++) {
                        uint32_t row = i / s.n_kv_heads, h = i % s.n_kv_heads;
                        const float *x = &q.qkv[(size_t) (row - q.n_stored) * width_of(s)] +
                                         s.n_heads * s.dim_k;
                        const float *from = x + s.n_kv_heads * s.dim_k + h * s.dim_v;
                        std::vector<float> head =
                                head_of(w, x + h * s.dim_k, w.k_norm, turns_of(s, row));
                        uint16_t *k = w.place(kv, seq, row, h, false),
                                 *v = w.place(kv, seq, row, h, true);
                        double slack = 0;

                        for (float y : head)
                                slack = std::max(slack, s.norms * 0x1p-21 * fabs(y));
                        for (uint32_t d = 0; d < s.dim_k; d++)
                                ok = ok && (abs(k[d] - round_to(s.type, head[d])) <= s.norms ||
                                            fabs(value_of(s.type, k[d]) - head[d]) <= slack);
                        for (uint32_t d = 0; d < s.dim_v; d++)
                                ok = ok && v[d] == round_to(s.type, from[d]);
                        std::fill_n(k, s.dim_k, 0xffff);
                        std::fill_n(v, s.dim_v, 0xffff);
                }
        }
        return ok && kv == w.stored;
}

/* All rows, cut at random into steps of pieces of several sequences. */
static void run_cut(struct runner &r, uint32_t piece_max, uint32_t step_max, uint32_t spare) {
        std::vector<uint32_t> next;
        std::vector<struct piece> pieces;

        for (auto &q : r.w.sequences)
                next.push_back(q.n_stored);
        do {
                uint32_t n = 0;

                pieces.clear();
                for (uint32_t i = 0; i < next.size(); i++) {
                        uint32_t left = std::min(r.w.sequences[i].n - next[i], step_max - n);
                        uint32_t take = std::min(left, 1 + below(piece_max));

                        if (take)
                                pieces.push_back({ i, next[i], take });
                        next[i] += take;
                        n += take;
                }
                if (n)
                        r.step(pieces, spare ? below(spare) : 0);
        } while (!pieces.empty());
}

/* How many values differ; the first of them is shown. */
static uint32_t n_different(const std::vector<std::vector<uint16_t>> &a,
                            const std::vector<std::vector<uint16_t>> &b) {
        uint32_t n = 0;

        for (uint32_t i = 0; i < a.size(); i++)
                for (uint32_t j = 0; j < a[i].size(); j++)
                        if (a[i][j] != b[i][j] && n++ == 0)
                                printf("# sequence %u, value %u: %04x, not %04x\n", i, j, a[i][j],
                                       b[i][j]);
        return n;
}

/* Other cuts of the same rows give the bits that one step gave. */
static void check_cuts(const struct world &w, const struct runner &whole,
                       const std::vector<uint8_t> &kv, uint32_t n) {
        static const struct {
                const char *name;
                uint32_t piece_max, step_max, spare;
                bool small;
        } cuts[] = {
                { "cut into tokens", 1, 1, 0, false },
                { "cut into narrow steps at random", 24, 64, 9, false },
                { "cut into steps at random", 150, 200, 5, false },
                { "cut into narrow steps with scratch for spans only", 20, 64, 3, true },
                { "cut into wide steps with little scratch", 400, 500, 0, true },
        };
        const struct shape &s = w.s;
        uint64_t narrow = (w.n_slots / WARM_CUDA_SPAN + 2) * (s.dim_v * 4 + 8) + s.dim_k * 2;
        uint64_t wide = s.dim_k * 2 + 1024;

        for (auto &cut : cuts) {
                uint64_t least = std::max(cut.step_max > 64 ? 500 * wide : 0, 64 * narrow);
                struct runner other(w, cut.small ? least * s.n_heads + 4096 : scratch_for(w));

                if (cut.step_max == 1 && n > 700)
                        continue;
                run_cut(other, cut.piece_max, cut.step_max, cut.spare);
                report(n_different(other.out, whole.out) == 0 && other.kv.get() == kv,
                       "%s: the same bits %s", s.name, cut.name);
        }
}

static void check_shape(const struct shape &s, const std::vector<struct lengths> &lengths,
                        enum sight sight, uint32_t n_checked) {
        struct world w(s, lengths, sight);
        struct runner whole(w, scratch_for(w));
        std::vector<struct piece> all;
        uint32_t n = 0;
        double worst = 0;

        for (uint32_t i = 0; i < w.sequences.size(); i++) {
                all.push_back(
                        { i, w.sequences[i].n_stored, w.sequences[i].n - w.sequences[i].n_stored });
                n += all.back().n;
        }
        whole.step(all, 0);
        std::vector<uint8_t> kv = whole.kv.get();

        for (uint32_t i = 0; i < n_checked; i++) {
                uint32_t seq = i < w.sequences.size() ? i : below((uint32_t) w.sequences.size());
                const struct sequence &q = w.sequences[seq];
                uint32_t row =
                        i < w.sequences.size() ? q.n - 1 : q.n_stored + below(q.n - q.n_stored);

                worst = std::max(worst, check_row(w, kv, seq, row, whole.out));
        }
        report(worst < 1,
               "%s: %u rows in one step agree with the reference (error %.2f of the tolerance)",
               s.name, n, worst);
        report(check_store(w, kv),
               "%s: K and V are stored as they should be and nothing else is touched", s.name);
        if (sight != BOTH_WAYS)
                check_cuts(w, whole, kv, n);
}

/*
 * @param few small steps of common shapes, for compute-sanitizer
 * @param only shapes whose name has this in it; NULL: all
 */
static void check_all(bool few, const char *only) {
        const enum warm_type H = WARM_TYPE_F16, B = WARM_TYPE_BF16;
        static const struct shape shapes[] = {
                { "1.5B", 12, 2, 128, 128, H, 64, true, false, 0, 0, 1 },
                { "tiny with a window", 4, 2, 16, 16, H, 8, false, false, 24, 0, 3 },
                { "24 and 32 in bf16", 6, 3, 24, 32, B, 12, true, true, 0, 0, 2 },
                { "one KV head, 32 and 16", 8, 1, 32, 16, H, 16, true, false, 0, 20, 6 },
                { "64 with norms", 14, 2, 64, 64, B, 32, true, true, 0, 0, 2 },
                { "80 with partial rope", 4, 4, 80, 80, H, 10, false, false, 0, 0, 1 },
                { "96 without rope", 9, 3, 96, 96, B, 0, true, false, 100, 0, 2 },
                { "256 with a soft cap", 4, 1, 256, 256, H, 128, true, false, 0, 50, 3 },
                { "256 and 128 in bf16", 5, 1, 256, 128, B, 64, true, true, 0, 0, 2 },
                { "many heads on one", 40, 1, 64, 64, H, 32, true, false, 0, 0, 1 },
                { "7B in bf16", 28, 4, 128, 128, B, 64, true, false, 0, 0, 1 },
        };
        char name[128];

        for (auto &s : shapes) {
                struct shape t = s;

                if (only && !strstr(s.name, only))
                        continue;
                if (few && (only || (s.dim_k != 80 && s.dim_k != 96 && s.n_heads <= 14)))
                        check_shape(s, { { 0, 90 }, { 70, 81 }, { 1000, 1060 } }, CAUSAL, 8);
                if (few)
                        continue;
                check_shape(s, { { 0, 300 }, { 0, 65 }, { 70, 71 }, { 990, 1100 } }, CAUSAL, 40);
                snprintf(name, sizeof(name), "%s, holes", s.name);
                t.name = name;
                check_shape(t, { { 0, 170 }, { 100, 160 }, { 2000, 2100 } }, HOLES, 40);
                snprintf(name, sizeof(name), "%s, both ways", s.name);
                check_shape(t, { { 0, 50 } }, BOTH_WAYS, 10);
                check_shape(t, { { 0, 150 } }, BOTH_WAYS, 10);
        }
        for (uint32_t dim : { 32U, 64U, 96U, 128U }) { /* warps with two tiles, and with one */
                snprintf(name, sizeof(name), "192 heads of %u", dim);
                if (!few || (only && strstr(name, only)))
                        check_shape({ name, 192, 32, dim, dim, dim == 64 ? B : H, dim / 4, true,
                                      dim == 96, dim == 32 ? 100U : 0, dim == 128 ? 30.0f : 0, 1 },
                                    { { 0, few ? 270U : 720U }, { 1000, few ? 1010U : 1100U } },
                                    dim == 64 ? HOLES : CAUSAL, 3);
        }
        if (few)
                return;
        check_shape({ "deep", 12, 2, 128, 128, H, 64, true, false, 0, 0, 2 },
                    { { 32000, 32100 }, { 8000, 8020 } }, CAUSAL, 6);
        check_shape({ "deep in a window", 8, 2, 64, 64, B, 32, true, false, 4096, 0, 2 },
                    { { 16000, 16090 }, { 5000, 5020 } }, CAUSAL, 6);
        check_shape({ "long prefill", 6, 1, 128, 128, H, 64, true, false, 0, 0, 1 },
                    { { 0, 2048 } }, CAUSAL, 12);
        check_shape(
                { "long prefill of a wide model", 48, 8, 128, 128, B, 64, true, false, 0, 0, 1 },
                { { 200, 2000 }, { 0, 200 } }, CAUSAL, 6);
}

/* One line of the bench: layers with their own KV each, so that it does not stay in the L2 cache. */
static void bench(const char *name, uint32_t n_heads, uint32_t n_kv, uint32_t dim,
                  uint32_t n_sequences, uint32_t depth, uint32_t n_new) {
        const uint32_t n_layers = 28, n_rows = n_sequences * n_new,
                       blocks = (depth + n_new + 31) / 32;
        uint64_t layer_bytes = (uint64_t) n_kv * 64 * dim * 2, block_bytes = layer_bytes * n_layers;
        uint32_t width = (n_heads + 2 * n_kv) * dim;
        std::vector<float> x(width), turns(dim, 0.7f);
        std::vector<uint16_t> halves(1 << 20);
        std::vector<uint32_t> order;
        struct input in = { width, dim / 2, n_heads * dim,
                            n_rows <= WARM_CUDA_NARROW ? WARM_CUDA_UNIT_ROWS_NARROW
                                                       : WARM_CUDA_UNIT_ROWS_WIDE };
        cudaStream_t stream;

        for (uint16_t &h : halves)
                h = round_to(WARM_TYPE_F16, normal());
        for (uint32_t i = 0; i < n_rows; i++) {
                uint32_t slot = depth + i % n_new;

                std::generate(x.begin(), x.end(), normal);
                in.add({ UINT64_MAX, 0, slot, slot, 0, slot + 1, i / n_new }, i % n_new == 0,
                       x.data(), width, turns);
        }
        for (uint32_t b = 0; b < blocks * n_sequences; b++)
                order.push_back(b);
        std::shuffle(order.begin(), order.end(), dice);
        memory<uint8_t> kv(block_bytes * order.size()),
                scratch(warm_cuda_attention_scratch_bytes(n_heads, n_kv, dim, dim, 2048, 32768));
        for (uint64_t at = 0; at < kv.n; at += halves.size() * 2)
                CHECK(cudaMemcpy(kv.d + at, halves.data(),
                                 std::min<uint64_t>(halves.size() * 2, kv.n - at),
                                 cudaMemcpyHostToDevice));
        memory<uint32_t> tables(order);
        device_input d(in, n_rows, (uint32_t) in.units.size());
        struct warm_cuda_attention &a = d.a;

        a.n_heads = n_heads;
        a.n_kv_heads = n_kv;
        a.head_dim_k = a.head_dim_v = dim;
        a.window = UINT32_MAX;
        a.scale = 1 / sqrtf((float) dim);
        a.n_pairs = dim / 2;
        a.halves = true;
        a.kv = {
                kv.d, block_bytes * order.size(), block_bytes, 31, WARM_TYPE_F16, tables.d, blocks
        };
        a.d_scratch = scratch.d;
        a.scratch_bytes = scratch.n;
        CHECK(cudaStreamCreate(&stream));
        CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
        for (uint32_t l = 0; l < n_layers; l++) {
                a.k_offset = layer_bytes * l;
                a.v_offset = layer_bytes * l + layer_bytes / 2;
                CHECK(warm_cuda_attention_store(&a, stream));
                CHECK(warm_cuda_attention_run(&a, stream));
        }
        std::vector<float> ms = time_captured(stream);
        double us = 1e3 / n_layers;

        printf("%-34s %9.2f %9.2f %9.2f %9.2f\n", name, us * ms[0], us * ms[ms.size() / 2],
               us * ms.back(), (double) n_sequences * (depth + n_new) * layer_bytes / 32 / 1e6);
        cudaStreamDestroy(stream);
}

/* @param only what a line's name has to contain */
static void bench_all(const char *only) {
        printf("%-34s %9s %9s %9s %9s\n", "store and run of a layer, us", "least", "median", "most",
               "KV, MB");
        static const struct {
                const char *name;
                uint32_t n_sequences, depth, n_new;
        } lines[] = {
                { "1 row at 512", 1, 512, 1 },
                { "1 row at 2,048", 1, 2048, 1 },
                { "1 row at 8,192", 1, 8192, 1 },
                { "1 row at 32,000", 1, 32000, 1 },
                { "4 rows of one at 8,192", 1, 8192, 4 },
                { "16 rows of one at 8,192", 1, 8192, 16 },
                { "16 sequences at 1,024", 16, 1024, 1 },
                { "64 sequences at 1,024", 64, 1024, 1 },
                { "128 rows at 8,192", 1, 8192, 128 },
                { "512 rows from 0", 1, 0, 512 },
                { "2,048 rows from 0", 1, 0, 2048 },
                { "2,048 rows at 8,192", 1, 8192, 2048 },
        };
        for (int big = 0; big < 2; big++)
                for (auto &l : lines) {
                        std::string name = std::string(big ? "7B " : "1.5B ") + l.name;

                        if (name.find(only) != std::string::npos)
                                bench(name.c_str(), big ? 28 : 12, big ? 4 : 2, 128, l.n_sequences,
                                      l.depth, l.n_new);
                }
}

int main(int argc, char **argv) {
        bool benches = argc > 1 && strcmp(argv[1], "--bench") == 0,
             few = argc > 1 && strcmp(argv[1], "--few") == 0;
        const char *only = argc > 2 ? argv[2] : NULL;
        struct cudaDeviceProp p;
        int n;

        if (cudaGetDeviceCount(&n) != cudaSuccess || n == 0)
                return puts("skipped: no GPU"), 77;
        CHECK(cudaGetDeviceProperties(&p, 0));
        printf("# %s, seed %llu\n", p.name, 7ULL);
        dice.seed(7);
        if (benches)
                bench_all(only ? only : "");
        else
                check_all(few, few ? only : NULL),
                        report(!clusters_differ, "the same bits with clusters and without");
        return n_failed ? 1 : 0;
}
