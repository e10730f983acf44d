/* SPDX-License-Identifier: Apache-2.0 */
/* The GGUF reader against files that are right, and files that are wrong in exactly one way. */
#include <errno.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>
#include <cmocka.h>

#include "daemon/model/gguf-bytes.h"
#include "daemon/model/gguf.h"
#include "gguf-write.h"

static const uint64_t one_row[] = { 32, 1 };

/* Open the bytes of a writer and expect this; where it is a refusal, expect the sentence to hold `word`. */
static struct warm_gguf *open_expect_at(struct gguf_writer *w, int expected, const char *word,
                                        uint8_t **ret_bytes, int line) {
        struct warm_gguf *g = NULL;
        char *why = NULL;
        size_t n;
        uint8_t *bytes = gguf_write_end(w, &n);
        int r = warm_gguf_open_bytes(bytes, n, &g, &why);

        if (r != expected)
                fail_msg("line %d: %d, not %d: %s", line, r, expected, why ? why : "-");
        if (r < 0 && (!why || !strstr(why, word)))
                fail_msg("line %d: \"%s\" says nothing of \"%s\"", line, why ? why : "", word);
        free(why);
        if (r < 0) {
                free(bytes);
                return NULL;
        }
        *ret_bytes = bytes;
        return g;
}

#define REFUSED(w, error, word) (void) open_expect_at(w, error, word, NULL, __LINE__)
#define OPENED(w, bytes)        open_expect_at(w, 0, "", bytes, __LINE__)

/* A file of one F32 tensor; `w` may hold keys already. */
static void one_tensor(struct gguf_writer *w) {
        gguf_write_tensor(w, "t", GGML_F32, 32, 1);
}

static void keys_come_back_as_they_were_written(void **state) {
        static const char *const strings[] = { "a", "", "ccc" };
        static const int32_t ints[] = { -1, 7 };
        static const float floats[] = { 0.5F };
        struct gguf_writer w = { 0 };
        struct warm_string s, *ss = NULL;
        struct warm_gguf *g;
        uint8_t *bytes;
        int32_t *is = NULL;
        float f, *fs = NULL;
        uint32_t u, n;
        bool b;

        (void) state;
        gguf_write_u32(&w, "u", 42);
        gguf_write_i32(&w, "i", 43);
        gguf_write_f32(&w, "f", 1.5F);
        gguf_write_bool(&w, "b", true);
        gguf_write_string(&w, "s", "text");
        gguf_write_strings(&w, "ss", strings, 3);
        gguf_write_i32s(&w, "is", ints, 2);
        gguf_write_f32s(&w, "fs", floats, 1);
        one_tensor(&w);
        g = OPENED(&w, &bytes);
        assert_int_equal(warm_gguf_n_keys(g), 8);
        assert_int_equal(warm_gguf_version(g), 3);
        assert_int_equal(warm_gguf_get_u32(g, "u", &u, NULL), 0);
        assert_int_equal(u, 42);
        assert_int_equal(warm_gguf_get_u32(g, "i", &u, NULL), 0);
        assert_int_equal(u, 43);
        assert_int_equal(warm_gguf_get_f32(g, "f", &f, NULL), 0);
        assert_true(f == 1.5F);
        assert_int_equal(warm_gguf_get_bool(g, "b", &b, NULL), 0);
        assert_true(b);
        assert_int_equal(warm_gguf_get_string(g, "s", &s, NULL), 0);
        assert_true(warm_string_is(s, "text"));
        assert_int_equal(warm_gguf_get_strings(g, "ss", &ss, &n, NULL), 0);
        assert_int_equal(n, 3);
        assert_true(warm_string_is(ss[0], "a") && warm_string_is(ss[1], "") &&
                    warm_string_is(ss[2], "ccc"));
        assert_int_equal(warm_gguf_get_i32s(g, "is", &is, &n, NULL), 0);
        assert_true(n == 2 && is[0] == -1 && is[1] == 7);
        assert_int_equal(warm_gguf_get_f32s(g, "fs", &fs, &n, NULL), 0);
        assert_true(n == 1 && fs[0] == 0.5F);
        assert_int_equal(warm_gguf_get_u32_of(g, "is", 1, &u, NULL), 0);
        assert_int_equal(u, 7);
        assert_int_equal(warm_gguf_get_u32(g, "none", &u, NULL), WARM_GGUF_E_ABSENT);
        free(ss);
        free(is);
        free(fs);
        warm_gguf_free(g);
        free(bytes);
}

