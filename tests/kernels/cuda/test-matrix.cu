/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products on the GPU held against double on the host, and against each other bit for bit.
 *
 * Tolerance of a product, with w and x what is packed and S = sum of |w x|: scale, offset and value of a quantized
 * weight are each rounded to binary16 (3 x 2^-11 at most), an activation once (2^-11, or 2^-19 absolute after the
 * scale where it is subnormal), and n/16 partial sums of at most S lose 2^-23 each: |error| <= S (2^-9 + n 2^-27) + n 2^-19
 * max |w|.
 *
 * --few: fewer, for a checker. --bench prints times of a decode step's and a prefill's products for shapes of real
 * models, by graph replay.
 */
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "bench.cuh"
#include "fixture.cuh"
#include "kernels/cuda/matrix.h"
#include "kernels/cuda/rows.h"

static uint32_t n_sms;
static bool hopper, sm90; /* exactly 9.0; and later */

static uint64_t state = 1;

static double uniform() {
        state = state * 6364136223846793005ULL + 1442695040888963407ULL;
        return (double) (state >> 11) / 9007199254740992.0 * 2 - 1;
}

template <typename T> static T *device(size_t n, const T *from = nullptr) {
        T *p;

        CHECK(cudaMalloc(&p, n * sizeof(T) + 16));
        CHECK(cudaMemset(p, 0, n * sizeof(T)));
        if (from)
                CHECK(cudaMemcpy(p, from, n * sizeof(T), cudaMemcpyHostToDevice));
        return p;
}

template <typename T> static std::vector<T> host(const T *p, size_t n) {
        std::vector<T> v(n);

        CHECK(cudaMemcpy(v.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost));
        return v;
}

/* Random rows of a type: any bytes, with scales that are sane. */
static std::vector<uint8_t> random_rows(enum warm_type type, uint32_t rows, uint32_t cols) {
        const struct warm_type_info *info = warm_type_info(type);
        std::vector<uint8_t> raw((size_t) rows * cols / info->elements * info->bytes);
        auto half = [](double v) { return warm_float_to_half((float) v); };
        auto put = [&](uint8_t *p, uint16_t v) { memcpy(p, &v, 2); };

        for (auto &b : raw)
                b = (uint8_t) (uniform() * 128 + 128);
        for (size_t at = 0; at < raw.size(); at += info->bytes) {
                uint8_t *p = &raw[at];

                switch (type) {
                case WARM_TYPE_F32: {
                        float f = (float) uniform();
                        memcpy(p, &f, 4);
                        break;
                }
                case WARM_TYPE_F16:
                        put(p, half(uniform()));
                        break;
                case WARM_TYPE_BF16:
                        put(p, warm_float_to_bf16((float) uniform()));
                        break;
                case WARM_TYPE_Q6_K:
                        put(p + 208, half(uniform() * 1e-4));
                        break;
                case WARM_TYPE_Q4_1:
                case WARM_TYPE_Q5_1:
                case WARM_TYPE_Q4_K:
                case WARM_TYPE_Q5_K:
                        put(p + 2, half(uniform() * 1e-3));
                        [[fallthrough]];
                default:
                        put(p, half(uniform() * 1e-3));
                }
        }
        return raw;
}

struct problem {
        struct warm_cuda_matrix m;
        uint32_t rows, cols;
        std::vector<float> w; /* [rows][cols], as dequantized */
};

static struct warm_cuda_matrix matrix_of(enum warm_cuda_format f, uint32_t rows, uint32_t cols,
                                         uint32_t segments) {
        struct warm_cuda_matrix m = {};

        m.format = f;
        m.n_rows = rows;
        m.row_blocks = (rows + 127) / 128;
        m.k_units = (cols + 63) / 64;
        m.n_segments = segments;
        m.scale = (f == WARM_CUDA_F16 ? 1.0f / (1 << WARM_CUDA_EXPONENT_FLOAT)
                                      : 1.0f / (1 << WARM_CUDA_EXPONENT_QUANT)) /
                  WARM_CUDA_ACT_SCALE;
        m.d_data = device<uint8_t>(warm_cuda_matrix_bytes(&m));
        return m;
}

