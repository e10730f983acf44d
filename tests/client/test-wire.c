/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/codec.h"

#define DECODE(s, m) warm_message_decode((s), sizeof(s) - 1, (m))

static void params_may_be_a_map_or_empty_in_three_ways(void **state) {
        struct warm_message m;

        (void) state;
        assert_int_equal(DECODE("\x94\x00\x07\xa1m\x90", &m), 0);
        assert_null(m.params);
        assert_int_equal(m.id, 7);
        warm_message_deinit(&m);
        assert_int_equal(DECODE("\x94\x00\x07\xa1m\x91\x90", &m), 0);
        assert_null(m.params);
        warm_message_deinit(&m);
        assert_int_equal(DECODE("\x94\x00\x07\xc4\x01m\x91\x80", &m), 0);
        assert_int_equal(warm_read_n(m.params), 0);
        assert_memory_equal(m.method.data, "m", 1);
        warm_message_deinit(&m);
}

static void other_params_are_refused_with_the_id_known(void **state) {
        static const struct {
                const char *frame;
                size_t n;
        } bad[] = {
                { "\x94\x00\x07\xa1m\x80", 6 },         { "\x94\x00\x07\xa1m\xc0", 6 },
                { "\x94\x00\x07\xa1m\x91\x01", 7 },     { "\x94\x00\x07\xa1m\x91\x91\x01", 8 },
                { "\x94\x00\x07\xa1m\x92\x80\x80", 8 }, { "\x94\x00\x07\x01\x90", 5 },
        };

        (void) state;
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                struct warm_message m;

                assert_int_equal(warm_message_decode(bad[i].frame, bad[i].n, &m),
                                 WARM_WIRE_E_SHAPE);
                assert_int_equal(m.type, WARM_FRAME_REQUEST);
                assert_int_equal(m.id, 7);
                warm_message_deinit(&m);
        }
}

static void what_the_writer_packs_the_reader_reads(void **state) {
        struct warm_message m;
        struct warm_writer w;
        struct warm_buffer b;
        struct warm_wire_text text;
        uint64_t u;
        int64_t i;
        double d;
        size_t n;
        bool yes;

        (void) state;
        warm_buffer_init(&b, 4096);
        warm_writer_request(&w, &b, 70000, "method");
        warm_write_map(&w, 7);
        warm_write_key_uint(&w, "u", UINT64_MAX);
        warm_write_string(&w, "i");
        warm_write_int(&w, -5);
        warm_write_string(&w, "d");
        warm_write_double(&w, 0.1);
        warm_write_string(&w, "f");
        warm_write_float(&w, 0.5F);
        warm_write_key_bool(&w, "yes", true);
        warm_write_key_text(&w, "str", "\xc3\xa4", 2);
        warm_write_key_text(&w, "bin", "\xc3", 1);
        assert_int_equal(warm_writer_end(&w), 0);

        assert_int_equal(warm_frame_check(&(struct warm_frame){ 0 }, warm_buffer_data(&b),
                                          warm_buffer_n(&b), &n),
                         0);
        assert_int_equal(n, warm_buffer_n(&b));
        assert_int_equal(warm_message_decode(warm_buffer_data(&b), n, &m), 0);
        assert_int_equal(m.id, 70000);
        assert_int_equal(warm_read_uint(warm_read_key(m.params, "u"), &u), 0);
        assert_true(u == WARM_WIRE_INT_MAX);
        assert_int_equal(warm_read_int(warm_read_key(m.params, "i"), &i), 0);
        assert_int_equal(i, -5);
        assert_int_equal(warm_read_uint(warm_read_key(m.params, "i"), &u), WARM_WIRE_E_RANGE);
        assert_int_equal(warm_read_number(warm_read_key(m.params, "d"), &d), 0);
        assert_true(d == 0.1);
        assert_int_equal(warm_read_number(warm_read_key(m.params, "i"), &d), 0);
        assert_true(d == -5);
        assert_int_equal(warm_read_number(warm_read_key(m.params, "f"), &d), 0);
        assert_true(d == 0.5);
        assert_int_equal(warm_read_bool(warm_read_key(m.params, "yes"), &yes), 0);
        assert_true(yes);
        assert_int_equal(warm_read_key(m.params, "str")->type, MSGPACK_OBJECT_STR);
        assert_int_equal(warm_read_key(m.params, "bin")->type, MSGPACK_OBJECT_BIN);
        assert_int_equal(warm_read_text(warm_read_key(m.params, "bin"), &text), 0);
        assert_int_equal(text.n, 1);
        assert_null(warm_read_key(m.params, "none"));
        assert_int_equal(warm_read_text(NULL, &text), WARM_WIRE_E_TYPE);
        warm_message_deinit(&m);
        warm_buffer_deinit(&b);
}

