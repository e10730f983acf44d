/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the bytes of a checked frame to msgpack-c's objects. msgpack_unpack_next() takes its parser's state up and down
 * for each byte: 14 ns for each id of a prompt, which has thousands. What a frame must be was checked before; here a
 * frame that is not asserts.
 */
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "wire.h"

#define ZONE_BYTES                                                                                 \
        2048U /* of the first piece of memory: 85 objects, more than most messages have */

struct decoder {
        const uint8_t *at, *end;
        msgpack_zone *zone;
        bool packed; /* long arrays of ids as int32_t */
        uint32_t depth;
};

static const uint8_t *take(struct decoder *d, uint64_t n) {
        const uint8_t *p = d->at;

        assert(n <= (uint64_t) (d->end - p));
        d->at += n;
        return p;
}

static uint64_t take_big_endian(struct decoder *d, unsigned n) {
        const uint8_t *p = take(d, n);
        uint64_t value = 0;

        for (unsigned i = 0; i < n; i++)
                value = value << 8 | p[i];
        return value;
}

static void set_integer(msgpack_object *o, int64_t value) {
        o->type = value < 0 ? MSGPACK_OBJECT_NEGATIVE_INTEGER : MSGPACK_OBJECT_POSITIVE_INTEGER;
        o->via.i64 = value;
}

/* cc to cf, d0 to d3 */
static void decode_integer(struct decoder *d, uint8_t first, msgpack_object *o) {
        unsigned n = 1U << (first & 3);
        uint64_t value = take_big_endian(d, n);

        if (first >= 0xd0) {
                set_integer(o, (int64_t) (value << (64 - 8 * n)) >> (64 - 8 * n));
                return;
        }
        o->type = MSGPACK_OBJECT_POSITIVE_INTEGER;
        o->via.u64 = value;
}

static void decode_float(struct decoder *d, uint8_t first, msgpack_object *o) {
        uint64_t bits = take_big_endian(d, first == 0xca ? 4 : 8);
        uint32_t bits32 = (uint32_t) bits;
        float single;

        if (first == 0xcb) {
                o->type = MSGPACK_OBJECT_FLOAT64;
                memcpy(&o->via.f64, &bits, sizeof(bits));
                return;
        }
        memcpy(&single, &bits32, sizeof(single));
        o->type = MSGPACK_OBJECT_FLOAT32;
        o->via.f64 = single;
}

static void decode_text(struct decoder *d, uint64_t n, msgpack_object *o) {
        o->type = MSGPACK_OBJECT_STR;
        o->via.str.size = (uint32_t) n;
        o->via.str.ptr = (const char *) take(d, n);
}

static void decode_bytes(struct decoder *d, uint64_t n, msgpack_object *o) {
        o->type = MSGPACK_OBJECT_BIN;
        o->via.bin.size = (uint32_t) n;
        o->via.bin.ptr = (const char *) take(d, n);
}

/*
 * An integer of 0 and more with at least 9 bytes left. No branch depends on its width, which nobody can foretell: of
 * some other element the value is nonsense.
 * Return: its bytes.
 */
static unsigned read_id(const uint8_t *at, uint64_t *ret_value) {
        unsigned n_extra = *at <= 0x7f ? 0 : 1U << (*at & 3);
        uint64_t word;

        memcpy(&word, at + 1, sizeof(word));
        word = be64toh(word) >> ((64 - 8 * n_extra) & 63);
        *ret_value = n_extra == 0 ? *at : word;
        return 1 + n_extra;
}

static bool is_id(uint8_t first) {
        return first <= 0x7f || (first >= 0xcc && first <= 0xcf);
}

/* The integers of 0 and more that come first, but the frame's last bytes. Return: how many. */
static uint32_t decode_ids(struct decoder *d, uint32_t n, msgpack_object *objects) {
        const uint8_t *at = d->at;
        uint32_t i;

        for (i = 0; i < n && d->end - at > (ptrdiff_t) sizeof(uint64_t) && is_id(*at); i++) {
                objects[i].type = MSGPACK_OBJECT_POSITIVE_INTEGER;
                at += read_id(at, &objects[i].via.u64);
        }
        d->at = at;
        return i;
}

static int decode_any(struct decoder *d, msgpack_object *o);

