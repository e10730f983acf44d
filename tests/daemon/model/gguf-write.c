/* SPDX-License-Identifier: Apache-2.0 */
/* See gguf-write.h. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gguf-write.h"

enum { U32 = 4, I32 = 5, F32 = 6, BOOL = 7, STRING = 8, ARRAY = 9 };

static void put(struct gguf_bytes *b, const void *data, size_t n) {
        if (b->n + n > b->n_room) {
                b->n_room = (b->n + n) * 2;
                b->data = realloc(b->data, b->n_room);
                assert(b->data);
        }
        if (n > 0)
                memcpy(b->data + b->n, data, n);
        b->n += n;
}

static void put_u32(struct gguf_bytes *b, uint32_t v) {
        put(b, &v, sizeof v);
}

static void put_u64(struct gguf_bytes *b, uint64_t v) {
        put(b, &v, sizeof v);
}

static void put_string(struct gguf_bytes *b, const char *s, size_t n) {
        put_u64(b, n);
        put(b, s, n);
}

static void pad(struct gguf_bytes *b, size_t alignment) {
        while (b->n % alignment != 0)
                put(b, "", 1);
}

/* Return: false if this one is to be left out. */
static bool start_key(struct gguf_writer *w, const char *key, uint32_t type) {
        if (w->without && strcmp(w->without, key) == 0)
                return false;
        put_string(&w->keys, key, strlen(key));
        put_u32(&w->keys, type);
        w->n_keys++;
        return true;
}

static bool start_array(struct gguf_writer *w, const char *key, uint32_t type, size_t n) {
        if (!start_key(w, key, ARRAY))
                return false;
        put_u32(&w->keys, type);
        put_u64(&w->keys, n);
        return true;
}

void gguf_write_raw(struct gguf_writer *w, const char *key, size_t n_key, uint32_t type,
                    const void *value, size_t n) {
        put_string(&w->keys, key, n_key);
        put_u32(&w->keys, type);
        put(&w->keys, value, n);
        w->n_keys++;
}

void gguf_write_u32(struct gguf_writer *w, const char *key, uint32_t v) {
        if (start_key(w, key, U32))
                put_u32(&w->keys, v);
}

void gguf_write_i32(struct gguf_writer *w, const char *key, int32_t v) {
        if (start_key(w, key, I32))
                put(&w->keys, &v, sizeof v);
}

void gguf_write_f32(struct gguf_writer *w, const char *key, float v) {
        if (start_key(w, key, F32))
                put(&w->keys, &v, sizeof v);
}

void gguf_write_bool(struct gguf_writer *w, const char *key, bool v) {
        uint8_t byte = v;

        if (start_key(w, key, BOOL))
                put(&w->keys, &byte, 1);
}

void gguf_write_string(struct gguf_writer *w, const char *key, const char *v) {
        if (start_key(w, key, STRING))
                put_string(&w->keys, v, strlen(v));
}

void gguf_write_strings(struct gguf_writer *w, const char *key, const char *const *v, size_t n) {
        if (!start_array(w, key, STRING, n))
                return;
        for (size_t i = 0; i < n; i++)
                put_string(&w->keys, v[i], strlen(v[i]));
}

void gguf_write_i32s(struct gguf_writer *w, const char *key, const int32_t *v, size_t n) {
        if (start_array(w, key, I32, n))
                put(&w->keys, v, n * sizeof *v);
}

void gguf_write_f32s(struct gguf_writer *w, const char *key, const float *v, size_t n) {
        if (start_array(w, key, F32, n))
                put(&w->keys, v, n * sizeof *v);
}

void gguf_write_entry(struct gguf_writer *w, const char *name, uint32_t n_dims,
                      const uint64_t *dims, uint32_t type, uint64_t offset) {
        put_string(&w->tensors, name, strlen(name));
        put_u32(&w->tensors, n_dims);
        for (uint32_t i = 0; i < n_dims; i++)
                put_u64(&w->tensors, dims[i]);
        put_u32(&w->tensors, type);
        put_u64(&w->tensors, offset);
        w->n_tensors++;
}

