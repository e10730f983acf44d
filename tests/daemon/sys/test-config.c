/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "sys/config.h"
#include "sys/options.h"

static int parse(struct warm_config *c, const char *text, char **ret_why) {
        return warm_config_parse(c, "test.conf", text, strlen(text), ret_why);
}

static void refused(const char *text, const char *needle) {
        struct warm_config c;
        char *why = NULL;

        warm_config_init(&c);
        assert_int_equal(parse(&c, text, &why), -EINVAL);
        assert_non_null(why);
        assert_non_null(strstr(why, "test.conf"));
        if (!strstr(why, needle))
                fail_msg("\"%s\" does not say \"%s\"", why, needle);
        free(why);
        warm_config_deinit(&c);
}

static void every_key_is_read(void **state) {
        struct warm_config c;
        char *why = NULL;

        (void) state;
        warm_config_init(&c);
        assert_int_equal(
                parse(&c,
                      "; a comment\n[warmd]\nmodel = /a.gguf\nmodel = /b.gguf\nsocket = "
                      "/run/x.sock\n"
                      "device = cuda:3\ngpu-memory-wait = 90\ngpu-memory-short = refuse\nkv-memory "
                      "= 1.5G\nkv-type = bf16\nthreads = 4\ncontext = "
                      "4096\n"
                      "chunk-ms = 5\nadmin-group = wheel\n"
                      "[model coder]\npath = /c.gguf\norder = psm\nfim-prefix = <PRE>\nfim-suffix "
                      "= <SUF>\n"
                      "fim-middle = <MID>\nfim-pad = <PAD>\nrepo-name = <REPO>\nfile-sep = <SEP>\n",
                      &why),
                0);
        assert_null(why);
        assert_int_equal(c.n_models, 3);
        assert_string_equal(c.models[1].path, "/b.gguf");
        assert_string_equal(c.models[2].name, "coder");
        assert_string_equal(c.models[2].path, "/c.gguf");
        assert_string_equal(warm_config_model_options(&c.models[2]).fim_suf, "<SUF>");
        assert_string_equal(warm_config_model_options(&c.models[2]).order, "psm");
        assert_string_equal(c.socket, "/run/x.sock");
        assert_int_equal(c.device, WARM_DEVICE_CUDA);
        assert_int_equal(c.cuda_device, 3);
        assert_int_equal(c.gpu_memory_wait_s, 90);
        assert_int_equal(c.gpu_memory_short, WARM_MEMORY_REFUSE);
        assert_true(c.kv_memory == 3ULL << 29);
        assert_int_equal(c.kv_type, WARM_TYPE_BF16);
        assert_int_equal(c.n_threads, 4);
        assert_int_equal(c.n_context, 4096);
        assert_int_equal(c.chunk_ms, 5);
        assert_string_equal(c.admin_group, "wheel");
        warm_config_deinit(&c);
}

static void what_is_wrong_is_named(void **state) {
        (void) state;
        refused("[warmd]\ncolour = red\n", "\"colour\"");
        refused("[else]\na = b\n", "[else]");
        refused("[warmd]\ndevice = gpu\n", "auto, cpu, cuda:N");
        refused("[warmd]\ndevice = cuda:x\n", "cuda:x");
        refused("[warmd]\ngpu-memory-wait = 86401\n", "86400");
        refused("[warmd]\ngpu-memory-short = wait\n", "shrink, refuse");
        refused("[warmd]\nkv-memory = lots\n", "512M");
        refused("[warmd]\nkv-type = q8_0\n", "f16, bf16, f32");
        refused("[warmd]\nthreads = -1\n", "threads");
        refused("[warmd]\nthreads = 1025\n", "1024");
        refused("[warmd]\nsocket = here\n", "absolute");
        refused("[warmd]\nnonsense\n", ":2:");
        refused("[model x]\ncolour = red\n", "fim-prefix");
        refused("[warmd]\nmodel =\n", "GGUF");
}

static void long_lines_and_zero_bytes_are_refused_with_their_line(void **state) {
        char text[2 * WARM_CONFIG_LINE_MAX + 64] = "[warmd]\n; ";
        struct warm_config c;
        char *why = NULL;
        size_t n = strlen(text);

        (void) state;
        memset(text + n, 'x', WARM_CONFIG_LINE_MAX - 2);
        warm_config_init(&c);
        assert_int_equal(parse(&c, text, &why), 0);
        memset(text + n, 'x', WARM_CONFIG_LINE_MAX - 1);
        assert_int_equal(parse(&c, text, &why), -EINVAL);
        assert_non_null(strstr(why, "test.conf:2"));
        free(why);
        why = NULL;
        assert_int_equal(warm_config_parse(&c, "test.conf", "[warmd]\n\0", 9, &why), -EINVAL);
        assert_non_null(strstr(why, "test.conf:2"));
        free(why);
        warm_config_deinit(&c);
}

static void one_model_more_than_the_limit_is_refused(void **state) {
        struct warm_config c;
        char *why = NULL;

        (void) state;
        warm_config_init(&c);
        for (unsigned i = 0; i < WARM_CONFIG_MODELS_MAX; i++)
                assert_int_equal(warm_config_set(&c, "warmd", "model", "/m", &why), 0);
        assert_int_equal(warm_config_set(&c, "warmd", "model", "/m", &why), -EINVAL);
        assert_non_null(strstr(why, "16"));
        free(why);
        why = NULL;
        assert_int_equal(warm_config_set(&c, "model late", "path", "/m", &why), -EINVAL);
        free(why);
        warm_config_deinit(&c);
}

