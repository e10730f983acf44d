/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CUDA sampler against a twin on the host that sorts everything and sums everything in double.
 *
 * A draw may differ from the twin's where u meets the border of two ranks, or top_p or min_p that of the head, to
 * within MARGIN of the mass: the twin gives the ranks that are right with its sums moved by that much either way. All
 * else is exact, log-probabilities to a few roundings.
 *
 * Arguments: none: all tests. --small: few and small, for a checker. --bench: times instead. A number: the seed.
 */
#include <algorithm>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vector>

#include "kernels/cuda/sample.h"
#include "kernels/sample.h"

#define MARGIN   1e-6
#define N_STYLES 10U
#define ROWS_MAX 64U

static uint64_t seed = 20250704;
static uint32_t n_failed, n_checked, n_exact;

static void must(int r, const char *what) {
        if (r == cudaSuccess)
                return;
        printf("not ok - %s: %s\n", what, cudaGetErrorString((cudaError_t) r));
        exit(1);
}

static void say(bool ok, const char *sentence) {
        printf("%s - %s\n", ok ? "ok" : "not ok", sentence);
        n_failed += !ok;
}

static uint64_t random_next() {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        return seed;
}

static float random_unit() {
        return warm_uniform(random_next(), 0);
}

static uint32_t random_below(uint32_t n) {
        return (uint32_t) (random_next() % n);
}

static float random_normal() {
        return sqrtf(-2 * logf(random_unit() + 0x1p-25F)) * cosf(6.2831853F * random_unit());
}

/* Device memory and its image on the host, for some rows of one vocabulary. */
struct bed {
        uint32_t n_vocab, ld, n_words;
        std::vector<float> logits;
        std::vector<struct warm_cuda_want> wants;
        std::vector<uint64_t> allowed; /* [ROWS_MAX][n_words] */
        std::vector<int32_t> banned;   /* [ROWS_MAX][512] */
        struct warm_cuda_answer *answers;
        struct warm_cuda_sample s;
        cudaStream_t stream;
};

static void *device_new(uint64_t bytes) {
        void *p;

        must(cudaMalloc(&p, bytes), "device memory");
        must(cudaMemset(p, 0, bytes), "device memory");
        return p;
}

static void bed_init(struct bed &b, uint32_t n_vocab, uint32_t n_rows_max) {
        uint32_t bytes = n_rows_max * sizeof(struct warm_cuda_answer);
        int device, major;

        b.n_vocab = n_vocab;
        b.ld = (n_vocab + 3) / 4 * 4 + 8;
        b.n_words = (n_vocab + 63) / 64;
        b.logits.assign((uint64_t) n_rows_max * b.ld, NAN);
        b.wants.assign(n_rows_max, {});
        b.allowed.assign((uint64_t) n_rows_max * b.n_words, UINT64_MAX);
        b.banned.assign(n_rows_max * 512, -1);
        must(cudaGetDevice(&device), "device");
        must(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "device");
        must(cudaStreamCreateWithFlags(&b.stream, cudaStreamNonBlocking), "stream");
        must(cudaHostAlloc((void **) &b.answers, bytes, cudaHostAllocMapped), "mapped memory");
        b.s = {};
        b.s.d_logits = (float *) device_new(b.logits.size() * 4);
        b.s.ld = b.ld;
        b.s.n_vocab = n_vocab;
        b.s.n_rows_max = n_rows_max;
        b.s.d_n_rows = (uint32_t *) device_new(4);
        b.s.d_wants =
                (struct warm_cuda_want *) device_new(n_rows_max * sizeof(struct warm_cuda_want));
        b.s.d_allowed = (uint64_t *) device_new(b.allowed.size() * 8);
        b.s.d_banned = (int32_t *) device_new(b.banned.size() * 4);
        b.s.d_scratch = device_new(warm_cuda_sample_scratch_bytes(n_rows_max, n_vocab));
        b.s.d_answers = (struct warm_cuda_answer *) device_new(bytes);
        must(cudaHostGetDevicePointer((void **) &b.s.answers, b.answers, 0), "mapped memory");
        b.s.overlap = major >= 9;
}