/* splitmix64 (Steele et al. 2014). */
static uint64_t next_random(struct gguf_writer *w) {
        uint64_t z = w->seed += 0x9e3779b97f4a7c15;

        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
        z = (z ^ z >> 27) * 0x94d049bb133111eb;
        return z ^ z >> 31;
}

/* Values of about +-0.1: half bits 0x2800 | r are 1/32..1/16 in size, scales 0x1000 | r about 1/2048. */
static void put_values(struct gguf_writer *w, uint32_t type, uint64_t n) {
        for (uint64_t i = 0; i < n; i++) {
                uint64_t r = next_random(w);
                float f = (float) (int32_t) r / 2e10F;
                uint16_t half = (uint16_t) (0x2800 | (r & 0x83ff));
                uint16_t scale = (uint16_t) (0x1000 | (r >> 32 & 0x3ff));
                int8_t q = (int8_t) r;

                if (type == GGML_F32) {
                        put(&w->data, &f, sizeof f);
                } else if (type == GGML_F16) {
                        put(&w->data, &half, sizeof half);
                } else {
                        assert(type == GGML_Q8_0);
                        if (i % 32 == 0)
                                put(&w->data, &scale, sizeof scale);
                        put(&w->data, &q, sizeof q);
                }
        }
}

static void write_tensor(struct gguf_writer *w, const char *name, uint32_t type, uint32_t n_dims,
                         const uint64_t *dims, uint64_t n) {
        if (w->without && strcmp(w->without, name) == 0)
                return;
        pad(&w->data, w->alignment ? w->alignment : 32);
        gguf_write_entry(w, name, n_dims, dims, type, w->data.n);
        put_values(w, type, n);
}

void gguf_write_tensor(struct gguf_writer *w, const char *name, uint32_t type, uint64_t n_cols,
                       uint64_t n_rows) {
        uint64_t dims[] = { n_cols, n_rows };

        write_tensor(w, name, type, 2, dims, n_cols * n_rows);
}

void gguf_write_vector(struct gguf_writer *w, const char *name, uint64_t n) {
        write_tensor(w, name, GGML_F32, 1, &n, n);
}

uint8_t *gguf_write_end(struct gguf_writer *w, size_t *ret_n) {
        struct gguf_bytes b = { 0 };

        put(&b, "GGUF", 4);
        put_u32(&b, w->version ? w->version : 3);
        put_u64(&b, w->n_tensors);
        put_u64(&b, w->n_keys);
        put(&b, w->keys.data, w->keys.n);
        put(&b, w->tensors.data, w->tensors.n);
        pad(&b, w->alignment ? w->alignment : 32);
        put(&b, w->data.data, w->data.n);
        free(w->keys.data);
        free(w->tensors.data);
        free(w->data.data);
        *w = (struct gguf_writer){ 0 };
        *ret_n = b.n;
        /* Exactly as long as the file, so that a sanitizer sees the first byte read beyond it. */
        b.data = realloc(b.data, b.n);
        assert(b.data);
        return b.data;
}