static void getters_refuse_other_types_and_ranges(void **state) {
        static const uint8_t nan_bits[] = { 0, 0, 0xc0, 0x7f }, two[] = { 2 };
        static const uint8_t huge[] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
        static const int32_t ints[] = { -1 };
        struct gguf_writer w = { 0 };
        struct warm_gguf *g;
        struct warm_string s;
        uint8_t *bytes;
        char *why = NULL;
        float f, *fs;
        uint32_t u, n;
        bool b;

        (void) state;
        gguf_write_string(&w, "s", "text");
        gguf_write_i32(&w, "negative", -5);
        gguf_write_raw(&w, "huge", 4, 10, huge, 8);
        gguf_write_raw(&w, "nan", 3, 6, nan_bits, 4);
        gguf_write_raw(&w, "two", 3, 7, two, 1);
        gguf_write_i32s(&w, "is", ints, 1);
        one_tensor(&w);
        g = OPENED(&w, &bytes);
        assert_int_equal(warm_gguf_get_u32(g, "s", &u, &why), -EBADMSG);
        assert_string_equal(why, "s is string and should be an integer; convert the model again");
        free(why);
        assert_int_equal(warm_gguf_get_u32(g, "negative", &u, NULL), -EBADMSG);
        assert_int_equal(warm_gguf_get_u32(g, "huge", &u, NULL), -EBADMSG);
        assert_int_equal(warm_gguf_get_u32(g, "is", &u, NULL), -EBADMSG);
        assert_int_equal(warm_gguf_get_u32_of(g, "is", 0, &u, NULL), -EBADMSG);
        assert_int_equal(warm_gguf_get_u32_of(g, "is", 1, &u, NULL), -EBADMSG);
        assert_int_equal(warm_gguf_get_f32(g, "nan", &f, NULL), -EBADMSG);
        assert_int_equal(warm_gguf_get_f32(g, "s", &f, NULL), -EBADMSG);
        assert_int_equal(warm_gguf_get_bool(g, "two", &b, NULL), -EBADMSG);
        assert_int_equal(warm_gguf_get_bool(g, "s", &b, NULL), -EBADMSG);
        assert_int_equal(warm_gguf_get_string(g, "nan", &s, NULL), -EBADMSG);
        assert_int_equal(warm_gguf_get_f32s(g, "is", &fs, &n, NULL), -EBADMSG);
        warm_gguf_free(g);
        free(bytes);
}

static void version_2_is_read_and_others_are_refused(void **state) {
        struct gguf_writer w = { .version = 2 };
        struct warm_gguf *g;
        uint8_t *bytes;

        (void) state;
        one_tensor(&w);
        g = OPENED(&w, &bytes);
        assert_int_equal(warm_gguf_version(g), 2);
        warm_gguf_free(g);
        free(bytes);
        w.version = 1;
        REFUSED(&w, -EOPNOTSUPP, "version 1");
        w.version = 4;
        REFUSED(&w, -EOPNOTSUPP, "version 4");
        w.version = 0x03000000;
        REFUSED(&w, -EOPNOTSUPP, "big-endian");
}

/* A header that claims counts that its bytes cannot hold. */
static int open_claiming(uint64_t n_tensors, uint64_t n_keys, size_t n_more, char **ret_why) {
        uint8_t *bytes = calloc(1, 24 + n_more);
        struct warm_gguf *g = NULL;
        int r;

        assert_non_null(bytes);
        memcpy(bytes, "GGUF\3\0\0\0", 8);
        memcpy(bytes + 8, &n_tensors, 8);
        memcpy(bytes + 16, &n_keys, 8);
        r = warm_gguf_open_bytes(bytes, 24 + n_more, &g, ret_why);
        warm_gguf_free(g);
        free(bytes);
        return r;
}

