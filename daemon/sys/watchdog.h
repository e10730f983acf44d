/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Feeds systemd's watchdog, but only while it is true: the loop turns (or this timer would not fire) and the engine
 * finished a step since the last look, or has nothing to do.
 *
 * And looks whether the engine hangs where it cannot see so itself, in a call of a GPU's driver that does not return.
 *
 * Thread: loop. Embedded in the service.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "sched/engine.h"

struct warm_watchdog_config {
        struct warm_engine *engine; /* borrowed */
        uint64_t hang_us;           /* standing still for so long is a hang; 0: do not look */
        void (*hung)(void *userdata);
        void *userdata;
};

struct warm_watchdog {
        struct warm_watchdog_config config;
        sd_event_source *timer; /* owned; NULL: nobody watches us */
        bool feed;              /* systemd wants it */
        uint64_t period_us;
        uint64_t stalled_us; /* how long it has stood still, by looks */
        uint64_t progress_seen;
        bool withheld; /* told the journal already */
};

/* Start, if systemd or the configuration asked for it. Return: 0; -errno. */
int warm_watchdog_init(struct warm_watchdog *w, sd_event *event,
                       const struct warm_watchdog_config *config);
void warm_watchdog_deinit(struct warm_watchdog *w);

/*
 * May it be fed? True unless the engine has work and its counter has stood still since the last call.
 * Split from the timer for its test.
 */
bool warm_watchdog_alive(struct warm_watchdog *w, uint64_t progress, bool has_work);
