/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/frame.h"

struct bytes {
        uint8_t *data;
        size_t n;
};

static struct bytes make(size_t n) {
        struct bytes b = { calloc(1, n), n };

        assert_non_null(b.data);
        return b;
}

static int check(const void *data, size_t n, size_t *ret_n_bytes) {
        struct warm_frame f = { 0 };

        return warm_frame_check(&f, data, n, ret_n_bytes);
}

#define CHECK(s, ret) check((s), sizeof(s) - 1, (ret))

static void the_three_messages_pass(void **state) {
        size_t n = 0;

        (void) state;
        assert_int_equal(CHECK("\x94\x00\x01\xa1m\x90", &n), 0);
        assert_int_equal(n, 6);
        assert_int_equal(CHECK("\x94\x01\x01\xc0\x80", &n), 0);
        assert_int_equal(CHECK("\x94\x01\xc0\xc0\x80", &n), 0);
        assert_int_equal(CHECK("\x93\x02\xa1m\x90", &n), 0);
        /* wider spellings of the same numbers, and the next frame behind it */
        assert_int_equal(CHECK("\xdc\x00\x04\xcc\x00\xce\x00\x00\x00\x01\xa1m\x90\x94", &n), 0);
        assert_int_equal(n, 13);
        assert_int_equal(CHECK("\x94\xd3\x00\x00\x00\x00\x00\x00\x00\x00\x01\xa1m\x90", &n), 0);
}

static void other_shapes_are_refused_at_their_first_wrong_byte(void **state) {
        size_t n;

        (void) state;
        assert_int_equal(CHECK("G", &n), WARM_FRAME_E_SHAPE);
        assert_int_equal(CHECK("\x80", &n), WARM_FRAME_E_SHAPE);
        assert_int_equal(CHECK("\x92", &n), WARM_FRAME_E_SHAPE);
        assert_int_equal(CHECK("\x95", &n), WARM_FRAME_E_SHAPE);
        assert_int_equal(CHECK("\x94\x03", &n), WARM_FRAME_E_SHAPE);
        assert_int_equal(CHECK("\x94\xff", &n), WARM_FRAME_E_SHAPE);
        assert_int_equal(CHECK("\x94\xd0\xff", &n), WARM_FRAME_E_SHAPE);
        assert_int_equal(CHECK("\x94\x02", &n), WARM_FRAME_E_SHAPE);
        assert_int_equal(CHECK("\x93\x00", &n), WARM_FRAME_E_SHAPE);
        assert_int_equal(CHECK("\x94\x00\xa1", &n), WARM_FRAME_E_SHAPE);
        assert_int_equal(CHECK("\x94\x00\xc0", &n), WARM_FRAME_E_SHAPE);
        assert_int_equal(CHECK("\x94\x00\xcf\x00\x00\x00\x01\x00\x00\x00\x00", &n),
                         WARM_FRAME_E_SHAPE);
        assert_int_equal(CHECK("\x94\x00\xd3\xff\xff\xff\xff\xff\xff\xff\xff", &n),
                         WARM_FRAME_E_SHAPE);
}

static void the_largest_id_passes_and_is_known_before_the_frame_ends(void **state) {
        struct warm_frame f = { 0 };
        size_t n;

        (void) state;
        assert_int_equal(warm_frame_check(&f, "\x94\x00\xce\xff\xff\xff\xff\xa1", 8, &n),
                         WARM_FRAME_E_MORE);
        assert_true(f.id_known);
        assert_int_equal(f.id, UINT32_MAX);
}

static void reserved_and_extension_bytes_are_refused(void **state) {
        static const uint8_t ext[] = { 0xc7, 0xc8, 0xc9, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8 };
        uint8_t frame[] = { 0x94, 0x00, 0x01, 0xa1, 'm', 0x91, 0xc1 };
        size_t n;

        (void) state;
        assert_int_equal(check(frame, sizeof(frame), &n), WARM_FRAME_E_RESERVED);
        for (size_t i = 0; i < sizeof(ext); i++) {
                frame[6] = ext[i];
                assert_int_equal(check(frame, sizeof(frame), &n), WARM_FRAME_E_EXT);
        }
}

/* [0, 1, "m", [[[ ... ]]]]: `depth` levels in all */
static struct bytes nested(unsigned depth) {
        struct bytes b = make(5 + depth - 1);

        memcpy(b.data, "\x94\x00\x01\xa1m", 5);
        memset(b.data + 5, 0x91, depth - 1);
        b.data[b.n - 1] = 0x90;
        return b;
}

static void depth_ends_at_its_limit(void **state) {
        struct bytes at = nested(WARM_FRAME_DEPTH_MAX), past = nested(WARM_FRAME_DEPTH_MAX + 1);
        size_t n;

        (void) state;
        assert_int_equal(check(at.data, at.n, &n), 0);
        assert_int_equal(n, at.n);
        assert_int_equal(check(past.data, past.n, &n), WARM_FRAME_E_DEEP);
        free(at.data);
        free(past.data);
}