static void counts_beyond_the_bytes_are_refused(void **state) {
        static const uint64_t counts[] = {
                1, 100, 65536, 65537, 1ULL << 32, 1ULL << 60, UINT64_MAX
        };
        char *why = NULL;

        (void) state;
        for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
                assert_int_equal(open_claiming(counts[i], 0, 8, &why), -EBADMSG);
                assert_non_null(strstr(why, "claims"));
                free(why);
                assert_int_equal(open_claiming(0, counts[i], 8, &why), -EBADMSG);
                assert_non_null(strstr(why, "claims"));
                free(why);
        }
        assert_int_equal(open_claiming(0, 0, 8, NULL), 0);
}

static void key_and_tensor_counts_hold_to_their_limit(void **state) {
        char name[16];

        (void) state;
        for (unsigned beyond = 0; beyond < 2; beyond++) {
                struct gguf_writer w = { 0 };
                struct warm_gguf *g;
                uint8_t *bytes;

                for (unsigned i = 0; i < WARM_GGUF_KEYS_MAX + beyond; i++) {
                        (void) snprintf(name, sizeof name, "k%u", i);
                        gguf_write_u32(&w, name, i);
                }
                if (beyond) {
                        REFUSED(&w, -EBADMSG, "at most");
                } else {
                        g = OPENED(&w, &bytes);
                        warm_gguf_free(g);
                        free(bytes);
                }
                for (unsigned i = 0; i < WARM_GGUF_TENSORS_MAX + beyond; i++) {
                        (void) snprintf(name, sizeof name, "t%u", i);
                        gguf_write_vector(&w, name, 1);
                }
                if (beyond) {
                        REFUSED(&w, -EBADMSG, "at most");
                } else {
                        g = OPENED(&w, &bytes);
                        assert_non_null(warm_gguf_find_tensor(g, "t65535"));
                        warm_gguf_free(g);
                        free(bytes);
                }
        }
}

static void names_hold_to_their_limit(void **state) {
        static char name[WARM_GGUF_KEY_BYTES_MAX + 2];
        struct gguf_writer w = { 0 };
        struct warm_gguf *g;
        uint8_t *bytes;

        (void) state;
        memset(name, 'n', sizeof name - 1);
        gguf_write_raw(&w, name, WARM_GGUF_KEY_BYTES_MAX, 7, "", 1);
        name[WARM_GGUF_TENSOR_NAME_MAX] = '\0';
        gguf_write_vector(&w, name, 1);
        g = OPENED(&w, &bytes);
        warm_gguf_free(g);
        free(bytes);

        name[WARM_GGUF_TENSOR_NAME_MAX] = 'n';
        gguf_write_raw(&w, name, WARM_GGUF_KEY_BYTES_MAX + 1, 7, "", 1);
        REFUSED(&w, -EBADMSG, "string of 65536 bytes");
        name[WARM_GGUF_TENSOR_NAME_MAX + 1] = '\0';
        gguf_write_vector(&w, name, 1);
        REFUSED(&w, -EBADMSG, "string of 65 bytes");
        gguf_write_raw(&w, "", 0, 7, "", 1);
        REFUSED(&w, -EBADMSG, "no name");
        gguf_write_vector(&w, "", 1);
        REFUSED(&w, -EBADMSG, "no name");
}

