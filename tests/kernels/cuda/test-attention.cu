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
#include "attention-fixture.cuh"

static bool visible(const struct world &w, const struct warm_cuda_row &r, uint32_t slot) {
        uint32_t behind = w.s.window && r.slot >= w.s.window ? r.slot - w.s.window + 1 : 0;

        if (slot < std::max(r.lo, behind) || slot >= r.hi)
                return false;
        return r.hi - 1 - slot >= 64 || (r.mask >> (r.hi - 1 - slot) & 1);
}

/* A score in double. @param d raised to how far the GPU's may be from it */
static double score_of(const struct shape &s, const std::vector<float> &head, float factor,
                       const uint16_t *k, double &d) {
        double u = s.type == WARM_TYPE_F16 ? 0x1p-11 : 0x1p-8, score = 0, all = 0, most = 0;

        for (uint32_t i = 0; i < s.dim_k; i++) {
                double p = (double) head[i] / factor * value_of(s.type, k[i]);

                score += p;
                all += fabs(p);
                most = std::max(most, fabs(p));
        }
        score *= scale_of(s);
        d = std::max(d, fabs(scale_of(s)) * (0x1p-20 * all + 4 * u * most));
        return s.soft_cap != 0 ? s.soft_cap * tanh(score / s.soft_cap) : score;
}

/* The largest error of a row, as a part of its tolerance. */
static double check_row(const struct world &w, const std::vector<uint8_t> &kv, uint32_t seq,
                        uint32_t row, const std::vector<std::vector<uint16_t>> &out) {
        const struct shape &s = w.s;
        const struct sequence &q = w.sequences[seq];
        const float *x = &q.qkv[(size_t) (row - q.n_stored) * width_of(s)];
        double u = s.type == WARM_TYPE_F16 ? 0x1p-11 : 0x1p-8, worst = 0;
        float factor = s.soft_cap != 0 ? scale_of(s) / s.soft_cap : scale_of(s) * 1.44269504f;
        uint8_t *base = (uint8_t *) kv.data();

        for (uint32_t h = 0; h < s.n_heads; h++) {
                std::vector<float> head =
                        head_of(w, x + h * s.dim_k, w.q_norm, w.turns(q.rows[row].position));
                std::vector<double> scores, sum(s.dim_v), size(s.dim_v), most_v(s.dim_v);
                double max = -INFINITY, d = 0, mass = 0;
                uint32_t kv_head = h / (s.n_heads / s.n_kv_heads);

                for (float &v : head)
                        v = value_of(s.type, round_to(s.type, v * factor));
                for (uint32_t slot = 0; slot < q.n; slot++) {
                        const uint16_t *k =
                                (const uint16_t *) w.place(base, seq, slot, kv_head, false);
                        double score;

                        scores.push_back(-INFINITY);
                        if (!visible(w, q.rows[row], slot))
                                continue;
                        score = score_of(s, head, factor, k, d);
                        scores[slot] = score;
                        max = std::max(max, score);
                }
                d += s.soft_cap * 0x1p-20;
                for (uint32_t slot = 0; slot < q.n; slot++) {
                        const uint16_t *v =
                                (const uint16_t *) w.place(base, seq, slot, kv_head, true);
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
                        double want = mass > 0 ? sum[i] / mass : 0,
                               all = mass > 0 ? size[i] / mass : 0;
                        double got =
                                value_of(WARM_TYPE_F16,
                                         out[seq][((size_t) row * s.n_heads + h) * s.dim_v + i]) /
                                (double) WARM_CUDA_ACT_SCALE;
                        double bound = (2 * d + 2 * u + 0x1p-19) * all + 0x1p-19 * most_v[i] +
                                       0x1p-11 * fabs(want) + 0x1p-25 / WARM_CUDA_ACT_SCALE;
                        double off = fabs(got - want) / bound;

                        worst = off <= worst ? worst : std::isnan(off) ? INFINITY : off;
                }
        }
        return worst;
}