/* Ids around every width; each length, so that the last ones end at the buffer's end in every way. */
static void ids_are_written_at_once_as_one_by_one(void **state) {
        static const int32_t ids[] = { 0,     0x7f,    0x80,    0xff,      0x100, 0xffff,
                                       70000, 0x10000, 1 << 30, INT32_MAX, 1,     300 };
        struct warm_buffer once, each;
        struct warm_writer w;

        (void) state;
        for (uint32_t n = 0; n <= sizeof(ids) / sizeof(ids[0]); n++) {
                const int32_t *first = ids + sizeof(ids) / sizeof(ids[0]) - n;

                warm_buffer_init(&once, 4096);
                warm_buffer_init(&each, 4096);
                warm_writer_notification(&w, &once, "m");
                warm_write_ids(&w, first, n);
                assert_int_equal(warm_writer_end(&w), 0);
                warm_writer_notification(&w, &each, "m");
                warm_write_array(&w, n);
                for (uint32_t i = 0; i < n; i++)
                        warm_write_uint(&w, (uint64_t) first[i]);
                assert_int_equal(warm_writer_end(&w), 0);
                assert_int_equal(warm_buffer_n(&once), warm_buffer_n(&each));
                assert_memory_equal(warm_buffer_data(&once), warm_buffer_data(&each),
                                    warm_buffer_n(&once));
                warm_buffer_deinit(&once);
                warm_buffer_deinit(&each);
        }
}

static void an_id_below_zero_stays_below_zero(void **state) {
        static const int32_t ids[] = { 1, -1, INT32_MIN };
        struct warm_message m;
        struct warm_writer w;
        struct warm_buffer b;
        int64_t i;

        (void) state;
        warm_buffer_init(&b, 4096);
        warm_writer_request(&w, &b, 1, "m");
        warm_write_map(&w, 1);
        warm_write_key_ids(&w, "ids", ids, 3);
        assert_int_equal(warm_writer_end(&w), 0);
        assert_int_equal(warm_message_decode(warm_buffer_data(&b), warm_buffer_n(&b), &m), 0);
        for (uint32_t k = 0; k < 3; k++) {
                assert_int_equal(
                        warm_read_int(warm_read_element(warm_read_key(m.params, "ids"), k), &i), 0);
                assert_int_equal(i, ids[k]);
        }
        warm_message_deinit(&m);
        warm_buffer_deinit(&b);
}

/* One byte of room too little: the error, and nothing of the message. */
static void ids_beyond_the_buffer_are_refused(void **state) {
        static const int32_t ids[] = { 70000, 70000 };
        struct warm_writer w;
        struct warm_buffer b;

        (void) state;
        for (size_t max = 14; max <= 15; max++) { /* 4 of heads, 1 of the array, 10 of ids */
                warm_buffer_init(&b, max);
                warm_writer_notification(&w, &b, "");
                warm_write_ids(&w, ids, 2);
                assert_int_equal(warm_writer_end(&w), max < 15 ? WARM_WIRE_E_FULL : 0);
                assert_int_equal(warm_buffer_n(&b), max < 15 ? 0 : 15);
                warm_buffer_deinit(&b);
        }
}

