/* SPDX-License-Identifier: Apache-2.0 */
/* See gguf.h for the format and what is promised. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "gguf-internal.h"
#include "why.h"

/* The least bytes an entry takes, so that a count can be held against the bytes left before memory is allocated. */
#define KEY_BYTES_MIN    (8 + 1 + 4 + 1)
#define TENSOR_BYTES_MIN (8 + 1 + 4 + 8 + 4 + 8)

struct reader {
        struct warm_bytes *bytes;
        uint64_t at;
        const char *what; /* being read: "key" */
        uint64_t index;
        char **ret_why;
};

/* Element types as ggml numbers them; those without `built` are known by name only. */
static const struct {
        const char *name;
        uint8_t built; /* enum warm_type + 1; 0: not built */
} tensor_types[] = {
        [0] = { "F32", WARM_TYPE_F32 + 1 },
        [1] = { "F16", WARM_TYPE_F16 + 1 },
        [2] = { "Q4_0", WARM_TYPE_Q4_0 + 1 },
        [3] = { "Q4_1", WARM_TYPE_Q4_1 + 1 },
        [6] = { "Q5_0", WARM_TYPE_Q5_0 + 1 },
        [7] = { "Q5_1", WARM_TYPE_Q5_1 + 1 },
        [8] = { "Q8_0", WARM_TYPE_Q8_0 + 1 },
        [9] = { "Q8_1", 0 },
        [10] = { "Q2_K", 0 },
        [11] = { "Q3_K", 0 },
        [12] = { "Q4_K", WARM_TYPE_Q4_K + 1 },
        [13] = { "Q5_K", WARM_TYPE_Q5_K + 1 },
        [14] = { "Q6_K", WARM_TYPE_Q6_K + 1 },
        [15] = { "Q8_K", 0 },
        [16] = { "IQ2_XXS", 0 },
        [17] = { "IQ2_XS", 0 },
        [18] = { "IQ3_XXS", 0 },
        [19] = { "IQ1_S", 0 },
        [20] = { "IQ4_NL", 0 },
        [21] = { "IQ3_S", 0 },
        [22] = { "IQ2_S", 0 },
        [23] = { "IQ4_XS", 0 },
        [24] = { "I8", 0 },
        [25] = { "I16", 0 },
        [26] = { "I32", 0 },
        [27] = { "I64", 0 },
        [28] = { "F64", 0 },
        [29] = { "IQ1_M", 0 },
        [30] = { "BF16", WARM_TYPE_BF16 + 1 },
        [34] = { "TQ1_0", 0 },
        [35] = { "TQ2_0", 0 },
        [39] = { "MXFP4", 0 },
        [40] = { "NVFP4", 0 },
};

uint32_t warm_gguf_type_bytes(enum warm_gguf_type type) {
        static const uint8_t bytes[_WARM_GGUF_TYPE_N] = {
                [WARM_GGUF_U8] = 1,  [WARM_GGUF_I8] = 1,  [WARM_GGUF_U16] = 2, [WARM_GGUF_I16] = 2,
                [WARM_GGUF_U32] = 4, [WARM_GGUF_I32] = 4, [WARM_GGUF_F32] = 4, [WARM_GGUF_BOOL] = 1,
                [WARM_GGUF_U64] = 8, [WARM_GGUF_I64] = 8, [WARM_GGUF_F64] = 8,
        };

        return type < _WARM_GGUF_TYPE_N ? bytes[type] : 0;
}

/* The next n bytes. */
static int take(struct reader *r, uint64_t n, const uint8_t **ret_p) {
        int e;

        if (n > r->bytes->n - r->at)
                return warm_why(r->ret_why, -EBADMSG,
                                "ends inside %s %llu (at byte %llu of %llu); it is damaged or was "
                                "cut off: fetch it again",
                                r->what, (unsigned long long) r->index, (unsigned long long) r->at,
                                (unsigned long long) r->bytes->n);
        e = warm_bytes_fill(r->bytes, r->at + n, r->ret_why);
        if (e < 0)
                return e;
        *ret_p = r->bytes->data + r->at;
        r->at += n;
        return 0;
}

static int take_u32(struct reader *r, uint32_t *ret_value) {
        const uint8_t *p = NULL;
        int e = take(r, 4, &p);

        if (e == 0)
                *ret_value = warm_load_u32(p);
        return e;
}

static int take_u64(struct reader *r, uint64_t *ret_value) {
        const uint8_t *p = NULL;
        int e = take(r, 8, &p);

        if (e == 0)
                *ret_value = warm_load_u64(p);
        return e;
}

