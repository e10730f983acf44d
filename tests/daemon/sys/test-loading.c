/* SPDX-License-Identifier: Apache-2.0 */
/* What a terminal sees while a model is loaded, and that a pipe sees nothing. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <pty.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "sys/loading.h"

#define TOTAL 1000U

/* Load something and give back what came out at the other end. */
static void load(int in, FILE *out, char *ret_seen, size_t n_max) {
        struct warm_loading l;
        size_t n_seen = 0;

        warm_loading_init(&l, out);
        warm_loading_begin(&l, "a-model");
        l.shown_ns = 0; /* as if time had passed */
        warm_loading_show(&l, TOTAL / 2, TOTAL);
        warm_loading_show(&l, TOTAL / 2 + 1, TOTAL); /* too soon */
        warm_loading_end(&l);
        warm_loading_show(&l, TOTAL, TOTAL); /* nothing is loaded */
        fputs(".", out);
        fclose(out);
        /* A terminal hands over what it has: until the dot. */
        while (n_seen == 0 || ret_seen[n_seen - 1] != '.') {
                ssize_t n = read(in, ret_seen + n_seen, n_max - 1 - n_seen);

                assert_true(n > 0);
                n_seen += (size_t) n;
        }
        ret_seen[n_seen] = 0;
        close(in);
}

static void load_at_a_terminal(char *ret_seen, size_t n_max) {
        int main_fd, other_fd;

        assert_int_equal(openpty(&main_fd, &other_fd, NULL, NULL, NULL), 0);
        load(main_fd, fdopen(other_fd, "w"), ret_seen, n_max);
}

static void a_terminal_sees_a_bar_that_goes_away(void **state) {
        char seen[1024];

        (void) state;
        unsetenv("NO_COLOR");
        load_at_a_terminal(seen, sizeof(seen));
        assert_string_equal(seen, "\rloading a-model [\033[32m\033[0m                        ]   0%"
                                  "\rloading a-model [\033[32m############\033[0m            ]  50%"
                                  "\r\033[K.");
}

static void no_color_means_no_colour(void **state) {
        char seen[1024];

        (void) state;
        setenv("NO_COLOR", "1", 1);
        load_at_a_terminal(seen, sizeof(seen));
        assert_string_equal(seen, "\rloading a-model [                        ]   0%"
                                  "\rloading a-model [############            ]  50%\r\033[K.");
        unsetenv("NO_COLOR");
}

static void a_pipe_sees_nothing(void **state) {
        char seen[1024];
        int fds[2];

        (void) state;
        assert_int_equal(pipe(fds), 0);
        load(fds[0], fdopen(fds[1], "w"), seen, sizeof(seen));
        assert_string_equal(seen, ".");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_terminal_sees_a_bar_that_goes_away),
                cmocka_unit_test(no_color_means_no_colour),
                cmocka_unit_test(a_pipe_sees_nothing),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
