/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Write small GGUF files for tests: valid ones, and ones that are wrong in exactly one way.
 * Out of memory ends the program: this is a tool of tests.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Element types as ggml numbers them. */
enum { GGML_F32 = 0, GGML_F16 = 1, GGML_Q8_0 = 8 };

struct gguf_bytes {
        uint8_t *data;
        size_t n, n_room;
};

struct gguf_writer {
        struct gguf_bytes keys, tensors, data;
        uint64_t n_keys, n_tensors;
        uint32_t version;    /* 0: 3 */
        uint32_t alignment;  /* 0: 32 */
        const char *without; /* the key or tensor of this name is not written */
        uint64_t seed;       /* of tensor data */
};

void gguf_write_u32(struct gguf_writer *w, const char *key, uint32_t v);
void gguf_write_i32(struct gguf_writer *w, const char *key, int32_t v);
void gguf_write_f32(struct gguf_writer *w, const char *key, float v);
void gguf_write_bool(struct gguf_writer *w, const char *key, bool v);
void gguf_write_string(struct gguf_writer *w, const char *key, const char *v);
void gguf_write_strings(struct gguf_writer *w, const char *key, const char *const *v, size_t n);
void gguf_write_i32s(struct gguf_writer *w, const char *key, const int32_t *v, size_t n);
void gguf_write_f32s(struct gguf_writer *w, const char *key, const float *v, size_t n);

/* Any key: its type and the bytes behind it as they are. */
void gguf_write_raw(struct gguf_writer *w, const char *key, size_t n_key, uint32_t type,
                    const void *value, size_t n);

/* A tensor with small random values that are valid in its type. @param dims fastest first */
void gguf_write_tensor(struct gguf_writer *w, const char *name, uint32_t type, uint64_t n_cols,
                       uint64_t n_rows);
void gguf_write_vector(struct gguf_writer *w, const char *name, uint64_t n);

/* A tensor's entry in the header alone. */
void gguf_write_entry(struct gguf_writer *w, const char *name, uint32_t n_dims,
                      const uint64_t *dims, uint32_t type, uint64_t offset);

/* The whole file. Return: malloc'd, the caller's; *ret_n bytes. The writer is empty afterwards. */
uint8_t *gguf_write_end(struct gguf_writer *w, size_t *ret_n);

/* What a tiny model is like: two layers, width 64, 4 heads, 2 KV heads, 96 hidden, 128 positions. */
struct gguf_tiny {
        const char *architecture; /* "llama", "qwen2", "qwen3" */
        bool sentencepiece;       /* a llama-spm vocabulary; else byte-level BPE */
        bool biases;              /* the ones that llama may have */
        bool output;              /* an output matrix of its own */
};

#define GGUF_TINY_LAYERS 2U
#define GGUF_TINY_DIM    64U
#define GGUF_TINY_FF     96U
#define GGUF_TINY_HEADS  4U
#define GGUF_TINY_KV     2U

/* All keys and tensors of a tiny model, into a writer that may go on. */
void gguf_write_tiny(struct gguf_writer *w, const struct gguf_tiny *tiny);

/* Bytes to a new file; or to a temporary one, whose path's last six bytes, "XXXXXX", are replaced. Return: 0 or -errno. */
int gguf_write_file(const char *path, const void *data, size_t n);
int gguf_write_temporary(char *path, const void *data, size_t n);