static int take_string(struct reader *r, uint64_t n_max, struct warm_string *ret_string) {
        const uint8_t *p = NULL;
        uint64_t n = 0;
        int e = take_u64(r, &n);

        if (e < 0)
                return e;
        if (n > n_max)
                return warm_why(r->ret_why, -EBADMSG,
                                "%s %llu holds a string of %llu bytes; at most %llu are read",
                                r->what, (unsigned long long) r->index, (unsigned long long) n,
                                (unsigned long long) n_max);
        e = take(r, n, &p);
        if (e == 0)
                *ret_string = (struct warm_string){ .data = (const char *) p, .n = n };
        return e;
}

static int take_name(struct reader *r, uint64_t n_max, struct warm_string *ret_name) {
        int e = take_string(r, n_max, ret_name);

        if (e == 0 && ret_name->n == 0)
                return warm_why(r->ret_why, -EBADMSG, "%s %llu has no name; the file is damaged",
                                r->what, (unsigned long long) r->index);
        return e;
}

/* Skip n values of one type. */
static int take_values(struct reader *r, const struct warm_gguf_key *key, enum warm_gguf_type type,
                       uint64_t n) {
        uint32_t width = warm_gguf_type_bytes(type);
        const uint8_t *p = NULL;
        int e = 0;

        if (width > 0)
                return take(r, n * width, &p); /* n <= 4 Mi: no overflow */
        if (type != WARM_GGUF_STRING)
                return warm_why(r->ret_why, -EBADMSG, "%s has values of type %u, which is %s",
                                warm_show(key->name).text, type,
                                type == WARM_GGUF_ARRAY ? "an array in an array; none are read"
                                                        : "no GGUF type; the file is damaged");
        for (uint64_t i = 0; i < n && e == 0; i++) {
                struct warm_string s;

                e = take_string(r, WARM_GGUF_STRING_BYTES_MAX, &s);
        }
        return e;
}

static int take_key(struct reader *r, struct warm_gguf_key *key) {
        uint32_t type = 0;
        uint64_t start;
        int e = take_name(r, WARM_GGUF_KEY_BYTES_MAX, &key->name);

        if (e == 0)
                e = take_u32(r, &type);
        if (e < 0)
                return e;
        key->type = key->element_type = type;
        key->n = 1;
        if (type == WARM_GGUF_ARRAY) {
                e = take_u32(r, &type);
                if (e == 0)
                        e = take_u64(r, &key->n);
                if (e < 0)
                        return e;
                key->element_type = type;
                if (key->n > WARM_GGUF_ARRAY_ELEMENTS_MAX)
                        return warm_why(r->ret_why, -EBADMSG,
                                        "%s is an array of %llu elements; at most %u are read",
                                        warm_show(key->name).text, (unsigned long long) key->n,
                                        WARM_GGUF_ARRAY_ELEMENTS_MAX);
        }
        start = r->at;
        e = take_values(r, key, key->element_type, key->n);
        key->value = r->bytes->data + start;
        key->value_bytes = r->at - start;
        return e;
}

/* Count, and bytes of the data. */
static int check_extent(struct reader *r, struct warm_gguf_tensor *t) {
        struct warm_shown shown = warm_show(t->name);
        const char *name = shown.text;
        uint64_t row_bytes = 0, n_rows = 1;
        int e;

        for (uint32_t i = 0; i < t->n_dims; i++)
                if (t->dims[i] == 0)
                        return warm_why(r->ret_why, -EBADMSG,
                                        "tensor %s has a dimension of 0; the file is damaged",
                                        name);
        for (uint32_t i = 1; i < t->n_dims; i++)
                if (__builtin_mul_overflow(n_rows, t->dims[i], &n_rows))
                        goto overflow;
        e = warm_type_row_bytes(t->type, t->dims[0], &row_bytes);
        if (e == -EINVAL)
                return warm_why(
                        r->ret_why, -EBADMSG,
                        "tensor %s has rows of %llu values, which %s cannot hold; the file is "
                        "damaged",
                        name, (unsigned long long) t->dims[0], warm_type_info(t->type)->name);
        if (e < 0 || __builtin_mul_overflow(n_rows, row_bytes, &t->bytes) ||
            __builtin_mul_overflow(n_rows, t->dims[0], &t->n_elements))
                goto overflow;
        return 0;
overflow:
        return warm_why(r->ret_why, -EBADMSG,
                        "tensor %s has more values than can be counted; the file is damaged", name);
}

