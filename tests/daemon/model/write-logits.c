/* SPDX-License-Identifier: Apache-2.0 */
/*
 * write-logits MODEL plan FOLDER: write the model's plan and weights for oracle.py (tests/kernels/dump-plan.h).
 * write-logits MODEL logits WINDOW THREADS: tokens come on standard input (int32), WINDOW at a time; each window is a
 * sequence of its own, prefilled in one step on the CPU backend with K and V in binary16; its logits go to standard
 * output, float32 [WINDOW][n_vocab]. For numbers.py.
 */
#include <stdlib.h>
#include <string.h>

#include "dump-plan.h"
#include "model/model.h"
#include "runner.h"

static int write_logits(struct warm_model *m, uint32_t window, uint32_t n_threads) {
        uint64_t n = (uint64_t) window * m->plan.n_vocab;
        int32_t *tokens = malloc(window * sizeof(*tokens));
        float *logits = malloc(n * sizeof(*logits));
        struct runner r;

        if (!tokens || !logits)
                return 1;
        runner_init(&r, &m->plan, _WARM_ISA_N, n_threads, WARM_TYPE_F16, 0);
        warm_model_drop_file(m);
        while (fread(tokens, sizeof(*tokens), window, stdin) == window) {
                runner_step(&r, tokens, 0, window, logits);
                dump_put(stdout, logits, n * sizeof(*logits));
        }
        runner_deinit(&r);
        free(tokens);
        free(logits);
        return fflush(stdout) != 0;
}

int main(int argc, char **argv) {
        struct warm_model *m;
        char *why = NULL;
        int r;

        if (argc < 4) {
                (void) fprintf(stderr, "usage: write-logits MODEL plan FOLDER\n"
                                       "       write-logits MODEL logits WINDOW THREADS\n");
                return 2;
        }
        r = warm_model_open(argv[1], NULL, &m, &why);
        if (r) {
                (void) fprintf(stderr, "%s\n", why ? why : strerror(-r));
                free(why);
                return 1;
        }
        if (argc == 4 && !strcmp(argv[2], "plan")) {
                dump_plan(argv[3], &m->plan);
        } else if (argc == 5 && !strcmp(argv[2], "logits")) {
                uint32_t window = (uint32_t) strtoul(argv[3], NULL, 10);

                if (window == 0 || window > RUNNER_BLOCKS * WARM_BLOCK_TOKENS ||
                    window > WARM_STEP_ROWS_MAX)
                        return 2;
                r = write_logits(m, window, (uint32_t) strtoul(argv[4], NULL, 10));
        } else {
                r = 2;
        }
        warm_model_free(m);
        return r;
}
