/* SPDX-License-Identifier: Apache-2.0 */
/* Sampling against a twin that sorts everything and sums everything in double, as the rule in backend.h reads. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cpu/cpu.h"
#include "kernels/sample.h"
#include "tiny.h"

#define N_VOCAB 2500U /* two whole segments and a part */
#define N_WORDS ((N_VOCAB + 63) / 64)

static float logits[N_VOCAB];
static struct warm_segment segments[3];
static struct warm_candidate candidates[N_VOCAB];
static float floats[N_VOCAB];
static const struct warm_kernels *kernels;

static int set_up(void **state) {
        (void) state;
        kernels = warm_kernels_get(WARM_ISA_PLAIN);
        return kernels == NULL;
}

/* Few different values, so that equal logits are common. */
static void fill(uint64_t *random, float spread) {
        float scratch[WARM_SAMPLE_SEGMENT];

        for (uint32_t i = 0; i < N_VOCAB; i++)
                logits[i] = roundf(tiny_random(random) * tiny_random(random) * 64) / 64 * spread;
        for (uint32_t i = 0; i < 3; i++) {
                uint32_t begin = i * WARM_SAMPLE_SEGMENT, n = N_VOCAB - begin;

                n = n > WARM_SAMPLE_SEGMENT ? WARM_SAMPLE_SEGMENT : n;
                warm_segment_sum(kernels, logits + begin, begin, n, scratch, &segments[i]);
        }
}

static struct warm_result sample(uint8_t want, const struct warm_sampling *s, uint32_t position,
                                 int32_t scored, uint32_t n_top) {
        struct warm_sample_scratch scratch = { candidates, floats };
        struct warm_result result = { .token = -9 };
        struct warm_row row = {
                .position = position,
                .want = want,
                .sampling = s,
                .result = &result,
                .scored = scored,
                .n_top = n_top,
        };

        warm_sample_row(kernels, &row, logits, segments, N_VOCAB, &scratch);
        return result;
}

static int by_rank(const void *a, const void *b) {
        int32_t x = *(const int32_t *) a, y = *(const int32_t *) b;

        if (logits[x] != logits[y])
                return logits[x] > logits[y] ? -1 : 1;
        return x - y;
}

static double log_mass(void) {
        double mass = 0, most = -INFINITY;

        for (uint32_t i = 0; i < N_VOCAB; i++)
                most = fmax(most, (double) logits[i]);
        for (uint32_t i = 0; i < N_VOCAB; i++)
                mass += exp((double) logits[i] - most);
        return most + log(mass);
}

static bool may(const struct warm_sampling *s, int32_t id) {
        for (uint32_t i = 0; i < s->n_banned; i++)
                if (s->banned[i] == id)
                        return false;
        return !s->allowed || (s->allowed[id / 64] >> (id % 64) & 1);
}

/* The twin. *ret_near: u lies so near to a border that float and double may differ. */
static int32_t twin(const struct warm_sampling *s, uint32_t position, bool *ret_near) {
        int32_t ids[N_VOCAB];
        double p[N_VOCAB], total = 0, head = 0, u = (double) warm_uniform(s->seed, position);
        uint32_t n = 0, keep;

        *ret_near = false;
        for (uint32_t i = 0; i < N_VOCAB; i++)
                if (may(s, (int32_t) i))
                        ids[n++] = (int32_t) i;
        if (n == 0)
                return -1;
        qsort(ids, n, sizeof(*ids), by_rank);
        if (s->temperature == 0)
                return ids[0];
        if (s->top_k && s->top_k < n)
                n = s->top_k;
        for (uint32_t i = 0; i < n; i++) {
                p[i] = exp(((double) logits[ids[i]] - (double) logits[ids[0]]) /
                           (double) s->temperature);
                total += p[i];
        }
        for (keep = 0; keep < n && (s->top_p == 1 || keep == 0 || head < (double) s->top_p * total);
             keep++) {
                head += p[keep];
                *ret_near |= s->top_p < 1 && fabs(head / total - (double) s->top_p) < 1e-5;
        }
        while (keep > 1 && p[keep - 1] < (double) s->min_p) {
                *ret_near |= s->min_p > 0 && fabs(p[keep - 1] - (double) s->min_p) < 1e-5;
                keep--;
        }
        *ret_near |= s->min_p > 0 && keep > 0 && fabs(p[keep - 1] - (double) s->min_p) < 1e-5;
        total = 0;
        for (uint32_t i = 0; i < keep; i++)
                total += p[i];
        head = 0;
        for (uint32_t i = 0; i < keep; i++) {
                head += p[i];
                *ret_near |= fabs(head / total - u) < 1e-5;
                if (head > u * total)
                        return ids[i];
        }
        return ids[keep - 1];
}

