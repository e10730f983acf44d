/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dump-tiny FOLDER SHAPE: write a tiny random model, a prompt, and what the CPU backend makes of it, for oracle.py.
 *
 * The plan and its tensors: dump-plan.h. tokens.i32 [n]; logits.f32 [n][n_vocab].
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dump-plan.h"
#include "runner.h"

#define N_TOKENS 400U

int main(int argc, char **argv) {
        const struct tiny_shape *s = tiny_shapes;
        int32_t tokens[N_TOKENS];
        uint64_t state = 99;
        struct runner r;
        struct tiny *t;
        float *logits;
        FILE *f;

        while (argc == 3 && s->name && strcmp(s->name, argv[2]))
                s++;
        if (argc != 3 || !s->name) {
                for (s = tiny_shapes; argc == 1 && s->name; s++)
                        puts(s->name);
                return argc == 1 ? 0 : 2;
        }
        t = tiny_new(s, 2024);
        dump_plan(argv[1], &t->plan);

        for (uint32_t i = 0; i < N_TOKENS; i++)
                tokens[i] = (int32_t) (tiny_random_bits(&state) % s->n_vocab);
        logits = malloc((size_t) N_TOKENS * s->n_vocab * sizeof(*logits));
        if (!logits)
                return 1;
        runner_init(&r, &t->plan, _WARM_ISA_N, 2, WARM_TYPE_F16, 0);
        runner_step(&r, tokens, 0, N_TOKENS, logits);
        runner_deinit(&r);
        f = dump_create(argv[1], "tokens.i32");
        dump_put(f, tokens, sizeof(tokens));
        fclose(f);
        f = dump_create(argv[1], "logits.f32");
        dump_put(f, logits, (size_t) N_TOKENS * s->n_vocab * sizeof(*logits));
        fclose(f);
        free(logits);
        tiny_free(t);
        return 0;
}