static void strings_and_arrays_hold_to_their_limit(void **state) {
        size_t n = 12 + WARM_GGUF_STRING_BYTES_MAX + 1;
        uint8_t *value = calloc(1, n);
        struct gguf_writer w = { 0 };
        struct warm_gguf *g;
        uint8_t *bytes;
        uint64_t count;

        (void) state;
        assert_non_null(value);
        for (unsigned beyond = 0; beyond < 2; beyond++) {
                count = WARM_GGUF_STRING_BYTES_MAX + beyond;
                memcpy(value, &count, 8);
                gguf_write_raw(&w, "s", 1, 8, value, 8 + count);
                if (beyond) {
                        REFUSED(&w, -EBADMSG, "at most");
                } else {
                        g = OPENED(&w, &bytes);
                        warm_gguf_free(g);
                        free(bytes);
                }
                memset(value, 0, 12);
                count = WARM_GGUF_ARRAY_ELEMENTS_MAX + beyond;
                memcpy(value + 4, &count, 8); /* element type 0: u8 */
                gguf_write_raw(&w, "a", 1, 9, value, 12 + count);
                if (beyond) {
                        REFUSED(&w, -EBADMSG, "at most");
                } else {
                        g = OPENED(&w, &bytes);
                        assert_int_equal(warm_gguf_find_key(g, "a")->n, count);
                        warm_gguf_free(g);
                        free(bytes);
                }
        }
        free(value);
}

static void array_lengths_beyond_the_bytes_are_refused(void **state) {
        static const uint64_t counts[] = { 1000, 1ULL << 22, 1ULL << 33, UINT64_MAX };
        struct gguf_writer w = { 0 };

        (void) state;
        for (uint32_t type = 0; type < 13; type++)
                for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
                        uint8_t value[12];

                        memcpy(value, &type, 4);
                        memcpy(value + 4, &counts[i], 8);
                        gguf_write_raw(&w, "a", 1, 9, value, sizeof value);
                        REFUSED(&w, -EBADMSG, "");
                }
}

static void unknown_value_types_and_nested_arrays_are_refused(void **state) {
        static const uint8_t nested[12 + 12] = { 9, 0, 0, 0, 1 };
        static const uint8_t odd[12 + 4] = { 77, 0, 0, 0, 1 };
        struct gguf_writer w = { 0 };

        (void) state;
        gguf_write_raw(&w, "k", 1, 13, nested, sizeof nested);
        REFUSED(&w, -EBADMSG, "no GGUF type");
        gguf_write_raw(&w, "k", 1, UINT32_MAX, nested, sizeof nested);
        REFUSED(&w, -EBADMSG, "no GGUF type");
        gguf_write_raw(&w, "k", 1, 9, nested, sizeof nested);
        REFUSED(&w, -EBADMSG, "array in an array");
        gguf_write_raw(&w, "k", 1, 9, odd, sizeof odd);
        REFUSED(&w, -EBADMSG, "no GGUF type");
}

static void duplicates_are_refused(void **state) {
        struct gguf_writer w = { 0 };

        (void) state;
        gguf_write_u32(&w, "one", 1);
        gguf_write_u32(&w, "two", 1);
        gguf_write_u32(&w, "one", 1);
        REFUSED(&w, -EBADMSG, "key one twice");
        gguf_write_vector(&w, "one", 1);
        gguf_write_vector(&w, "two", 1);
        gguf_write_vector(&w, "one", 1);
        REFUSED(&w, -EBADMSG, "tensor one twice");
}

static void tensors_outside_unaligned_or_overlapping_are_refused(void **state) {
        static const uint64_t far[] = { 4096, 1ULL << 40, UINT64_MAX - 31, UINT64_MAX };
        struct gguf_writer w = { 0 };

        (void) state;
        for (size_t i = 0; i < sizeof far / sizeof far[0]; i++) {
                one_tensor(&w);
                gguf_write_entry(&w, "far", 2, one_row, GGML_F32, far[i]);
                REFUSED(&w, -EBADMSG, "far lies outside");
        }
        one_tensor(&w);
        gguf_write_tensor(&w, "t2", GGML_F32, 32, 1);
        gguf_write_entry(&w, "odd", 1, one_row, GGML_F32, 4);
        REFUSED(&w, -EBADMSG, "odd is not aligned");
        one_tensor(&w);
        gguf_write_entry(&w, "over", 1, one_row, GGML_F32, 0);
        REFUSED(&w, -EBADMSG, "overlaps");
        one_tensor(&w);
        gguf_write_tensor(&w, "t2", GGML_F32, 32, 1);
        gguf_write_entry(&w, "over", 1, one_row, GGML_F32, 96);
        REFUSED(&w, -EBADMSG, "overlaps tensor t");
}

