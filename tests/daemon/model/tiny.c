/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tiny.h"

static const char *const merges[][2] = {
        { " ", " " },   { "  ", "  " }, { "i", "n" },   { "r", "e" },  { "t", "u" },
        { "in", "t" },  { " ", "in" },  { "re", "tu" }, { ";", "\n" }, { "\n", "\n" },
        { ")", ";\n" }, { "a", "b" },   { "re", "s" },  { "s", "t" },  { "st", "re" },
        { " ", "=" },   { "f", "o" },   { "fo", "o" },
};

/* SentencePiece: the earlier, the sooner merged. U+2581 is a space. */
static const char *const pieces[] = {
        "\xE2\x96\x81",
        "i",
        "n",
        "t",
        "f",
        "o",
        "r",
        "e",
        "u",
        "a",
        "b",
        ";",
        "\xC3\xA9",
        "in",
        "\xE2\x96\x81in",
        "\xE2\x96\x81int",
        "re",
        "\xE2\x96\x81re",
        "fo",
        "foo",
        "\xE2\x96\x81\xE2\x96\x81",
        "\xE2\x96\x81\xE2\x96\x81\xE2\x96\x81\xE2\x96\x81",
        "ab",
        "b;",
        "\xC3\xA9t",
};

static const char *const controls[] = {
        "<|endoftext|>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|repo_name|>",
        "<|file_sep|>",  "<|bos|>",        "<[fim-suffix]>", "<[fim-middle]>",
};

