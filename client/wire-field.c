/* SPDX-License-Identifier: Apache-2.0 */
/* Maps held against tables of fields: one place that decides types, ranges, unknown and doubled keys. */
#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "wire.h"

#define KEY_SHOWN_MAX 48U /* bytes of an unknown key in an error */

__attribute__((format(printf, 3, 4))) static int refuse(struct warm_field_error *ret_error,
                                                        int error, const char *format, ...) {
        va_list ap;

        ret_error->error = error;
        va_start(ap, format);
        vsnprintf(ret_error->what, sizeof(ret_error->what), format, ap);
        va_end(ap);
        return error;
}

/* A key as it may be shown: printable ASCII, else '?'; cut. */
static const char *shown(struct warm_wire_text key, char buffer[static KEY_SHOWN_MAX + 4]) {
        size_t n = key.n < KEY_SHOWN_MAX ? key.n : KEY_SHOWN_MAX;

        for (size_t i = 0; i < n; i++)
                buffer[i] = key.data[i] >= 0x20 && key.data[i] < 0x7f ? key.data[i] : '?';
        strcpy(buffer + n, n < key.n ? "..." : "");
        return buffer;
}

static int refuse_type(const struct warm_field *f, struct warm_field_error *ret_error) {
        static const char *const names[] = {
                [WARM_FIELD_BOOL] = "true or false", [WARM_FIELD_UINT] = "a whole number",
                [WARM_FIELD_NUMBER] = "a number",    [WARM_FIELD_TEXT] = "text (str or bin)",
                [WARM_FIELD_ARRAY] = "an array",     [WARM_FIELD_ANY] = "another type",
        };

        return refuse(ret_error, WARM_WIRE_E_TYPE, "'%s' must be %s", f->name, names[f->type]);
}

static int refuse_range(const struct warm_field *f, struct warm_field_error *ret_error) {
        const char *unit = f->type == WARM_FIELD_TEXT    ? " bytes"
                           : f->type == WARM_FIELD_ARRAY ? " elements"
                                                         : "";
        const char *above = f->flags & WARM_FIELD_ABOVE_MIN ? "above " : "";
        const char *below = f->flags & WARM_FIELD_BELOW_MAX ? "below " : "";

        return refuse(ret_error, WARM_WIRE_E_RANGE, "'%s' must be %s%.16g to %s%.16g%s", f->name,
                      above, f->min, below, f->max, unit);
}

static int read_value(const struct warm_field *f, const msgpack_object *o, void *ret_value,
                      double *ret_measure) {
        double number;
        uint64_t integer;
        int r;

        switch (f->type) {
        case WARM_FIELD_BOOL:
                *ret_measure = f->min;
                return warm_read_bool(o, ret_value);
        case WARM_FIELD_UINT:
                r = warm_read_uint(o, &integer);
                if (r != 0)
                        return r;
                *ret_measure = (double) integer; /* exact: below 2^53 */
                memcpy(ret_value, &integer, sizeof(integer));
                return 0;
        case WARM_FIELD_NUMBER:
                r = warm_read_number(o, &number);
                if (r != 0)
                        return r;
                *ret_measure = number;
                memcpy(ret_value, &number, sizeof(number));
                return 0;
        case WARM_FIELD_TEXT: {
                struct warm_wire_text text;

                r = warm_read_text(o, &text);
                if (r != 0)
                        return r;
                *ret_measure = (double) text.n;
                memcpy(ret_value, &text, sizeof(text));
                return 0;
        }
        case WARM_FIELD_ARRAY:
                /* an empty map is an empty array: some languages cannot tell them apart */
                if (!warm_read_is_array(o) &&
                    (o->type != MSGPACK_OBJECT_MAP || o->via.map.size != 0))
                        return WARM_WIRE_E_TYPE;
                *ret_measure = (double) warm_read_n(o);
                memcpy(ret_value, &o, sizeof(o));
                return 0;
        case WARM_FIELD_ANY:
                *ret_measure = f->min;
                memcpy(ret_value, &o, sizeof(o));
                return 0;
        }
        assert(false);
}