static problem make(enum warm_type type, uint32_t rows, uint32_t cols, uint32_t segments,
                    enum warm_cuda_place place) {
        problem p = { matrix_of(warm_cuda_format_of(type), rows, cols, segments), rows, cols, {} };
        std::vector<uint8_t> raw = random_rows(type, rows, cols);
        uint64_t row_bytes = raw.size() / rows;
        uint8_t *d = device<uint8_t>(raw.size(), raw.data());
        uint32_t *d_overflow = device<uint32_t>(1),
                 half = place == WARM_CUDA_PLACE_ROWS ? rows : rows / 2;

        p.w.resize((size_t) rows * cols);
        for (uint32_t r = 0; r < rows; r++)
                warm_type_dequantize(type, &raw[r * row_bytes], cols, &p.w[(size_t) r * cols]);
        /* in two pieces, as loading does */
        if (place == WARM_CUDA_PLACE_ROWS) {
                uint32_t first = rows / 3;

                CHECK(warm_cuda_pack(&p.m, type, place, 0, d, row_bytes, 0, first, cols, d_overflow,
                                     0));
                CHECK(warm_cuda_pack(&p.m, type, place, 0, d + first * row_bytes, row_bytes, first,
                                     rows - first, cols, d_overflow, 0));
        } else {
                CHECK(warm_cuda_pack(&p.m, type, WARM_CUDA_PLACE_GATE, 0, d, row_bytes, 0, half,
                                     cols, d_overflow, 0));
                CHECK(warm_cuda_pack(&p.m, type, WARM_CUDA_PLACE_UP, 0, d + half * row_bytes,
                                     row_bytes, 0, half, cols, d_overflow, 0));
        }
        CHECK(cudaDeviceSynchronize());
        if (host(d_overflow, 1)[0])
                report(false, "packing overflows: %s", warm_type_info(type)->name);
        CHECK(cudaFree(d));
        return p;
}

static uint32_t n8_of(uint32_t n) {
        return n > 64 ? 0 : n > 32 ? 8 : n > 16 ? 4 : n > 8 ? 2 : 1;
}

/* The host's twin of warm_cuda_act_index(). */
static size_t act_index(const struct warm_cuda_acts &a, uint32_t row, uint32_t k) {
        if (a.n8)
                return ((size_t) ((k / 32 * a.n8 + row / 8) * 32 + row % 8 * 4 + k % 8 / 2)) * 8 +
                       k % 32 / 8 * 2 + k % 2;
        return (((size_t) (row / 128) * (a.k_padded / 64) + k / 64) * 128 + row % 128) * 64 +
               ((k / 8 % 8) ^ (row % 8)) * 8 + k % 8;
}

static size_t act_size(uint32_t n, uint32_t k_padded) {
        return (size_t) (n > 64 ? (n + 511) / 512 * 512 : n8_of(n) * 8) * k_padded;
}

static struct warm_cuda_acts acts_of(const std::vector<float> &x, uint32_t n, uint32_t cols) {
        struct warm_cuda_acts a = { nullptr, n8_of(n), (cols + 63) / 64 * 64 };
        std::vector<uint16_t> v(act_size(n, a.k_padded), 0x3c00);

        for (uint32_t r = 0; r < n; r++)
                for (uint32_t k = 0; k < cols; k++)
                        v[act_index(a, r, k)] =
                                warm_float_to_half(x[(size_t) r * cols + k] * WARM_CUDA_ACT_SCALE);
        a.d_values = device<uint16_t>(v.size(), v.data());
        return a;
}

/* SHARED: SM90, and blocks add tiles up together; TOGETHER: NARROW, as if there were so few
 * multiprocessors that warps share activations */
enum path { NARROW, WIDE, SM90, SHARED, TOGETHER };