static void bed_deinit(struct bed &b) {
        const void *all[] = { b.s.d_logits, b.s.d_n_rows,  b.s.d_wants,  b.s.d_allowed,
                              b.s.d_banned, b.s.d_scratch, b.s.d_answers };

        for (const void *p : all)
                must(cudaFree((void *) p), "free");
        must(cudaFreeHost(b.answers), "free");
        must(cudaStreamDestroy(b.stream), "stream");
}

static void upload(const void *d_target, const void *source, uint64_t bytes) {
        must(cudaMemcpy((void *) d_target, source, bytes, cudaMemcpyHostToDevice), "copy");
}

static void bed_upload(struct bed &b, uint32_t n_rows) {
        upload(b.s.d_logits, b.logits.data(), b.logits.size() * 4);
        upload(b.s.d_wants, b.wants.data(), b.wants.size() * sizeof(b.wants[0]));
        upload(b.s.d_allowed, b.allowed.data(), b.allowed.size() * 8);
        upload(b.s.d_banned, b.banned.data(), b.banned.size() * 4);
        upload(b.s.d_n_rows, &n_rows, 4);
}

static void bed_run(struct bed &b) {
        memset(b.answers, 0xa5, b.s.n_rows_max * sizeof(*b.answers));
        must(cudaMemset(b.s.d_answers, 0xa5, b.s.n_rows_max * sizeof(*b.answers)), "clear");
        must(cudaDeviceSynchronize(), "clear");
        must(warm_cuda_sample_run(&b.s, b.stream), "launch");
        must(cudaStreamSynchronize(b.stream), "run");
}

static bool answers_agree(const struct bed &b) {
        std::vector<struct warm_cuda_answer> device(b.s.n_rows_max);

        must(cudaMemcpy(device.data(), b.s.d_answers, device.size() * sizeof(device[0]),
                        cudaMemcpyDeviceToHost),
             "copy");
        return memcmp(device.data(), b.answers, device.size() * sizeof(device[0])) == 0;
}

static void fill_row(float *logits, uint32_t n, uint32_t style) {
        for (uint32_t i = 0; i < n; i++) {
                switch (style) {
                case 0: /* flat: a nucleus of thousands */
                        logits[i] = random_normal() * 3;
                        break;
                case 1: /* like a model's: a few tokens far above the rest */
                        logits[i] = random_normal() * 2;
                        break;
                case 2: /* many ties, and both zeros */
                        logits[i] = roundf(random_normal() * 2) * (random_below(2) ? 0.5F : -0.5F);
                        break;
                case 3: /* one tie */
                        logits[i] = -7.25F;
                        break;
                case 4: /* what a broken model gives */
                        logits[i] = random_below(8) ? random_normal()
                                                    : (random_below(2)   ? NAN
                                                       : random_below(8) ? -INFINITY
                                                                         : INFINITY);
                        break;
                case 5:
                        logits[i] = -INFINITY;
                        break;
                case 6: /* the best all in one place, in descending order */
                        logits[i] = -(float) i * 1e-3F;
                        break;
                case 7: /* all in one bin, not equal */
                        logits[i] = 3 + random_normal() * 1e-4F;
                        break;
                case 8:
                        logits[i] = random_normal() * 1e38F;
                        break;
                default: /* two values */
                        logits[i] = random_below(2) ? 1.0F : 1.001F;
                        break;
                }
        }
        if (style == 1)
                for (uint32_t i = 0; i < 60 && i < n; i++)
                        logits[random_below(n)] = 21 - 0.3F * (float) i + random_unit();
        if (style == 5)
                logits[random_below(n)] = -3;
}