/* [0, 1, "m", [bin of n bytes]] */
static struct bytes with_bin(size_t n_bin) {
        struct bytes b = make(11 + n_bin);

        memcpy(b.data, "\x94\x00\x01\xa1m\x91\xc6", 7);
        for (unsigned i = 0; i < 4; i++)
                b.data[7 + i] = (uint8_t) (n_bin >> (24 - 8 * i));
        return b;
}

static void size_ends_at_its_limit(void **state) {
        struct bytes at = with_bin(WARM_FRAME_BYTES_MAX - 11);
        struct bytes past = with_bin(WARM_FRAME_BYTES_MAX - 10);
        size_t n;

        (void) state;
        assert_int_equal(check(at.data, at.n, &n), 0);
        assert_int_equal(n, WARM_FRAME_BYTES_MAX);
        assert_int_equal(check(at.data, at.n - 1, &n), WARM_FRAME_E_MORE);
        assert_int_equal(check(past.data, past.n, &n), WARM_FRAME_E_LARGE);
        /* known from the head alone: nobody waits for the bytes */
        assert_int_equal(check(past.data, 11, &n), WARM_FRAME_E_LARGE);
        free(at.data);
        free(past.data);
}

static void many_short_strings_end_at_the_same_size(void **state) {
        struct bytes b = make(WARM_FRAME_BYTES_MAX + 64);
        const size_t each = 2 + 255, n_strings = (WARM_FRAME_BYTES_MAX - 10) / each;
        size_t n, i, used = 10;

        (void) state;
        memcpy(b.data, "\x94\x00\x01\xa1m\xdd", 6);
        for (i = 0; i < 4; i++)
                b.data[6 + i] = (uint8_t) ((n_strings + 1) >> (24 - 8 * i));
        for (i = 0; i < n_strings; i++, used += each)
                memcpy(b.data + used, "\xd9\xff", 2);
        memcpy(b.data + used, "\xd9\xff", 2);
        assert_int_equal(check(b.data, b.n, &n), WARM_FRAME_E_LARGE);
        b.data[used + 1] = (uint8_t) (WARM_FRAME_BYTES_MAX - used - 2);
        assert_int_equal(check(b.data, b.n, &n), 0);
        assert_int_equal(n, WARM_FRAME_BYTES_MAX);
        free(b.data);
}

static void claims_beyond_the_bytes_are_refused_at_the_claim(void **state) {
        size_t n;

        (void) state;
        assert_int_equal(CHECK("\x94\x00\x01\xa1m\xdd\xff\xff\xff\xff", &n), WARM_FRAME_E_COUNT);
        assert_int_equal(CHECK("\x94\x00\x01\xa1m\x91\xdf\xff\xff\xff\xff", &n),
                         WARM_FRAME_E_COUNT);
        assert_int_equal(CHECK("\x94\x00\x01\xa1m\x91\xc6\xff\xff\xff\xff", &n),
                         WARM_FRAME_E_LARGE);
        assert_int_equal(CHECK("\x94\x00\x01\xa1m\x91\xdb\x00\x40\x00\x00", &n),
                         WARM_FRAME_E_LARGE);
        /* a truncated but honest claim waits */
        assert_int_equal(CHECK("\x94\x00\x01\xa1m\xdc\xff\xff", &n), WARM_FRAME_E_MORE);
        assert_int_equal(CHECK("\x94\x00\x01\xa1m\xdc\xff", &n), WARM_FRAME_E_MORE);
        assert_int_equal(CHECK("", &n), WARM_FRAME_E_MORE);
}

static void elements_end_at_their_limit(void **state) {
        /* 4 of the message and the array's own */
        const uint32_t most = WARM_FRAME_ELEMENTS_MAX - 4;
        struct bytes b = make(10 + most + 1);
        size_t n;

        (void) state;
        memcpy(b.data, "\x94\x00\x01\xa1m\xdd", 6);
        for (unsigned i = 0; i < 4; i++)
                b.data[6 + i] = (uint8_t) (most >> (24 - 8 * i));
        assert_int_equal(check(b.data, b.n, &n), 0);
        assert_int_equal(n, b.n - 1);
        b.data[9]++;
        assert_int_equal(check(b.data, b.n, &n), WARM_FRAME_E_COUNT);
        free(b.data);
}