static void dimensions_hold_to_what_can_be_counted(void **state) {
        static const uint64_t big[] = { 1ULL << 33, 1ULL << 33, 1, 1, 1 };
        static const uint64_t wide[] = { UINT64_MAX, 1, 1, 1, 1 };
        static const uint64_t zero[] = { 32, 0, 1, 1, 1 };
        static const uint64_t odd[] = { 33, 1, 1, 1, 1 };
        static const uint64_t ones[] = { 1, 1, 1, 1, 1 };
        struct gguf_writer w = { 0 };
        struct warm_gguf *g;
        uint8_t *bytes;

        (void) state;
        gguf_write_entry(&w, "t", 2, big, GGML_F32, 0);
        REFUSED(&w, -EBADMSG, "counted");
        gguf_write_entry(&w, "t", 1, wide, GGML_F32, 0);
        REFUSED(&w, -EBADMSG, "counted");
        gguf_write_entry(&w, "t", 2, zero, GGML_F32, 0);
        REFUSED(&w, -EBADMSG, "dimension of 0");
        gguf_write_entry(&w, "t", 1, odd, GGML_Q8_0, 0);
        REFUSED(&w, -EBADMSG, "rows of 33");
        gguf_write_entry(&w, "t", 0, ones, GGML_F32, 0);
        REFUSED(&w, -EBADMSG, "0 dimensions");
        gguf_write_entry(&w, "t", 5, ones, GGML_F32, 0);
        REFUSED(&w, -EBADMSG, "5 dimensions");
        gguf_write_entry(&w, "t", 4, ones, GGML_F32, 0);
        w.data.n = w.data.n_room = 4;
        w.data.data = calloc(1, 4);
        g = OPENED(&w, &bytes);
        assert_int_equal(warm_gguf_tensor_at(g, 0)->bytes, 4);
        warm_gguf_free(g);
        free(bytes);
}

static void types_that_are_not_built_are_named(void **state) {
        struct gguf_writer w = { 0 };

        (void) state;
        gguf_write_entry(&w, "t", 1, one_row, 11, 0);
        REFUSED(&w, -EOPNOTSUPP, "Q3_K");
        gguf_write_entry(&w, "t", 1, one_row, 4, 0); /* Q4_2, long gone */
        REFUSED(&w, -EOPNOTSUPP, "type 4");
        gguf_write_entry(&w, "t", 1, one_row, UINT32_MAX, 0);
        REFUSED(&w, -EOPNOTSUPP, "type 4294967295");
}

static void alignment_is_a_power_of_two_within_its_limit(void **state) {
        static const uint32_t wrong[] = { 0, 3, 33, WARM_GGUF_ALIGNMENT_MAX * 2, UINT32_MAX };
        static const uint32_t right[] = { 1, 8, 64, WARM_GGUF_ALIGNMENT_MAX };
        struct gguf_writer w = { 0 };

        (void) state;
        for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
                gguf_write_u32(&w, "general.alignment", wrong[i]);
                one_tensor(&w);
                REFUSED(&w, -EBADMSG, "power of two");
        }
        gguf_write_string(&w, "general.alignment", "32");
        one_tensor(&w);
        REFUSED(&w, -EBADMSG, "general.alignment is string");
        for (size_t i = 0; i < sizeof right / sizeof right[0]; i++) {
                struct warm_gguf *g;
                uint8_t *bytes;

                w.alignment = right[i];
                gguf_write_u32(&w, "general.alignment", right[i]);
                one_tensor(&w);
                gguf_write_tensor(&w, "t2", GGML_F32, 32, 1);
                g = OPENED(&w, &bytes);
                assert_int_equal((warm_gguf_find_tensor(g, "t2")->data - bytes) % right[i], 0);
                warm_gguf_free(g);
                free(bytes);
        }
}