/* Parameters at and between their extremes; everything that may be absent is at times. */
static void fill_want(struct bed &b, uint32_t row) {
        static const float temperatures[] = { 0, 0.01F, 0.3F, 0.8F, 1, 1, 1.5F, 100 };
        static const float top_ps[] = { 1, 1, 0.95F, 0.9F, 0.5F, 0.1F, 1e-6F };
        static const float min_ps[] = { 0, 0, 0, 0.05F, 0.5F, 0.999F, 1e-5F };
        static const float us[] = { 0, 0x1.fffffep-1F, 0.5F };
        const uint32_t top_ks[] = { 0, 0, 0, 1, 2, 20, 40, 1000, 5000, b.n_vocab, b.n_vocab + 5 };
        static const uint32_t n_tops[] = { 0, 1, 5, 20, 31, 32 };
        uint64_t *words = b.allowed.data() + (uint64_t) row * b.n_words;
        int32_t *banned = b.banned.data() + row * 512;
        struct warm_cuda_want w = {};

        w.want = random_below(8);
        w.want |= random_below(4) ? WARM_WANT_TOKEN : 0;
        w.temperature = temperatures[random_below(8)];
        w.top_p = top_ps[random_below(7)];
        w.min_p = min_ps[random_below(7)];
        w.top_k = top_ks[random_below(11)];
        w.u = random_below(4) ? random_unit() : us[random_below(3)];
        w.scored = (int32_t) random_below(b.n_vocab);
        w.n_top = n_tops[random_below(6)];
        w.allowed = random_below(2) ? WARM_CUDA_SAMPLE_NONE : row * b.n_words;
        w.banned = row * 512;
        w.n_banned = random_below(2) ? 0 : random_below(513);
        switch (random_below(4)) {
        case 0: /* nothing */
                std::fill(words, words + b.n_words, 0);
                break;
        case 1: /* a few */
                std::fill(words, words + b.n_words, 0);
                for (uint32_t i = 0; i < 9; i++) {
                        uint32_t id = random_below(b.n_vocab);

                        words[id / 64] |= 1ULL << id % 64;
                }
                break;
        default: /* half; bits beyond the vocabulary too */
                for (uint32_t i = 0; i < b.n_words; i++)
                        words[i] = random_next();
                break;
        }
        for (uint32_t i = 0; i < 512; i++)
                banned[i] = random_below(16) ? (int32_t) random_below(b.n_vocab)
                                             : (int32_t) random_next();
        b.wants[row] = w;
}

struct ranked {
        float logit;
        int32_t id;
};

/* A row on the host: finite logits, all tokens in order, log of the mass. */
struct twin {
        std::vector<float> logits;
        std::vector<struct ranked> order;
        double all;
};

static void twin_init(struct twin &t, const float *logits, uint32_t n) {
        double mass = 0;

        t.logits.assign(logits, logits + n);
        t.order.resize(n);
        for (uint32_t i = 0; i < n; i++) {
                float l = t.logits[i];

                l = l != l ? -FLT_MAX : l > FLT_MAX ? FLT_MAX : l < -FLT_MAX ? -FLT_MAX : l;
                t.logits[i] = l;
                t.order[i] = { l, (int32_t) i };
        }
        std::sort(t.order.begin(), t.order.end(),
                  [](const struct ranked &x, const struct ranked &y) {
                          return x.logit != y.logit ? x.logit > y.logit : x.id < y.id;
                  });
        for (const struct ranked &r : t.order)
                mass += exp((double) r.logit - t.order[0].logit);
        t.all = t.order[0].logit + log(mass);
}