/* K of a stored row to one step of its type, V exactly; nothing else was written. */
static bool check_store(const struct world &w, std::vector<uint8_t> kv) {
        bool ok = true;

        for (uint32_t seq = 0; seq < w.sequences.size(); seq++) {
                const struct sequence &q = w.sequences[seq];

                for (uint32_t row = q.n_stored; row < q.n; row++)
                        for (uint32_t h = 0; h < w.s.n_kv_heads; h++) {
                                const float *x =
                                        &q.qkv[(size_t) (row - q.n_stored) * width_of(w.s)] +
                                        w.s.n_heads * w.s.dim_k;
                                std::vector<float> head =
                                        head_of(w, x + h * w.s.dim_k, w.k_norm, w.turns(row));
                                uint16_t *k = (uint16_t *) w.place(kv.data(), seq, row, h, false);
                                uint16_t *v = (uint16_t *) w.place(kv.data(), seq, row, h, true);

                                for (uint32_t d = 0; d < w.s.dim_k; d++) {
                                        int apart = (int) k[d] - (int) round_to(w.s.type, head[d]);

                                        ok = ok && (apart == 0 || (w.s.norms && abs(apart) == 1));
                                        k[d] = 0xffff;
                                }
                                x += w.s.n_kv_heads * w.s.dim_k + h * w.s.dim_v;
                                for (uint32_t d = 0; d < w.s.dim_v; d++) {
                                        ok = ok && v[d] == round_to(w.s.type, x[d]);
                                        v[d] = 0xffff;
                                }
                        }
        }
        return ok && kv == w.stored;
}

/* All rows, cut at random into steps of pieces of several sequences. */
static void run_cut(struct runner &r, uint32_t piece_max, uint32_t step_max, uint32_t spare) {
        std::vector<uint32_t> next;
        bool more = true;

        for (auto &q : r.w.sequences)
                next.push_back(q.n_stored);
        while (more) {
                std::vector<struct piece> pieces;
                uint32_t n = 0;

                more = false;
                for (uint32_t i = 0; i < next.size() && n < step_max; i++) {
                        uint32_t left = r.w.sequences[i].n - next[i];
                        uint32_t take =
                                std::min(std::min(left, step_max - n), 1 + below(piece_max));

                        if (take)
                                pieces.push_back({ i, next[i], take });
                        next[i] += take;
                        n += take;
                }
                for (uint32_t i = 0; i < next.size(); i++)
                        more = more || next[i] < r.w.sequences[i].n;
                if (n)
                        r.step(pieces, spare ? below(spare) : 0);
        }
}

static void check_shape(const struct shape &s,
                        const std::vector<std::pair<uint32_t, uint32_t>> &lengths, enum sight sight,
                        uint32_t n_checked) {
        struct world w(s, lengths, sight);
        struct runner whole(w, scratch_for(w));
        std::vector<struct piece> all;
        uint32_t n = 0;
        double worst = 0;
        char what[256];

        for (uint32_t i = 0; i < w.sequences.size(); i++) {
                all.push_back(
                        { i, w.sequences[i].n_stored, w.sequences[i].n - w.sequences[i].n_stored });
                n += all.back().n;
        }
        whole.step(all, 0);
        std::vector<uint8_t> kv = whole.kv.get();

        for (uint32_t i = 0; i < n_checked; i++) {
                uint32_t seq = below((uint32_t) w.sequences.size());
                const struct sequence &q = w.sequences[seq];
                uint32_t row = i < w.sequences.size() ? w.sequences[seq = i].n - 1
                                                      : q.n_stored + below(q.n - q.n_stored);

                worst = std::max(worst, check_row(w, kv, seq, row, whole.out));
        }
        snprintf(what, sizeof(what),
                 "%s: %u rows in one step agree with the reference (largest error %.2f of the "
                 "tolerance)",
                 s.name, n, worst);
        report(worst < 1, what);
        snprintf(what, sizeof(what),
                 "%s: K and V are stored as they should be and nothing else is touched", s.name);
        report(check_store(w, kv), what);
        if (sight == BOTH_WAYS)
                return;

        static const struct {
                const char *name;
                uint32_t piece_max, step_max, spare, small;
        } cuts[] = {
                { "cut into tokens", 1, 1, 0, 0 },
                { "cut into narrow steps at random", 24, 64, 9, 0 },
                { "cut into steps at random", 150, 200, 5, 0 },
                { "cut into narrow steps with scratch for spans only", 20, 64, 3, 1 },
                { "cut into wide steps with little scratch", 400, 500, 0, 1 },
        };
        for (auto &cut : cuts) {
                uint64_t narrow = (uint64_t) 64 * s.n_heads *
                                          ((w.n_slots / WARM_CUDA_SPAN + 2) * (s.dim_v * 4 + 8) +
                                           s.dim_k * 2) +
                                  4096;
                uint64_t wide = (uint64_t) 500 * s.n_heads * (s.dim_k * 2 + 1024) + 4096;
                struct runner other(w, cut.small ? (cut.step_max > 64 ? wide : narrow)
                                                 : scratch_for(w));
                bool same = true;

                if (cut.step_max == 1 && n > 700)
                        continue;
                run_cut(other, cut.piece_max, cut.step_max, cut.spare);
                for (uint32_t i = 0; i < w.sequences.size(); i++)
                        same = same && other.out[i] == whole.out[i];
                snprintf(what, sizeof(what), "%s: the same bits %s", s.name, cut.name);
                report(same && other.kv.get() == kv, what);
        }
}

