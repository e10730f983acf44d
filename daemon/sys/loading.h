/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bar that shows a terminal how far a model's loading is; nothing in a pipe or the journal. It overwrites itself,
 * at most 20 times a second, and is gone when the loading is done: what stays is the journal's line.
 *
 * Embedded. Thread: main, while models are loaded.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct warm_loading {
        FILE *out;        /* borrowed; NULL: not a terminal */
        bool colour;      /* NO_COLOR is not set */
        const char *name; /* of the model that is loaded now, borrowed */
        uint64_t shown_ns;
};

/* @param out stderr: shown only if it is a terminal */
void warm_loading_init(struct warm_loading *l, FILE *out);
/* A model begins. @param name must live until warm_loading_end() */
void warm_loading_begin(struct warm_loading *l, const char *name);
/* A warm_progress_fn. @param userdata the struct warm_loading */
void warm_loading_show(void *userdata, uint64_t done_bytes, uint64_t total_bytes);
/* It is loaded, or refused: take the bar away. */
void warm_loading_end(struct warm_loading *l);