/* Rank drawn from descending weights, all borders moved by `moved` of the mass toward the first (< 0) or the last. */
static uint32_t twin_draw(const std::vector<double> &weights, const struct warm_cuda_want &w,
                          double moved) {
        uint32_t n = (uint32_t) weights.size(), i;
        double mass = 0, head = 0, target;

        if (w.top_k && w.top_k < n)
                n = w.top_k;
        for (i = 0; i < n; i++)
                mass += weights[i];
        if (w.top_p < 1 || w.min_p > 0) {
                for (i = 0; i < n; i++) {
                        if (i > 0 && (head >= (w.top_p + moved) * mass ||
                                      weights[i] < w.min_p * (1 - moved)))
                                break;
                        head += weights[i];
                }
                n = i;
                mass = head;
                head = 0;
        }
        target = (w.u + moved) * mass;
        for (i = 0; i + 1 < n; i++) {
                head += weights[i];
                if (head > target)
                        break;
        }
        return i;
}

/* Whether token is what the rule gives. */
static bool twin_token_is(const struct twin &t, const struct bed &b, const struct warm_cuda_want &w,
                          int32_t token) {
        std::vector<struct ranked> left;
        std::vector<bool> banned(b.n_vocab, false);
        std::vector<double> weights;
        uint32_t first, last;
        float shift = 0;

        for (uint32_t i = 0; i < w.n_banned; i++)
                if ((uint32_t) b.banned[w.banned + i] < b.n_vocab)
                        banned[(uint32_t) b.banned[w.banned + i]] = true;
        for (const struct ranked &r : t.order)
                if (!banned[(uint32_t) r.id] &&
                    (w.allowed == WARM_CUDA_SAMPLE_NONE ||
                     b.allowed[w.allowed + (uint32_t) r.id / 64] >> r.id % 64 & 1))
                        left.push_back(r);
        if (left.empty())
                return token == -1;
        if (w.temperature == 0)
                return token == left[0].id;
        /* Scaled and shifted in float, as the rule is carried out everywhere; what overflows stays the largest. */
        for (const struct ranked &r : left) {
                float scaled = fminf(fmaxf(r.logit / w.temperature, -FLT_MAX), FLT_MAX);

                shift = weights.empty() ? scaled : shift;
                weights.push_back(exp((double) (scaled - shift)));
        }
        first = twin_draw(weights, w, -MARGIN);
        last = twin_draw(weights, w, MARGIN);
        n_exact += first == last;
        n_checked++;
        for (uint32_t i = first; i <= last; i++)
                if (left[i].id == token)
                        return true;
        printf("# drew %d, right are ranks %u to %u of %zu, the first is token %d\n", token, first,
               last, left.size(), left[first].id);
        return false;
}

static bool is_close(float value, double right) {
        return value == (float) right || fabs(value - right) <= 3e-6 + 2e-7 * fabs(right);
}

static bool is_right(const struct twin &t, const struct bed &b, uint32_t row,
                     const struct warm_cuda_answer &a) {
        const struct warm_cuda_want &w = b.wants[row];
        uint32_t n_top = w.want & WARM_WANT_TOP ? std::min(w.n_top, b.n_vocab) : 0;

        if (!(w.want & WARM_WANT_TOKEN) && a.token != -1)
                return false;
        if (w.want & WARM_WANT_TOKEN && !twin_token_is(t, b, w, a.token))
                return false;
        if (!is_close(a.logprob, a.token < 0 ? 0 : t.logits[(uint32_t) a.token] - t.all))
                return false;
        if (!is_close(a.scored_logprob,
                      w.want & WARM_WANT_LOGPROB ? t.logits[(uint32_t) w.scored] - t.all : 0))
                return false;
        if (a.n_top != n_top)
                return false;
        for (uint32_t i = 0; i < n_top; i++)
                if (a.top[i].token != t.order[i].id ||
                    !is_close(a.top[i].logprob, t.order[i].logit - t.all))
                        return false;
        return true;
}