static int take_tensor(struct reader *r, struct warm_gguf_tensor *t) {
        uint64_t start = r->at;
        uint32_t type = 0;
        int e = take_name(r, WARM_GGUF_TENSOR_NAME_MAX, &t->name);

        if (e == 0)
                e = take_u32(r, &t->n_dims);
        if (e < 0)
                return e;
        if (t->n_dims < 1 || t->n_dims > WARM_GGUF_DIMS_MAX)
                return warm_why(r->ret_why, -EBADMSG,
                                "tensor %s has %u dimensions; 1 to %u are read",
                                warm_show(t->name).text, t->n_dims, WARM_GGUF_DIMS_MAX);
        for (uint32_t i = 0; i < WARM_GGUF_DIMS_MAX; i++)
                t->dims[i] = 1;
        for (uint32_t i = 0; i < t->n_dims && e == 0; i++)
                e = take_u64(r, &t->dims[i]);
        if (e == 0)
                e = take_u32(r, &type);
        if (e < 0)
                return e;
        t->header = r->bytes->data + start;
        t->header_bytes = (uint32_t) (r->at - start);
        if (type >= sizeof tensor_types / sizeof tensor_types[0] || !tensor_types[type].name)
                return warm_why(
                        r->ret_why, -EOPNOTSUPP,
                        "tensor %s has type %u, which is unknown; use a model in Q8_0 or Q4_K_M",
                        warm_show(t->name).text, type);
        if (!tensor_types[type].built)
                return warm_why(
                        r->ret_why, -EOPNOTSUPP,
                        "tensor %s has type %s, which is not built; use a model in Q8_0 or Q4_K_M",
                        warm_show(t->name).text, tensor_types[type].name);
        t->type = (enum warm_type)(tensor_types[type].built - 1);
        e = take_u64(r, &t->offset);
        return e < 0 ? e : check_extent(r, t);
}

static int compare_strings(struct warm_string a, struct warm_string b) {
        int c = memcmp(a.data, b.data, a.n < b.n ? a.n : b.n);

        return c != 0 ? c : (a.n > b.n) - (a.n < b.n);
}

static int compare_keys(const void *a, const void *b) {
        return compare_strings((*(struct warm_gguf_key *const *) a)->name,
                               (*(struct warm_gguf_key *const *) b)->name);
}

static int compare_names(const void *a, const void *b) {
        return compare_strings((*(struct warm_gguf_tensor *const *) a)->name,
                               (*(struct warm_gguf_tensor *const *) b)->name);
}

static int compare_offsets(const void *a, const void *b) {
        uint64_t x = (*(struct warm_gguf_tensor *const *) a)->offset;
        uint64_t y = (*(struct warm_gguf_tensor *const *) b)->offset;

        return (x > y) - (x < y);
}

/* Counts against the limits and the bytes left; then tables of that size. */
static int allocate(struct warm_gguf *g, struct reader *r, uint64_t n_tensors, uint64_t n_keys) {
        uint64_t left = r->bytes->n - r->at;

        if (n_keys > WARM_GGUF_KEYS_MAX || n_tensors > WARM_GGUF_TENSORS_MAX)
                return warm_why(r->ret_why, -EBADMSG,
                                "claims %llu keys and %llu tensors; at most %u and %u are read",
                                (unsigned long long) n_keys, (unsigned long long) n_tensors,
                                WARM_GGUF_KEYS_MAX, WARM_GGUF_TENSORS_MAX);
        if (n_keys * KEY_BYTES_MIN + n_tensors * TENSOR_BYTES_MIN > left)
                return warm_why(
                        r->ret_why, -EBADMSG,
                        "claims %llu keys and %llu tensors in %llu bytes; it is damaged or was "
                        "cut off: fetch it again",
                        (unsigned long long) n_keys, (unsigned long long) n_tensors,
                        (unsigned long long) left);
        g->n_keys = (uint32_t) n_keys;
        g->n_tensors = (uint32_t) n_tensors;
        g->keys = calloc(n_keys + 1, sizeof *g->keys);
        g->keys_by_name = calloc(n_keys + 1, sizeof *g->keys_by_name);
        g->key_starts = calloc(n_keys + 1, sizeof *g->key_starts);
        g->tensors = calloc(n_tensors + 1, sizeof *g->tensors);
        g->by_name = calloc(n_tensors + 1, sizeof *g->by_name);
        g->by_offset = calloc(n_tensors + 1, sizeof *g->by_offset);
        if (!g->keys || !g->keys_by_name || !g->key_starts || !g->tensors || !g->by_name ||
            !g->by_offset)
                return -ENOMEM;
        return 0;
}

