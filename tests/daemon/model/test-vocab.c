/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/vocab-private.h"
#include "random-text.h"
#include "read-vocab.h"

#define TEXT_MAX 256

static struct warm_vocab *nano;

/* A SentencePiece vocabulary: bytes, then pieces; scores fall, two of them are equal. */
static const char *const spm_pieces[] = {
        "\xE2\x96\x81",
        "t",
        "h",
        "e",
        "he",
        "\xE2\x96\x81t",
        "\xE2\x96\x81the",
        "th",
        "r",
        "n",
        "\xE2\x96\x81\xE2\x96\x81",
        "re",
        "er",
        "ther",
        "\xC3\xA9",
        "\xC3\xA9t",
        "\xE4\xB8\xAD\xE6\x96\x87",
        "\xE2\x96\x81\xE2\x96\x81\xE2\x96\x81\xE2\x96\x81",
        "in",
        "i",
};

struct spm {
        struct warm_vocab_config config;
        struct warm_string tokens[3 + 256 + 32];
        int32_t kinds[3 + 256 + 32];
        float scores[3 + 256 + 32];
        char bytes[256][8];
};

static void spm_add(struct spm *s, const char *name, int32_t kind, float score) {
        uint32_t id = s->config.n_tokens++;

        s->tokens[id] = (struct warm_string){ name, strlen(name) };
        s->kinds[id] = kind;
        s->scores[id] = score;
}

static void spm_init(struct spm *s) {
        *s = (struct spm){ .config = { .kind = WARM_VOCAB_SPM,
                                       .bos = 1,
                                       .eos = 2,
                                       .unknown = 0,
                                       .add_bos = true,
                                       .add_space_prefix = true } };
        s->config.tokens = s->tokens;
        s->config.kinds = s->kinds;
        s->config.scores = s->scores;
        spm_add(s, "<unk>", WARM_TOKEN_UNKNOWN, 0);
        spm_add(s, "<s>", WARM_TOKEN_CONTROL, 0);
        spm_add(s, "</s>", WARM_TOKEN_CONTROL, 0);
        for (unsigned b = 0; b < 256; b++) {
                snprintf(s->bytes[b], sizeof s->bytes[b], "<0x%02X>", b);
                spm_add(s, s->bytes[b], WARM_TOKEN_BYTE, 0);
        }
        for (unsigned i = 0; i < sizeof spm_pieces / sizeof *spm_pieces; i++)
                spm_add(s, spm_pieces[i], WARM_TOKEN_NORMAL, -(float) (i / 2));
}

static struct warm_vocab *spm_vocab(void) {
        struct warm_vocab *v;
        struct spm s;

        spm_init(&s);
        assert_int_equal(warm_vocab_new(&s.config, &v, NULL), 0);
        return v;
}

static size_t tokenize(const struct warm_vocab *v, const char *text, unsigned flags, int32_t *ids) {
        size_t n;

        assert_int_equal(
                warm_vocab_tokenize(v, text, strlen(text), flags, ids, strlen(text) + 1, &n), 0);
        return n;
}

static void check_round_trip(const struct warm_vocab *v, const uint8_t *text, size_t n) {
        int32_t ids[TEXT_MAX + 1];
        size_t n_ids, at = 0;

        assert_int_equal(warm_vocab_tokenize(v, text, n, 0, ids, n, &n_ids), 0);
        assert_true(n_ids <= n);
        for (size_t i = 0; i < n_ids; i++) {
                struct warm_string t = warm_vocab_text(v, ids[i]);

                assert_true(at + t.n <= n);
                assert_memory_equal(text + at, t.data, t.n);
                at += t.n;
        }
        assert_int_equal(at, n);
}

static void any_bytes_come_back_from_their_tokens(void **state) {
        uint64_t random = random_seed(20260105);
        struct warm_vocab *v;
        uint8_t text[TEXT_MAX];
        size_t n;

        (void) state;
        for (size_t p = 0; p <= N_PRES; p++) {
                v = p < N_PRES ? read_vocab(source_path(NANO), pres[p]) : spm_vocab();
                for (int round = 0; round < 10000; round++) {
                        n = random_text(&random, text, TEXT_MAX, true);
                        for (size_t i = 0; round % 4 == 0 && i < n; i++)
                                text[i] = (uint8_t) random_next(&random);
                        check_round_trip(v, text, n);
                }
                warm_vocab_free(v);
        }
}

