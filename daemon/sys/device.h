/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which device computes: by configuration, by what the models need, and by what is there and free.
 *
 * auto takes the first GPU with room, else the CPU, and the journal says why; cuda:N is that GPU or nothing. Where
 * memory is short one may wait for it (gpu-memory-wait).
 *
 * Thread: main, before any other exists. SIGTERM and SIGINT are blocked: waiting looks for them.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "config.h"
#include "kernels/backend.h"

/* Beside weights and KV: the context (200 to 500 MiB), scratch, and what fragments. Untuned guess. */
#define WARM_DEVICE_MARGIN_BYTES (768ULL << 20)

/* What the configured models need of a device. */
struct warm_device_need {
        uint64_t weights_bytes; /* as large as in their files */
        uint64_t n_parameters;
        uint64_t kv_floor_bytes;  /* one context of each model */
        uint64_t kv_wanted_bytes; /* by configuration, of all together; 0: left to the default */
        uint32_t n_context;       /* of the model with the longest */
};

/* Count a model in. */
void warm_device_need_add(struct warm_device_need *need, const struct warm_model *model,
                          const struct warm_config *config);

/* Free memory without which a start is not worth while, the KV pool as small as configuration lets it become. */
uint64_t warm_device_need_bytes(const struct warm_device_need *need,
                                const struct warm_config *config);

/*
 * What would fit into free_bytes: a shorter context, or the models in a smaller format.
 * Return: a malloc'd clause, like "--context 8192 would fit"; NULL: no memory.
 */
char *warm_device_advise(const struct warm_device_need *need, uint64_t free_bytes);

/* What devices are made of; tests have their own. */
struct warm_device_makers {
        int (*cpu)(const struct warm_backend_config *config, struct warm_backend **ret_backend);
        /* As warm_cuda_backend_new() and warm_cuda_room(); NULL: built without CUDA. */
        int (*cuda)(const struct warm_backend_config *config, struct warm_backend **ret_backend,
                    char **ret_why);
        int (*cuda_room)(int device, uint64_t *ret_free_bytes, char **ret_why);
        uint64_t wait_ns;               /* between two looks at a GPU that is full */
        warm_progress_fn load_progress; /* for the backend made; NULL: nobody looks */
        void *load_userdata;
};

/* Those of this build. Static. */
const struct warm_device_makers *warm_device_makers(void);

/*
 * Make the backend. Tells the journal what was chosen against the wish and why.
 *
 * @param ret_on_gpu whether it is one
 * Return: 0; -EINTR: asked to stop while waiting; another -errno: none can be had, the journal knows.
 */
int warm_device_open(const struct warm_device_makers *makers, const struct warm_config *config,
                     const struct warm_device_need *need, struct warm_backend **ret_backend,
                     bool *ret_on_gpu);

/* The CPU after all, for this reason. Return: 0; -errno, which the journal knows. */
int warm_device_fall_back(const struct warm_device_makers *makers, const struct warm_config *config,
                          const char *why, struct warm_backend **ret_backend);

/* --check: one line about the device that a start would choose, to stdout. Return: whether there is one. */
bool warm_device_print(const struct warm_device_makers *makers, const struct warm_config *config,
                       const struct warm_device_need *need);