static void print_row(const struct bed &b, uint32_t row, uint32_t style) {
        const struct warm_cuda_want &w = b.wants[row];
        const struct warm_cuda_answer &a = b.answers[row];

        printf("# row %u style %u: want %u temperature %g top_p %g min_p %g top_k %u u %.9g n_top "
               "%u allowed %d "
               "n_banned %u -> token %d %g, scored %g, n_top %u\n",
               row, style, w.want, w.temperature, w.top_p, w.min_p, w.top_k, w.u, w.n_top,
               w.allowed != WARM_CUDA_SAMPLE_NONE, w.n_banned, a.token, a.logprob, a.scored_logprob,
               a.n_top);
}

static bool is_untouched(const struct warm_cuda_answer &a) {
        struct warm_cuda_answer poison;

        memset(&poison, 0xa5, sizeof(poison));
        return memcmp(&a, &poison, sizeof(a)) == 0;
}

/* Random wants over all styles of logits. */
static void test_sweep(uint32_t n_vocab, uint32_t n_rounds) {
        std::vector<struct twin> twins(N_STYLES);
        uint32_t n_wrong = 0;
        char sentence[120];
        struct bed b;

        bed_init(b, n_vocab, N_STYLES);
        for (uint32_t i = 0; i < N_STYLES; i++) {
                fill_row(b.logits.data() + (uint64_t) i * b.ld, n_vocab, i);
                twin_init(twins[i], b.logits.data() + (uint64_t) i * b.ld, n_vocab);
        }
        for (uint32_t round = 0; round < n_rounds; round++) {
                for (uint32_t i = 0; i < N_STYLES; i++)
                        fill_want(b, i);
                bed_upload(b, N_STYLES);
                bed_run(b);
                n_wrong += !answers_agree(b);
                for (uint32_t i = 0; i < N_STYLES; i++) {
                        bool ok = b.wants[i].want ? is_right(twins[i], b, i, b.answers[i])
                                                  : is_untouched(b.answers[i]);

                        if (!ok && n_wrong++ < 5)
                                print_row(b, i, i);
                }
        }
        bed_deinit(b);
        snprintf(sentence, sizeof(sentence),
                 "rows of %u tokens get what the rule gives (%u calls of %u rows)", n_vocab,
                 n_rounds, N_STYLES);
        say(n_wrong == 0, sentence);
}

/* Rows of a batch, then each alone, in another place, with other neighbours, and twice. */
static void test_alone(uint32_t n_vocab, uint32_t n_rows) {
        std::vector<struct warm_cuda_answer> batch(n_rows);
        std::vector<float> logits;
        std::vector<struct warm_cuda_want> wants;
        bool same = true;
        struct bed b;

        bed_init(b, n_vocab, n_rows);
        for (uint32_t i = 0; i < n_rows; i++) {
                fill_row(b.logits.data() + (uint64_t) i * b.ld, n_vocab, i % N_STYLES);
                fill_want(b, i);
                b.wants[i].want = 7;
        }
        bed_upload(b, n_rows);
        bed_run(b);
        memcpy(batch.data(), b.answers, n_rows * sizeof(batch[0]));
        bed_run(b);
        say(memcmp(batch.data(), b.answers, n_rows * sizeof(batch[0])) == 0,
            "the same call gives the same bytes again");

        logits = b.logits;
        wants = b.wants;
        for (uint32_t i = 0; i < n_rows; i++) {
                memcpy(b.logits.data(), logits.data() + (uint64_t) i * b.ld, b.ld * 4);
                b.wants[0] = wants[i];
                bed_upload(b, 1);
                bed_run(b);
                same &= memcmp(&batch[i], &b.answers[0], sizeof(batch[i])) == 0;
                for (uint32_t j = 1; j < n_rows; j++)
                        same &= is_untouched(b.answers[j]);
        }
        say(same,
            "a row alone gets the bytes that it gets in a batch, and no other row is written");
        bed_deinit(b);
}