/* BPE as it is defined: of all pairs the one of the lowest rank, the leftmost of those, merge, again. */
static size_t bpe_twin(const struct warm_vocab_config *c, const struct warm_vocab *v,
                       const uint8_t *text, size_t n, int32_t *ids) {
        char parts[128][160] = { { 0 } }, merge[330];
        size_t n_parts = 0;

        for (; n_parts < n; n_parts++) {
                struct warm_string name = warm_vocab_name(v, v->byte_token[text[n_parts]]);

                memcpy(parts[n_parts], name.data, name.n);
        }
        for (uint32_t rank = 0; rank < c->n_merges; rank++)
                for (size_t i = 0; i + 1 < n_parts;) {
                        int length = snprintf(merge, sizeof merge, "%s %s", parts[i], parts[i + 1]);

                        if ((size_t) length != c->merges[rank].n ||
                            memcmp(merge, c->merges[rank].data, c->merges[rank].n) != 0) {
                                i++;
                                continue;
                        }
                        length = snprintf(merge, sizeof merge, "%s%s", parts[i], parts[i + 1]);
                        assert_true((size_t) length < sizeof *parts);
                        memcpy(parts[i], merge, (size_t) length + 1);
                        memmove(parts[i + 1], parts[i + 2], (n_parts - i - 2) * sizeof *parts);
                        n_parts--;
                        i = 0;
                        rank = 0;
                }
        for (size_t i = 0; i < n_parts; i++)
                for (uint32_t id = 0; id < c->n_tokens; id++)
                        if (c->tokens[id].n == strlen(parts[i]) &&
                            memcmp(c->tokens[id].data, parts[i], c->tokens[id].n) == 0)
                                ids[i] = (int32_t) id;
        return n_parts;
}

static void merging_goes_by_rank_and_then_from_the_left(void **state) {
        uint64_t random = random_seed(20260106);
        struct read_vocab r;
        uint8_t text[100];
        int32_t ours[100], theirs[100];
        size_t n, n_ours;

        (void) state;
        read_vocab_open(&r, source_path(NANO));
        for (int round = 0; round < 20; round++) {
                n = 1 +
                    random_below(&random, round % 3 ? 30 : 90); /* both sides of the short path */
                for (size_t i = 0; i < n; i++)
                        text[i] = (uint8_t) "etaoinsrlaaaee"[random_below(&random, 14)];
                assert_int_equal(warm_vocab_tokenize(nano, text, n, 0, ours, n, &n_ours), 0);
                assert_int_equal(bpe_twin(&r.tokens.config, nano, text, n, theirs), n_ours);
                assert_memory_equal(ours, theirs, n_ours * sizeof *ours);
        }
        read_vocab_close(&r);
}

static void the_name_of_a_control_token_in_text_is_plain_characters(void **state) {
        int32_t ids[64], id = warm_vocab_find(nano, "<|fim_prefix|>");

        (void) state;
        assert_true(id >= 0);
        for (size_t i = tokenize(nano, "a <|fim_prefix|> b", 0, ids); i-- > 0;)
                assert_int_equal(warm_vocab_kind_of(nano, ids[i]), WARM_TOKEN_NORMAL);
        assert_int_equal(tokenize(nano, "<|fim_prefix|>", WARM_TOKENIZE_SPECIAL, ids), 1);
        assert_int_equal(ids[0], id);
        assert_int_equal(warm_vocab_text(nano, id).n, 0);
        assert_int_equal(warm_vocab_find(nano, "return"), -1);
        assert_int_equal(warm_vocab_find(nano, "<|no_such_name|>"), -1);
}

static void a_well_known_control_name_is_control_whatever_the_file_says(void **state) {
        struct warm_vocab *v;
        struct read_vocab r;
        int32_t ids[64], id;

        (void) state;
        read_vocab_open(&r, source_path(NANO));
        for (uint32_t i = 16377; i < r.tokens.config.n_tokens; i++)
                r.tokens.kinds[i] = i & 1 ? WARM_TOKEN_USER : WARM_TOKEN_NORMAL;
        assert_int_equal(warm_vocab_new(&r.tokens.config, &v, NULL), 0);
        id = warm_vocab_find(v, "<|fim_middle|>");
        assert_int_equal(warm_vocab_kind_of(v, id), WARM_TOKEN_CONTROL);
        assert_true(tokenize(v, "<|fim_middle|>", 0, ids) > 1);
        read_vocab_close(&r);
        warm_vocab_free(v);
}