static int parse_start(struct warm_gguf *g, struct reader *r) {
        uint64_t n_tensors = 0, n_keys = 0;
        const uint8_t *magic = NULL;
        int e;

        if (r->bytes->n < 24)
                return warm_why(r->ret_why, -EBADMSG, "is too short for a GGUF file (%llu bytes)",
                                (unsigned long long) r->bytes->n);
        e = take(r, 4, &magic);
        if (e < 0)
                return e;
        if (memcmp(magic, "GGUF", 4) != 0)
                return warm_why(r->ret_why, -EBADMSG,
                                "is not a GGUF file; convert the model with llama.cpp's "
                                "convert_hf_to_gguf.py");
        e = take_u32(r, &g->version);
        if (e < 0)
                return e;
        if (g->version > 0xffff)
                return warm_why(r->ret_why, -EOPNOTSUPP,
                                "is a big-endian GGUF file; only little-endian ones are read");
        if (g->version != 2 && g->version != 3)
                return warm_why(r->ret_why, -EOPNOTSUPP,
                                "is GGUF version %u; versions 2 and 3 are read: convert it again",
                                g->version);
        e = take_u64(r, &n_tensors);
        if (e == 0)
                e = take_u64(r, &n_keys);
        return e < 0 ? e : allocate(g, r, n_tensors, n_keys);
}

static int parse_keys(struct warm_gguf *g, struct reader *r) {
        int e = 0;

        r->what = "key";
        for (r->index = 0; r->index < g->n_keys && e == 0; r->index++) {
                g->key_starts[r->index] = r->bytes->data + r->at;
                g->keys_by_name[r->index] = &g->keys[r->index];
                e = take_key(r, &g->keys[r->index]);
        }
        if (e < 0)
                return e;
        g->key_starts[g->n_keys] = r->bytes->data + r->at;
        qsort(g->keys_by_name, g->n_keys, sizeof *g->keys_by_name, compare_keys);
        for (uint32_t i = 1; i < g->n_keys; i++)
                if (compare_keys(&g->keys_by_name[i - 1], &g->keys_by_name[i]) == 0)
                        return warm_why(r->ret_why, -EBADMSG,
                                        "has the key %s twice; the file is damaged",
                                        warm_show(g->keys_by_name[i]->name).text);
        return 0;
}

static int parse_tensors(struct warm_gguf *g, struct reader *r) {
        int e = 0;

        r->what = "tensor";
        for (r->index = 0; r->index < g->n_tensors && e == 0; r->index++) {
                g->by_name[r->index] = g->by_offset[r->index] = &g->tensors[r->index];
                e = take_tensor(r, &g->tensors[r->index]);
        }
        if (e < 0)
                return e;
        qsort(g->by_name, g->n_tensors, sizeof *g->by_name, compare_names);
        for (uint32_t i = 1; i < g->n_tensors; i++)
                if (compare_names(&g->by_name[i - 1], &g->by_name[i]) == 0)
                        return warm_why(r->ret_why, -EBADMSG,
                                        "has the tensor %s twice; the file is damaged",
                                        warm_show(g->by_name[i]->name).text);
        return 0;
}

static int find_data(struct warm_gguf *g, struct reader *r) {
        uint32_t alignment = WARM_GGUF_ALIGNMENT_DEFAULT;
        int e = warm_gguf_get_u32(g, "general.alignment", &alignment, r->ret_why);

        if (e < 0)
                return e;
        if (alignment == 0 || (alignment & (alignment - 1)) || alignment > WARM_GGUF_ALIGNMENT_MAX)
                return warm_why(r->ret_why, -EBADMSG,
                                "general.alignment is %u; it must be a power of two up to %u",
                                alignment, WARM_GGUF_ALIGNMENT_MAX);
        g->alignment = alignment;
        g->data_offset = (r->at + alignment - 1) & ~((uint64_t) alignment - 1);
        return 0;
}

/* Each tensor within the data, aligned, and none over another. */
static int place_tensors(struct warm_gguf *g, char **ret_why) {
        uint64_t n = g->bytes.n > g->data_offset ? g->bytes.n - g->data_offset : 0;
        uint64_t end = 0;

        qsort(g->by_offset, g->n_tensors, sizeof *g->by_offset, compare_offsets);
        for (uint32_t i = 0; i < g->n_tensors; i++) {
                struct warm_gguf_tensor *t = g->by_offset[i];

                if (t->offset > n || t->bytes > n - t->offset)
                        return warm_why(ret_why, -EBADMSG,
                                        "tensor %s lies outside the file; it is damaged or was cut "
                                        "off: fetch it again",
                                        warm_show(t->name).text);
                if (t->offset & (g->alignment - 1))
                        return warm_why(
                                ret_why, -EBADMSG,
                                "tensor %s is not aligned to %llu bytes; the file is damaged",
                                warm_show(t->name).text, (unsigned long long) g->alignment);
                if (t->offset < end)
                        return warm_why(ret_why, -EBADMSG,
                                        "tensor %s overlaps tensor %s; the file is damaged",
                                        warm_show(t->name).text,
                                        warm_show(g->by_offset[i - 1]->name).text);
                end = t->offset + t->bytes;
                t->data = g->bytes.data + g->data_offset + t->offset;
        }
        return 0;
}