static void an_error_response_reads_back(void **state) {
        struct warm_wire_text name, what;
        const uint32_t id = 3;
        struct warm_message m;
        struct warm_writer w;
        struct warm_buffer b;
        uint32_t code;

        (void) state;
        warm_buffer_init(&b, 4096);
        assert_int_equal(warm_writer_error(&w, &b, NULL, 5, "frame-ext", "do this"), 0);
        assert_int_equal(warm_message_decode(warm_buffer_data(&b), warm_buffer_n(&b), &m), 0);
        assert_int_equal(m.type, WARM_FRAME_RESPONSE);
        assert_false(m.id_known);
        assert_null(m.result);
        assert_int_equal(warm_read_error(m.error, &code, &name, &what), 0);
        assert_int_equal(code, 5);
        assert_int_equal(what.n, 7);
        warm_message_deinit(&m);
        warm_buffer_consume(&b, warm_buffer_n(&b));
        assert_int_equal(warm_writer_error(&w, &b, &id, 5, "frame-ext", "do this"), 0);
        assert_int_equal(warm_message_decode(warm_buffer_data(&b), warm_buffer_n(&b), &m), 0);
        assert_true(m.id_known && m.id == 3);
        assert_int_equal(warm_read_error(m.result, &code, &name, &what), WARM_WIRE_E_SHAPE);
        warm_message_deinit(&m);
        warm_buffer_deinit(&b);
}

static void a_message_beyond_the_buffer_leaves_it_as_it_was(void **state) {
        struct warm_writer w;
        struct warm_buffer b;
        char text[100] = "";

        (void) state;
        warm_buffer_init(&b, 110);
        for (unsigned i = 0; i < 2; i++) {
                warm_writer_result(&w, &b, 1);
                warm_write_bytes(&w, text, 100);
                assert_int_equal(warm_writer_end(&w), i == 0 ? 0 : WARM_WIRE_E_FULL);
                assert_int_equal(warm_buffer_n(&b), 106);
        }
        warm_buffer_consume(&b, 106);
        warm_writer_result(&w, &b, 1);
        warm_write_bytes(&w, text, 100);
        assert_int_equal(warm_writer_end(&w), 0);
        warm_buffer_deinit(&b);
}

static void a_message_that_is_no_frame_is_not_written(void **state) {
        struct warm_writer w;
        struct warm_buffer b;
        char *text = calloc(1, WARM_FRAME_BYTES_MAX);

        (void) state;
        warm_buffer_init(&b, 2 * WARM_FRAME_BYTES_MAX);
        warm_writer_result(&w, &b, 1);
        warm_write_bytes(&w, text, WARM_FRAME_BYTES_MAX - 9); /* 4 + 5 + n: the limit */
        assert_int_equal(warm_writer_end(&w), 0);
        warm_buffer_consume(&b, warm_buffer_n(&b));
        warm_writer_result(&w, &b, 1);
        warm_write_bytes(&w, text, WARM_FRAME_BYTES_MAX - 8);
        assert_int_equal(warm_writer_end(&w), WARM_WIRE_E_FULL);
        warm_writer_result(&w, &b, 1);
        warm_write_array(&w, WARM_FRAME_ELEMENTS_MAX - 4);
        assert_int_equal(warm_writer_end(&w), 0);
        warm_writer_result(&w, &b, 1);
        warm_write_array(&w, WARM_FRAME_ELEMENTS_MAX - 3);
        assert_int_equal(warm_writer_end(&w), WARM_WIRE_E_FULL);
        warm_buffer_deinit(&b);
        free(text);
}

static void a_buffer_keeps_its_bytes_in_order_while_it_grows_and_slides(void **state) {
        struct warm_buffer b;
        uint8_t in = 0, out = 0;

        (void) state;
        warm_buffer_init(&b, 100000);
        for (unsigned round = 0; round < 5000; round++) {
                uint8_t piece[64];
                size_t n = 1 + round * 7919 % sizeof(piece);

                for (size_t i = 0; i < n; i++)
                        piece[i] = in++;
                assert_int_equal(warm_buffer_append(&b, piece, n), 0);
                for (size_t i = round * 104729 % 40; i > 0 && warm_buffer_n(&b) > 0; i--) {
                        assert_int_equal(*warm_buffer_data(&b), out++);
                        warm_buffer_consume(&b, 1);
                }
        }
        assert_true(warm_buffer_n(&b) > 0);
        warm_buffer_deinit(&b);
}

