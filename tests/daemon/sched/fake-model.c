/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The model that the fake backend computes: byte-level BPE with the 256 bytes in front, so that ids below 256 are
 * bytes and a test can read its own prompts.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake-backend.h"

/* Each merge's result is the token 256 + its rank. */
static const char *const merges[] = { "r e",  "re t", "u r",  "ret ur", "retur n", "i n",
                                      "in t", "f o",  "fo r", "e l",    "el se" };
/* "se" is missing among them on purpose: "el se" can never be merged, but is a token. */

/* GPT-2's spelling of a byte: printable ones as they are, the others from U+0100 on. */
static void spell_byte(uint32_t byte, char *ret_text) {
        uint32_t c = byte, n = 0;

        for (uint32_t b = 0; b < 256; b++) {
                bool plain = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;

                if (b == byte && plain)
                        break;
                if (b == byte) {
                        c = 256 + n;
                        break;
                }
                n += !plain;
        }
        if (c < 0x80) {
                ret_text[0] = (char) c;
                ret_text[1] = 0;
        } else {
                ret_text[0] = (char) (0xc0 | c >> 6);
                ret_text[1] = (char) (0x80 | (c & 0x3f));
                ret_text[2] = 0;
        }
}

static void spell_token(uint32_t id, char *ret_text, int32_t *ret_kind) {
        const uint32_t n_merges = sizeof(merges) / sizeof(merges[0]);

        *ret_kind = WARM_TOKEN_NORMAL;
        if (id < 256) {
                spell_byte(id, ret_text);
                if (id == FAKE_BARRED_BYTE)
                        *ret_kind = WARM_TOKEN_UNUSED;
        } else if (id - 256 < n_merges) {
                const char *space = strchr(merges[id - 256], ' ');

                sprintf(ret_text, "%.*s%s", (int) (space - merges[id - 256]), merges[id - 256],
                        space + 1);
        } else if (id < FAKE_VOCAB - 16) {
                /* Longer words, each reached by no merge: plain tokens all the same. */
                sprintf(ret_text, "w%c%c", 'a' + (int) (id % 26), 'a' + (int) (id / 26));
        } else {
                sprintf(ret_text, "<|control-%u|>", id);
                *ret_kind = WARM_TOKEN_CONTROL;
        }
}

static struct warm_vocab *make_vocab(void) {
        static char texts[FAKE_VOCAB][32];
        static int32_t kinds[FAKE_VOCAB];
        struct warm_string tokens[FAKE_VOCAB], ranks[sizeof(merges) / sizeof(merges[0])];
        struct warm_vocab_config config = { .kind = WARM_VOCAB_BPE,
                                            .pre = { "gpt-2", 5 },
                                            .tokens = tokens,
                                            .kinds = kinds,
                                            .merges = ranks,
                                            .n_tokens = FAKE_VOCAB,
                                            .n_merges = 9,
                                            .bos = -1,
                                            .eos = FAKE_END_TOKEN,
                                            .unknown = -1 };
        struct warm_vocab *v = NULL;
        char *why = NULL;

        for (uint32_t i = 0; i < FAKE_VOCAB; i++) {
                spell_token(i, texts[i], &kinds[i]);
                tokens[i] = (struct warm_string){ texts[i], strlen(texts[i]) };
        }
        for (uint32_t i = 0; i < config.n_merges; i++)
                ranks[i] = (struct warm_string){ merges[i], strlen(merges[i]) };
        if (warm_vocab_new(&config, &v, &why) != 0) {
                fprintf(stderr, "vocabulary: %s\n", why ? why : "no memory");
                abort();
        }
        return v;
}

struct warm_model *fake_model_new(const char *name, uint32_t n_context) {
        static const int32_t ends[] = { FAKE_END_TOKEN };
        struct warm_model *m = calloc(1, sizeof(*m));
        int32_t *owned = malloc(sizeof(ends));

        assert(m && owned);
        memcpy(owned, ends, sizeof(ends));
        m->name = strdup(name);
        m->path = strdup("/nowhere");
        m->architecture = strdup("fake");
        m->quantization = strdup("F32");
        m->vocab = make_vocab();
        m->format = (struct warm_prompt_format){ .pre = -1,
                                                 .suf = -1,
                                                 .mid = -1,
                                                 .pad = -1,
                                                 .repo = -1,
                                                 .file_sep = -1,
                                                 .eot = -1,
                                                 .bos = -1,
                                                 .ends = owned,
                                                 .n_ends = 1 };
        memcpy(m->content_hash, "fake model hash", WARM_FINGERPRINT_BYTES);
        m->content_hash[0] = (uint8_t) name[0];
        m->plan.n_vocab = FAKE_VOCAB;
        m->plan.n_context = n_context;
        m->plan.dim = 32;
        m->plan.n_groups = 1;
        m->plan.n_layers = 1;
        m->plan.layers = calloc(1, sizeof(*m->plan.layers));
        assert(m->plan.layers);
        /* 2 x 1 head x 32 x 32 tokens x 2 bytes: the 4,096 bytes a block that the backend tells too. */
        m->plan.layers[0] = (struct warm_plan_layer){ .kv_source = -1,
                                                      .n_heads = 1,
                                                      .n_kv_heads = 1,
                                                      .head_dim_k = 32,
                                                      .head_dim_v = 32,
                                                      .causal = true };
        return m;
}

void fake_model_add_state(struct warm_model *m) {
        struct warm_plan_layer *layers = realloc(m->plan.layers, 2 * sizeof(*layers));

        assert(layers);
        /* 8 x 16 x 8 x 4 bytes, as much as a block of tokens. */
        layers[1] = (struct warm_plan_layer){ .mixer = WARM_MIXER_GATED_DELTA,
                                              .group = 1,
                                              .kv_source = -1,
                                              .n_heads = 8,
                                              .state_rows = 16,
                                              .state_cols = 8 };
        m->plan.layers = layers;
        m->plan.n_layers = 2;
        m->plan.n_groups = 2;
        m->plan.groups[1].state = true;
}
