/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/cpu/cpu.h"
#include "runner.h"

/* Through the exported fds, as only the backend has addresses. */
static void spoil(struct runner *r) {
        int fds[WARM_PLAN_GROUPS_MAX * RUNNER_BLOCKS];
        uint32_t n;

        if (warm_kv_export(r->backend, r->weights, fds, sizeof(fds) / sizeof(*fds), &n))
                abort();
        for (uint32_t i = 0; i < n; i++) {
                off_t bytes = lseek(fds[i], 0, SEEK_END);
                void *p = mmap(NULL, (size_t) bytes, PROT_WRITE, MAP_SHARED, fds[i], 0);

                assert(p != MAP_FAILED);
                memset(p, 0xff, (size_t) bytes);
                munmap(p, (size_t) bytes);
                close(fds[i]);
        }
}

void runner_init_on(struct runner *r, struct warm_backend *backend, const struct warm_plan *plan,
                    enum warm_type kv_type, uint64_t table_seed) {
        struct warm_kv_config kv = { .type = kv_type };

        *r = (struct runner){ .backend = backend, .n_vocab = plan->n_vocab };
        if (warm_backend_load(r->backend, plan, &r->weights, NULL))
                abort();
        for (uint32_t g = 0; g < plan->n_groups; g++)
                kv.n_blocks_max[g] = RUNNER_BLOCKS;
        if (warm_kv_init(r->backend, r->weights, &kv, &r->info))
                abort();
        for (uint32_t g = 0; g < plan->n_groups; g++) {
                for (uint32_t c = 0; c * r->info.blocks_per_chunk[g] < RUNNER_BLOCKS; c++)
                        if (warm_kv_add(r->backend, r->weights, g, c))
                                abort();
                for (uint32_t i = 0; i < RUNNER_BLOCKS; i++) {
                        uint32_t j = table_seed
                                             ? (uint32_t) (tiny_random_bits(&table_seed) % (i + 1))
                                             : i;

                        r->table[g][i] = r->table[g][j];
                        r->table[g][j] = i;
                }
                r->sequence.blocks[g] = r->table[g];
        }
        r->sequence.n_blocks = RUNNER_BLOCKS;
}

void runner_init(struct runner *r, const struct warm_plan *plan, enum warm_isa isa,
                 uint32_t n_threads, enum warm_type kv_type, uint64_t table_seed) {
        struct warm_backend_config config = { .n_threads = n_threads };
        struct warm_backend *backend;

        if (warm_cpu_backend_new_isa(&config, isa, &backend))
                abort();
        runner_init_on(r, backend, plan, kv_type, table_seed);
        spoil(r);
}

void runner_deinit(struct runner *r) {
        warm_weights_free(r->backend, r->weights);
        warm_backend_free(r->backend);
}

struct warm_row runner_row(int32_t token, uint32_t slot) {
        return (struct warm_row){
                .token = token,
                .position = slot,
                .slot = slot,
                .hi = slot + 1,
                .mask = UINT64_MAX,
        };
}

void runner_step(struct runner *r, const int32_t *tokens, uint32_t begin, uint32_t end,
                 float *logits) {
        uint32_t n = end - begin;
        struct warm_row *rows = calloc(n, sizeof(*rows));
        struct warm_result *results = calloc(n, sizeof(*results));
        struct warm_step step = {
                .sequences = &r->sequence,
                .n_sequences = 1,
                .rows = rows,
                .n_rows = n,
        };
        uint64_t ticket;

        assert(rows && results);
        for (uint32_t i = 0; i < n; i++) {
                rows[i] = runner_row(tokens[begin + i], begin + i);
                if (!logits)
                        continue;
                rows[i].want = WARM_WANT_LOGITS;
                rows[i].result = &results[i];
                results[i].logits = logits + (uint64_t) (begin + i) * r->n_vocab;
        }
        if (warm_step_submit(r->backend, r->weights, &step, &ticket) ||
            warm_step_poll(r->backend, ticket))
                abort();
        free(rows);
        free(results);
}