/* What products that share tiles need. */
static void give_parts(struct warm_cuda_product &q) {
        static void *d_parts;
        static uint32_t *d_counters;

        if (!d_parts) {
                d_parts = device<uint8_t>(64U << 20);
                d_counters = device<uint32_t>(WARM_CUDA_COUNTERS);
        }
        q.d_parts = d_parts;
        q.parts_bytes = 64U << 20;
        q.d_counters = d_counters;
}

/* y = p * x, to be freed by answer(). */
static struct warm_cuda_product asked(const problem &p, const std::vector<float> &x, uint32_t n) {
        struct warm_cuda_product q = {};

        q.matrix = p.m;
        q.in = acts_of(x, n, p.cols);
        q.epilogue = WARM_CUDA_OUT;
        q.d_n_rows = device<uint32_t>(1, &n);
        q.n_rows_max = n;
        q.d_out = device<float>((size_t) n * p.rows);
        q.ld_out = p.rows;
        return q;
}

static std::vector<float> answer(const struct warm_cuda_product &q) {
        std::vector<float> y;

        CHECK(cudaDeviceSynchronize());
        y = host(q.d_out, (size_t) q.n_rows_max * q.ld_out);
        CHECK(cudaFree(q.d_out));
        CHECK(cudaFree(q.in.d_values));
        CHECK(cudaFree((void *) q.d_n_rows));
        return y;
}

static std::vector<float> product(const problem &p, const std::vector<float> &x, uint32_t n,
                                  enum path path) {
        struct warm_cuda_product q = asked(p, x, n);
        uint32_t n_tiles = (p.rows + 15) / 16, sms = n_sms;

        if (path == TOGETHER) { /* several blocks for each; of more than 32 rows one for most */
                sms = p.m.n_segments == 1 ? 1 : n > 32 ? n_tiles * 2 / 3 : n_tiles / 3;
                sms = sms ? sms : 1;
        }
        if (path == SHARED)
                give_parts(q);
        q.overlap = path == TOGETHER;
        CHECK(path == SM90 || path == SHARED ? warm_cuda_multiply_sm90(&q, n_sms, 0)
              : path == WIDE                 ? warm_cuda_multiply_wide(&q, 0)
                                             : warm_cuda_multiply_narrow(&q, sms, 0));
        return answer(q);
}

static bool few; /* for a checker, which takes its time */

static void test_type(enum warm_type type, uint32_t rows, uint32_t cols, uint32_t segments) {
        problem p = make(type, rows, cols, segments, WARM_CUDA_PLACE_ROWS);
        const uint32_t most = few ? 129 : 300,
                       counts[] = { 1, 2, 8, 9, 16, 17, 33, 64, 65, 128, 129, 300 };
        /* sm_86 and sm_89; at 8 segments, of 64 rows of F16, two warps a tile, and one */
        const uint32_t limits[] = { WARM_CUDA_SHARED_LEAST, 72U << 10, 56U << 10 };
        std::vector<float> x((size_t) most * cols), all;
        char detail[160];
        double worst = 0;
        bool same = true;

        for (auto &v : x)
                v = (float) (uniform() * exp2(uniform() * 6));
        for (uint32_t n : counts) {
                std::vector<std::vector<float>> ys;

                if (few && n != 1 && n != 9 && n != 33 && n != 129)
                        continue;
                if (n <= 64)
                        ys.push_back(product(p, x, n, NARROW));
                else
                        ys.push_back(product(p, x, n, WIDE));
                if (n <= 64 && sm90)
                        ys.push_back(product(p, x, n, TOGETHER));
                if (n > 64 && hopper) {
                        ys.push_back(product(p, x, n, SM90));
                        ys.push_back(product(p, x, n, SHARED));
                }
                for (uint32_t bytes : limits) {
                        warm_cuda_narrow_limit(bytes);
                        ys.push_back(product(p, x, n, n <= 64 ? NARROW : WIDE));
                }
                warm_cuda_narrow_limit(0);
                for (auto &y : ys) {
                        if (all.size() < y.size()) {
                                same = same && memcmp(y.data(), all.data(), all.size() * 4) == 0;
                                all = y;
                        } else {
                                same = same && memcmp(y.data(), all.data(), y.size() * 4) == 0;
                        }
                }
        }
        for (uint32_t r = 0; r < most; r += 7)
                for (uint32_t m = 0; m < rows; m++) {
                        double sum = 0, mass = 0, w_max = 0, limit;

                        for (uint32_t k = 0; k < cols; k++) {
                                double w = p.w[(size_t) m * cols + k];
                                sum += w * x[(size_t) r * cols + k];
                                mass += fabs(w * x[(size_t) r * cols + k]);
                                w_max = fmax(w_max, fabs(w));
                        }
                        limit = mass * (1.0 / 512 + cols * 0x1p-27) + cols * 0x1p-19 * w_max;
                        worst = fmax(worst, fabs(all[(size_t) r * rows + m] - sum) / limit);
                }
        snprintf(detail, sizeof(detail), "%s %ux%u, %u segment%s, error at most %.3f of the bound",
                 warm_type_info(type)->name, rows, cols, segments, segments > 1 ? "s" : "", worst);
        report(worst < 1, "a product is what double says: %s", detail);
        report(same,
               "1 to 300 rows, narrow, together, wide, wgmma, with less shared memory: the same "
               "bits: "
               "%s",
               detail);
        CHECK(cudaFree((void *) p.m.d_data));
}

