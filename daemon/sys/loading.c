/* SPDX-License-Identifier: Apache-2.0 */
#include "loading.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define CELLS   24U
#define EACH_NS (50U * 1000 * 1000) /* between two drawings */

static uint64_t now_ns(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t) t.tv_sec * 1000000000U + (uint64_t) t.tv_nsec;
}

void warm_loading_init(struct warm_loading *l, FILE *out) {
        const char *no_color = getenv("NO_COLOR");

        *l = (struct warm_loading){
                .out = isatty(fileno(out)) ? out : NULL,
                .colour = !no_color || !no_color[0],
        };
}

void warm_loading_begin(struct warm_loading *l, const char *name) {
        l->name = name;
        l->shown_ns = 0;
        warm_loading_show(l, 0, 1);
}

void warm_loading_show(void *userdata, uint64_t done_bytes, uint64_t total_bytes) {
        struct warm_loading *l = userdata;
        uint64_t now = l->out ? now_ns() : 0;
        double part = total_bytes > 0 ? (double) done_bytes / (double) total_bytes : 0;
        int n = (int) (part * CELLS);

        assert(done_bytes <= total_bytes);
        if (!l->out || !l->name || (l->shown_ns > 0 && now - l->shown_ns < EACH_NS))
                return;
        l->shown_ns = now;
        fprintf(l->out, "\rloading %s [%s%.*s%s%*s] %3.0f%%", l->name, l->colour ? "\033[32m" : "",
                n, "########################", l->colour ? "\033[0m" : "", (int) CELLS - n, "",
                100 * part);
        fflush(l->out);
}

void warm_loading_end(struct warm_loading *l) {
        if (l->out && l->name)
                fputs("\r\033[K", l->out);
        l->name = NULL;
}