static void a_file_cut_anywhere_is_refused(void **state) {
        struct gguf_tiny tiny = { .architecture = "llama", .biases = true };
        struct gguf_writer w = { 0 };
        uint8_t *bytes;
        size_t n, step;

        (void) state;
        gguf_write_tiny(&w, &tiny);
        bytes = gguf_write_end(&w, &n);
        for (size_t cut = 0; cut < n; cut += step) {
                uint8_t *copy = malloc(cut + 1);
                struct warm_gguf *g = NULL;
                char *why = NULL;
                int r;

                step = cut < 16384 ? 1 : 997; /* all of the header, some of the data */
                assert_non_null(copy);
                memcpy(copy, bytes, cut);
                r = warm_gguf_open_bytes(copy, cut, &g, &why);
                if (r != -EBADMSG || !why)
                        fail_msg("cut at %zu: %d", cut, r);
                free(why);
                free(copy);
        }
        free(bytes);
}

static int hash_of(struct gguf_writer *w, uint8_t hash[16]) {
        struct warm_gguf *g;
        uint8_t *bytes;
        int r;

        g = OPENED(w, &bytes);
        r = warm_gguf_load(g, hash, NULL);
        warm_gguf_free(g);
        free(bytes);
        return r;
}

static void the_hash_is_of_what_changes_results(void **state) {
        struct gguf_writer w = { 0 };
        uint8_t base[16], hash[16];

        (void) state;
        gguf_write_u32(&w, "llama.block_count", 1);
        one_tensor(&w);
        assert_int_equal(hash_of(&w, base), 0);

        gguf_write_string(&w, "general.name", "another");
        gguf_write_u32(&w, "llama.block_count", 1);
        one_tensor(&w);
        assert_int_equal(hash_of(&w, hash), 0);
        assert_memory_equal(hash, base, 16);

        gguf_write_u32(&w, "llama.block_count", 2);
        one_tensor(&w);
        assert_int_equal(hash_of(&w, hash), 0);
        assert_memory_not_equal(hash, base, 16);

        gguf_write_string(&w, "general.architecture", "x");
        gguf_write_u32(&w, "llama.block_count", 1);
        one_tensor(&w);
        assert_int_equal(hash_of(&w, hash), 0);
        assert_memory_not_equal(hash, base, 16);

        gguf_write_u32(&w, "llama.block_count", 1);
        gguf_write_tensor(&w, "u", GGML_F32, 32, 1);
        assert_int_equal(hash_of(&w, hash), 0);
        assert_memory_not_equal(hash, base, 16);

        gguf_write_u32(&w, "llama.block_count", 1);
        one_tensor(&w);
        w.data.data[17] ^= 1;
        assert_int_equal(hash_of(&w, hash), 0);
        assert_memory_not_equal(hash, base, 16);
}

/* A tiny model and a tensor of n_mib in a file of its own; the path's last six bytes are replaced. */
static void write_model_file(char *path, uint64_t n_mib, size_t *ret_n) {
        struct gguf_tiny tiny = { .architecture = "qwen2" };
        struct gguf_writer w = { 0 };
        uint8_t *bytes;

        gguf_write_tiny(&w, &tiny);
        gguf_write_tensor(&w, "big", GGML_F32, 1024, n_mib * 256);
        bytes = gguf_write_end(&w, ret_n);
        assert_int_equal(gguf_write_temporary(path, bytes, *ret_n), 0);
        free(bytes);
}

static uint8_t *read_file(const char *path, size_t n) {
        uint8_t *bytes = malloc(n);
        FILE *f = fopen(path, "r");

        assert_non_null(bytes);
        assert_non_null(f);
        assert_int_equal(fread(bytes, 1, n, f), n);
        fclose(f);
        return bytes;
}