/* More pairs of tiles than clusters, and some left over; three times, as counters are used again. */
static void test_share(enum warm_type type, uint32_t rows, uint32_t cols, uint32_t segments,
                       uint32_t n) {
        problem p = make(type, rows, cols, segments, WARM_CUDA_PLACE_ROWS);
        std::vector<float> x((size_t) n * cols), whole;
        char detail[100];
        bool same = true;

        for (auto &v : x)
                v = (float) uniform();
        whole = product(p, x, n, SM90);
        for (int i = 0; i < 3; i++)
                same = same && product(p, x, n, SHARED) == whole;
        snprintf(detail, sizeof(detail), "%s %ux%u, %u segments, %u rows",
                 warm_type_info(type)->name, rows, cols, segments, n);
        report(same, "tiles that blocks share: the same bits: %s", detail);
        CHECK(cudaFree((void *) p.m.d_data));
}

/* q and k in one format, v in another: one launch, and the same bits as two. */
static void test_two(enum warm_type type, uint32_t rows, uint32_t cols, uint32_t segments) {
        problem p = make(type, rows, cols, segments, WARM_CUDA_PLACE_ROWS),
                q = make(WARM_TYPE_Q6_K, 40, cols, segments, WARM_CUDA_PLACE_ROWS);
        char detail[100];
        bool same = true;

        for (uint32_t n : { 1U, 8U, 9U, 16U }) {
                std::vector<float> x((size_t) n * cols);

                for (auto &v : x)
                        v = (float) uniform();
                for (uint32_t bytes : { 0U, 56U << 10 }) {
                        struct warm_cuda_product first = asked(p, x, n), second = asked(q, x, n);

                        warm_cuda_narrow_limit(bytes);
                        CHECK(warm_cuda_multiply_two(&first, &second, n_sms, 0));
                        same = same && answer(first) == product(p, x, n, NARROW);
                        same = same && answer(second) == product(q, x, n, NARROW);
                }
        }
        warm_cuda_narrow_limit(0);
        snprintf(detail, sizeof(detail), "%s %ux%u beside Q6_K, %u segments",
                 warm_type_info(type)->name, rows, cols, segments);
        report(same, "two products in one launch: the same bits: %s", detail);
        CHECK(cudaFree((void *) p.m.d_data));
        CHECK(cudaFree((void *) q.m.d_data));
}

/* Two products behind each other: gate and up with a norm, then down to the residual stream. */
#define DIM 160U
#define FF  88U
#define LD  320U

struct chain {
        uint32_t n; /* rows */
        problem gate_up, down;
        std::vector<float> x, norm, squares, scales, normed;
        struct warm_cuda_acts hidden, next;
        struct warm_cuda_product q;
};

