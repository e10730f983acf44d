/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A reader of GGUF files, versions 2 and 3, little-endian. The file is untrusted input.
 *
 * offset  bytes  what (source: the GGUF specification, ggml's docs/gguf.md)
 * 0       4      "GGUF"
 * 4       4      version: 2 or 3
 * 8       8      number of tensors
 * 16      8      number of keys
 * 24      ...    keys: string name, u32 type, value
 *         ...    tensors: string name, u32 n_dims, u64 dims[n_dims] (fastest first), u32 type, u64 offset
 *         ...    zeros up to a multiple of general.alignment (32 unless the file says so)
 *         ...    data: tensor offsets count from here
 * A string is u64 n and n bytes. An array is u32 element type, u64 n and n values; arrays hold no arrays here.
 *
 * warm_gguf_open() checks all of it once: counts against the bytes left before anything is allocated, so memory is
 * bounded by the file's size; every offset; that names are unique and tensors neither overlap nor lie outside.
 * What the getters return afterwards is within the file.
 *
 * The bytes: a file that only root may write is mapped (private, read-only). Any other is read into memory of our
 * own, since whoever shortens a mapped file kills its readers with SIGBUS. Reading is lazy and in file order:
 * opening reads what the header needs, and warm_gguf_load() the rest, hashing each piece while it is in the CPU's cache.
 *
 * One owner, one thread at a time; those that load are the object's own. Strings and tensor data are borrowed from the
 * object.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/quant.h"
#include "vocab.h"

/* Limits; a file beyond one is refused with -EBADMSG. */
#define WARM_GGUF_KEYS_MAX           65536U
#define WARM_GGUF_TENSORS_MAX        65536U
#define WARM_GGUF_KEY_BYTES_MAX      65535U /* the specification's */
#define WARM_GGUF_TENSOR_NAME_MAX    64U    /* the specification's */
#define WARM_GGUF_STRING_BYTES_MAX   (16U << 20)
#define WARM_GGUF_ARRAY_ELEMENTS_MAX (4U << 20)
#define WARM_GGUF_DIMS_MAX           4U
#define WARM_GGUF_ALIGNMENT_MAX      (1U << 20)
#define WARM_GGUF_ALIGNMENT_DEFAULT  32U
#define WARM_GGUF_HASH_BYTES         16U

/* As the file numbers them. */
enum warm_gguf_type {
        WARM_GGUF_U8,
        WARM_GGUF_I8,
        WARM_GGUF_U16,
        WARM_GGUF_I16,
        WARM_GGUF_U32,
        WARM_GGUF_I32,
        WARM_GGUF_F32,
        WARM_GGUF_BOOL,
        WARM_GGUF_STRING,
        WARM_GGUF_ARRAY,
        WARM_GGUF_U64,
        WARM_GGUF_I64,
        WARM_GGUF_F64,
        _WARM_GGUF_TYPE_N,
};

enum {
        /* Expected outcome of the getters (positive; the direct caller handles it). */
        WARM_GGUF_E_ABSENT = 1,
};

struct warm_gguf;

struct warm_gguf_key {
        struct warm_string name;
        enum warm_gguf_type type;
        enum warm_gguf_type element_type; /* of an array */
        uint64_t n;                       /* elements of an array; else 1 */
        const uint8_t *
                value; /* the first element, little-endian, any alignment; strings with their length */
        uint64_t value_bytes; /* all elements */
};

struct warm_gguf_tensor {
        struct warm_string name;
        enum warm_type type;
        uint32_t n_dims;
        uint64_t dims[WARM_GGUF_DIMS_MAX]; /* fastest first; 1 beyond n_dims */
        uint64_t n_elements;
        uint64_t offset; /* from the start of the data */
        uint64_t bytes;
        const uint8_t *data;   /* valid memory; holds the tensor after warm_gguf_load() */
        const uint8_t *header; /* its entry in the header */
        uint32_t header_bytes; /* up to the offset, which is not counted */
};

/*
 * Open a file and check all that its header says.
 *
 * @param ret_why on errors but -ENOMEM a malloc'd sentence: what is wrong and what to do; may be NULL
 * Return: 0; -ENOMEM; -EBADMSG: malformed, or beyond a limit; -EOPNOTSUPP: a version, byte order or tensor type that
 * is not built; else what open(), read() or mmap() failed with.
 */
int warm_gguf_open(const char *path, struct warm_gguf **ret_gguf, char **ret_why);

/* The same for bytes in memory, borrowed until warm_gguf_free(). */
int warm_gguf_open_bytes(const void *bytes, uint64_t n_bytes, struct warm_gguf **ret_gguf,
                         char **ret_why);
struct warm_gguf *warm_gguf_free(struct warm_gguf *g);

/*
 * Bring all tensors into memory and hash the model: XXH3_128 over each key that can change a result (all but
 * general.*, of which only general.architecture counts) as the file spells it, in the file's order; then over each
 * tensor, in the order of the data: its header up to the offset, and the XXH3_128 of each MiB of its bytes.
 * What is not read yet is hashed right behind the read, so the data crosses the memory bus once.
 * After warm_gguf_load_begin() it is the rest, and the wait for others.
 *
 * Return: 0; -ENOMEM; -EBADMSG: the file became shorter; else what read() failed with.
 */
int warm_gguf_load(struct warm_gguf *g, uint8_t ret_hash[WARM_GGUF_HASH_BYTES], char **ret_why);

/*
 * Let threads begin with it, of a file that is worth them. Until warm_gguf_load() or warm_gguf_free() keys, tensors and
 * what was loaded before can be read; the data of a mapped file too, of others not. Return: 0; -ENOMEM.
 */
int warm_gguf_load_begin(struct warm_gguf *g);

/* Bring one tensor's bytes into memory, before either of the two. Return: as there. */
int warm_gguf_load_tensor(struct warm_gguf *g, const struct warm_gguf_tensor *tensor,
                          char **ret_why);

uint64_t warm_gguf_file_bytes(const struct warm_gguf *g);
bool warm_gguf_is_mapped(const struct warm_gguf *g);
uint32_t warm_gguf_version(const struct warm_gguf *g);
uint32_t warm_gguf_n_keys(const struct warm_gguf *g);
uint32_t warm_gguf_n_tensors(const struct warm_gguf *g);

/* In the file's order. Return: never NULL. */
const struct warm_gguf_key *warm_gguf_key_at(const struct warm_gguf *g, uint32_t index);
const struct warm_gguf_tensor *warm_gguf_tensor_at(const struct warm_gguf *g, uint32_t index);

/* By name. Return: NULL if there is none. */
const struct warm_gguf_key *warm_gguf_find_key(const struct warm_gguf *g, const char *name);
const struct warm_gguf_tensor *warm_gguf_find_tensor(const struct warm_gguf *g, const char *name);

/*
 * Typed reads of one value. An integer of any width and sign will do where its value fits; a float may be F32 or
 * F64. warm_gguf_get_u32_of() also takes an array: its element `index`.
 *
 * Return: 0; WARM_GGUF_E_ABSENT: no such key (no sentence); -EBADMSG: another type, out of range, or not finite.
 */
int warm_gguf_get_u32(const struct warm_gguf *g, const char *name, uint32_t *ret_value,
                      char **ret_why);
int warm_gguf_get_u32_of(const struct warm_gguf *g, const char *name, uint32_t index,
                         uint32_t *ret_value, char **ret_why);
int warm_gguf_get_f32(const struct warm_gguf *g, const char *name, float *ret_value,
                      char **ret_why);
int warm_gguf_get_bool(const struct warm_gguf *g, const char *name, bool *ret_value,
                       char **ret_why);
int warm_gguf_get_string(const struct warm_gguf *g, const char *name, struct warm_string *ret_value,
                         char **ret_why);

/*
 * Typed reads of an array; it is malloc'd and the caller's, its strings borrowed.
 * Return: as above, or -ENOMEM.
 */
int warm_gguf_get_strings(const struct warm_gguf *g, const char *name,
                          struct warm_string **ret_values, uint32_t *ret_n, char **ret_why);
int warm_gguf_get_i32s(const struct warm_gguf *g, const char *name, int32_t **ret_values,
                       uint32_t *ret_n, char **ret_why);
int warm_gguf_get_f32s(const struct warm_gguf *g, const char *name, float **ret_values,
                       uint32_t *ret_n, char **ret_why);

/* Whether a string is exactly this text. */
bool warm_string_is(struct warm_string s, const char *text);
