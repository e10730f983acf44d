/* SPDX-License-Identifier: Apache-2.0 */
#include <systemd/sd-daemon.h>
#include <time.h>

#include "journal.h"
#include "watchdog.h"

bool warm_watchdog_alive(struct warm_watchdog *w, uint64_t progress, bool has_work) {
        bool alive = !has_work || progress != w->progress_seen;

        w->progress_seen = progress;
        return alive;
}

static void starve(struct warm_watchdog *w) {
        const struct warm_watchdog_config *c = &w->config;
        bool hung = c->hang_us > 0 && w->stalled_us < c->hang_us &&
                    w->stalled_us + w->period_us >= c->hang_us;

        w->stalled_us += w->period_us;
        if (w->feed && !w->withheld)
                warm_journal_send(WARM_JOURNAL_WATCHDOG_WITHHELD, LOG_ERR, NULL,
                                  "the engine has work and finished no step for %llu ms; the "
                                  "watchdog is not fed",
                                  (unsigned long long) (w->period_us / 1000));
        w->withheld = true;
        if (hung)
                c->hung(c->userdata);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata) {
        struct warm_watchdog *w = userdata;
        bool has_work = false;
        uint64_t progress = warm_engine_progress(w->config.engine, &has_work);

        if (warm_watchdog_alive(w, progress, has_work)) {
                w->withheld = false;
                w->stalled_us = 0;
                if (w->feed)
                        (void) sd_notify(false, "WATCHDOG=1");
        } else
                starve(w);
        (void) usec;
        return sd_event_source_set_time_relative(source, w->period_us);
}

int warm_watchdog_init(struct warm_watchdog *w, sd_event *event,
                       const struct warm_watchdog_config *config) {
        uint64_t timeout_us = 0;
        int r = sd_watchdog_enabled(false, &timeout_us);

        *w = (struct warm_watchdog){ .config = *config };
        if (r < 0)
                return r;
        w->feed = r > 0;
        if (!w->feed && config->hang_us == 0)
                return 0;
        w->period_us = w->feed ? timeout_us / 3 : config->hang_us / 2;
        if (config->hang_us > 0 && config->hang_us / 2 < w->period_us)
                w->period_us = config->hang_us / 2;
        /* The engine's first look must not count as standing still. */
        w->progress_seen = UINT64_MAX;
        r = sd_event_add_time_relative(event, &w->timer, CLOCK_MONOTONIC, w->period_us,
                                       w->period_us / 10, on_timer, w);
        if (r < 0)
                return r;
        return sd_event_source_set_enabled(w->timer, SD_EVENT_ON);
}

void warm_watchdog_deinit(struct warm_watchdog *w) {
        w->timer = sd_event_source_disable_unref(w->timer);
}