/* As many evenly spaced u as there are: the tokens come as often as their probabilities say. */
static void test_distribution() {
        const uint32_t n = 40000, n_draws = 4096;
        std::vector<uint32_t> hits(n, 0);
        struct twin t;
        double mass = 0, head = 0;
        bool ok = true;
        struct bed b;

        bed_init(b, n, ROWS_MAX);
        fill_row(b.logits.data(), n, 1);
        twin_init(t, b.logits.data(), n);
        for (uint32_t i = 1; i < ROWS_MAX; i++)
                memcpy(b.logits.data() + (uint64_t) i * b.ld, b.logits.data(), b.ld * 4);
        for (uint32_t from = 0; from < n_draws; from += ROWS_MAX) {
                for (uint32_t i = 0; i < ROWS_MAX; i++) {
                        struct warm_cuda_want w = {};

                        w.want = WARM_WANT_TOKEN;
                        w.temperature = 1.25F;
                        w.top_p = 0.9F;
                        w.u = (float) (from + i) / n_draws;
                        w.allowed = WARM_CUDA_SAMPLE_NONE;
                        b.wants[i] = w;
                }
                bed_upload(b, ROWS_MAX);
                bed_run(b);
                for (uint32_t i = 0; i < ROWS_MAX; i++)
                        if (b.answers[i].token >= 0)
                                hits[(uint32_t) b.answers[i].token]++;
        }
        for (const struct ranked &r : t.order)
                mass += exp(r.logit / 1.25);
        for (const struct ranked &r : t.order) {
                if (head >= 0.9 * mass)
                        break;
                head += exp(r.logit / 1.25);
        }
        mass = 0;
        for (const struct ranked &r : t.order) {
                double p = mass < head ? exp(r.logit / 1.25) / head : 0;

                mass += exp(r.logit / 1.25);
                ok &= fabs(hits[(uint32_t) r.id] - p * n_draws) <= 1.01;
        }
        bed_deinit(b);
        say(ok, "4096 even draws hit each token as often as its probability says, to one");
}

/* Bad sizes are refused; the greedy form gives greedy rows the same; a captured call reads its inputs anew. */
static void test_calls() {
        const uint32_t n_vocab = 5000, n_rows = 8;
        std::vector<struct warm_cuda_answer> first(n_rows);
        struct warm_cuda_sample bad;
        cudaGraph_t graph;
        cudaGraphExec_t exec;
        uint32_t few = 3;
        bool ok;
        struct bed b;

        bed_init(b, n_vocab, n_rows);
        bad = b.s;
        bad.ld = n_vocab - 4;
        ok = warm_cuda_sample_run(&bad, b.stream) == cudaErrorInvalidValue;
        bad.ld = b.ld + 1;
        ok &= warm_cuda_sample_run(&bad, b.stream) == cudaErrorInvalidValue;
        bad.ld = UINT32_MAX & ~3U;
        bad.n_vocab = WARM_CUDA_SAMPLE_VOCAB_MAX + 1;
        ok &= warm_cuda_sample_run(&bad, b.stream) == cudaErrorInvalidValue;
        bad.n_vocab = 0;
        ok &= warm_cuda_sample_run(&bad, b.stream) == cudaErrorInvalidValue;
        say(ok, "a row shorter than the vocabulary, a pitch that is no multiple of 4, no or too "
                "many tokens are refused");

        for (uint32_t i = 0; i < n_rows; i++) {
                fill_row(b.logits.data() + (uint64_t) i * b.ld, n_vocab, i);
                fill_want(b, i);
                b.wants[i].want = WARM_WANT_TOKEN | WARM_WANT_LOGPROB;
                b.wants[i].temperature = 0;
        }
        bed_upload(b, n_rows);
        bed_run(b);
        memcpy(first.data(), b.answers, n_rows * sizeof(first[0]));
        b.s.greedy = true;
        bed_run(b);
        say(memcmp(first.data(), b.answers, n_rows * sizeof(first[0])) == 0,
            "without the second kernel greedy rows get the same");
        b.s.greedy = false;

        for (uint32_t i = 0; i < n_rows; i++)
                b.wants[i].temperature = 0.9F, b.wants[i].want = 7;
        bed_upload(b, n_rows);
        bed_run(b);
        memcpy(first.data(), b.answers, n_rows * sizeof(first[0]));
        must(cudaStreamBeginCapture(b.stream, cudaStreamCaptureModeThreadLocal), "capture");
        must(warm_cuda_sample_run(&b.s, b.stream), "capture");
        must(cudaStreamEndCapture(b.stream, &graph), "capture");
        must(cudaGraphInstantiate(&exec, graph, 0), "capture");
        ok = true;
        for (uint32_t i = 0; i < 3; i++) {
                uint32_t n = i == 1 ? few : n_rows;

                memset(b.answers, 0xa5, n_rows * sizeof(*b.answers));
                upload(b.s.d_n_rows, &n, 4);
                must(cudaDeviceSynchronize(), "replay");
                must(cudaGraphLaunch(exec, b.stream), "replay");
                must(cudaStreamSynchronize(b.stream), "replay");
                ok &= memcmp(first.data(), b.answers, n * sizeof(first[0])) == 0;
                for (uint32_t j = n; j < n_rows; j++)
                        ok &= is_untouched(b.answers[j]);
        }
        say(ok, "a captured call answers as many rows as there are when it runs");
        must(cudaGraphExecDestroy(exec), "graph");
        must(cudaGraphDestroy(graph), "graph");
        bed_deinit(b);
}