static void utf8_is_valid_by_the_standards_table(void **state) {
        static const char *const good[] = { "",
                                            "plain ascii, longer than eight",
                                            "\xc2\x80",
                                            "\xdf\xbf",
                                            "\xe0\xa0\x80",
                                            "\xed\x9f\xbf",
                                            "\xee\x80\x80",
                                            "\xf0\x90\x80\x80",
                                            "\xf4\x8f\xbf\xbf" };
        static const char *const bad[] = {
                "\x80",         "\xc0\x80",         "\xc1\xbf",         "\xc2",
                "\xe0\x9f\xbf", "\xed\xa0\x80",     "\xe2\x82",         "\xf0\x8f\xbf\xbf",
                "\xf5\x80",     "\xf4\x90\x80\x80", "\xf0\x90\x80",     "eight ok\xff",
                "\xff",         "\xe2\x82\x41",     "\xf0\x90\x41\x80", "\xf0\x90\x80\x41",
        };

        (void) state;
        for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
                assert_true(warm_utf8_valid(good[i], strlen(good[i])));
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                assert_false(warm_utf8_valid(bad[i], strlen(bad[i])));
}

struct values {
        uint64_t count;
        double number;
        bool yes;
        struct warm_wire_text text;
        const msgpack_object *list;
};

static const struct warm_field table[] = {
        { "count", WARM_FIELD_UINT, 1, 64, offsetof(struct values, count), 0 },
        { "number", WARM_FIELD_NUMBER, 0, 1, offsetof(struct values, number),
          WARM_FIELD_ABOVE_MIN },
        { "yes", WARM_FIELD_BOOL, 0, 0, offsetof(struct values, yes), 0 },
        { "text", WARM_FIELD_TEXT, 1, 4, offsetof(struct values, text), 0 },
        { "list", WARM_FIELD_ARRAY, 0, 2, offsetof(struct values, list), 0 },
};

static int read_map(const char *map, size_t n, unsigned flags, struct values *ret,
                    struct warm_field_error *ret_error) {
        struct warm_field copy[sizeof(table) / sizeof(table[0])];
        msgpack_unpacked u;
        size_t offset = 0;
        int r;

        memcpy(copy, table, sizeof(table));
        copy[0].flags |= flags;
        msgpack_unpacked_init(&u);
        assert_int_equal(msgpack_unpack_next(&u, map, n, &offset), MSGPACK_UNPACK_SUCCESS);
        r = warm_fields_read(copy, sizeof(table) / sizeof(table[0]), &u.data, ret, NULL, ret_error);
        msgpack_unpacked_destroy(&u);
        return r;
}

#define READ(s) read_map((s), sizeof(s) - 1, 0, &v, &e)

static void fields_take_ints_and_floats_str_and_bin(void **state) {
        struct values v = { .number = 0.25 };
        struct warm_field_error e;

        (void) state;
        assert_int_equal(READ("\x81\xa5"
                              "count\x40"),
                         0);
        assert_int_equal(v.count, 64);
        assert_true(v.number == 0.25); /* what is not there keeps its default */
        assert_int_equal(READ("\x81\xa5"
                              "count\xca\x41\x00\x00\x00"),
                         0);
        assert_int_equal(v.count, 8);
        assert_int_equal(READ("\x81\xa6number\x01"), 0);
        assert_true(v.number == 1);
        assert_int_equal(READ("\x82\xa4text\xc4\x01\xff\xc4\x03yes\xc3"), 0);
        assert_true(v.yes);
        assert_int_equal(v.text.n, 1);
        assert_int_equal(READ("\x81\xa4list\x80"), 0);
        assert_int_equal(READ("\x80"), 0);
        assert_int_equal(READ("\x90"), 0);
}

