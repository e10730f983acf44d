/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An engine that computes nothing: it implements daemon/sched/engine.h in the loop's thread, answers every request
 * with the same text and the same times, and can be told to hold requests until they are released. The model behind
 * it is made of a real vocabulary of 256 bytes and four control tokens; prompts and answers are the real ones.
 */
#pragma once

#include "sched/engine.h"

#define FAKE_TOKEN_PRE    256
#define FAKE_TOKEN_SUF    257
#define FAKE_TOKEN_MID    258
#define FAKE_TOKEN_EOS    259
#define FAKE_TOKENS       260U
#define FAKE_CONTEXT      4096U
#define FAKE_ANSWER       "a + b;\n"
#define FAKE_REQUESTS_MAX 256U /* in place of WARM_ENGINE_REQUESTS_MAX */

struct warm_engine *fake_engine_new(void);

/* While held, requests end by cancel and supersede only. */
void fake_engine_hold(struct warm_engine *e, bool hold);
/* What every answer will say; NULL: FAKE_ANSWER. Borrowed. */
void fake_engine_answer(struct warm_engine *e, const char *text);
/* Every request fails so. */
void fake_engine_fail(struct warm_engine *e, enum warm_failure failure);
/* The device is lost. */
void fake_engine_fault(struct warm_engine *e);
uint32_t fake_engine_n_held(const struct warm_engine *e);
/* The last request submitted, as long as it lives: what the server made of the params. */
const struct warm_request *fake_engine_last(const struct warm_engine *e);
