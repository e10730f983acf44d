/* SPDX-License-Identifier: Apache-2.0 */
/* The decoder beside msgpack-c's, which is the oracle: the same objects for the same bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/codec.h"

struct text {
        uint8_t data[1U << 16];
        size_t n;
        uint64_t seed;
};

static uint32_t draw(struct text *t, uint32_t n) {
        t->seed = t->seed * 6364136223846793005U + 1442695040888963407U;
        return (uint32_t) (t->seed >> 33) % n;
}

static void put(struct text *t, unsigned first, unsigned n_random) {
        t->data[t->n++] = (uint8_t) first;
        for (unsigned i = 0; i < n_random; i++)
                t->data[t->n++] = (uint8_t) draw(t, 256);
}

static void put_head(struct text *t, unsigned first, unsigned n_bytes, uint32_t value) {
        t->data[t->n++] = (uint8_t) first;
        for (unsigned i = n_bytes; i-- > 0;)
                t->data[t->n++] = (uint8_t) (i < 4 ? value >> (8 * i) : 0);
}

static void put_body(struct text *t, uint32_t n) {
        for (uint32_t i = 0; i < n; i++)
                t->data[t->n++] = (uint8_t) draw(t, 256);
}

static void put_scalar(struct text *t) {
        unsigned kind = draw(t, 9), width = draw(t, 4);

        switch (kind) {
        case 0:
                put(t, draw(t, 0x80), 0);
                break;
        case 1:
                put(t, 0xe0 + draw(t, 0x20), 0);
                break;
        case 2:
                put(t, 0xc0, 0);
                break;
        case 3:
                put(t, 0xc2 + draw(t, 2), 0);
                break;
        case 4:
                put(t, 0xcc + width, 1U << width);
                break;
        case 5:
                put(t, 0xd0 + width, 1U << width);
                break;
        case 6: /* 0x3e and 0x3f in front: no NaN, which equals nothing */
                put(t, 0xca + width % 2, 0);
                put(t, 0x3e + draw(t, 2), width % 2 ? 7 : 3);
                break;
        default: {
                uint32_t n = draw(t, 40);

                if (width == 3 && n < 32)
                        put_head(t, 0xa0 + n, 0, 0);
                else
                        put_head(t, (kind == 7 ? 0xc4U : 0xd9U) + width % 3, 1U << width % 3, n);
                put_body(t, n);
        }
        }
}

static void put_any(struct text *t, unsigned depth);

static void put_level(struct text *t, unsigned depth) {
        uint32_t n = draw(t, 12), wide = draw(t, 3);
        bool map = draw(t, 2);

        if (wide == 0)
                put_head(t, (map ? 0x80U : 0x90U) + n, 0, 0);
        else
                put_head(t, (map ? 0xdeU : 0xdcU) + wide - 1, wide * 2, n);
        for (uint32_t i = 0; i < (map ? 2 * n : n); i++)
                put_any(t, depth + 1);
}

static void put_any(struct text *t, unsigned depth) {
        if (depth < 5 && draw(t, 4) == 0)
                put_level(t, depth);
        else
                put_scalar(t);
}

/* A copy that ends where the frame does, so that a sanitizer sees each byte read beyond it. */
static void compare(const uint8_t *data, size_t n) {
        uint8_t *frame = malloc(n);
        msgpack_unpacked ours, theirs;
        size_t offset = 0, n_frame;

        assert_non_null(frame);
        memcpy(frame, data, n);
        assert_int_equal(warm_frame_check(&(struct warm_frame){ 0 }, frame, n, &n_frame), 0);
        assert_int_equal(n_frame, n);
        assert_int_equal(warm_wire_decode(frame, n, false, &ours), 0);
        msgpack_unpacked_init(&theirs);
        assert_int_equal(msgpack_unpack_next(&theirs, (const char *) frame, n, &offset),
                         MSGPACK_UNPACK_SUCCESS);
        assert_int_equal(offset, n);
        assert_true(msgpack_object_equal(ours.data, theirs.data));
        msgpack_unpacked_destroy(&ours);
        msgpack_unpacked_destroy(&theirs);
        free(frame);
}

static void objects_are_those_of_msgpack(void **state) {
        static struct text t;

        (void) state;
        for (uint64_t seed = 1; seed <= 3000; seed++) {
                t.seed = seed;
                t.n = 0;
                put_head(&t, 0x94, 0, 0);
                put_head(&t, 0x00, 0, 0);
                put_head(&t, 0x07, 0, 0);
                put_head(&t, 0xa0, 0, 0);
                put_any(&t, 2);
                compare(t.data, t.n);
        }
}