static void a_file_reads_the_same_mapped_or_not(void **state) {
        char path[] = "/tmp/warm-test-gguf-XXXXXX";
        uint8_t hashes[2][16];
        size_t n;

        (void) state;
        write_model_file(path, 4, &n); /* several reads */
        for (int i = 0; i < 2; i++) {
                struct warm_gguf *g = NULL;

                assert_int_equal(chmod(path, i == 0 ? 0644 : 0666), 0);
                assert_int_equal(warm_gguf_open(path, &g, NULL), 0);
                assert_int_equal(warm_gguf_file_bytes(g), n);
                if (i == 1)
                        assert_false(warm_gguf_is_mapped(g));
                assert_int_equal(warm_gguf_load(g, hashes[i], NULL), 0);
                warm_gguf_free(g);
        }
        assert_memory_equal(hashes[0], hashes[1], 16);
        unlink(path);
}

/* By one thread, and by several that were begun before; what was refused can be tried again. */
static void a_file_that_shrinks_while_read_is_refused(void **state) {
        (void) state;
        for (uint64_t n_mib = 4; n_mib <= 70; n_mib += 66) {
                char path[] = "/tmp/warm-test-gguf-XXXXXX";
                struct warm_gguf *g = NULL;
                uint8_t hash[16];
                char *why = NULL;
                size_t n;

                write_model_file(path, n_mib, &n);
                assert_int_equal(chmod(path, 0666), 0);
                assert_int_equal(warm_gguf_open(path, &g, NULL), 0);
                assert_int_equal(truncate(path, (off_t) n - 4096), 0);
                if (n_mib > 4)
                        assert_int_equal(warm_gguf_load_begin(g), 0);
                assert_int_equal(warm_gguf_load(g, hash, &why), -EBADMSG);
                assert_non_null(strstr(why, "shorter"));
                free(why);
                assert_int_equal(warm_gguf_load(g, hash, NULL), -EBADMSG);
                warm_gguf_free(g);
                unlink(path);
        }
}

/* Mapped or read, by threads that were begun, are not needed, or were never wanted. */
static void a_large_file_reads_the_same_by_threads(void **state) {
        char path[] = "/tmp/warm-test-gguf-XXXXXX";
        uint8_t hashes[5][16];
        size_t n;

        (void) state;
        write_model_file(path, 70, &n);
        for (int i = 0; i < 5; i++) {
                struct warm_gguf *g = NULL;
                uint8_t *bytes = NULL;

                assert_int_equal(chmod(path, i < 2 ? 0644 : 0666), 0);
                if (i < 4)
                        assert_int_equal(warm_gguf_open(path, &g, NULL), 0);
                else {
                        bytes = read_file(path, n);
                        assert_int_equal(warm_gguf_open_bytes(bytes, n, &g, NULL), 0);
                }
                if (i % 2)
                        assert_int_equal(warm_gguf_load_begin(g), 0);
                assert_int_equal(warm_gguf_load(g, hashes[i], NULL), 0);
                assert_memory_equal(hashes[i], hashes[0], 16);
                warm_gguf_free(g);
                free(bytes);
        }
        unlink(path);
}

static void a_load_that_was_begun_can_be_given_up(void **state) {
        char path[] = "/tmp/warm-test-gguf-XXXXXX";
        size_t n;

        (void) state;
        write_model_file(path, 70, &n);
        for (int i = 0; i < 2; i++) {
                struct warm_gguf *g = NULL;

                assert_int_equal(chmod(path, i == 0 ? 0644 : 0666), 0);
                assert_int_equal(warm_gguf_open(path, &g, NULL), 0);
                assert_int_equal(warm_gguf_load_begin(g), 0);
                warm_gguf_free(g);
        }
        unlink(path);
}

