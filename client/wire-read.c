/* SPDX-License-Identifier: Apache-2.0 */
/* Decoding of checked frames, and typed reads of msgpack-c's objects. */
#include <assert.h>
#include <errno.h>
#include <math.h>
#include <string.h>

#include "wire.h"

/*
 * Bytes of the UTF-8 character at p, or 0. Source: the Unicode Standard 15, table 3-7 (well-formed sequences).
 */
static size_t utf8_character(const uint8_t *p, size_t n) {
        uint8_t low = 0x80, high = 0xbf;
        size_t length = *p < 0x80 ? 1 : *p < 0xe0 ? 2 : *p < 0xf0 ? 3 : 4;

        if (length == 1)
                return 1;
        if (*p < 0xc2 || *p > 0xf4 || length > n)
                return 0;
        if (*p == 0xe0)
                low = 0xa0;
        else if (*p == 0xed)
                high = 0x9f;
        else if (*p == 0xf0)
                low = 0x90;
        else if (*p == 0xf4)
                high = 0x8f;
        if (p[1] < low || p[1] > high)
                return 0;
        for (size_t i = 2; i < length; i++)
                if ((p[i] & 0xc0) != 0x80)
                        return 0;
        return length;
}

bool warm_utf8_valid(const void *data, size_t n) {
        const uint8_t *p = data;

        while (n > 0) {
                uint64_t word;
                size_t length;

                if (n >= sizeof(word)) {
                        memcpy(&word, p, sizeof(word));
                        if ((word & 0x8080808080808080ULL) == 0) {
                                p += sizeof(word);
                                n -= sizeof(word);
                                continue;
                        }
                }
                length = utf8_character(p, n);
                if (length == 0)
                        return false;
                p += length;
                n -= length;
        }
        return true;
}

static int decode_call(const msgpack_object *method, const msgpack_object *params,
                       struct warm_message *m) {
        if (warm_read_text(method, &m->method) != 0)
                return WARM_WIRE_E_SHAPE;
        if (params->type != MSGPACK_OBJECT_ARRAY || params->via.array.size > 1)
                return WARM_WIRE_E_SHAPE;
        if (params->via.array.size == 0)
                return 0;
        params = &params->via.array.ptr[0];
        if (params->type == MSGPACK_OBJECT_MAP)
                m->params = params;
        else if (params->type != MSGPACK_OBJECT_ARRAY || params->via.array.size != 0)
                return WARM_WIRE_E_SHAPE;
        return 0;
}

static int decode(const void *frame, size_t n_frame, bool packed, struct warm_message *m) {
        const msgpack_object *top;

        *m = (struct warm_message){ 0 };
        if (warm_wire_decode(frame, n_frame, packed, &m->memory) < 0)
                return -ENOMEM;
        assert(m->memory.data.type == MSGPACK_OBJECT_ARRAY);
        top = m->memory.data.via.array.ptr;
        m->type = (enum warm_frame_type) top[0].via.u64;
        if (m->type == WARM_FRAME_NOTIFICATION)
                return decode_call(&top[1], &top[2], m);
        m->id_known = top[1].type == MSGPACK_OBJECT_POSITIVE_INTEGER;
        m->id = m->id_known ? (uint32_t) top[1].via.u64 : 0;
        if (m->type == WARM_FRAME_REQUEST)
                return decode_call(&top[2], &top[3], m);
        m->error = top[2].type == MSGPACK_OBJECT_NIL ? NULL : &top[2];
        m->result = top[3].type == MSGPACK_OBJECT_NIL ? NULL : &top[3];
        return 0;
}

int warm_message_decode(const void *frame, size_t n_frame, struct warm_message *ret_message) {
        return decode(frame, n_frame, false, ret_message);
}

int warm_message_decode_packed(const void *frame, size_t n_frame,
                               struct warm_message *ret_message) {
        return decode(frame, n_frame, true, ret_message);
}

void warm_message_deinit(struct warm_message *m) {
        msgpack_unpacked_destroy(&m->memory);
        *m = (struct warm_message){ 0 };
}

int warm_read_bool(const msgpack_object *o, bool *ret_value) {
        if (!o || o->type != MSGPACK_OBJECT_BOOLEAN)
                return WARM_WIRE_E_TYPE;
        *ret_value = o->via.boolean;
        return 0;
}