/* Takes over the bytes. */
static int gguf_parse(struct warm_bytes *bytes, struct warm_gguf **ret_gguf, char **ret_why) {
        struct warm_gguf *g = calloc(1, sizeof *g);
        struct reader r = { .what = "header", .ret_why = ret_why };
        int e;

        if (!g) {
                warm_bytes_close(bytes);
                return -ENOMEM;
        }
        g->bytes = *bytes;
        r.bytes = &g->bytes;
        e = parse_start(g, &r);
        if (e == 0)
                e = parse_keys(g, &r);
        if (e == 0)
                e = parse_tensors(g, &r);
        if (e == 0)
                e = find_data(g, &r);
        if (e == 0)
                e = place_tensors(g, ret_why);
        if (e < 0) {
                warm_gguf_free(g);
                return e;
        }
        *ret_gguf = g;
        return 0;
}

int warm_gguf_open(const char *path, struct warm_gguf **ret_gguf, char **ret_why) {
        struct warm_bytes bytes;
        int r = warm_bytes_open(path, &bytes, ret_why);

        return r < 0 ? r : gguf_parse(&bytes, ret_gguf, ret_why);
}

int warm_gguf_open_bytes(const void *data, uint64_t n_bytes, struct warm_gguf **ret_gguf,
                         char **ret_why) {
        struct warm_bytes bytes;

        warm_bytes_borrow(data, n_bytes, &bytes);
        return gguf_parse(&bytes, ret_gguf, ret_why);
}

struct warm_gguf *warm_gguf_free(struct warm_gguf *g) {
        if (!g)
                return NULL;
        warm_gguf_load_end(g);
        warm_bytes_close(&g->bytes);
        free(g->keys);
        free(g->keys_by_name);
        free(g->key_starts);
        free(g->tensors);
        free(g->by_name);
        free(g->by_offset);
        free(g);
        return NULL;
}

int warm_gguf_load_tensor(struct warm_gguf *g, const struct warm_gguf_tensor *tensor,
                          char **ret_why) {
        return warm_bytes_fill(&g->bytes, g->data_offset + tensor->offset + tensor->bytes, ret_why);
}

uint64_t warm_gguf_file_bytes(const struct warm_gguf *g) {
        return g->bytes.n;
}

bool warm_gguf_is_mapped(const struct warm_gguf *g) {
        return g->bytes.mapped;
}

uint32_t warm_gguf_version(const struct warm_gguf *g) {
        return g->version;
}

uint32_t warm_gguf_n_keys(const struct warm_gguf *g) {
        return g->n_keys;
}

uint32_t warm_gguf_n_tensors(const struct warm_gguf *g) {
        return g->n_tensors;
}

const struct warm_gguf_key *warm_gguf_key_at(const struct warm_gguf *g, uint32_t index) {
        assert(index < g->n_keys);
        return &g->keys[index];
}

const struct warm_gguf_tensor *warm_gguf_tensor_at(const struct warm_gguf *g, uint32_t index) {
        assert(index < g->n_tensors);
        return &g->tensors[index];
}

const struct warm_gguf_key *warm_gguf_find_key(const struct warm_gguf *g, const char *name) {
        struct warm_gguf_key wanted = { .name = { .data = name, .n = strlen(name) } };
        const struct warm_gguf_key *key = &wanted;
        struct warm_gguf_key **found =
                bsearch(&key, g->keys_by_name, g->n_keys, sizeof *g->keys_by_name, compare_keys);

        return found ? *found : NULL;
}

const struct warm_gguf_tensor *warm_gguf_find_tensor(const struct warm_gguf *g, const char *name) {
        struct warm_gguf_tensor wanted = { .name = { .data = name, .n = strlen(name) } };
        const struct warm_gguf_tensor *tensor = &wanted;
        struct warm_gguf_tensor **found =
                bsearch(&tensor, g->by_name, g->n_tensors, sizeof *g->by_name, compare_names);

        return found ? *found : NULL;
}