static int read_field(const struct warm_field *f, const msgpack_object *o, void *values,
                      struct warm_field_error *ret_error) {
        union {
                bool boolean;
                uint64_t integer;
                double number;
                struct warm_wire_text text;
                const msgpack_object *object;
        } value;
        static const size_t sizes[] = {
                [WARM_FIELD_BOOL] = sizeof(bool),
                [WARM_FIELD_UINT] = sizeof(uint64_t),
                [WARM_FIELD_NUMBER] = sizeof(double),
                [WARM_FIELD_TEXT] = sizeof(struct warm_wire_text),
                [WARM_FIELD_ARRAY] = sizeof(const msgpack_object *),
                [WARM_FIELD_ANY] = sizeof(const msgpack_object *),
        };
        double measure = 0;
        int r;

        r = read_value(f, o, &value, &measure);
        if (r == WARM_WIRE_E_TYPE)
                return refuse_type(f, ret_error);
        if (r == WARM_WIRE_E_RANGE || measure < f->min || measure > f->max ||
            ((f->flags & WARM_FIELD_ABOVE_MIN) && measure == f->min) ||
            ((f->flags & WARM_FIELD_BELOW_MAX) && measure == f->max))
                return refuse_range(f, ret_error);
        memcpy((char *) values + f->offset, &value, sizes[f->type]);
        return 0;
}

/* Return: index into the table, n_fields if it has no such key. */
static uint32_t find_field(const struct warm_field *table, uint32_t n_fields,
                           struct warm_wire_text key) {
        uint32_t i;

        for (i = 0; i < n_fields; i++)
                if (strlen(table[i].name) == key.n && memcmp(table[i].name, key.data, key.n) == 0)
                        break;
        return i;
}

int warm_fields_read(const struct warm_field *table, uint32_t n_fields, const msgpack_object *map,
                     void *ret_values, uint64_t *ret_present, struct warm_field_error *ret_error) {
        uint64_t present = 0;
        int r;

        assert(n_fields <= WARM_WIRE_FIELDS_MAX);
        if (map && map->type != MSGPACK_OBJECT_MAP &&
            (map->type != MSGPACK_OBJECT_ARRAY || map->via.array.size != 0))
                return refuse(ret_error, WARM_WIRE_E_TYPE, "a map with text keys belongs here");
        for (uint32_t i = 0; map && map->type == MSGPACK_OBJECT_MAP && i < map->via.map.size; i++) {
                const msgpack_object_kv *pair = &map->via.map.ptr[i];
                char buffer[KEY_SHOWN_MAX + 4];
                struct warm_wire_text key;
                uint32_t index;

                if (warm_read_text(&pair->key, &key) != 0)
                        return refuse(ret_error, WARM_WIRE_E_TYPE, "keys must be text");
                index = find_field(table, n_fields, key);
                if (index == n_fields)
                        return refuse(ret_error, WARM_WIRE_E_UNKNOWN_KEY,
                                      "there is no parameter '%s' here", shown(key, buffer));
                if (present & (1ULL << index))
                        return refuse(ret_error, WARM_WIRE_E_DUPLICATE, "'%s' comes twice",
                                      table[index].name);
                present |= 1ULL << index;
                r = read_field(&table[index], &pair->val, ret_values, ret_error);
                if (r != 0)
                        return r;
        }
        for (uint32_t i = 0; i < n_fields; i++)
                if ((table[i].flags & WARM_FIELD_REQUIRED) && !(present & (1ULL << i)))
                        return refuse(ret_error, WARM_WIRE_E_MISSING, "'%s' is required",
                                      table[i].name);
        if (ret_present)
                *ret_present = present;
        return 0;
}