static chain chain_make(uint32_t n) {
        chain c = { n,
                    make(WARM_TYPE_Q8_0, 2 * FF, DIM, 1, WARM_CUDA_PLACE_GATE),
                    make(WARM_TYPE_F16, DIM, FF, 8, WARM_CUDA_PLACE_ROWS),
                    std::vector<float>((size_t) n * DIM),
                    std::vector<float>(DIM),
                    std::vector<float>((size_t) (DIM / 16) * LD),
                    std::vector<float>(n),
                    std::vector<float>((size_t) n * DIM),
                    { nullptr, n8_of(n), 128 },
                    { nullptr, n8_of(n), 192 },
                    {} };

        for (auto &v : c.norm)
                v = (float) uniform() + 1;
        for (uint32_t r = 0; r < n; r++) {
                double sum = 0;

                for (uint32_t k = 0; k < DIM; k++) {
                        float v = c.x[(size_t) r * DIM + k] = (float) uniform();

                        c.squares[(size_t) (k / 16) * LD + r] += v * v;
                        sum += (double) v * v;
                        c.normed[(size_t) r * DIM + k] = v * c.norm[k];
                }
                c.scales[r] = (float) (1 / sqrt(sum / DIM + 1e-5));
        }
        c.hidden.d_values = device<uint16_t>(act_size(n, c.hidden.k_padded));
        c.next.d_values = device<uint16_t>(act_size(n, c.next.k_padded));
        return c;
}

/* @param sms of a narrow product */
static void chain_run(chain &c, uint32_t sms) {
        struct warm_cuda_product &q = c.q;
        auto multiply = [&]() {
                CHECK(c.n <= 64 ? warm_cuda_multiply_narrow(&q, sms, 0)
                      : hopper  ? warm_cuda_multiply_sm90(&q, n_sms, 0)
                                : warm_cuda_multiply_wide(&q, 0));
        };

        if (hopper && c.n % 2 == 0)
                give_parts(q);
        q.matrix = c.gate_up.m;
        q.in = acts_of(c.normed, c.n, DIM);
        q.epilogue = WARM_CUDA_GATED;
        q.d_n_rows = device<uint32_t>(1, &c.n);
        q.n_rows_max = c.n;
        q.d_squares = device<float>(c.squares.size(), c.squares.data());
        q.d_row_scales = c.n > 64 ? device<float>(c.n, c.scales.data()) : nullptr;
        q.n_tiles = DIM / 16;
        q.squares_ld = LD;
        q.dim = DIM;
        q.epsilon = 1e-5f;
        q.out = c.hidden;
        q.overlap = true;
        multiply();
        q.matrix = c.down.m;
        q.in = c.hidden;
        q.epilogue = WARM_CUDA_RESIDUAL;
        q.d_x = device<float>(c.x.size(), c.x.data());
        q.d_next_norm = device<float>(DIM, c.norm.data());
        q.residual_scale = 0.5f;
        q.d_squares = q.d_row_scales = nullptr;
        q.d_squares_out = device<float>(c.squares.size());
        q.out = c.next;
        multiply();
        CHECK(cudaDeviceSynchronize());
}

/* Row r's largest error of gate and up. @param ret_h [FF] what the GPU has */
static double chain_check_gated(const chain &c, uint32_t r, const std::vector<uint16_t> &hv,
                                float *ret_h) {
        double worst = 0;

        for (uint32_t j = 0; j < FF; j++) {
                double g = 0, u = 0, want;

                for (uint32_t k = 0; k < DIM; k++) {
                        double v = (double) c.normed[(size_t) r * DIM + k] * c.scales[r];

                        g += c.gate_up.w[(size_t) j * DIM + k] * v;
                        u += c.gate_up.w[(size_t) (FF + j) * DIM + k] * v;
                }
                want = g / (1 + exp(-g)) * u;
                ret_h[j] = warm_half_to_float(hv[act_index(c.hidden, r, j)]) / WARM_CUDA_ACT_SCALE;
                worst = fmax(worst, fabs(want - ret_h[j]) / (fabs(want) + 0.1));
        }
        return worst;
}

struct chain_worst {
        double gated, x, next, square;
};