static void each_refusal_names_the_field_and_the_range(void **state) {
        struct warm_field_error e;
        struct values v;

        (void) state;
        assert_int_equal(READ("\x81\xa5"
                              "count\x41"),
                         WARM_WIRE_E_RANGE);
        assert_string_equal(e.what, "'count' must be 1 to 64");
        assert_int_equal(READ("\x81\xa5"
                              "count\x00"),
                         WARM_WIRE_E_RANGE);
        assert_int_equal(READ("\x81\xa5"
                              "count\xff"),
                         WARM_WIRE_E_RANGE);
        assert_int_equal(READ("\x81\xa5"
                              "count\xcf\xff\xff\xff\xff\xff\xff\xff\xff"),
                         WARM_WIRE_E_RANGE);
        assert_int_equal(READ("\x81\xa5"
                              "count\xca\x3f\x00\x00\x00"),
                         WARM_WIRE_E_TYPE);
        assert_string_equal(e.what, "'count' must be a whole number");
        assert_int_equal(READ("\x81\xa5"
                              "count\xc0"),
                         WARM_WIRE_E_TYPE);
        assert_int_equal(READ("\x81\xa6number\x00"), WARM_WIRE_E_RANGE);
        assert_string_equal(e.what, "'number' must be above 0 to 1");
        assert_int_equal(READ("\x81\xa6number\xca\x7f\xc0\x00\x00"), WARM_WIRE_E_RANGE);
        assert_int_equal(READ("\x81\xa6number\xca\x7f\x80\x00\x00"), WARM_WIRE_E_RANGE);
        assert_int_equal(READ("\x81\xa3yes\x01"), WARM_WIRE_E_TYPE);
        assert_int_equal(READ("\x81\xa4text\xa5"
                              "12345"),
                         WARM_WIRE_E_RANGE);
        assert_string_equal(e.what, "'text' must be 1 to 4 bytes");
        assert_int_equal(READ("\x81\xa4text\xa0"), WARM_WIRE_E_RANGE);
        assert_int_equal(READ("\x81\xa4list\x93\x01\x02\x03"), WARM_WIRE_E_RANGE);
        assert_int_equal(READ("\x81\xa4list\xa1x"), WARM_WIRE_E_TYPE);
        assert_int_equal(READ("\x01"), WARM_WIRE_E_TYPE);
}

static void keys_must_be_known_single_and_there(void **state) {
        struct warm_field_error e;
        struct values v;

        (void) state;
        assert_int_equal(READ("\x81\xa4"
                              "a\nb\xff\x01"),
                         WARM_WIRE_E_UNKNOWN_KEY);
        assert_string_equal(e.what, "there is no parameter 'a?b?' here");
        assert_int_equal(READ("\x81\xd9\x40"
                              "0123456789012345678901234567890123456789012345678901234567890123"
                              "\x01"),
                         WARM_WIRE_E_UNKNOWN_KEY);
        assert_string_equal(e.what, "there is no parameter "
                                    "'012345678901234567890123456789012345678901234567...' here");
        assert_int_equal(READ("\x81\x01\x01"), WARM_WIRE_E_TYPE);
        assert_int_equal(READ("\x82\xa3yes\xc3\xa3yes\xc3"), WARM_WIRE_E_DUPLICATE);
        assert_string_equal(e.what, "'yes' comes twice");
        assert_int_equal(read_map("\x80", 1, WARM_FIELD_REQUIRED, &v, &e), WARM_WIRE_E_MISSING);
        assert_string_equal(e.what, "'count' is required");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(params_may_be_a_map_or_empty_in_three_ways),
                cmocka_unit_test(other_params_are_refused_with_the_id_known),
                cmocka_unit_test(what_the_writer_packs_the_reader_reads),
                cmocka_unit_test(ids_are_written_at_once_as_one_by_one),
                cmocka_unit_test(an_id_below_zero_stays_below_zero),
                cmocka_unit_test(ids_beyond_the_buffer_are_refused),
                cmocka_unit_test(an_error_response_reads_back),
                cmocka_unit_test(a_message_beyond_the_buffer_leaves_it_as_it_was),
                cmocka_unit_test(a_message_that_is_no_frame_is_not_written),
                cmocka_unit_test(a_buffer_keeps_its_bytes_in_order_while_it_grows_and_slides),
                cmocka_unit_test(utf8_is_valid_by_the_standards_table),
                cmocka_unit_test(fields_take_ints_and_floats_str_and_bin),
                cmocka_unit_test(each_refusal_names_the_field_and_the_range),
                cmocka_unit_test(keys_must_be_known_single_and_there),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
