/* SPDX-License-Identifier: Apache-2.0 */
/* Typed reads of a GGUF file's keys; see gguf.h. The values were checked to lie within the file when it was opened. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "gguf-internal.h"
#include "why.h"

static const char *const type_names[_WARM_GGUF_TYPE_N] = {
        "u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
        "bool", "string", "array", "u64", "i64", "f64",
};

/* Error for a key of the wrong type, named. */
static int refuse_type(const struct warm_gguf_key *key, const char *wanted, char **ret_why) {
        return warm_why(ret_why, -EBADMSG, "%s is %s%s and should be %s; convert the model again",
                        warm_show(key->name).text, key->type == WARM_GGUF_ARRAY ? "array of " : "",
                        type_names[key->type == WARM_GGUF_ARRAY ? key->element_type : key->type],
                        wanted);
}

/* One integer of any width. Return: false if the type is no integer. */
static bool load_integer(enum warm_gguf_type type, const uint8_t *p, int64_t *ret_value,
                         bool *ret_huge) {
        *ret_huge = false;
        switch (type) {
        case WARM_GGUF_U8:
                *ret_value = p[0];
                return true;
        case WARM_GGUF_I8:
                *ret_value = (int8_t) p[0];
                return true;
        case WARM_GGUF_U16:
                *ret_value = warm_load_u16(p);
                return true;
        case WARM_GGUF_I16:
                *ret_value = (int16_t) warm_load_u16(p);
                return true;
        case WARM_GGUF_U32:
                *ret_value = warm_load_u32(p);
                return true;
        case WARM_GGUF_I32:
                *ret_value = (int32_t) warm_load_u32(p);
                return true;
        case WARM_GGUF_U64:
                *ret_huge = warm_load_u64(p) > INT64_MAX;
                *ret_value = (int64_t) warm_load_u64(p);
                return true;
        case WARM_GGUF_I64:
                *ret_value = (int64_t) warm_load_u64(p);
                return true;
        default:
                return false;
        }
}

static int load_u32(const struct warm_gguf_key *key, enum warm_gguf_type type, const uint8_t *p,
                    uint32_t *ret_value, char **ret_why) {
        bool huge;
        int64_t v;

        if (!load_integer(type, p, &v, &huge))
                return refuse_type(key, "an integer", ret_why);
        if (huge || v < 0 || v > UINT32_MAX)
                return warm_why(ret_why, -EBADMSG, "%s is outside 0..2^32-1; the file is damaged",
                                warm_show(key->name).text);
        *ret_value = (uint32_t) v;
        return 0;
}

int warm_gguf_get_u32(const struct warm_gguf *g, const char *name, uint32_t *ret_value,
                      char **ret_why) {
        const struct warm_gguf_key *key = warm_gguf_find_key(g, name);

        if (!key)
                return WARM_GGUF_E_ABSENT;
        return load_u32(key, key->type, key->value, ret_value, ret_why);
}

int warm_gguf_get_u32_of(const struct warm_gguf *g, const char *name, uint32_t index,
                         uint32_t *ret_value, char **ret_why) {
        const struct warm_gguf_key *key = warm_gguf_find_key(g, name);
        uint32_t width;

        if (!key)
                return WARM_GGUF_E_ABSENT;
        if (key->type != WARM_GGUF_ARRAY)
                return load_u32(key, key->type, key->value, ret_value, ret_why);
        width = warm_gguf_type_bytes(key->element_type);
        if (width == 0)
                return refuse_type(key, "integers", ret_why);
        if (index >= key->n)
                return warm_why(ret_why, -EBADMSG, "%s has %llu elements, no element %u",
                                warm_show(key->name).text, (unsigned long long) key->n, index);
        return load_u32(key, key->element_type, key->value + (uint64_t) index * width, ret_value,
                        ret_why);
}

int warm_gguf_get_f32(const struct warm_gguf *g, const char *name, float *ret_value,
                      char **ret_why) {
        const struct warm_gguf_key *key = warm_gguf_find_key(g, name);
        float f;

        if (!key)
                return WARM_GGUF_E_ABSENT;
        if (key->type == WARM_GGUF_F32) {
                uint32_t bits = warm_load_u32(key->value);

                memcpy(&f, &bits, sizeof f);
        } else if (key->type == WARM_GGUF_F64) {
                uint64_t bits = warm_load_u64(key->value);
                double d;

                memcpy(&d, &bits, sizeof d);
                f = fabs(d) <= 3.4e38 ? (float) d : INFINITY;
        } else {
                return refuse_type(key, "f32", ret_why);
        }
        if (!isfinite(f))
                return warm_why(ret_why, -EBADMSG, "%s is not a finite number; the file is damaged",
                                warm_show(key->name).text);
        *ret_value = f;
        return 0;
}