/* The 256 bytes as GPT-2 spells them, four merges, marks as Qwen names them. */
static void write_bpe(struct gguf_writer *w, uint32_t *ret_n_tokens) {
        static const char *const more[] = { "Ġr",
                                            "et",
                                            "ur",
                                            "Ġret",
                                            "<|endoftext|>",
                                            "<|fim_prefix|>",
                                            "<|fim_suffix|>",
                                            "<|fim_middle|>",
                                            "<|fim_pad|>",
                                            "<|repo_name|>",
                                            "<|file_sep|>" };
        static const char *const merges[] = { "Ġ r", "e t", "u r", "Ġr et" };
        const size_t n_more = sizeof more / sizeof more[0];
        static char bytes[256][4];
        const char *tokens[256 + sizeof more / sizeof more[0]];
        int32_t kinds[256 + sizeof more / sizeof more[0]];
        unsigned unseen = 0x100;

        for (unsigned i = 0; i < 256; i++) {
                bool seen = (i >= 0x21 && i <= 0x7e) || (i >= 0xa1 && i != 0xad);
                unsigned c = seen ? i : unseen++;

                if (c < 0x80)
                        (void) snprintf(bytes[i], sizeof bytes[i], "%c", (int) c);
                else
                        (void) snprintf(bytes[i], sizeof bytes[i], "%c%c", (int) (0xc0 | c >> 6),
                                        (int) (0x80 | (c & 0x3f)));
                tokens[i] = bytes[i];
                kinds[i] = 1;
        }
        for (size_t i = 0; i < n_more; i++) {
                tokens[256 + i] = more[i];
                kinds[256 + i] = i < 4 ? 1 : 3;
        }
        gguf_write_string(w, "tokenizer.ggml.model", "gpt2");
        gguf_write_string(w, "tokenizer.ggml.pre", "qwen2");
        gguf_write_strings(w, "tokenizer.ggml.tokens", tokens, 256 + n_more);
        gguf_write_i32s(w, "tokenizer.ggml.token_type", kinds, 256 + n_more);
        gguf_write_strings(w, "tokenizer.ggml.merges", merges, 4);
        gguf_write_u32(w, "tokenizer.ggml.eos_token_id", 260);
        gguf_write_bool(w, "tokenizer.ggml.add_bos_token", false);
        *ret_n_tokens = (uint32_t) (256 + n_more);
}

/* <unk>, <s>, </s>, the 256 bytes, some pieces, marks as Code Llama names them. */
static void write_spm(struct gguf_writer *w, uint32_t *ret_n_tokens) {
        static const char *const more[] = { "▁",  "r",      "e",      "t",      "▁r",
                                            "et", "▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>" };
        const size_t n_more = sizeof more / sizeof more[0];
        static char bytes[256][8];
        const char *tokens[259 + sizeof more / sizeof more[0]] = { "<unk>", "<s>", "</s>" };
        int32_t kinds[259 + sizeof more / sizeof more[0]] = { 2, 3, 3 };
        float scores[259 + sizeof more / sizeof more[0]] = { 0 };

        for (unsigned i = 0; i < 256; i++) {
                (void) snprintf(bytes[i], sizeof bytes[i], "<0x%02X>", i);
                tokens[3 + i] = bytes[i];
                kinds[3 + i] = 6;
        }
        for (size_t i = 0; i < n_more; i++) {
                tokens[259 + i] = more[i];
                kinds[259 + i] = 1;
                scores[259 + i] = -(float) i;
        }
        gguf_write_string(w, "tokenizer.ggml.model", "llama");
        gguf_write_strings(w, "tokenizer.ggml.tokens", tokens, 259 + n_more);
        gguf_write_i32s(w, "tokenizer.ggml.token_type", kinds, 259 + n_more);
        gguf_write_f32s(w, "tokenizer.ggml.scores", scores, 259 + n_more);
        *ret_n_tokens = (uint32_t) (259 + n_more);
}

static void write_sizes(struct gguf_writer *w, const struct gguf_tiny *tiny) {
        static const struct {
                const char *key;
                uint32_t value;
        } sizes[] = {
                { "block_count", GGUF_TINY_LAYERS },
                { "context_length", 128 },
                { "embedding_length", GGUF_TINY_DIM },
                { "feed_forward_length", GGUF_TINY_FF },
                { "attention.head_count", GGUF_TINY_HEADS },
                { "attention.head_count_kv", GGUF_TINY_KV },
        };
        char key[96];

        gguf_write_string(w, "general.architecture", tiny->architecture);
        gguf_write_string(w, "general.name", "Tiny Model");
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
                (void) snprintf(key, sizeof key, "%s.%s", tiny->architecture, sizes[i].key);
                gguf_write_u32(w, key, sizes[i].value);
        }
        (void) snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", tiny->architecture);
        gguf_write_f32(w, key, 1e-6F);
        (void) snprintf(key, sizeof key, "%s.rope.freq_base", tiny->architecture);
        gguf_write_f32(w, key, 10000);
        if (strcmp(tiny->architecture, "qwen3") == 0) {
                gguf_write_u32(w, "qwen3.attention.key_length", 32);
                gguf_write_u32(w, "qwen3.attention.value_length", 32);
        }
}