static void a_frame_that_comes_byte_by_byte_is_found_at_its_last_byte(void **state) {
        static const uint8_t frame[] = "\x94\x00\xcd\x01\x02\xa8"
                                       "complete\x91\x83\xa1x\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00"
                                       "\xa1y\x93\x01\xd0\x80\xc2\xc4\x03\xff\xfe\xfd\xd9\x05hello";
        struct warm_frame f = { 0 };
        size_t n = 0;

        (void) state;
        for (size_t i = 0; i < sizeof(frame) - 1; i++) {
                /* the frame moves between two reads, as in a buffer that grows */
                uint8_t *copy = malloc(i + 1);

                memcpy(copy, frame, i);
                assert_int_equal(warm_frame_check(&f, copy, i, &n), WARM_FRAME_E_MORE);
                assert_true(f.offset <= i + 255);
                free(copy);
        }
        assert_int_equal(warm_frame_check(&f, frame, sizeof(frame) - 1, &n), 0);
        assert_int_equal(n, sizeof(frame) - 1);
}

static void a_large_frame_in_small_pieces_is_walked_once(void **state) {
        /* 400,000 integers in pieces of one byte: quadratic work would be 8 * 10^10 steps */
        const uint32_t most = 400000;
        struct bytes b = make(10 + most);
        struct warm_frame f = { 0 };
        size_t n;

        (void) state;
        memcpy(b.data, "\x94\x00\x01\xa1m\xdd", 6);
        for (unsigned i = 0; i < 4; i++)
                b.data[6 + i] = (uint8_t) (most >> (24 - 8 * i));
        for (size_t i = 0; i < b.n; i++)
                assert_int_equal(warm_frame_check(&f, b.data, i, &n), WARM_FRAME_E_MORE);
        assert_int_equal(warm_frame_check(&f, b.data, b.n, &n), 0);
        free(b.data);
}

/* [0, 1, "m", [[i, ...]]]: n integers, the widths in turn, or all of one width. */
static struct bytes integers(uint32_t n, int width) {
        static const uint8_t heads[] = {
                0x00, 0xff, 0xcc, 0xcd, 0xce, 0xcf, 0xd0, 0xd1, 0xd2, 0xd3
        };
        static const uint8_t sizes[] = { 1, 1, 2, 3, 5, 9, 2, 3, 5, 9 };
        struct bytes b = make(11 + 9 * (size_t) n);

        memcpy(b.data, "\x94\x00\x01\xa1m\x91\xdd", 7);
        for (int i = 0; i < 4; i++)
                b.data[7 + i] = (uint8_t) (n >> (24 - 8 * i));
        b.n = 11;
        for (uint32_t i = 0; i < n; i++) {
                uint32_t at = width >= 0 ? (uint32_t) width : i % 10;

                memset(b.data + b.n, 0xc1, sizes[at]); /* what is no head */
                b.data[b.n] = heads[at];
                b.n += sizes[at];
        }
        return b;
}

static void integers_of_all_widths_pass_however_they_come(void **state) {
        struct bytes b = integers(200, -1);
        size_t n;

        (void) state;
        assert_int_equal(check(b.data, b.n, &n), 0);
        assert_int_equal(n, b.n);
        for (size_t cut = 0; cut < b.n; cut++) {
                struct warm_frame f = { 0 };

                assert_int_equal(warm_frame_check(&f, b.data, cut, &n), WARM_FRAME_E_MORE);
                assert_int_equal(warm_frame_check(&f, b.data, b.n, &n), 0);
                assert_int_equal(n, b.n);
        }
        b.data[11 + 36 * 10] = 0xc1; /* a head in the middle */
        assert_int_equal(check(b.data, b.n, &n), WARM_FRAME_E_RESERVED);
        free(b.data);
}

static void integers_end_at_the_size_limit(void **state) {
        const uint32_t most = (WARM_FRAME_BYTES_MAX - 11) / 9;
        struct bytes at = integers(most, 5), past = integers(most + 1, 5);
        size_t n;

        (void) state;
        assert_int_equal(check(at.data, at.n, &n), 0);
        assert_int_equal(n, at.n);
        assert_int_equal(check(past.data, past.n, &n), WARM_FRAME_E_LARGE);
        free(at.data);
        free(past.data);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(the_three_messages_pass),
                cmocka_unit_test(other_shapes_are_refused_at_their_first_wrong_byte),
                cmocka_unit_test(the_largest_id_passes_and_is_known_before_the_frame_ends),
                cmocka_unit_test(reserved_and_extension_bytes_are_refused),
                cmocka_unit_test(depth_ends_at_its_limit),
                cmocka_unit_test(size_ends_at_its_limit),
                cmocka_unit_test(many_short_strings_end_at_the_same_size),
                cmocka_unit_test(claims_beyond_the_bytes_are_refused_at_the_claim),
                cmocka_unit_test(elements_end_at_their_limit),
                cmocka_unit_test(a_frame_that_comes_byte_by_byte_is_found_at_its_last_byte),
                cmocka_unit_test(a_large_frame_in_small_pieces_is_walked_once),
                cmocka_unit_test(integers_of_all_widths_pass_however_they_come),
                cmocka_unit_test(integers_end_at_the_size_limit),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