/* The same of the residual stream, of what follows it and of its squares. */
static void chain_check_residual(const chain &c, uint32_t r, const float *h,
                                 const std::vector<float> &xv, const std::vector<uint16_t> &nv,
                                 const std::vector<float> &sv, struct chain_worst &worst) {
        double square[DIM / 16] = {};

        for (uint32_t m = 0; m < DIM; m++) {
                double y = 0, x = xv[(size_t) r * DIM + m], next;

                for (uint32_t k = 0; k < FF; k++)
                        y += (double) c.down.w[(size_t) m * FF + k] * h[k];
                y = c.x[(size_t) r * DIM + m] + 0.5 * y;
                next = warm_half_to_float(nv[act_index(c.next, r, m)]) / WARM_CUDA_ACT_SCALE;
                worst.x = fmax(worst.x, fabs(y - x));
                worst.next = fmax(worst.next, fabs(x * c.norm[m] - next) / (fabs(y) + 0.01));
                square[m / 16] += x * x;
        }
        for (uint32_t i = 0; i < DIM / 16; i++)
                worst.square = fmax(worst.square,
                                    fabs(square[i] - sv[(size_t) i * LD + r]) / (square[i] + 1e-6));
}

static void test_epilogues(uint32_t n) {
        chain c = chain_make(n);
        struct chain_worst worst = {};
        float h[FF];
        char detail[200];

        chain_run(c, n_sms);
        auto hv = host(c.hidden.d_values, act_size(n, c.hidden.k_padded)),
             nv = host(c.next.d_values, act_size(n, c.next.k_padded));
        auto xv = host(c.q.d_x, c.x.size()), sv = host(c.q.d_squares_out, c.squares.size());
        for (uint32_t r = 0; r < n; r++) {
                worst.gated = fmax(worst.gated, chain_check_gated(c, r, hv, h));
                chain_check_residual(c, r, h, xv, nv, sv, worst);
        }
        snprintf(detail, sizeof(detail), "%u rows: gated %.5f, x %.6f, next %.6f, squares %.7f", n,
                 worst.gated, worst.x, worst.next, worst.square);
        report(worst.gated < 0.01 && worst.x < 1e-3 && worst.next < 2e-3 && worst.square < 1e-5,
               "norms, gate and residual come out: %s", detail);
        if (n > 64 || !sm90)
                return;
        CHECK(cudaMemset(c.hidden.d_values, 0, hv.size() * 2));
        chain_run(c, 1);
        report(host(c.hidden.d_values, hv.size()) == hv && host(c.next.d_values, nv.size()) == nv,
               "the same bits by warps that share activations: %u rows", n);
}

/* A model's shape, for --bench. */
struct model {
        const char *name;
        uint32_t dim, qkv, ff, vocab;
};

#define LAYERS 28U

/* A model's matrices and a step of it. */
struct step {
        struct warm_cuda_matrix qkv[LAYERS], o[LAYERS], gu[LAYERS], down[LAYERS], head;
        struct warm_cuda_acts a, h;
        struct warm_cuda_product p; /* what all products have in common */
        const float *d_scales;
        uint32_t layers;
        const char *only; /* NULL: all products */
        cudaStream_t stream;
        double bytes, flops;
};