/* n objects one behind the other: of an array, or of a map's pairs. Return: 0; -ENOMEM. */
static int decode_level(struct decoder *d, uint64_t n, msgpack_object **ret_objects) {
        msgpack_object *objects = NULL;
        int r = 0;

        assert(n <= WARM_FRAME_ELEMENTS_MAX && d->depth < WARM_FRAME_DEPTH_MAX);
        if (n > 0) {
                objects = msgpack_zone_malloc(d->zone, n * sizeof(*objects));
                if (!objects)
                        return -ENOMEM;
        }
        d->depth++;
        for (uint32_t i = decode_ids(d, (uint32_t) n, objects); i < n && r == 0; i++)
                r = decode_any(d, &objects[i]);
        d->depth--;
        *ret_objects = objects;
        return r;
}

/* Return: false: they are not all ids, or there is no memory: nothing was taken. */
static bool decode_packed(struct decoder *d, uint32_t n, msgpack_object *o) {
        int32_t *ids = msgpack_zone_malloc(d->zone, n * sizeof(*ids));
        const uint8_t *start = d->at, *at = start;
        uint64_t value, all = 0;
        uint32_t i;

        if (!ids)
                return false;
        for (i = 0; i < n && d->end - at > (ptrdiff_t) sizeof(uint64_t) && is_id(*at); i++) {
                at += read_id(at, &value);
                ids[i] = (int32_t) value;
                all |= value;
        }
        for (d->at = at; i < n && is_id(*d->at); i++) {
                uint8_t first = *take(d, 1);

                value = first <= 0x7f ? first : take_big_endian(d, 1U << (first & 3));
                ids[i] = (int32_t) value;
                all |= value;
        }
        if (i < n || all > INT32_MAX) {
                d->at = start;
                return false;
        }
        o->type = MSGPACK_OBJECT_EXT;
        o->via.ext.size = n;
        o->via.ext.ptr = (const char *) ids;
        return true;
}

static int decode_array(struct decoder *d, uint64_t n, msgpack_object *o) {
        if (d->packed && n >= WARM_WIRE_IDS_MIN && decode_packed(d, (uint32_t) n, o))
                return 0;
        o->type = MSGPACK_OBJECT_ARRAY;
        o->via.array.size = (uint32_t) n;
        return decode_level(d, n, &o->via.array.ptr);
}

_Static_assert(sizeof(msgpack_object_kv) == 2 * sizeof(msgpack_object), "a pair is two objects");

static int decode_map(struct decoder *d, uint64_t n, msgpack_object *o) {
        msgpack_object *objects = NULL;
        int r = decode_level(d, 2 * n, &objects);

        o->type = MSGPACK_OBJECT_MAP;
        o->via.map.size = (uint32_t) n;
        o->via.map.ptr = (msgpack_object_kv *) objects;
        return r;
}

static int decode_any(struct decoder *d, msgpack_object *o) {
        uint8_t first = *take(d, 1);

        if (first <= 0x7f || first >= 0xe0) {
                set_integer(o, (int8_t) first);
                return 0;
        }
        if (first <= 0x8f)
                return decode_map(d, first & 0x0f, o);
        if (first <= 0x9f)
                return decode_array(d, first & 0x0f, o);
        if (first <= 0xbf)
                decode_text(d, first & 0x1f, o);
        else if (first == 0xc0)
                o->type = MSGPACK_OBJECT_NIL;
        else if (first == 0xc2 || first == 0xc3) {
                o->type = MSGPACK_OBJECT_BOOLEAN;
                o->via.boolean = first == 0xc3;
        } else if (first >= 0xc4 && first <= 0xc6)
                decode_bytes(d, take_big_endian(d, 1U << (first - 0xc4)), o);
        else if (first == 0xca || first == 0xcb)
                decode_float(d, first, o);
        else if (first >= 0xcc && first <= 0xd3)
                decode_integer(d, first, o);
        else if (first >= 0xd9 && first <= 0xdb)
                decode_text(d, take_big_endian(d, 1U << (first - 0xd9)), o);
        else if (first == 0xdc || first == 0xdd)
                return decode_array(d, take_big_endian(d, first == 0xdc ? 2 : 4), o);
        else if (first == 0xde || first == 0xdf)
                return decode_map(d, take_big_endian(d, first == 0xde ? 2 : 4), o);
        else
                assert(false); /* c1 and extensions: no frame of ours */
        return 0;
}

int warm_wire_decode(const void *frame, size_t n_frame, bool packed,
                     msgpack_unpacked *ret_unpacked) {
        struct decoder d = { .at = frame,
                             .end = (const uint8_t *) frame + n_frame,
                             .packed = packed };
        int r;

        ret_unpacked->zone = d.zone = msgpack_zone_new(ZONE_BYTES);
        if (!d.zone)
                return -ENOMEM;
        r = decode_any(&d, &ret_unpacked->data);
        if (r < 0)
                msgpack_unpacked_destroy(ret_unpacked);
        assert(r < 0 || d.at == d.end);
        return r;
}
