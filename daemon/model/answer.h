/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An answer in the making: takes the bytes of each sampled token, says when to stop and what may be shown.
 *
 * Holds back what may still change: an incomplete UTF-8 character, the head of a stop string, what may turn out to
 * repeat the suffix. Text that was once shown never changes. With `raw` only stop strings, `lines` and limits act.
 *
 * Thread: engine. Owner: the request. Memory is taken once, at init.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vocab.h"

#define WARM_STOPS_MAX      16U
#define WARM_STOP_BYTES_MAX 256U

enum warm_finish {
        WARM_FINISH_NONE, /* go on */
        WARM_FINISH_END,  /* the model ended it, or a line came three times */
        WARM_FINISH_STOP, /* a stop string */
        WARM_FINISH_LENGTH,
        WARM_FINISH_LINES,
        WARM_FINISH_INDENT,
        WARM_FINISH_TIME,
        WARM_FINISH_DEADLINE,
        WARM_FINISH_SUPERSEDED,
        WARM_FINISH_CANCELLED,
        _WARM_FINISH_N,
};

/* "end", "stop", ...: as the wire spells them. */
const char *warm_finish_name(enum warm_finish f);

struct warm_answer_config {
        bool raw;
        uint32_t n_heal;           /* bytes at the start that the prompt's end already has */
        uint32_t lines;            /* end after that many lines; 0: no limit */
        uint32_t indent_min;       /* end before a line indented by fewer columns; 0: off */
        struct warm_string suffix; /* what stands after the cursor (its start matters); copied */
        struct warm_string rest; /* the rest of the cursor's line kept out of the prompt; copied */
        struct warm_string stops[WARM_STOPS_MAX]; /* copied */
        uint32_t n_stops;
        uint32_t text_bytes_max; /* longest text that can arise: n_max * longest token, bounded */
};

struct warm_answer;

/* Return: 0; -ENOMEM. */
int warm_answer_new(const struct warm_answer_config *config, struct warm_answer **ret_answer);
struct warm_answer *warm_answer_free(struct warm_answer *a);

/* Back to the start, e.g. for an alternative. */
void warm_answer_reset(struct warm_answer *a);

/*
 * Add the bytes of the next token. Return: WARM_FINISH_NONE to go on; else why it ended (later pushes are ignored).
 */
enum warm_finish warm_answer_push(struct warm_answer *a, const void *bytes, size_t n_bytes);

/*
 * End it for a reason from outside (length, deadline, cancelled, the model's end); a finish decided before stands.
 * Settles what was held back, and cuts what repeats the suffix.
 */
enum warm_finish warm_answer_end(struct warm_answer *a, enum warm_finish why);

/* A line just ended: t_predict_ms acts here. */
bool warm_answer_at_line_end(const struct warm_answer *a);

/* What may be shown now. Borrowed; only grows until the end is settled; stable bytes stay in place. */
struct warm_string warm_answer_text(const struct warm_answer *a);

/* Bytes cut at the end because the suffix has them. */
uint32_t warm_answer_trimmed(const struct warm_answer *a);
