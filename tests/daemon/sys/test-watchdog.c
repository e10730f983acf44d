/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "sys/watchdog.h"

static void it_is_fed_while_steps_are_finished(void **state) {
        struct warm_watchdog w = { .progress_seen = UINT64_MAX };

        (void) state;
        assert_true(warm_watchdog_alive(&w, 0, true));
        assert_true(warm_watchdog_alive(&w, 1, true));
        assert_true(warm_watchdog_alive(&w, 9, true));
}

static void it_is_fed_while_there_is_nothing_to_do(void **state) {
        struct warm_watchdog w = { .progress_seen = UINT64_MAX };

        (void) state;
        assert_true(warm_watchdog_alive(&w, 5, false));
        assert_true(warm_watchdog_alive(&w, 5, false));
}

static void it_starves_when_work_stands_still_and_recovers_with_the_next_step(void **state) {
        struct warm_watchdog w = { .progress_seen = UINT64_MAX };

        (void) state;
        assert_true(warm_watchdog_alive(&w, 5, true));
        assert_false(warm_watchdog_alive(&w, 5, true));
        assert_false(warm_watchdog_alive(&w, 5, true));
        assert_true(warm_watchdog_alive(&w, 6, true));
}

static void nobody_asked_for_it_outside_of_systemd(void **state) {
        struct warm_watchdog w;
        sd_event *event = NULL;

        (void) state;
        unsetenv("WATCHDOG_USEC");
        assert_true(sd_event_new(&event) >= 0);
        assert_int_equal(warm_watchdog_init(&w, event, &(struct warm_watchdog_config){}), 0);
        assert_null(w.timer);
        warm_watchdog_deinit(&w);
        sd_event_unref(event);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(it_is_fed_while_steps_are_finished),
                cmocka_unit_test(it_is_fed_while_there_is_nothing_to_do),
                cmocka_unit_test(it_starves_when_work_stands_still_and_recovers_with_the_next_step),
                cmocka_unit_test(nobody_asked_for_it_outside_of_systemd),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