static void check_all(bool few) {
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

                if (few && (s.dim_k == 96 || s.n_heads > 14 || s.dim_k == 80))
                        continue;
                if (few) {
                        check_shape(s, { { 0, 90 }, { 70, 81 }, { 1000, 1060 } }, CAUSAL, 8);
                        continue;
                }
                check_shape(s, { { 0, 300 }, { 0, 65 }, { 70, 71 }, { 990, 1100 } }, CAUSAL, 40);
                snprintf(name, sizeof(name), "%s, holes", s.name);
                t.name = name;
                check_shape(t, { { 0, 170 }, { 100, 160 }, { 2000, 2100 } }, HOLES, 40);
                snprintf(name, sizeof(name), "%s, both ways", s.name);
                check_shape(t, { { 0, 50 } }, BOTH_WAYS, 10);
                check_shape(t, { { 0, 150 } }, BOTH_WAYS, 10);
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

#define BENCH_LAYERS 28U

struct line {
        const char *name;
        uint32_t n_sequences, depth, n_new;
};

/* A step of new rows at the end of sequences, and KV for layers of their own, so that it does not stay in the L2. */
struct bench_bed {
        uint32_t n_rows, unit_rows, ld;
        uint64_t layer_bytes, block_bytes;
        std::vector<struct warm_cuda_row> rows;
        std::vector<struct warm_cuda_unit> units;
        std::vector<uint32_t> order;
        std::vector<float> qkv, turns;

        bench_bed(uint32_t n_heads, uint32_t n_kv, uint32_t dim, const struct line &l);
        void fill(memory<uint8_t> &kv) const;
};

bench_bed::bench_bed(uint32_t n_heads, uint32_t n_kv, uint32_t dim, const struct line &l)
    : n_rows(l.n_sequences * l.n_new), unit_rows(n_rows <= 64 ? 16 : 128),
      ld((n_heads + 2 * n_kv) * dim), layer_bytes((uint64_t) n_kv * 64 * dim * 2),
      block_bytes(layer_bytes * BENCH_LAYERS), qkv((size_t) n_rows * ld),
      turns((size_t) n_rows * dim) {
        for (float &x : qkv)
                x = normal();
        for (size_t i = 0; i < turns.size(); i += 2) {
                turns[i] = cosf((float) i);
                turns[i + 1] = sinf((float) i);
        }
        for (uint32_t q = 0; q < l.n_sequences; q++)
                for (uint32_t i = 0; i < l.n_new; i++) {
                        uint32_t slot = l.depth + i;

                        if (i % unit_rows == 0)
                                units.push_back({ (uint32_t) rows.size(),
                                                  std::min(unit_rows, l.n_new - i) });
                        rows.push_back({ UINT64_MAX, 0, slot, slot, 0, slot + 1, q });
                }
        for (uint32_t b = 0; b < (l.depth + l.n_new + 31) / 32 * l.n_sequences; b++)
                order.push_back(b);
        std::shuffle(order.begin(), order.end(), dice);
}

void bench_bed::fill(memory<uint8_t> &kv) const {
        std::vector<uint16_t> halves(1 << 20);

        for (uint16_t &h : halves)
                h = round_to(WARM_TYPE_F16, normal());
        for (uint64_t at = 0; at < kv.n; at += halves.size() * 2)
                CHECK(cudaMemcpy(kv.d + at, halves.data(),
                                 std::min<uint64_t>(halves.size() * 2, kv.n - at),
                                 cudaMemcpyHostToDevice));
}

/* Microseconds a layer, ascending, of 20 replays of all layers as one graph. */
static std::vector<float> bench_times(struct warm_cuda_attention a, uint64_t layer_bytes) {
        std::vector<float> times;
        cudaStream_t stream;
        cudaGraph_t graph;
        cudaGraphExec_t exec;
        cudaEvent_t events[2];

        CHECK(cudaStreamCreate(&stream));
        CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
        for (uint32_t i = 0; i < BENCH_LAYERS; i++) {
                a.k_offset = layer_bytes * i;
                a.v_offset = layer_bytes * i + layer_bytes / 2;
                CHECK(warm_cuda_attention_store(&a, stream));
                CHECK(warm_cuda_attention_run(&a, stream));
        }
        CHECK(cudaStreamEndCapture(stream, &graph));
        CHECK(cudaGraphInstantiate(&exec, graph, 0));
        CHECK(cudaEventCreate(&events[0]));
        CHECK(cudaEventCreate(&events[1]));
        for (int i = 0; i < 25; i++) {
                float ms;

                CHECK(cudaEventRecord(events[0], stream));
                CHECK(cudaGraphLaunch(exec, stream));
                CHECK(cudaEventRecord(events[1], stream));
                CHECK(cudaStreamSynchronize(stream));
                CHECK(cudaEventElapsedTime(&ms, events[0], events[1]));
                if (i >= 5)
                        times.push_back(ms * 1000 / (float) BENCH_LAYERS);
        }
        std::sort(times.begin(), times.end());
        cudaGraphExecDestroy(exec);
        cudaGraphDestroy(graph);
        cudaStreamDestroy(stream);
        return times;
}

/* One line of the bench. */
static void bench(const char *name, uint32_t n_heads, uint32_t n_kv, uint32_t dim,
                  const struct line &l) {
        struct bench_bed b(n_heads, n_kv, dim, l);
        memory<uint8_t> kv(b.block_bytes * b.order.size());
        memory<uint32_t> tables(b.order),
                counts(std::vector<uint32_t>{ b.n_rows, (uint32_t) b.units.size() });
        memory<struct warm_cuda_row> d_rows(b.rows);
        memory<struct warm_cuda_unit> d_units(b.units);
        memory<float> d_qkv(b.qkv), d_turns(b.turns);
        memory<uint8_t> scratch(
                warm_cuda_attention_scratch_bytes(n_heads, n_kv, dim, dim, 2048, 32768));
        memory<uint16_t> out((size_t) (b.n_rows + 127) / 128 * 128 * n_heads * dim);
        struct warm_cuda_attention a = {};
        std::vector<float> times;

        b.fill(kv);
        a.n_heads = n_heads;
        a.n_kv_heads = n_kv;
        a.head_dim_k = a.head_dim_v = dim;
        a.window = UINT32_MAX;
        a.scale = 1 / sqrtf((float) dim);
        a.n_pairs = dim / 2;
        a.halves = true;
        a.d_turns = d_turns.d;
        a.kv = { kv.d,     b.block_bytes * b.order.size(), b.block_bytes, 31, WARM_TYPE_F16,
                 tables.d, (l.depth + l.n_new + 31) / 32 };
        a.d_rows = d_rows.d;
        a.d_counts = counts.d;
        a.d_units = d_units.d;
        a.n_rows_max = b.n_rows;
        a.n_units_max = (uint32_t) b.units.size();
        a.n_unit_rows_max = std::min(l.n_new, b.unit_rows);
        a.n_slots_max = l.depth + l.n_new;
        a.d_qkv = d_qkv.d;
        a.ld_qkv = b.ld;
        a.out = { out.d, n8_of(b.n_rows), n_heads * dim };
        a.d_scratch = scratch.d;
        a.scratch_bytes = scratch.n;
        a.overlap = true;
        times = bench_times(a, b.layer_bytes);
        printf("%-34s %9.2f %9.2f %9.2f %9.2f\n", name, times[0], times[times.size() / 2],
               times.back(),
               (double) l.n_sequences * (l.depth + l.n_new) * b.layer_bytes / 32 / 1e6);
        fflush(stdout);
}

/* @param only what a line's name has to contain, or NULL */
static void bench_all(const char *only) {
        printf("%-34s %9s %9s %9s %9s\n", "store and run of a layer, us", "least", "median", "most",
               "KV, MB");
        for (int big = 0; big < 2; big++) {
                const uint32_t h = big ? 28 : 12, k = big ? 4 : 2;
                const char *m = big ? "7B" : "1.5B";
                static const struct line lines[] = {
                        { "1 row at 64", 1, 64, 1 },
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
                for (auto &l : lines) {
                        char name[64];

                        snprintf(name, sizeof(name), "%s %s", m, l.name);
                        if (!only || strstr(name, only))
                                bench(name, h, k, 128, l);
                }
        }
}

int main(int argc, char **argv) {
        bool benches = argc > 1 && strcmp(argv[1], "--bench") == 0,
             few = argc > 1 && strcmp(argv[1], "--few") == 0;
        struct cudaDeviceProp p;
        int n;

        if (cudaGetDeviceCount(&n) != cudaSuccess || n == 0) {
                printf("skipped: no GPU\n");
                return 77;
        }
        CHECK(cudaGetDeviceProperties(&p, 0));
        printf("# %s, seed %llu\n", p.name, 7ULL);
        dice.seed(7);
        if (benches)
                bench_all(argc > 2 ? argv[2] : NULL);
        else
                check_all(few);
        return n_failed ? 1 : 0;
}