static void step_init(struct step &s, const model &m, enum warm_cuda_format f, uint32_t n) {
        uint32_t dim_segments = warm_cuda_segments_of(m.dim / 64);

        for (uint32_t i = 0; i < s.layers; i++) {
                s.qkv[i] = matrix_of(f, m.qkv, m.dim, dim_segments);
                s.o[i] = matrix_of(f, m.dim, m.dim, dim_segments);
                s.gu[i] = matrix_of(f, 2 * m.ff, m.dim, 1);
                s.down[i] = matrix_of(f, m.dim, m.ff, warm_cuda_segments_of(m.ff / 64));
                for (auto *w : { &s.qkv[i], &s.o[i], &s.gu[i], &s.down[i] })
                        CHECK(cudaMemset((void *) w->d_data, 0x15, warm_cuda_matrix_bytes(w)));
        }
        s.head = matrix_of(f == WARM_CUDA_Q4M ? WARM_CUDA_Q6 : f, m.vocab, m.dim, 1);
        CHECK(cudaStreamCreate(&s.stream));
        s.a = { device<uint16_t>(act_size(n, m.dim)), n8_of(n), m.dim };
        s.h = { device<uint16_t>(act_size(n, m.ff)), n8_of(n), m.ff };
        s.d_scales = device<float>(n);
        s.p.d_n_rows = device<uint32_t>(1, &n);
        s.p.n_rows_max = n;
        s.p.overlap = true;
        s.p.d_x = device<float>((size_t) n * m.dim);
        s.p.d_out = device<float>((size_t) n * (n > 64 ? m.qkv : m.vocab));
        s.p.n_tiles = m.dim / 16;
        s.p.squares_ld = n;
        s.p.dim = m.dim;
        s.p.epsilon = 1e-5f;
        s.p.residual_scale = 1;
        s.p.logit_scale = 1;
        s.p.d_squares_out = device<float>((size_t) m.dim / 16 * n);
        s.p.d_next_norm = device<float>(m.dim);
        give_parts(s.p);
}

/* One product, if it is asked for. @param normed its input is @param out what it writes as activations */
static void step_product(struct step &s, const char *name, const struct warm_cuda_matrix &w,
                         enum warm_cuda_epilogue epilogue, const struct warm_cuda_acts &in,
                         const struct warm_cuda_acts &out, bool normed) {
        struct warm_cuda_product q = s.p;

        if (s.only && !strstr(s.only, name))
                return;
        q.d_squares = normed ? s.p.d_squares_out : nullptr;
        q.d_row_scales = normed ? s.d_scales : nullptr;
        q.matrix = w;
        q.epilogue = epilogue;
        q.in = in;
        q.out = out;
        q.ld_out = w.n_rows;
        CHECK(q.n_rows_max <= 64 ? warm_cuda_multiply_narrow(&q, n_sms, s.stream)
                                 : warm_cuda_multiply_sm90(&q, n_sms, s.stream));
        s.flops += 2.0 * q.n_rows_max * w.n_rows * w.k_units * 64;
        s.bytes += (double) warm_cuda_matrix_bytes(&w);
}

static void step_queue(struct step &s) {
        for (uint32_t i = 0; i < s.layers; i++) {
                step_product(s, "qkv", s.qkv[i], WARM_CUDA_OUT, s.a, s.a, true);
                step_product(s, "out", s.o[i], WARM_CUDA_RESIDUAL, s.a, s.a, false);
                step_product(s, "gate", s.gu[i], WARM_CUDA_GATED, s.a, s.h, true);
                step_product(s, "down", s.down[i], WARM_CUDA_RESIDUAL, s.h, s.a, false);
        }
        if (s.p.n_rows_max <= 64)
                step_product(s, "head", s.head, WARM_CUDA_LOGITS, s.a, s.a, true);
}

static void bench(const model &m, enum warm_cuda_format f, uint32_t n, uint32_t layers,
                  const char *only) {
        struct step s = {};
        std::vector<float> times;
        double ms;

        s.layers = layers;
        s.only = only;
        step_init(s, m, f, n);
        CHECK(cudaStreamBeginCapture(s.stream, cudaStreamCaptureModeThreadLocal));
        step_queue(s);
        times = time_captured(s.stream);
        ms = times[times.size() / 2];
        printf("%-5s %-4s %4u rows %-6s %8.3f ms  %6.2f GB  %5.2f TB/s  %6.1f TFLOP/s\n", m.name,
               f == WARM_CUDA_F16  ? "f16"
               : f == WARM_CUDA_Q8 ? "q8"
                                   : "q4m",
               n, only ? only : "step", ms, s.bytes / 1e9, s.bytes / ms / 1e9, s.flops / ms / 1e9);
        fflush(stdout);
        for (uint32_t i = 0; i < layers; i++)
                for (auto *w : { &s.qkv[i], &s.o[i], &s.gu[i], &s.down[i] })
                        CHECK(cudaFree((void *) w->d_data));
        CHECK(cudaFree((void *) s.head.d_data));
}