static void sizes_are_powers_of_1024(void **state) {
        uint64_t n = 0;

        (void) state;
        assert_int_equal(warm_parse_size("65536", &n), 0);
        assert_true(n == 65536);
        assert_int_equal(warm_parse_size("512M", &n), 0);
        assert_true(n == 512ULL << 20);
        assert_int_equal(warm_parse_size("2GiB", &n), 0);
        assert_true(n == 2ULL << 30);
        assert_int_equal(warm_parse_size("1.5k", &n), 0);
        assert_true(n == 1536);
        assert_int_equal(warm_parse_size("", &n), -EINVAL);
        assert_int_equal(warm_parse_size("-1", &n), -EINVAL);
        assert_int_equal(warm_parse_size("nan", &n), -EINVAL);
        assert_int_equal(warm_parse_size("2X", &n), -EINVAL);
        assert_int_equal(warm_parse_size("2GG", &n), -EINVAL);
        assert_int_equal(warm_parse_size("99999999T", &n), -ERANGE);
        assert_true(n == 1536);
}

static void write_file(const char *path, const char *text) {
        FILE *f = fopen(path, "w");

        assert_non_null(f);
        assert_true(fputs(text, f) >= 0);
        assert_int_equal(fclose(f), 0);
}

static void drop_ins_follow_in_the_order_of_their_names(void **state) {
        char dir[] = "/tmp/warm-config-XXXXXX", path[128];
        struct warm_config c;
        char *why = NULL;

        (void) state;
        assert_non_null(mkdtemp(dir));
        warm_config_init(&c);
        assert_int_equal(warm_config_read_dir(&c, dir, &why), 0); /* nothing there is no error */
        snprintf(path, sizeof(path), "%s/warmd.conf", dir);
        write_file(path, "[warmd]\nthreads = 1\ncontext = 100\n");
        snprintf(path, sizeof(path), "%s/warmd.conf.d", dir);
        assert_int_equal(mkdir(path, 0700), 0);
        snprintf(path, sizeof(path), "%s/warmd.conf.d/20-b.conf", dir);
        write_file(path, "[warmd]\nthreads = 3\n");
        snprintf(path, sizeof(path), "%s/warmd.conf.d/10-a.conf", dir);
        write_file(path, "[warmd]\nthreads = 2\n");
        snprintf(path, sizeof(path), "%s/warmd.conf.d/30-c.conf~", dir);
        write_file(path, "nonsense\n");
        assert_int_equal(warm_config_read_dir(&c, dir, &why), 0);
        assert_int_equal(c.n_threads, 3);
        assert_int_equal(c.n_context, 100);
        snprintf(path, sizeof(path), "%s/warmd.conf.d/40-d.conf", dir);
        write_file(path, "[warmd]\nthreads = many\n");
        assert_int_equal(warm_config_read_dir(&c, dir, &why), -EINVAL);
        assert_non_null(strstr(why, "40-d.conf"));
        free(why);
        warm_config_deinit(&c);
        snprintf(path, sizeof(path), "rm -r %s", dir);
        assert_int_equal(system(path), 0);
}

static void the_command_line_wins_over_the_file(void **state) {
        char path[] = "/tmp/warm-config-XXXXXX";
        int fd = mkstemp(path);
        const char *argv[] = { "warmd",   "--threads", "7",       "--config", path,
                               "--model", "/x.gguf",   "--check", NULL };
        enum warm_options_mode mode = WARM_OPTIONS_RUN;
        struct warm_config c;
        char *why = NULL;

        (void) state;
        assert_true(fd >= 0);
        close(fd);
        write_file(path, "[warmd]\nthreads = 1\ncontext = 100\nmodel = /a.gguf\nmodel = /b.gguf\n");
        warm_config_init(&c);
        assert_int_equal(warm_options_parse(&c, 8, (char *const *) argv, &mode, &why), 0);
        assert_int_equal(mode, WARM_OPTIONS_CHECK);
        assert_int_equal(c.n_threads, 7);
        assert_int_equal(c.n_context, 100);
        assert_int_equal(c.n_models, 1);
        assert_string_equal(c.models[0].path, "/x.gguf");
        warm_config_deinit(&c);
        unlink(path);
}

static void usage_errors_say_which_argument(void **state) {
        const char *unknown[] = { "warmd", "--colour", NULL };
        const char *missing[] = { "warmd", "--model", NULL };
        const char *extra[] = { "warmd", "model.gguf", NULL };
        const char **const lines[] = { unknown, missing, extra };
        const char *const needles[] = { "--colour", "--model", "model.gguf" };

        (void) state;
        for (size_t i = 0; i < 3; i++) {
                enum warm_options_mode mode;
                struct warm_config c;
                char *why = NULL;

                warm_config_init(&c);
                assert_int_equal(warm_options_parse(&c, 2, (char *const *) lines[i], &mode, &why),
                                 -EINVAL);
                assert_non_null(strstr(why, needles[i]));
                free(why);
                warm_config_deinit(&c);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(every_key_is_read),
                cmocka_unit_test(what_is_wrong_is_named),
                cmocka_unit_test(long_lines_and_zero_bytes_are_refused_with_their_line),
                cmocka_unit_test(one_model_more_than_the_limit_is_refused),
                cmocka_unit_test(sizes_are_powers_of_1024),
                cmocka_unit_test(drop_ins_follow_in_the_order_of_their_names),
                cmocka_unit_test(the_command_line_wins_over_the_file),
                cmocka_unit_test(usage_errors_say_which_argument),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