int warm_gguf_get_bool(const struct warm_gguf *g, const char *name, bool *ret_value,
                       char **ret_why) {
        const struct warm_gguf_key *key = warm_gguf_find_key(g, name);

        if (!key)
                return WARM_GGUF_E_ABSENT;
        if (key->type != WARM_GGUF_BOOL)
                return refuse_type(key, "bool", ret_why);
        if (key->value[0] > 1)
                return warm_why(ret_why, -EBADMSG,
                                "%s is neither false nor true (%u); the file is damaged",
                                warm_show(key->name).text, key->value[0]);
        *ret_value = key->value[0];
        return 0;
}

int warm_gguf_get_string(const struct warm_gguf *g, const char *name, struct warm_string *ret_value,
                         char **ret_why) {
        const struct warm_gguf_key *key = warm_gguf_find_key(g, name);

        if (!key)
                return WARM_GGUF_E_ABSENT;
        if (key->type != WARM_GGUF_STRING)
                return refuse_type(key, "string", ret_why);
        *ret_value = (struct warm_string){ .data = (const char *) key->value + 8,
                                           .n = warm_load_u64(key->value) };
        return 0;
}

/* Find an array with elements of one type. */
static int find_array(const struct warm_gguf *g, const char *name, enum warm_gguf_type type,
                      const char *wanted, const struct warm_gguf_key **ret_key, char **ret_why) {
        const struct warm_gguf_key *key = warm_gguf_find_key(g, name);

        if (!key)
                return WARM_GGUF_E_ABSENT;
        if (key->type != WARM_GGUF_ARRAY || key->element_type != type)
                return refuse_type(key, wanted, ret_why);
        *ret_key = key;
        return 0;
}

int warm_gguf_get_strings(const struct warm_gguf *g, const char *name,
                          struct warm_string **ret_values, uint32_t *ret_n, char **ret_why) {
        const struct warm_gguf_key *key = NULL;
        struct warm_string *values;
        const uint8_t *p;
        int r = find_array(g, name, WARM_GGUF_STRING, "array of string", &key, ret_why);

        if (r != 0)
                return r;
        values = calloc(key->n + 1, sizeof *values);
        if (!values)
                return -ENOMEM;
        p = key->value;
        for (uint64_t i = 0; i < key->n; i++) {
                values[i] =
                        (struct warm_string){ .data = (const char *) p + 8, .n = warm_load_u64(p) };
                p += 8 + values[i].n;
        }
        *ret_values = values;
        *ret_n = (uint32_t) key->n;
        return 0;
}

/* Copy 4-byte elements; the file's alignment is not ours to choose. */
static int get_words(const struct warm_gguf *g, const char *name, enum warm_gguf_type type,
                     const char *wanted, void **ret_values, uint32_t *ret_n, char **ret_why) {
        const struct warm_gguf_key *key = NULL;
        uint32_t *values;
        int r = find_array(g, name, type, wanted, &key, ret_why);

        if (r != 0)
                return r;
        values = malloc((key->n + 1) * sizeof *values);
        if (!values)
                return -ENOMEM;
        for (uint64_t i = 0; i < key->n; i++)
                values[i] = warm_load_u32(key->value + i * 4);
        *ret_values = values;
        *ret_n = (uint32_t) key->n;
        return 0;
}

int warm_gguf_get_i32s(const struct warm_gguf *g, const char *name, int32_t **ret_values,
                       uint32_t *ret_n, char **ret_why) {
        void *values = NULL;
        int r = get_words(g, name, WARM_GGUF_I32, "array of i32", &values, ret_n, ret_why);

        if (r == 0)
                *ret_values = values;
        return r;
}

int warm_gguf_get_f32s(const struct warm_gguf *g, const char *name, float **ret_values,
                       uint32_t *ret_n, char **ret_why) {
        void *values = NULL;
        int r = get_words(g, name, WARM_GGUF_F32, "array of f32", &values, ret_n, ret_why);

        if (r == 0)
                *ret_values = values;
        return r;
}

bool warm_string_is(struct warm_string s, const char *text) {
        return s.n == strlen(text) && memcmp(s.data, text, s.n) == 0;
}