static void only_what_root_alone_may_write_is_mapped(void **state) {
        struct stat st = { .st_uid = 0, .st_mode = S_IFREG | 0644 };

        (void) state;
        assert_true(warm_bytes_may_map(&st, EXT4_SUPER_MAGIC));
        assert_true(warm_bytes_may_map(&st, TMPFS_MAGIC));
        assert_false(warm_bytes_may_map(&st, NFS_SUPER_MAGIC));
        assert_false(warm_bytes_may_map(&st, FUSE_SUPER_MAGIC));
        assert_false(warm_bytes_may_map(&st, MSDOS_SUPER_MAGIC));
        assert_false(warm_bytes_may_map(&st, V9FS_MAGIC));
        st.st_mode = S_IFREG | 0664;
        assert_false(warm_bytes_may_map(&st, EXT4_SUPER_MAGIC));
        st.st_mode = S_IFREG | 0646;
        assert_false(warm_bytes_may_map(&st, EXT4_SUPER_MAGIC));
        st.st_mode = S_IFREG | 0444;
        st.st_uid = 1000;
        assert_false(warm_bytes_may_map(&st, EXT4_SUPER_MAGIC));
}

static void what_is_no_file_of_ours_is_refused(void **state) {
        struct warm_gguf *g = NULL;
        char *why = NULL;

        (void) state;
        assert_int_equal(warm_gguf_open("/nonexistent/model.gguf", &g, &why), -ENOENT);
        assert_non_null(why);
        free(why);
        assert_int_equal(warm_gguf_open("/dev/zero", &g, NULL), -EBADMSG);
        assert_int_equal(warm_gguf_open("/tmp", &g, NULL), -EBADMSG);
        assert_int_equal(
                warm_gguf_open_bytes("GGML\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24, &g, &why),
                -EBADMSG);
        assert_non_null(strstr(why, "not a GGUF"));
        free(why);
}

static void sentences_show_no_control_characters(void **state) {
        struct gguf_writer w = { 0 };
        struct warm_gguf *g = NULL;
        char *why = NULL;
        uint8_t *bytes;
        size_t n;

        (void) state;
        gguf_write_u32(&w, "\033[2J\n", 1);
        gguf_write_u32(&w, "\033[2J\n", 1);
        bytes = gguf_write_end(&w, &n);
        assert_int_equal(warm_gguf_open_bytes(bytes, n, &g, &why), -EBADMSG);
        assert_null(strchr(why, '\033'));
        assert_null(strchr(why, '\n'));
        free(why);
        free(bytes);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(keys_come_back_as_they_were_written),
                cmocka_unit_test(getters_refuse_other_types_and_ranges),
                cmocka_unit_test(version_2_is_read_and_others_are_refused),
                cmocka_unit_test(counts_beyond_the_bytes_are_refused),
                cmocka_unit_test(key_and_tensor_counts_hold_to_their_limit),
                cmocka_unit_test(names_hold_to_their_limit),
                cmocka_unit_test(strings_and_arrays_hold_to_their_limit),
                cmocka_unit_test(array_lengths_beyond_the_bytes_are_refused),
                cmocka_unit_test(unknown_value_types_and_nested_arrays_are_refused),
                cmocka_unit_test(duplicates_are_refused),
                cmocka_unit_test(tensors_outside_unaligned_or_overlapping_are_refused),
                cmocka_unit_test(dimensions_hold_to_what_can_be_counted),
                cmocka_unit_test(types_that_are_not_built_are_named),
                cmocka_unit_test(alignment_is_a_power_of_two_within_its_limit),
                cmocka_unit_test(a_file_cut_anywhere_is_refused),
                cmocka_unit_test(the_hash_is_of_what_changes_results),
                cmocka_unit_test(a_file_reads_the_same_mapped_or_not),
                cmocka_unit_test(a_file_that_shrinks_while_read_is_refused),
                cmocka_unit_test(a_large_file_reads_the_same_by_threads),
                cmocka_unit_test(a_load_that_was_begun_can_be_given_up),
                cmocka_unit_test(only_what_root_alone_may_write_is_mapped),
                cmocka_unit_test(what_is_no_file_of_ours_is_refused),
                cmocka_unit_test(sentences_show_no_control_characters),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