static void user_tokens_are_found_longest_first_wherever_they_stand(void **state) {
        static const char *const user[] = { "ab", "bcd", "\n\n<u>" };
        struct warm_vocab *v = read_vocab_with(NULL, user, 3);
        int32_t ids[16];

        (void) state;
        assert_int_equal(tokenize(v, "abcd", 0, ids), 2); /* not ab, cd */
        assert_int_equal(ids[1], 16001);
        assert_int_equal(tokenize(v, "abab\n\n<u>", 0, ids), 3);
        assert_int_equal(ids[0], 16000);
        assert_int_equal(ids[2], 16002);
        assert_memory_equal(warm_vocab_text(v, 16002).data, "\n\n<u>", 5);
        warm_vocab_free(v);
}

static void sentencepiece_merges_by_score_and_spells_the_rest_in_bytes(void **state) {
        struct warm_vocab *v = spm_vocab();
        int32_t ids[32];
        const int32_t first = 3 + 256;

        (void) state;
        /* "the" after a space: he (score -2) before _t (-2) is left to right, then _the */
        assert_int_equal(tokenize(v, " the", 0, ids), 1);
        assert_int_equal(ids[0], first + 6);
        assert_int_equal(tokenize(v, "the", WARM_TOKENIZE_START, ids), 1);
        assert_int_equal(ids[0], first + 6);
        assert_int_equal(tokenize(v, "ther", 0, ids),
                         1 + 2); /* t he r: no token spells "ther" in two halves */
        assert_int_equal(ids[1], first + 4);
        assert_int_equal(tokenize(v, "\xC3\xA9t", 0, ids), 1);
        assert_int_equal(tokenize(v, "z\n", 0, ids), 2);
        assert_int_equal(ids[0], 3 + 'z');
        assert_int_equal(ids[1], 3 + '\n');
        /* a token of two characters that are no tokens alone */
        assert_int_equal(tokenize(v, "\xE4\xB8\xAD\xE6\x96\x87", 0, ids), 1);
        assert_int_equal(tokenize(v, "\xE2\x96\x81", 0, ids), 3);
        assert_int_equal(warm_vocab_text(v, first).n, 1);
        assert_int_equal(*warm_vocab_text(v, first).data, ' ');
        assert_int_equal(tokenize(v, "<s>", 0, ids), 3);
        assert_int_equal(tokenize(v, "<s>the", WARM_TOKENIZE_SPECIAL, ids), 3);
        assert_int_equal(ids[0], 1);
        assert_int_equal(tokenize(v, "", WARM_TOKENIZE_START, ids), 0);
        assert_int_equal(warm_vocab_bos(v), 1);
        assert_int_equal(warm_vocab_eos(v), 2);
        warm_vocab_free(v);
}

/* The reference merges the whole text in one go: so does this, without heap, without cutting. */
static size_t spm_twin(const struct spm *s, const struct warm_vocab *v, const char *text,
                       int32_t *ids) {
        size_t ends[TEXT_MAX], n = strlen(text), n_parts = 0, start;

        for (size_t at = 0; at < n; at++) /* these texts are ASCII */
                ends[n_parts++] = at + 1;
        for (;;) {
                int32_t best = -1, found;
                size_t where = 0;

                for (size_t i = 0; i + 1 < n_parts; i++) {
                        start = i ? ends[i - 1] : 0;
                        found = -1;
                        for (int32_t id = 259; id < (int32_t) s->config.n_tokens; id++)
                                if (warm_vocab_text(v, id).n == ends[i + 1] - start &&
                                    memcmp(warm_vocab_text(v, id).data, text + start,
                                           ends[i + 1] - start) == 0)
                                        found = id;
                        if (found >= 0 && (best < 0 || s->scores[found] > s->scores[best])) {
                                best = found;
                                where = i;
                        }
                }
                if (best < 0)
                        break;
                memmove(ends + where, ends + where + 1, (n_parts - where - 1) * sizeof *ends);
                n_parts--;
        }
        for (size_t i = 0; i < n_parts; i++) {
                start = i ? ends[i - 1] : 0;
                ids[i] = 3 + (uint8_t) text[start];
                for (int32_t id = 259; id < (int32_t) s->config.n_tokens; id++)
                        if (warm_vocab_text(v, id).n == ends[i] - start &&
                            memcmp(warm_vocab_text(v, id).data, text + start, ends[i] - start) == 0)
                                ids[i] = id;
        }
        return n_parts;
}