static void write_layer(struct gguf_writer *w, const struct gguf_tiny *tiny, unsigned layer) {
        bool qwen2 = strcmp(tiny->architecture, "qwen2") == 0;
        bool qwen3 = strcmp(tiny->architecture, "qwen3") == 0;
        const uint64_t head = qwen3 ? 32 : 16, dim = GGUF_TINY_DIM, ff = GGUF_TINY_FF;
        const uint64_t q = GGUF_TINY_HEADS * head, kv = GGUF_TINY_KV * head;
        const struct {
                const char *name;
                bool there, matrix;
                uint64_t n_cols, n_rows;
        } tensors[] = {
                { "attn_norm.weight", true, false, dim, 1 },
                { "ffn_norm.weight", true, false, dim, 1 },
                { "attn_q.weight", true, true, dim, q },
                { "attn_k.weight", true, true, dim, kv },
                { "attn_v.weight", true, true, dim, kv },
                { "attn_output.weight", true, true, q, dim },
                { "attn_q.bias", qwen2 || tiny->biases, false, q, 1 },
                { "attn_k.bias", qwen2 || tiny->biases, false, kv, 1 },
                { "attn_v.bias", qwen2 || tiny->biases, false, kv, 1 },
                { "attn_output.bias", tiny->biases, false, dim, 1 },
                { "attn_q_norm.weight", qwen3, false, head, 1 },
                { "attn_k_norm.weight", qwen3, false, head, 1 },
                { "ffn_gate.weight", true, true, dim, ff },
                { "ffn_up.weight", true, true, dim, ff },
                { "ffn_down.weight", true, true, ff, dim },
                { "ffn_gate.bias", tiny->biases, false, ff, 1 },
                { "ffn_up.bias", tiny->biases, false, ff, 1 },
                { "ffn_down.bias", tiny->biases, false, dim, 1 },
        };

        for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) {
                char name[64];

                (void) snprintf(name, sizeof name, "blk.%u.%s", layer, tensors[i].name);
                if (tensors[i].there && tensors[i].matrix)
                        gguf_write_tensor(w, name, layer % 2 ? GGML_F16 : GGML_Q8_0,
                                          tensors[i].n_cols, tensors[i].n_rows);
                else if (tensors[i].there)
                        gguf_write_vector(w, name, tensors[i].n_cols);
        }
}

void gguf_write_tiny(struct gguf_writer *w, const struct gguf_tiny *tiny) {
        uint32_t n_tokens;

        write_sizes(w, tiny);
        if (tiny->sentencepiece)
                write_spm(w, &n_tokens);
        else
                write_bpe(w, &n_tokens);
        gguf_write_tensor(w, "token_embd.weight", GGML_Q8_0, GGUF_TINY_DIM, n_tokens);
        for (unsigned i = 0; i < GGUF_TINY_LAYERS; i++)
                write_layer(w, tiny, i);
        gguf_write_vector(w, "output_norm.weight", GGUF_TINY_DIM);
        if (tiny->output)
                gguf_write_tensor(w, "output.weight", GGML_F16, GGUF_TINY_DIM, n_tokens);
}

/* Takes over the fd, or what open() failed with. */
static int write_to(int fd, const void *data, size_t n) {
        int r = 0;

        if (fd < 0)
                return -errno;
        for (size_t at = 0; at < n && r == 0;) {
                ssize_t k = write(fd, (const char *) data + at, n - at);

                if (k < 0)
                        r = -errno;
                else
                        at += (size_t) k;
        }
        close(fd);
        return r;
}

int gguf_write_file(const char *path, const void *data, size_t n) {
        return write_to(open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), data, n);
}

int gguf_write_temporary(char *path, const void *data, size_t n) {
        return write_to(mkostemp(path, O_CLOEXEC), data, n);
}