/* GPT-2's spelling of bytes: what is printable stands for itself, the others follow from U+0100 on. */
static size_t spell_byte(unsigned b, char *out) {
        unsigned c = b, n = 0;

        if (!((b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174)) {
                for (unsigned i = 0; i < b; i++)
                        n += !((i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174);
                c = 256 + n;
        }
        if (c < 128) {
                out[0] = (char) c;
                return 1;
        }
        out[0] = (char) (0xc0 | c >> 6);
        out[1] = (char) (0x80 | (c & 63));
        return 2;
}

static struct warm_string spell(const char *a, const char *b, char between) {
        char *out = malloc(2 * (strlen(a) + strlen(b)) + 2);
        size_t n = 0;

        assert_non_null(out);
        for (const char *p = a; *p; p++)
                n += spell_byte((unsigned char) *p, out + n);
        if (between)
                out[n++] = between;
        for (const char *p = b; *p; p++)
                n += spell_byte((unsigned char) *p, out + n);
        return (struct warm_string){ out, n };
}

/* The marks stand in the same places in every tiny vocabulary. */
static void set_format(struct warm_model *m, uint32_t n_context, bool bos) {
        static const int32_t ends[] = { TINY_END, TINY_SEP };

        m->plan.n_context = n_context;
        m->format = (struct warm_prompt_format){
                .pre = TINY_PRE,
                .suf = TINY_SUF,
                .mid = TINY_MID,
                .pad = -1,
                .repo = TINY_REPO,
                .file_sep = TINY_SEP,
                .eot = TINY_END,
                .bos = bos ? TINY_BOS : -1,
                .order = WARM_ORDER_SPM_JOINT,
                .orders = 1U << WARM_ORDER_PSM | 1U << WARM_ORDER_SPM_JOINT,
                .ends = ends,
                .n_ends = 2,
        };
}

void tiny_init(struct warm_model *m, uint32_t n_context, bool bos) {
        enum { N_MERGES = sizeof(merges) / sizeof(*merges) };
        struct warm_string tokens[TINY_TOKENS] = { 0 }, ranks[N_MERGES];
        int32_t kinds[TINY_TOKENS];
        struct warm_vocab_config c = { .kind = WARM_VOCAB_BPE, .pre = { "qwen2", 5 } };
        char *why = NULL;
        int r;

        *m = (struct warm_model){ 0 };
        for (int i = 0; i < TINY_TOKENS; i++) {
                char *name = malloc(64);
                size_t n;

                assert_non_null(name);
                kinds[i] = i < TINY_END ? WARM_TOKEN_NORMAL : WARM_TOKEN_CONTROL;
                if (i < 256)
                        n = spell_byte((unsigned) i, name);
                else if (i < TINY_END)
                        n = (size_t) snprintf(name, 64, "unused-%d", i);
                else
                        n = (size_t) snprintf(name, 64, "%s", controls[i - TINY_END]);
                tokens[i] = (struct warm_string){ name, n };
        }
        for (int i = 0; i < N_MERGES; i++) {
                free((char *) tokens[TINY_MERGED + i].data);
                tokens[TINY_MERGED + i] = spell(merges[i][0], merges[i][1], 0);
                ranks[i] = spell(merges[i][0], merges[i][1], ' ');
        }
        for (int i = TINY_MERGED + N_MERGES; i < TINY_END; i++)
                kinds[i] = WARM_TOKEN_UNUSED;
        c.tokens = tokens;
        c.kinds = kinds;
        c.merges = ranks;
        c.n_tokens = TINY_TOKENS;
        c.n_merges = N_MERGES;
        c.bos = bos ? TINY_BOS : -1;
        c.eos = TINY_END;
        c.unknown = -1;
        c.add_bos = bos;
        r = warm_vocab_new(&c, &m->vocab, &why);
        if (r < 0)
                fail_msg("the vocabulary was refused: %d %s", r, why ? why : "");
        for (int i = 0; i < TINY_TOKENS; i++)
                free((char *) tokens[i].data);
        for (int i = 0; i < N_MERGES; i++)
                free((char *) ranks[i].data);
        set_format(m, n_context, bos);
}

void tiny_init_spm(struct warm_model *m, uint32_t n_context, bool space_prefix) {
        enum { N_PIECES = sizeof(pieces) / sizeof(*pieces) };
        struct warm_string tokens[TINY_TOKENS] = { 0 };
        int32_t kinds[TINY_TOKENS];
        float scores[TINY_TOKENS];
        char names[TINY_TOKENS][16];
        struct warm_vocab_config c = { .kind = WARM_VOCAB_SPM,
                                       .tokens = tokens,
                                       .kinds = kinds,
                                       .scores = scores,
                                       .n_tokens = TINY_TOKENS,
                                       .bos = TINY_BOS,
                                       .eos = TINY_END,
                                       .unknown = -1,
                                       .add_bos = true,
                                       .add_space_prefix = space_prefix };
        char *why = NULL;
        int r;

        *m = (struct warm_model){ 0 };
        for (int i = 0; i < TINY_TOKENS; i++) {
                const char *name = names[i];

                kinds[i] = WARM_TOKEN_UNUSED;
                if (i < TINY_MERGED) {
                        kinds[i] = WARM_TOKEN_BYTE;
                        snprintf(names[i], sizeof(names[i]), "<0x%02X>", i);
                } else if (i < TINY_MERGED + N_PIECES) {
                        kinds[i] = WARM_TOKEN_NORMAL;
                        name = pieces[i - TINY_MERGED];
                } else if (i < TINY_END) {
                        snprintf(names[i], sizeof(names[i]), "unused-%d", i);
                } else {
                        kinds[i] = WARM_TOKEN_CONTROL;
                        name = controls[i - TINY_END];
                }
                tokens[i] = (struct warm_string){ name, strlen(name) };
                scores[i] = -(float) i;
        }
        r = warm_vocab_new(&c, &m->vocab, &why);
        if (r < 0)
                fail_msg("the vocabulary was refused: %d %s", r, why ? why : "");
        set_format(m, n_context, true);
}

void tiny_deinit(struct warm_model *m) {
        warm_vocab_free(m->vocab);
        m->vocab = NULL;
}

char *tiny_spell(const struct warm_model *m, const int32_t *ids, size_t n_ids, size_t *ret_n) {
        static const char letters[] = "EPSMRFBsm";
        size_t n = 0;
        char *out = malloc(n_ids * 8 + 1);

        assert_non_null(out);
        for (size_t i = 0; i < n_ids; i++) {
                struct warm_string s = warm_vocab_text(m->vocab, ids[i]);

                if (ids[i] >= TINY_END)
                        n += (size_t) sprintf(out + n, "[%c]", letters[ids[i] - TINY_END]);
                else
                        memcpy(out + n, s.data, s.n);
                n += ids[i] >= TINY_END ? 0 : s.n;
        }
        out[n] = 0;
        if (ret_n)
                *ret_n = n;
        return out;
}