static void cutting_for_sentencepiece_changes_no_token(void **state) {
        uint64_t random = random_seed(20260107);
        struct warm_vocab *v = spm_vocab();
        int32_t ours[TEXT_MAX], theirs[TEXT_MAX];
        char text[TEXT_MAX];
        size_t n, n_ids;
        struct spm s;

        (void) state;
        spm_init(&s);
        for (int round = 0; round < 300; round++) {
                n = random_below(&random, 100);
                for (size_t i = 0; i < n; i++)
                        text[i] = "thern i\nz"[random_below(&random, 9)];
                text[n] = 0;
                n_ids = tokenize(v, text, 0, ours);
                assert_int_equal(spm_twin(&s, v, text, theirs), n_ids);
                assert_memory_equal(ours, theirs, n_ids * sizeof *ours);
        }
        warm_vocab_free(v);
}

static void too_few_ids_are_said_and_no_count_is_given(void **state) {
        int32_t ids[4] = { -7, -7, -7, -7 };
        size_t n = 99;

        (void) state;
        assert_int_equal(warm_vocab_tokenize(nano, "1234", 4, 0, ids, 4, &n), 0);
        assert_int_equal(n, 4);
        n = 99;
        ids[3] = -7;
        assert_int_equal(warm_vocab_tokenize(nano, "1234", 4, 0, ids, 3, &n), -ENOBUFS);
        assert_int_equal(n, 99);
        assert_int_equal(ids[3], -7);
        assert_int_equal(warm_vocab_tokenize(nano, "", 0, 0, NULL, 0, &n), 0);
        assert_int_equal(n, 0);
}

static void long_runs_round_trip_on_both_sides_of_the_piece_limit(void **state) {
        static const size_t sizes[] = { WARM_PIECE_BYTES_MAX - 1, WARM_PIECE_BYTES_MAX,
                                        WARM_PIECE_BYTES_MAX + 1, 3 * WARM_PIECE_BYTES_MAX };
        struct warm_vocab *spm = spm_vocab();
        uint8_t *text = malloc(sizes[3]);
        int32_t *ids = malloc(sizes[3] * sizeof *ids);

        (void) state;
        assert_non_null(text);
        assert_non_null(ids);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
                for (size_t kind = 0; kind < 6; kind++) {
                        const struct warm_vocab *v = kind & 1 ? spm : nano;
                        size_t n_ids, n = 0;

                        for (size_t k = 0; k < sizes[i]; k++)
                                text[k] = kind < 2   ? ' '
                                          : kind < 4 ? 't'
                                                     : (uint8_t) "\xC3\xA9"[k & 1];
                        assert_int_equal(
                                warm_vocab_tokenize(v, text, sizes[i], 0, ids, sizes[i], &n_ids),
                                0);
                        for (size_t k = 0; k < n_ids; k++)
                                n += warm_vocab_text(v, ids[k]).n;
                        assert_int_equal(n, sizes[i]);
                }
        free(text);
        free(ids);
        warm_vocab_free(spm);
}

static void refuse(const struct warm_vocab_config *c, int error, const char *word) {
        struct warm_vocab *v = (struct warm_vocab *) 1;
        char *why = NULL;

        assert_int_equal(warm_vocab_new(c, &v, &why), error);
        assert_ptr_equal(v, 1);
        assert_non_null(why);
        if (!strstr(why, word))
                fail_msg("\"%s\" does not say \"%s\"", why, word);
        free(why);
        assert_int_equal(warm_vocab_new(c, &v, NULL), error);
}

