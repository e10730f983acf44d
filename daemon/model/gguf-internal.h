/* SPDX-License-Identifier: Apache-2.0 */
/* The parsed header, private to gguf*.c. */
#pragma once

#include "gguf-bytes.h"
#include "gguf.h"

struct warm_gguf_load;

struct warm_gguf {
        struct warm_bytes bytes; /* owned */
        uint32_t version;
        uint32_t n_keys;
        uint32_t n_tensors;
        uint64_t data_offset; /* of the tensors' data in the file */
        uint64_t alignment;
        struct warm_gguf_key *keys;          /* [n_keys] in the file's order */
        struct warm_gguf_tensor *tensors;    /* [n_tensors] likewise */
        struct warm_gguf_key **keys_by_name; /* [n_keys] sorted */
        struct warm_gguf_tensor **by_name;   /* [n_tensors] sorted */
        struct warm_gguf_tensor **by_offset; /* [n_tensors] sorted */
        const uint8_t *
                *key_starts; /* [n_keys + 1] where each entry starts; the last: where they end */
        struct warm_gguf_load *load; /* from warm_gguf_load_begin() to warm_gguf_load() */
};

/* Stop what begin() began, if it did. */
void warm_gguf_load_end(struct warm_gguf *g);

/* Bytes of one value of a scalar type; 0 for strings and arrays. */
uint32_t warm_gguf_type_bytes(enum warm_gguf_type type);

static inline uint16_t warm_load_u16(const uint8_t *p) {
        return (uint16_t) (p[0] | p[1] << 8);
}

static inline uint32_t warm_load_u32(const uint8_t *p) {
        return (uint32_t) p[0] | (uint32_t) p[1] << 8 | (uint32_t) p[2] << 16 |
               (uint32_t) p[3] << 24;
}

static inline uint64_t warm_load_u64(const uint8_t *p) {
        return (uint64_t) warm_load_u32(p) | (uint64_t) warm_load_u32(p + 4) << 32;
}
