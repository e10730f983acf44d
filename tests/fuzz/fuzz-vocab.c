/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer: a vocabulary and a text out of arbitrary bytes. Both come from people we do not know, one in a file, the
 * other in a frame. What must hold: no fault, detokenize(tokenize(x)) == x, and the promises of vocab.h.
 *
 * Input: byte 0: kind and pre-tokenizer; byte 1: how many tokens follow the 256 single bytes; byte 2: how many merges;
 * then that many strings (a length byte, of which the upper 3 bits choose the token's kind), then the text.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "model/vocab.h"

#define TOKENS_MAX (3 + 256 + 255)

static const char *const pres[] = { "qwen2",     "llama-bpe",      "smollm", "gpt-2",
                                    "starcoder", "deepseek-coder", "glm4",   "seed-coder" };

struct input {
        const uint8_t *at, *end;
};

static struct warm_string take(struct input *in, unsigned *ret_high) {
        struct warm_string s = { (const char *) in->at, 0 };

        *ret_high = 0;
        if (in->at == in->end)
                return s;
        *ret_high = *in->at >> 5;
        s.n = *in->at++ & 31;
        if (s.n > (size_t) (in->end - in->at))
                s.n = (size_t) (in->end - in->at);
        s.data = (const char *) in->at;
        in->at += s.n;
        return s;
}

/* Names of the 256 single bytes: GPT-2's alphabet, or <0x00>. */
static void name_bytes(enum warm_vocab_kind kind, char names[256][8], struct warm_string *tokens,
                       int32_t *kinds) {
        unsigned other = 256;

        for (unsigned b = 0; b < 256; b++) {
                unsigned c = (b > 0x20 && b < 0x7F) || (b > 0xA0 && b != 0xAD) ? b : other++;

                if (kind == WARM_VOCAB_SPM)
                        snprintf(names[b], 8, "<0x%02X>", b);
                else if (c < 0x80)
                        snprintf(names[b], 8, "%c", (int) c);
                else
                        snprintf(names[b], 8, "%c%c", (int) (0xC0 | c >> 6),
                                 (int) (0x80 | (c & 0x3F)));
                tokens[b] = (struct warm_string){ names[b], strlen(names[b]) };
                kinds[b] = kind == WARM_VOCAB_SPM ? WARM_TOKEN_BYTE : WARM_TOKEN_NORMAL;
        }
}

static void check_text(const struct warm_vocab *v, const uint8_t *text, size_t n) {
        int32_t *ids = malloc((n + 1) * sizeof *ids);
        uint64_t bitmap[(TOKENS_MAX + 63) / 64];
        size_t n_ids = 0, at = 0, start;

        assert(ids);
        assert(warm_vocab_tokenize(v, text, n, 0, ids, n, &n_ids) == 0 && n_ids <= n);
        for (size_t i = 0; i < n_ids; i++) {
                struct warm_string s = warm_vocab_text(v, ids[i]);

                assert(s.n <= n - at && memcmp(text + at, s.data, s.n) == 0);
                at += s.n;
        }
        assert(at == n);
        assert(warm_vocab_tokenize(v, text, n, WARM_TOKENIZE_SPECIAL, ids, n, &n_ids) == 0);
        assert(warm_vocab_tokenize(v, text, n, WARM_TOKENIZE_START, ids, n + 1, &n_ids) == 0);
        start = warm_vocab_last_piece(v, text, n);
        assert(start <= n && n - start <= WARM_HEAL_BYTES_MAX && (start < n || n == 0));
        assert(warm_vocab_allow(v, text + start, n - start, bitmap) > 0);
        free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        struct warm_string tokens[TOKENS_MAX], merges[255];
        struct input in;
        int32_t kinds[TOKENS_MAX];
        float scores[TOKENS_MAX];
        struct warm_vocab *v;
        char names[256][8];
        unsigned high;
        struct warm_vocab_config c = { .tokens = tokens,
                                       .kinds = kinds,
                                       .scores = scores,
                                       .merges = merges,
                                       .n_tokens = 256,
                                       .bos = -1,
                                       .eos = -1,
                                       .unknown = -1,
                                       .add_space_prefix = true };

        if (n < 3)
                return 0;
        in = (struct input){ data + 3, data + n };
        c.kind = data[0] & 1 ? WARM_VOCAB_SPM : WARM_VOCAB_BPE;
        c.pre = (struct warm_string){ pres[data[0] >> 1 & 7], strlen(pres[data[0] >> 1 & 7]) };
        name_bytes(c.kind, names, tokens, kinds);
        for (unsigned i = 0; i < data[1]; i++, c.n_tokens++) {
                tokens[c.n_tokens] = take(&in, &high);
                kinds[c.n_tokens] = high < 2 ? WARM_TOKEN_NORMAL : (int32_t) high;
        }
        for (; c.n_merges < data[2]; c.n_merges++)
                merges[c.n_merges] = take(&in, &high);
        for (uint32_t i = 0; i < c.n_tokens; i++)
                scores[i] = -(float) (i % 7);
        if (warm_vocab_new(&c, &v, NULL) < 0)
                return 0;
        check_text(v, in.at, (size_t) (in.end - in.at));
        warm_vocab_free(v);
        return 0;
}
