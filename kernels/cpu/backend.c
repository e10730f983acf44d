/* SPDX-License-Identifier: Apache-2.0 */
/* The CPU backend's table of operations; the work is in load.c, kv.c, validate.c and step.c. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cpu.h"
#include "kernels/step-check.h"

#define MEASURE_BYTES (1ULL << 30) /* free, four times what a measurement takes (untuned guess) */

static struct warm_cpu_backend *cpu(struct warm_backend *b) {
        return (struct warm_cpu_backend *) b; /* base is the first member */
}

static void *cpu_free(struct warm_backend *b) {
        warm_threads_free(cpu(b)->threads);
        free(b);
        return NULL;
}

/* What the kernel says can be had without swapping; 0 if it does not say. */
static uint64_t memory_available(void) {
        char line[128];
        unsigned long long kib = 0;
        FILE *f = fopen("/proc/meminfo", "re");

        while (f && fgets(line, sizeof(line), f))
                if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
                        break;
        if (f)
                fclose(f);
        return kib * 1024;
}

static void cpu_info(struct warm_backend *b, struct warm_backend_info *ret_info) {
        uint32_t n = warm_threads_count(cpu(b)->threads);
        struct warm_backend_info info = {
                .name = "cpu",
                .numerics = WARM_CPU_NUMERICS,
                .kv_layout = WARM_CPU_KV_LAYOUT,
                .memory_total =
                        (uint64_t) sysconf(_SC_PHYS_PAGES) * (uint64_t) sysconf(_SC_PAGESIZE),
                .memory_free = memory_available(),
                .scratch_bytes = cpu(b)->scratch_bytes,
        };

        snprintf(info.description, sizeof(info.description), "%s, %u thread%s",
                 warm_isa_name(cpu(b)->isa), n, n == 1 ? "" : "s");
        *ret_info = info;
}

static int cpu_load(struct warm_backend *b, const struct warm_plan *plan,
                    struct warm_weights **ret_weights, char **ret_why) {
        return warm_cpu_load(cpu(b), plan, ret_weights, ret_why);
}

static void *cpu_weights_free(struct warm_backend *b, struct warm_weights *w) {
        return warm_cpu_weights_free(cpu(b), w);
}

static uint64_t cpu_weights_bytes(struct warm_backend *b, struct warm_weights *w) {
        (void) b;
        return w->arena_bytes + w->tables_bytes + sizeof(*w);
}

static int cpu_kv_init(struct warm_backend *b, struct warm_weights *w,
                       const struct warm_kv_config *config, struct warm_kv_info *ret_info) {
        (void) b;
        return warm_kv_setup(&w->kv, config, w->n_groups, w->block_values, ret_info);
}

static int cpu_kv_add(struct warm_backend *b, struct warm_weights *w, uint32_t group,
                      uint32_t chunk_index) {
        (void) b;
        return warm_kv_chunk_add(&w->kv, group, chunk_index);
}

static int cpu_kv_remove(struct warm_backend *b, struct warm_weights *w, uint32_t group,
                         uint32_t chunk_index) {
        (void) b;
        return warm_kv_chunk_remove(&w->kv, group, chunk_index);
}

static bool has_block(const void *kv, uint32_t group, uint32_t block) {
        return warm_kv_has(kv, group, block);
}

static int cpu_submit(struct warm_backend *b, struct warm_weights *w, const struct warm_step *step,
                      uint64_t *ret_ticket) {
        struct warm_step_limits limits = {
                .n_vocab = w->n_vocab,
                .n_context = w->n_context,
                .n_groups = w->n_groups,
                .kv = w->kv.ready ? &w->kv : NULL,
                .has = has_block,
        };
        int r;

        memcpy(limits.group_windows, w->group_windows, sizeof(limits.group_windows));
        memcpy(limits.block_values, w->block_values, sizeof(limits.block_values));
        r = warm_step_check(&limits, step);

        if (r < 0)
                return r;
        warm_cpu_step_run(cpu(b), w, step);
        *ret_ticket = ++cpu(b)->n_steps;
        return 0;
}

static int cpu_poll(struct warm_backend *b, uint64_t ticket) {
        (void) b;
        (void) ticket; /* done when submit returned */
        return 0;
}

static int cpu_event_fd(struct warm_backend *b) {
        (void) b;
        return -EOPNOTSUPP;
}

static int cpu_sum_block(struct warm_backend *b, struct warm_weights *w, uint32_t group,
                         uint32_t block, uint64_t *ret_sum) {
        (void) b;
        return warm_kv_block_sum(&w->kv, group, block, ret_sum);
}

static int cpu_export_fds(struct warm_backend *b, struct warm_weights *w, int *fds,
                          uint32_t n_fds_max, uint32_t *ret_n_fds) {
        (void) b;
        return warm_kv_export_fds(&w->kv, fds, n_fds_max, ret_n_fds);
}

static int cpu_import_fds(struct warm_backend *b, struct warm_weights *w, const int *fds,
                          uint32_t n_fds) {
        (void) b;
        return warm_kv_import_fds(&w->kv, fds, n_fds);
}

static int cpu_measure(struct warm_backend *b, double *ret_copy_bytes_per_s,
                       double *ret_flop_per_s) {
        uint64_t available = memory_available();

        if (available > 0 && available < MEASURE_BYTES)
                return WARM_BACKEND_E_MEMORY;
        return warm_cpu_measure(cpu(b), ret_copy_bytes_per_s, ret_flop_per_s);
}

static const struct warm_backend_ops cpu_ops = {
        .free = cpu_free,
        .info = cpu_info,
        .load = cpu_load,
        .weights_free = cpu_weights_free,
        .weights_bytes = cpu_weights_bytes,
        .kv_init = cpu_kv_init,
        .kv_add = cpu_kv_add,
        .kv_remove = cpu_kv_remove,
        .submit = cpu_submit,
        .poll = cpu_poll,
        .event_fd = cpu_event_fd,
        .sum_block = cpu_sum_block,
        .export_fds = cpu_export_fds,
        .import_fds = cpu_import_fds,
        .measure = cpu_measure,
};

int warm_cpu_backend_new_isa(const struct warm_backend_config *config, enum warm_isa most,
                             struct warm_backend **ret_backend) {
        struct warm_cpu_backend *b = calloc(1, sizeof(*b));
        int r;

        if (!b)
                return -ENOMEM;
        b->base.ops = &cpu_ops;
        b->isa = warm_isa_detect(most);
        for (int isa = (int) b->isa; !b->kernels; isa--) /* plain C is always there */
                b->kernels = warm_kernels_get((enum warm_isa) isa);
        b->attention = warm_attention_get(b->isa);
        r = warm_threads_new(config->n_threads, &b->threads);
        if (r < 0) {
                free(b);
                return r;
        }
        b->scratch_bytes = sizeof(*b) + warm_threads_bytes(b->threads);
        b->load_progress = config->load_progress;
        b->load_userdata = config->load_userdata;
        *ret_backend = &b->base;
        return 0;
}

int warm_cpu_backend_new(const struct warm_backend_config *config,
                         struct warm_backend **ret_backend) {
        return warm_cpu_backend_new_isa(config, _WARM_ISA_N, ret_backend);
}
