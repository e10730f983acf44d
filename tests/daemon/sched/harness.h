/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the scheduler's tests share: an engine on the fake backend, requests from text, and the slow twin that says
 * what each must answer.
 */
#pragma once

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>

#include <cmocka.h>

#include "fake-backend.h"
#include "sched/engine.h"

#define HARNESS_WAIT_MS 20000 /* until a test gives up */

struct harness {
        struct warm_engine *engine;
        struct fake_backend *fake;
        uint64_t n_ids_given;
        uint64_t n_texts; /* TEXT events seen */
        uint64_t n_faults;
        struct warm_event last_fault;
        uint64_t n_done;
};

struct harness_options {
        uint32_t n_context; /* 0: 512 */
        uint32_t n_models;  /* 0: 1 */
        uint64_t kv_bytes;  /* 0: the default */
        uint64_t cut_seed;
        uint32_t chunk_ns;
        uint64_t step_limit_ns;
        uint32_t await_cores_min;
        bool state; /* the models have a state group */
};

void harness_start(struct harness *h, struct harness_options options);
/* Ask for STATUS, hold that every reference returned to zero, free all. */
void harness_end(struct harness *h);
/* The same without the engine's being asked (it is lost, or stopped). */
void harness_drop(struct harness *h);

/* A raw completion of these bytes, one token a byte; the last n_heal bytes are left to healing. */
struct warm_request *harness_complete(struct harness *h, const char *text, uint32_t n_heal,
                                      uint32_t n_max);
struct warm_request *harness_request(struct harness *h, enum warm_request_kind kind,
                                     const char *text);
void harness_submit(struct harness *h, struct warm_request *r);
/* The next event, however long it takes (20 s). Checks what TEXT tells against the text so far. */
struct warm_event harness_event(struct harness *h);
/* Take events until this request is done. Others that end meanwhile are counted and kept by the caller. */
void harness_wait(struct harness *h, struct warm_request *r);
/* Take events until so many requests are done, in all. */
void harness_wait_done(struct harness *h, uint64_t n_done);
/* Submit, wait. */
void harness_run(struct harness *h, struct warm_request *r);
/*
 * Keep the engine in one long step, so that what is submitted until the release arrives together, however busy the
 * machine is.
 */
struct warm_request *harness_hold(struct harness *h);
/* From now on a step takes step_ns; waits for the one that held and frees its request. */
void harness_release(struct harness *h, struct warm_request *held, uint64_t step_ns);
struct warm_request *harness_status(struct harness *h);

/* What answer `index` of the request must be: ids and the raw text of a greedy run. */
struct expected {
        int32_t ids[1024];
        float logprobs[1024];
        uint32_t n_ids;
        char text[8192];
        uint32_t n_text;
        enum warm_finish finish;
};

void harness_expect(struct harness *h, const struct warm_request *r, uint32_t index,
                    struct expected *ret_expected);
/* Hold an answer against its twin: ids, log-probabilities, text and why it ended. */
void harness_check(struct harness *h, const struct warm_request *r);