#define CALLS 20U /* in a graph, one after the other, so that starting the graph does not count */

static float time_calls(struct bed &b) {
        std::vector<float> times;
        float spent = 0;
        cudaEvent_t begin, end;
        cudaGraph_t graph;
        cudaGraphExec_t exec;

        must(cudaEventCreate(&begin), "event");
        must(cudaEventCreate(&end), "event");
        must(cudaStreamBeginCapture(b.stream, cudaStreamCaptureModeThreadLocal), "capture");
        for (uint32_t i = 0; i < CALLS; i++)
                must(warm_cuda_sample_run(&b.s, b.stream), "capture");
        must(cudaStreamEndCapture(b.stream, &graph), "capture");
        must(cudaGraphInstantiate(&exec, graph, 0), "capture");
        for (uint32_t i = 0; i < 35 && spent < 200; i++) {
                float ms;

                must(cudaEventRecord(begin, b.stream), "event");
                must(cudaGraphLaunch(exec, b.stream), "replay");
                must(cudaEventRecord(end, b.stream), "event");
                must(cudaEventSynchronize(end), "replay");
                must(cudaEventElapsedTime(&ms, begin, end), "event");
                spent += ms;
                if (i >= 5 || spent > 100)
                        times.push_back(ms * 1000 / CALLS);
        }
        std::sort(times.begin(), times.end());
        must(cudaGraphExecDestroy(exec), "graph");
        must(cudaGraphDestroy(graph), "graph");
        must(cudaEventDestroy(begin), "event");
        must(cudaEventDestroy(end), "event");
        return times[times.size() / 2];
}

struct bench {
        const char *name;
        uint32_t want;
        float temperature, top_p, min_p;
        uint32_t top_k;
        bool greedy;
};