static void every_mix_of_parameters_draws_as_the_twin(void **state) {
        uint64_t random = 12, allowed[N_WORDS];
        uint32_t n_compared = 0;

        (void) state;
        for (uint32_t round = 0; round < 600; round++) {
                const float temperatures[] = { 0, 0.2F, 0.8F, 1, 2.5F };
                const float top_ps[] = { 1, 0.95F, 0.5F, 0.01F };
                const float min_ps[] = { 0, 0.05F, 0.6F };
                const uint32_t top_ks[] = { 0, 1, 40, 1000, N_VOCAB, UINT32_MAX };
                int32_t banned[8], expected;
                struct warm_sampling s = {
                        .temperature = temperatures[tiny_random_bits(&random) % 5],
                        .top_p = top_ps[tiny_random_bits(&random) % 4],
                        .min_p = min_ps[tiny_random_bits(&random) % 3],
                        .top_k = top_ks[tiny_random_bits(&random) % 6],
                        .seed = tiny_random_bits(&random),
                        .banned = banned,
                };
                uint32_t position = (uint32_t) (tiny_random_bits(&random) % 2000);
                struct warm_result result;
                bool near;

                fill(&random, round % 3 == 0 ? 1 : 12);
                if (round % 2) {
                        for (uint32_t i = 0; i < N_WORDS; i++)
                                allowed[i] = tiny_random_bits(&random) & tiny_random_bits(&random);
                        s.allowed = allowed;
                }
                for (s.n_banned = 0; s.n_banned < round % 9; s.n_banned++)
                        banned[s.n_banned] =
                                s.n_banned % 2 ? segments[0].best
                                               : (int32_t) (tiny_random_bits(&random) % N_VOCAB);
                result = sample(WARM_WANT_TOKEN, &s, position, 0, 0);
                expected = twin(&s, position + 1, &near);
                if (near)
                        continue;
                if (result.token != expected)
                        fail_msg("round %u: %d instead of %d", round, result.token, expected);
                assert_true(fabs((double) result.logprob -
                                 ((double) logits[expected] - log_mass())) < 1e-5);
                n_compared++;
        }
        assert_true(n_compared > 500);
}

static void greedy_takes_the_lowest_of_equals(void **state) {
        struct warm_sampling s = { .top_p = 1 };
        uint64_t random = 1, allowed[N_WORDS] = { 0 };

        (void) state;
        fill(&random, 0); /* all equal */
        assert_int_equal(sample(WARM_WANT_TOKEN, &s, 0, 0, 0).token, 0);
        allowed[2000 / 64] = 3ULL << (2000 % 64);
        s.allowed = allowed;
        assert_int_equal(sample(WARM_WANT_TOKEN, &s, 0, 0, 0).token, 2000);
        s.banned = (const int32_t[]){ 2000 };
        s.n_banned = 1;
        assert_int_equal(sample(WARM_WANT_TOKEN, &s, 0, 0, 0).token, 2001);
        allowed[2000 / 64] = 1ULL << (2000 % 64);
        assert_int_equal(sample(WARM_WANT_TOKEN, &s, 0, 0, 0).token, -1);
        s.temperature = 1;
        assert_int_equal(sample(WARM_WANT_TOKEN, &s, 0, 0, 0).token, -1);
        allowed[N_WORDS - 1] = UINT64_MAX << (N_VOCAB % 64); /* bits past the last token */
        assert_int_equal(sample(WARM_WANT_TOKEN, &s, 0, 0, 0).token, -1);
}

static void the_most_likely_stand_in_order(void **state) {
        uint64_t random = 4;
        int32_t ids[N_VOCAB];

        (void) state;
        fill(&random, 3);
        for (uint32_t i = 0; i < N_VOCAB; i++)
                ids[i] = (int32_t) i;
        qsort(ids, N_VOCAB, sizeof(*ids), by_rank);
        for (uint32_t n = 0; n <= WARM_TOP_N_MAX; n++) {
                struct warm_result r =
                        sample(WARM_WANT_TOP | WARM_WANT_LOGPROB, NULL, 0, ids[77], n);

                assert_int_equal(r.n_top, n);
                for (uint32_t i = 0; i < n; i++) {
                        assert_int_equal(r.top[i].token, ids[i]);
                        assert_true(fabs((double) r.top[i].logprob -
                                         ((double) logits[ids[i]] - log_mass())) < 1e-5);
                }
                assert_true(fabs((double) r.scored_logprob -
                                 ((double) logits[ids[77]] - log_mass())) < 1e-5);
                assert_int_equal(r.token, -9); /* nobody asked */
        }
}

static void logits_that_are_not_finite_are_made_so(void **state) {
        float scratch[4], some[4] = { NAN, 1, -INFINITY, 0 }, high[4] = { 1, INFINITY, NAN, 0 };
        struct warm_segment segment;

        (void) state;
        warm_segment_sum(kernels, some, 8, 4, scratch, &segment);
        assert_int_equal(segment.best, 9);
        assert_true(segment.max == 1 && segment.mass > 1 && segment.mass < 1.4F);
        warm_segment_sum(kernels, high, 8, 4, scratch, &segment);
        assert_int_equal(segment.best, 9);
        assert_true(isfinite(segment.max) && segment.mass == 1);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(every_mix_of_parameters_draws_as_the_twin),
                cmocka_unit_test(greedy_takes_the_lowest_of_equals),
                cmocka_unit_test(the_most_likely_stand_in_order),
                cmocka_unit_test(logits_that_are_not_finite_are_made_so),
        };

        return cmocka_run_group_tests(tests, set_up, NULL);
}