/* The last ones of an array are read otherwise than the rest: each count, each width at the end. */
static void ids_are_those_of_msgpack_up_to_the_last_byte(void **state) {
        static struct text t;

        (void) state;
        for (uint32_t n = 0; n < 15; n++)
                for (unsigned last = 0; last < 6; last++) {
                        t.n = 0;
                        put_head(&t, 0x94, 0, 0);
                        put_head(&t, 0x00, 0, 0);
                        put_head(&t, 0x07, 0, 0);
                        put_head(&t, 0xa0, 0, 0);
                        put_head(&t, 0x90 + n + 1, 0, 0);
                        for (uint32_t i = 0; i < n; i++)
                                put(&t, i % 5 == 4 ? 0x05 : 0xcc + i % 4,
                                    i % 5 == 4 ? 0 : 1U << i % 4);
                        if (last < 4)
                                put(&t, 0xcc + last, 1U << last);
                        else
                                put(&t, last == 4 ? 0x7f : 0xe0, 0);
                        compare(t.data, t.n);
                }
}

/* [0, 7, "", [n elements]], the last one as given, decoded packed. Return: whether it came packed. */
static bool comes_packed(uint32_t n, const void *last, size_t n_last, bool behind) {
        static struct text t;
        msgpack_unpacked packed, plain;
        const msgpack_object *a, *b;
        bool is_packed;

        t.n = 0;
        put_head(&t, 0x94, 0, 0);
        put_head(&t, 0x00, 0, 0);
        put_head(&t, 0x07, 0, 0);
        put_head(&t, 0xa0, 0, 0);
        put_head(&t, behind ? 0x92 : 0x91, 0, 0);
        put_head(&t, 0xdc, 2, n);
        for (uint32_t i = 0; i + 1 < n; i++)
                put_head(&t, i % 4 == 3 ? i % 128 : 0xcc + i % 3, i % 4 == 3 ? 0 : 1U << i % 3, i);
        memcpy(t.data + t.n, last, n_last);
        t.n += n_last;
        if (behind)
                put_head(&t, 0xa9, 0, 0), put_body(&t, 9);
        compare(t.data, t.n);
        assert_int_equal(warm_wire_decode(t.data, t.n, true, &packed), 0);
        assert_int_equal(warm_wire_decode(t.data, t.n, false, &plain), 0);
        a = &packed.data.via.array.ptr[3].via.array.ptr[0];
        b = &plain.data.via.array.ptr[3].via.array.ptr[0];
        is_packed = warm_read_ids(a);
        assert_true(warm_read_is_array(a) && warm_read_is_array(b));
        assert_int_equal(warm_read_n(a), n);
        assert_null(warm_read_ids(b));
        for (uint32_t i = 0; i < n && is_packed; i++)
                assert_true(warm_read_ids(a)[i] == (int64_t) b->via.array.ptr[i].via.u64);
        if (is_packed)
                assert_null(warm_read_element(a, 0));
        else
                assert_true(msgpack_object_equal(*a, *b));
        msgpack_unpacked_destroy(&packed);
        msgpack_unpacked_destroy(&plain);
        return is_packed;
}

static void only_many_ids_are_packed(void **state) {
        (void) state;
        for (unsigned behind = 0; behind < 2; behind++) {
                assert_false(comes_packed(WARM_WIRE_IDS_MIN - 1, "\x05", 1, behind));
                assert_true(comes_packed(WARM_WIRE_IDS_MIN, "\x05", 1, behind));
                assert_true(comes_packed(1000, "\xcc\xff", 2, behind));
                assert_true(comes_packed(1000, "\xce\x7f\xff\xff\xff", 5, behind));
                assert_true(comes_packed(1000, "\xcf\0\0\0\0\x7f\xff\xff\xff", 9, behind));
                assert_false(comes_packed(1000, "\xce\x80\x00\x00\x00", 5, behind));
                assert_false(comes_packed(1000, "\xcf\1\0\0\0\0\0\0\0", 9, behind));
                assert_false(comes_packed(1000, "\xff", 1, behind));
                assert_false(comes_packed(1000, "\xd0\x05", 2, behind));
                assert_false(comes_packed(1000, "\xa1x", 2, behind));
                assert_false(comes_packed(1000, "\xc0", 1, behind));
                assert_false(comes_packed(1000, "\x91\x05", 2, behind));
        }
}

/* 15 arrays in the message's own: as deep as a frame may be. */
static void the_deepest_frame_is_decoded(void **state) {
        uint8_t frame[4 + 15 + 1] = { 0x94, 0, 1, 0xa0 };

        (void) state;
        memset(frame + 4, 0x91, 15);
        compare(frame, sizeof(frame));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(objects_are_those_of_msgpack),
                cmocka_unit_test(ids_are_those_of_msgpack_up_to_the_last_byte),
                cmocka_unit_test(only_many_ids_are_packed),
                cmocka_unit_test(the_deepest_frame_is_decoded),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