int main(int argc, char **argv) {
        const model small = { "1.5B", 1536, 2048, 8960, 151936 },
                    large = { "7B", 3584, 4608, 18944, 152064 };
        struct cudaDeviceProp properties;
        int n_devices = 0;

        if (cudaGetDeviceCount(&n_devices) || n_devices == 0) {
                printf("skipped: no GPU\n");
                return 77;
        }
        CHECK(cudaGetDeviceProperties(&properties, 0));
        n_sms = (uint32_t) properties.multiProcessorCount;
        hopper = properties.major == 9 && properties.minor == 0;
        sm90 = properties.major >= 9;
        if (argc > 1 && strcmp(argv[1], "--bench") == 0) {
                printf("%s, %u multiprocessors\n", properties.name, n_sms);
                if (argc >
                    4) { /* --bench 1.5B|7B FORMAT ROWS [qkv|out|gate|down|head]: that alone */
                        bench(strcmp(argv[2], "7B") ? small : large,
                              (enum warm_cuda_format) atoi(argv[3]), (uint32_t) atoi(argv[4]),
                              argc > 5 && strcmp(argv[5], "qkv") ? 4 : 28,
                              argc > 5 ? argv[5] : nullptr);
                        return 0;
                }
                for (auto f : { WARM_CUDA_F16, WARM_CUDA_Q8, WARM_CUDA_Q4M })
                        for (uint32_t n : { 1U, 16U, 2048U })
                                bench(small, f, n, 28, nullptr);
                for (const char *only : { "qkv", "out", "gate", "down", "head" })
                        bench(small, WARM_CUDA_F16, 1, 28, only);
                for (const char *only : { "qkv", "out", "gate", "down" })
                        bench(small, WARM_CUDA_F16, 2048, 28, only);
                for (auto f : { WARM_CUDA_F16, WARM_CUDA_Q8, WARM_CUDA_Q4M })
                        for (uint32_t n : { 1U, 16U, 2048U })
                                bench(large, f, n, 28, nullptr);
                return 0;
        }
        few = argc > 1 && strcmp(argv[1], "--few") == 0;
        for (int type = 0; type < _WARM_TYPE_N; type++) {
                test_type((enum warm_type) type, 176, 768, 8);
                test_type((enum warm_type) type, 304, 256, 1);
        }
        for (uint32_t n : { 1U, 7U, 16U, 30U, 64U, 65U, 200U })
                test_epilogues(n);
        test_two(WARM_TYPE_Q4_K, 200, 1536, 4);
        test_two(WARM_TYPE_Q5_K, 2000, 512, 1);
        if (hopper)
                test_share(WARM_TYPE_Q8_0, 1536, 1536, 4, 128);
        if (few)
                return n_failed != 0;
        test_type(WARM_TYPE_BF16, 48, 2048, 8);
        test_type(WARM_TYPE_F32, 24, 40, 8);
        test_type(WARM_TYPE_F32, 24, 16, 1);
        test_type(WARM_TYPE_Q4_K, 20, 8960, 8);
        test_type(WARM_TYPE_F16, 80, 512, 4);
        test_type(WARM_TYPE_Q5_K, 208, 768, 2);
        /* several tiles a block, fewer with less shared memory */
        test_type(WARM_TYPE_Q8_0, 8000, 128, 1);
        /* blocks of nine tiles over three blocks of rows, half a stage, a ring that comes around */
        test_type(WARM_TYPE_Q4_0, 3000, 1344, 1);
        test_type(WARM_TYPE_F16, 3000, 1344, 1);
        if (hopper) {
                test_share(WARM_TYPE_F16, 3500, 1024, 4, 600);
                test_share(WARM_TYPE_Q6_K, 3584, 1536, 8, 1100);
                test_share(WARM_TYPE_Q4_K, 1536, 4096, 8, 2048);
        }
        return n_failed != 0;
}