int warm_read_int(const msgpack_object *o, int64_t *ret_value) {
        int64_t max = (int64_t) WARM_WIRE_INT_MAX, value;

        if (!o)
                return WARM_WIRE_E_TYPE;
        switch (o->type) {
        case MSGPACK_OBJECT_POSITIVE_INTEGER:
                if (o->via.u64 > WARM_WIRE_INT_MAX)
                        return WARM_WIRE_E_RANGE;
                value = (int64_t) o->via.u64;
                break;
        case MSGPACK_OBJECT_NEGATIVE_INTEGER:
                value = o->via.i64;
                break;
        case MSGPACK_OBJECT_FLOAT32:
        case MSGPACK_OBJECT_FLOAT64:
                if (!isfinite(o->via.f64) || o->via.f64 != trunc(o->via.f64))
                        return WARM_WIRE_E_TYPE;
                if (fabs(o->via.f64) > (double) max)
                        return WARM_WIRE_E_RANGE;
                value = (int64_t) o->via.f64;
                break;
        default:
                return WARM_WIRE_E_TYPE;
        }
        if (value < -max)
                return WARM_WIRE_E_RANGE;
        *ret_value = value;
        return 0;
}

int warm_read_uint(const msgpack_object *o, uint64_t *ret_value) {
        int64_t value;
        int r;

        r = warm_read_int(o, &value);
        if (r != 0)
                return r;
        if (value < 0)
                return WARM_WIRE_E_RANGE;
        *ret_value = (uint64_t) value;
        return 0;
}

int warm_read_number(const msgpack_object *o, double *ret_value) {
        int64_t value;
        int r;

        if (o && (o->type == MSGPACK_OBJECT_FLOAT32 || o->type == MSGPACK_OBJECT_FLOAT64)) {
                if (!isfinite(o->via.f64))
                        return WARM_WIRE_E_RANGE;
                *ret_value = o->via.f64;
                return 0;
        }
        r = warm_read_int(o, &value);
        if (r != 0)
                return r;
        *ret_value = (double) value;
        return 0;
}

int warm_read_text(const msgpack_object *o, struct warm_wire_text *ret_text) {
        if (o && o->type == MSGPACK_OBJECT_STR)
                *ret_text = (struct warm_wire_text){ o->via.str.ptr, o->via.str.size };
        else if (o && o->type == MSGPACK_OBJECT_BIN)
                *ret_text = (struct warm_wire_text){ o->via.bin.ptr, o->via.bin.size };
        else
                return WARM_WIRE_E_TYPE;
        return 0;
}

const msgpack_object *warm_read_key(const msgpack_object *o, const char *key) {
        size_t n = strlen(key);

        if (!o || o->type != MSGPACK_OBJECT_MAP)
                return NULL;
        for (uint32_t i = 0; i < o->via.map.size; i++) {
                const msgpack_object_kv *pair = &o->via.map.ptr[i];
                struct warm_wire_text text;

                if (warm_read_text(&pair->key, &text) == 0 && text.n == n &&
                    memcmp(text.data, key, n) == 0)
                        return &pair->val;
        }
        return NULL;
}

const msgpack_object *warm_read_element(const msgpack_object *o, uint32_t i) {
        if (!o || o->type != MSGPACK_OBJECT_ARRAY || i >= o->via.array.size)
                return NULL;
        return &o->via.array.ptr[i];
}

/* Packed ids are an extension's object: no frame has one. */
const int32_t *warm_read_ids(const msgpack_object *o) {
        return o && o->type == MSGPACK_OBJECT_EXT ? (const int32_t *) (const void *) o->via.ext.ptr
                                                  : NULL;
}

bool warm_read_is_array(const msgpack_object *o) {
        return o && (o->type == MSGPACK_OBJECT_ARRAY || o->type == MSGPACK_OBJECT_EXT);
}

uint32_t warm_read_n(const msgpack_object *o) {
        if (o && o->type == MSGPACK_OBJECT_EXT)
                return o->via.ext.size;
        if (o && o->type == MSGPACK_OBJECT_ARRAY)
                return o->via.array.size;
        if (o && o->type == MSGPACK_OBJECT_MAP)
                return o->via.map.size;
        return 0;
}

int warm_read_error(const msgpack_object *o, uint32_t *ret_code, struct warm_wire_text *ret_name,
                    struct warm_wire_text *ret_what) {
        struct warm_wire_text name, what;
        uint64_t code;

        if (warm_read_n(o) != 3 || warm_read_uint(warm_read_element(o, 0), &code) != 0 ||
            code > UINT32_MAX || warm_read_text(warm_read_element(o, 1), &name) != 0 ||
            warm_read_text(warm_read_element(o, 2), &what) != 0)
                return WARM_WIRE_E_SHAPE;
        *ret_code = (uint32_t) code;
        *ret_name = name;
        *ret_what = what;
        return 0;
}
