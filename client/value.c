/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "client-internal.h"

static const msgpack_object *object(const struct warm_client_value *v) {
        return (const msgpack_object *) v;
}

enum warm_client_type warm_client_value_type(const struct warm_client_value *v) {
        if (!v)
                return WARM_CLIENT_NONE;
        switch (object(v)->type) {
        case MSGPACK_OBJECT_BOOLEAN:
                return WARM_CLIENT_BOOL;
        case MSGPACK_OBJECT_POSITIVE_INTEGER:
        case MSGPACK_OBJECT_NEGATIVE_INTEGER:
                return WARM_CLIENT_INT;
        case MSGPACK_OBJECT_FLOAT32:
        case MSGPACK_OBJECT_FLOAT64:
                return WARM_CLIENT_DOUBLE;
        case MSGPACK_OBJECT_STR:
                return WARM_CLIENT_TEXT;
        case MSGPACK_OBJECT_BIN:
                return WARM_CLIENT_BYTES;
        case MSGPACK_OBJECT_ARRAY:
                return WARM_CLIENT_ARRAY;
        case MSGPACK_OBJECT_MAP:
                return WARM_CLIENT_MAP;
        default:
                return WARM_CLIENT_NIL;
        }
}

static const msgpack_object *find(const msgpack_object *map, const char *key, size_t n) {
        if (map->type != MSGPACK_OBJECT_MAP)
                return NULL;
        for (uint32_t i = 0; i < map->via.map.size; i++) {
                const msgpack_object *k = &map->via.map.ptr[i].key;

                if (k->type == MSGPACK_OBJECT_STR && k->via.str.size == n &&
                    memcmp(k->via.str.ptr, key, n) == 0)
                        return &map->via.map.ptr[i].val;
        }
        return NULL;
}

const struct warm_client_value *warm_client_value_get(const struct warm_client_value *v,
                                                      const char *path) {
        const msgpack_object *o = object(v);

        while (o && *path) {
                size_t n = strcspn(path, ".");

                o = find(o, path, n);
                path += n + (path[n] == '.');
        }
        return warm_client_value_of(o);
}

size_t warm_client_value_n(const struct warm_client_value *v) {
        return v ? warm_read_n(object(v)) : 0;
}

const struct warm_client_value *warm_client_value_at(const struct warm_client_value *v, size_t i) {
        const msgpack_object *o = object(v);

        if (!o || i >= warm_read_n(o))
                return NULL;
        return warm_client_value_of(o->type == MSGPACK_OBJECT_MAP ? &o->via.map.ptr[i].val
                                                                  : &o->via.array.ptr[i]);
}

const struct warm_client_value *warm_client_value_key(const struct warm_client_value *v, size_t i) {
        const msgpack_object *o = object(v);

        if (!o || o->type != MSGPACK_OBJECT_MAP || i >= o->via.map.size)
                return NULL;
        return warm_client_value_of(&o->via.map.ptr[i].key);
}

bool warm_client_value_bool(const struct warm_client_value *v, bool otherwise) {
        bool value;

        return warm_read_bool(object(v), &value) == 0 ? value : otherwise;
}

int64_t warm_client_value_int(const struct warm_client_value *v, int64_t otherwise) {
        int64_t value;

        return warm_read_int(object(v), &value) == 0 ? value : otherwise;
}

double warm_client_value_double(const struct warm_client_value *v, double otherwise) {
        double value;

        return warm_read_number(object(v), &value) == 0 ? value : otherwise;
}

const char *warm_client_value_text(const struct warm_client_value *v, size_t *ret_n) {
        struct warm_wire_text text = {};

        if (warm_read_text(object(v), &text) != 0)
                text = (struct warm_wire_text){};
        *ret_n = text.n;
        return text.data;
}