/* Medians of 30 replays of CALLS calls. The logits of one row stay in the cache, as they do behind a model. */
static void bench() {
        static const struct bench benches[] = {
                { "nothing wanted", 0, 0, 1, 0, 0, true },
                { "greedy", WARM_WANT_TOKEN, 0, 1, 0, 0, true },
                { "greedy + logprob", WARM_WANT_TOKEN | WARM_WANT_LOGPROB, 0, 1, 0, 0, true },
                { "greedy + logprob, both kernels", WARM_WANT_TOKEN | WARM_WANT_LOGPROB, 0, 1, 0, 0,
                  false },
                { "greedy + top 20", WARM_WANT_TOKEN | WARM_WANT_TOP, 0, 1, 0, 0, false },
                { "temperature 0.8", WARM_WANT_TOKEN, 0.8F, 1, 0, 0, false },
                { "temperature 0.8, top_p 0.95", WARM_WANT_TOKEN, 0.8F, 0.95F, 0, 0, false },
                { "temperature 0.8, top_k 40", WARM_WANT_TOKEN, 0.8F, 1, 0, 40, false },
                { "all of it + top 20", 7, 0.8F, 0.95F, 0.05F, 40, false },
        };
        static const uint32_t rows[] = { 1, 16, 64, 1 }, rows_max[] = { 1, 16, 64, 64 },
                              styles[] = { 1, 0, 3 };
        static const char *const names[] = { "like a model's", "normal, deviation 3", "all equal" };
        const uint32_t n_vocab = 151936;
        struct cudaDeviceProp properties;
        float times[3][9][4];

        must(cudaGetDeviceProperties(&properties, 0), "device");
        for (uint32_t r = 0; r < 4; r++) {
                struct bed b;

                bed_init(b, n_vocab, rows_max[r]);
                for (uint32_t s = 0; s < 3; s++) {
                        for (uint32_t i = 0; i < rows[r]; i++)
                                fill_row(b.logits.data() + (uint64_t) i * b.ld, n_vocab, styles[s]);
                        for (uint32_t i = 0; i < 9; i++) {
                                const struct bench &e = benches[i];

                                for (uint32_t j = 0; j < rows[r]; j++)
                                        b.wants[j] = { e.want,
                                                       e.temperature,
                                                       e.top_p,
                                                       e.min_p,
                                                       e.top_k,
                                                       0.6F,
                                                       77,
                                                       20,
                                                       WARM_CUDA_SAMPLE_NONE,
                                                       0,
                                                       0,
                                                       0 };
                                b.s.greedy = e.greedy;
                                bed_upload(b, rows[r]);
                                times[s][i][r] = time_calls(b);
                        }
                }
                bed_deinit(b);
        }
        printf("%s, %u tokens, us a call\n", properties.name, n_vocab);
        for (uint32_t s = 0; s < 3; s++) {
                printf("\n%-32s %8s %8s %8s %8s\n", names[s], "1 row", "16 rows", "64 rows",
                       "1 of 64");
                for (uint32_t i = 0; i < 9; i++)
                        printf("%-32s %8.2f %8.2f %8.2f %8.2f\n", benches[i].name, times[s][i][0],
                               times[s][i][1], times[s][i][2], times[s][i][3]);
        }
}

int main(int argc, char **argv) {
        static const uint32_t vocabularies[] = { 1, 31, 1024, 1025, 16384, 49152, 151936, 262144 };
        bool small = false;
        int n_devices = 0;

        if (cudaGetDeviceCount(&n_devices) != cudaSuccess || n_devices == 0) {
                printf("skipped: no GPU\n");
                return 77;
        }
        for (int i = 1; i < argc; i++) {
                if (strcmp(argv[i], "--bench") == 0) {
                        bench();
                        return 0;
                }
                if (strcmp(argv[i], "--small") == 0)
                        small = true;
                else
                        seed = strtoull(argv[i], NULL, 0) | 1;
        }
        printf("# seed %llu\n", (unsigned long long) seed);
        for (uint32_t n_vocab : vocabularies) {
                if (small && n_vocab > 16384)
                        break;
                test_sweep(n_vocab, small ? 3 : n_vocab < 20000 ? 60 : 12);
        }
        test_alone(small ? 3000 : 49155, small ? 6 : ROWS_MAX);
        test_calls();
        if (!small) {
                test_distribution();
                printf("# %u of %u draws have one right token\n", n_exact, n_checked);
                say(n_exact * 10 > n_checked * 8, "the margin leaves most draws one right token");
        }
        return n_failed ? 1 : 0;
}