static void tables_that_contradict_each_other_are_refused(void **state) {
        struct warm_string merges[] = { { "a b", 3 } };
        struct warm_string good = { "x", 1 }, old;
        static char longest[WARM_VOCAB_TOKEN_BYTES_MAX + 1];
        struct warm_vocab *v;
        struct spm s;

        (void) state;
#define REFUSE(change, undo, error, word)                                                          \
        do {                                                                                       \
                change;                                                                            \
                refuse(&s.config, error, word);                                                    \
                undo;                                                                              \
        } while (0)
        spm_init(&s);
        old = s.tokens[270];
        REFUSE(s.config.n_tokens = 0, s.config.n_tokens = 280, -EINVAL, "0 tokens");
        REFUSE(s.config.n_tokens = WARM_VOCAB_TOKENS_MAX + 1, s.config.n_tokens = 279, -EINVAL,
               "tokens");
        REFUSE(s.config.bos = 279, s.config.bos = 1, -EINVAL, "279");
        REFUSE(s.config.eos = -2, s.config.eos = 2, -EINVAL, "-2");
        REFUSE(s.kinds[5] = 7, s.kinds[5] = WARM_TOKEN_BYTE, -EINVAL, "kind 7");
        REFUSE(s.kinds[270] = WARM_TOKEN_BYTE, s.kinds[270] = WARM_TOKEN_NORMAL, -EINVAL,
               "byte token 270");
        REFUSE(s.tokens[270] = s.tokens[271], s.tokens[270] = old, -EINVAL, "same name");
        REFUSE(s.tokens[2] = s.tokens[1], (s.tokens[2] = (struct warm_string){ "</s>", 4 }),
               -EINVAL, "same name");
        REFUSE(s.scores[270] = NAN, s.scores[270] = 0, -EINVAL, "270");
        REFUSE(s.config.scores = NULL, s.config.scores = s.scores, -EINVAL, "scores");
        memset(longest, 'l', sizeof longest);
        REFUSE((s.tokens[270] = (struct warm_string){ longest, sizeof longest }),
               s.tokens[270] = old, -EINVAL, "longer");
        s.tokens[270] = (struct warm_string){ longest, sizeof longest - 1 };
        assert_int_equal(warm_vocab_new(&s.config, &v, NULL), 0);
        warm_vocab_free(v);
        s.config.kind = WARM_VOCAB_BPE;
        s.config.merges = merges;
        s.config.n_merges = 1;
        s.tokens[270] = good;
        REFUSE((s.config.pre = (struct warm_string){ "nonesuch", 8 }), , -EOPNOTSUPP, "nonesuch");
        REFUSE((s.config.pre = (struct warm_string){ NULL, 0 }), , -EOPNOTSUPP, "\"\"");
        s.config.pre = (struct warm_string){ "qwen2", 5 };
        REFUSE((merges[0] = (struct warm_string){ "ab", 2 }), , -EINVAL, "merge 0");
        REFUSE((merges[0] = (struct warm_string){ "a ", 2 }), , -EINVAL, "merge 0");
        REFUSE((merges[0] = (struct warm_string){ NULL, 0 }), , -EINVAL, "merge 0");
#undef REFUSE
}

static void a_merge_to_something_that_is_no_token_is_spelled_in_bytes(void **state) {
        static const struct warm_string tokens[] = {
                { "a", 1 }, { "b", 1 }, { "abab", 4 }, { "", 0 }
        };
        static const struct warm_string merges[] = { { "a b", 3 }, { "ab ab", 5 } };
        const struct warm_vocab_config c = { .kind = WARM_VOCAB_BPE,
                                             .pre = { "gpt-2", 5 },
                                             .tokens = tokens,
                                             .merges = merges,
                                             .n_tokens = 4,
                                             .n_merges = 2,
                                             .bos = -1,
                                             .eos = -1,
                                             .unknown = -1 };
        struct warm_vocab *v;
        int32_t ids[8];

        (void) state;
        assert_int_equal(warm_vocab_new(&c, &v, NULL), 0);
        assert_int_equal(tokenize(v, "abab", 0, ids), 1);
        assert_int_equal(ids[0], 2);
        assert_int_equal(tokenize(v, "ab", 0, ids), 2);
        assert_int_equal(ids[1], 1);
        assert_int_equal(tokenize(v, "axb", 0, ids),
                         2); /* nothing spells x: left out, as the reference does */
        assert_int_equal(warm_vocab_bos(v), -1);
        assert_true(warm_vocab_memory_bytes(v) > 0);
        warm_vocab_free(v);
}

static int setup(void **state) {
        (void) state;
        nano = read_vocab(source_path(NANO), NULL);
        return 0;
}

static int teardown(void **state) {
        (void) state;
        nano = warm_vocab_free(nano);
        return 0;
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(any_bytes_come_back_from_their_tokens),
                cmocka_unit_test(merging_goes_by_rank_and_then_from_the_left),
                cmocka_unit_test(the_name_of_a_control_token_in_text_is_plain_characters),
                cmocka_unit_test(a_well_known_control_name_is_control_whatever_the_file_says),
                cmocka_unit_test(user_tokens_are_found_longest_first_wherever_they_stand),
                cmocka_unit_test(sentencepiece_merges_by_score_and_spells_the_rest_in_bytes),
                cmocka_unit_test(cutting_for_sentencepiece_changes_no_token),
                cmocka_unit_test(too_few_ids_are_said_and_no_count_is_given),
                cmocka_unit_test(long_runs_round_trip_on_both_sides_of_the_piece_limit),
                cmocka_unit_test(tables_that_contradict_each_other_are_refused),
                cmocka_unit_test(a_merge_to_something_that_is_no_token_is_spelled_in_bytes),
        };
        return cmocka_run_group_tests(tests, setup, teardown);
}
