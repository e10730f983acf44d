/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

#include "build-config.h"
#include "device.h"
#include "journal.h"
#include "sched/kvpool.h"

#define GIB           0x1p30
#define CONTEXT_LEAST 1024U /* tokens; with fewer, completions see too little (untuned guess) */

static const char without_cuda[] =
        "this warmd was built without CUDA: build it where the CUDA Toolkit is (README.md), or use "
        "--device cpu";

void warm_device_need_add(struct warm_device_need *need, const struct warm_model *model,
                          const struct warm_config *config) {
        uint32_t n_context = model->plan.n_context;

        if (config->n_context > 0 && config->n_context < n_context)
                n_context = config->n_context;
        need->weights_bytes += model->file_bytes;
        need->n_parameters += model->n_parameters;
        need->kv_floor_bytes += warm_kvpool_context_bytes(&model->plan, n_context, config->kv_type);
        need->kv_wanted_bytes = config->kv_memory;
        if (n_context > need->n_context)
                need->n_context = n_context;
}

uint64_t warm_device_need_bytes(const struct warm_device_need *need,
                                const struct warm_config *config) {
        uint64_t kv = need->kv_wanted_bytes;

        if (kv == 0 ||
            (config->gpu_memory_short == WARM_MEMORY_SHRINK && kv > need->kv_floor_bytes))
                kv = need->kv_floor_bytes;
        return need->weights_bytes + kv + WARM_DEVICE_MARGIN_BYTES;
}

/* Tokens of context for which there is room beside the weights, in whole 256; 0: too few to be of use. */
static uint32_t context_that_fits(const struct warm_device_need *need, uint64_t free_bytes) {
        uint64_t taken = need->weights_bytes + WARM_DEVICE_MARGIN_BYTES;
        double tokens;

        if (free_bytes <= taken || need->kv_floor_bytes == 0)
                return 0;
        tokens = (double) (free_bytes - taken) / (double) need->kv_floor_bytes * need->n_context;
        if (tokens >= need->n_context || tokens < CONTEXT_LEAST)
                return 0;
        return (uint32_t) tokens / 256 * 256;
}

char *warm_device_advise(const struct warm_device_need *need, uint64_t free_bytes) {
        /* Bits of a weight; of the mixed formats as llama.cpp's quantize tool makes them of a 7B model. */
        static const struct {
                const char *name;
                double bits;
        } formats[] = { { "Q8_0", 8.5 }, { "Q6_K", 6.6 }, { "Q5_K_M", 5.7 }, { "Q4_K_M", 4.9 } };
        uint32_t context = context_that_fits(need, free_bytes);
        double room = (double) free_bytes - (double) WARM_DEVICE_MARGIN_BYTES;
        char *text = NULL;
        int n;

        if (context > 0) {
                n = asprintf(&text, "--context %u would fit", context);
                return n < 0 ? NULL : text;
        }
        for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
                double bytes = (double) need->n_parameters * formats[i].bits / 8;

                if (bytes >= (double) need->weights_bytes ||
                    bytes + (double) need->kv_floor_bytes > room)
                        continue;
                n = asprintf(&text,
                             "in the format %s, with about %.1f GiB of weights, it would fit",
                             formats[i].name, bytes / GIB);
                return n < 0 ? NULL : text;
        }
        return strdup("no context or format would make it fit: use a smaller model");
}

/* How the need is made up, and what would fit. NULL: no memory. */
static char *explain_need(const struct warm_device_makers *makers, const struct warm_config *config,
                          const struct warm_device_need *need, const char *why) {
        const int device = config->device == WARM_DEVICE_CUDA ? (int) config->cuda_device : -1;
        uint64_t free_bytes = 0;
        char *advice, *text = NULL;

        (void) makers->cuda_room(device, &free_bytes, NULL);
        advice = warm_device_advise(need, free_bytes);
        if (asprintf(&text,
                     "%s (%.1f GiB of weights, %.1f GiB for one context, %.1f GiB of working "
                     "memory); end what else uses it (nvidia-smi names it), or: %s",
                     why ? why : "too little memory is free", (double) need->weights_bytes / GIB,
                     (double) need->kv_floor_bytes / GIB, (double) WARM_DEVICE_MARGIN_BYTES / GIB,
                     advice ? advice : "use a smaller model") < 0)
                text = NULL;
        free(advice);
        return text;
}

static int make_cpu(const struct warm_device_makers *makers, const struct warm_config *config,
                    struct warm_backend **ret_backend) {
        const struct warm_backend_config backend = { .n_threads = config->n_threads,
                                                     .load_progress = makers->load_progress,
                                                     .load_userdata = makers->load_userdata };
        int r = makers->cpu(&backend, ret_backend);

        if (r < 0)
                warm_journal_send(WARM_JOURNAL_FAILED, LOG_ERR, NULL,
                                  "starting the CPU backend: %s", strerror(-r));
        return r;
}

int warm_device_fall_back(const struct warm_device_makers *makers, const struct warm_config *config,
                          const char *why, struct warm_backend **ret_backend) {
        /* Nobody misses a GPU where there is none. */
        const bool missed = access("/dev/nvidiactl", F_OK) == 0;
        const char *const fields[] = { "WARM_REASON", why, NULL };

        if (missed || makers->cuda)
                warm_journal_send(WARM_JOURNAL_DEVICE_FALLBACK, missed ? LOG_WARNING : LOG_INFO,
                                  fields, "running on the CPU: %s", why);
        return make_cpu(makers, config, ret_backend);
}

/* Return: false: asked to stop. */
static bool pause_for(uint64_t ns) {
        const struct timespec t = { .tv_sec = (time_t) (ns / 1000000000U),
                                    .tv_nsec = (long) (ns % 1000000000U) };
        sigset_t signals;

        sigemptyset(&signals);
        sigaddset(&signals, SIGTERM);
        sigaddset(&signals, SIGINT);
        return sigtimedwait(&signals, NULL, &t) < 0;
}

/* Make the GPU's backend, waiting as long as configuration says for memory. Return: as makers->cuda; -EINTR. */
static int make_gpu(const struct warm_device_makers *makers, const struct warm_config *config,
                    const struct warm_device_need *need, struct warm_backend **ret_backend,
                    char **ret_why) {
        const struct warm_backend_config backend = {
                .device = config->device == WARM_DEVICE_CUDA ? (int) config->cuda_device : -1,
                .needed_bytes = warm_device_need_bytes(need, config),
                .load_progress = makers->load_progress,
                .load_userdata = makers->load_userdata,
        };
        uint64_t left_ns = config->gpu_memory_wait_s * 1000000000ULL;
        bool told = false;

        for (;;) {
                int r = makers->cuda(&backend, ret_backend, ret_why);

                if (r != WARM_BACKEND_E_MEMORY || left_ns == 0)
                        return r;
                if (!told)
                        warm_journal_send(WARM_JOURNAL_MEMORY_AWAITED, LOG_NOTICE, NULL,
                                          "waiting up to %u s for GPU memory: %s",
                                          config->gpu_memory_wait_s, *ret_why ? *ret_why : "");
                told = true;
                free(*ret_why);
                *ret_why = NULL;
                (void) sd_notifyf(false,
                                  "STATUS=waiting for GPU memory\nEXTEND_TIMEOUT_USEC=%" PRIu64,
                                  makers->wait_ns / 1000 + 30000000);
                if (!pause_for(makers->wait_ns < left_ns ? makers->wait_ns : left_ns))
                        return -EINTR;
                left_ns -= makers->wait_ns < left_ns ? makers->wait_ns : left_ns;
        }
}

int warm_device_open(const struct warm_device_makers *makers, const struct warm_config *config,
                     const struct warm_device_need *need, struct warm_backend **ret_backend,
                     bool *ret_on_gpu) {
        char *why = NULL, *longer = NULL;
        const char *says;
        int r = -ENODEV;

        *ret_on_gpu = false;
        if (config->device == WARM_DEVICE_CPU)
                return make_cpu(makers, config, ret_backend);
        if (makers->cuda && config->kv_type == WARM_TYPE_F32)
                why = strdup("kv-type f32 is for the CPU: a GPU caches context as f16 or bf16");
        else if (makers->cuda)
                r = make_gpu(makers, config, need, ret_backend, &why);
        if (r == 0) {
                free(why);
                *ret_on_gpu = true;
                return 0;
        }
        if (r == WARM_BACKEND_E_MEMORY)
                longer = explain_need(makers, config, need, why);
        says = longer         ? longer
               : why          ? why
               : makers->cuda ? strerror(r < 0 ? -r : ENOMEM)
                              : without_cuda;
        if (r == -EINTR)
                warm_journal_send(WARM_JOURNAL_STOPPING, LOG_INFO, NULL, "stopping");
        else if (config->device == WARM_DEVICE_AUTO)
                r = warm_device_fall_back(makers, config, says, ret_backend);
        else
                warm_journal_send(WARM_JOURNAL_DEVICE_REFUSED, LOG_ERR, NULL, "device cuda:%u: %s",
                                  config->cuda_device, says);
        free(why);
        free(longer);
        return r > 0 ? -ENODEV : r;
}

bool warm_device_print(const struct warm_device_makers *makers, const struct warm_config *config,
                       const struct warm_device_need *need) {
        const int device = config->device == WARM_DEVICE_CUDA ? (int) config->cuda_device : -1;
        const uint64_t needed = warm_device_need_bytes(need, config);
        char *why = NULL, *longer = NULL;
        uint64_t free_bytes = 0;
        int r = -ENODEV;

        if (config->device == WARM_DEVICE_CPU) {
                puts("device: the CPU");
                return true;
        }
        if (makers->cuda)
                r = makers->cuda_room(device, &free_bytes, &why);
        if (r == 0 && free_bytes >= needed)
                printf("device: a GPU with %.1f GiB free, of which %.1f GiB are needed at least\n",
                       (double) free_bytes / GIB, (double) needed / GIB);
        else {
                if (r == 0)
                        longer = explain_need(makers, config, need,
                                              "the GPU has too little memory free");
                printf("device: %s: %s\n", config->device == WARM_DEVICE_AUTO ? "the CPU" : "none",
                       longer         ? longer
                       : why          ? why
                       : makers->cuda ? strerror(-r)
                                      : without_cuda);
                r = -ENODEV;
        }
        free(why);
        free(longer);
        return r == 0 || config->device == WARM_DEVICE_AUTO;
}

const struct warm_device_makers *warm_device_makers(void) {
        static const struct warm_device_makers makers = {
                .cpu = warm_cpu_backend_new,
#ifdef WARM_HAVE_CUDA
                .cuda = warm_cuda_backend_new,
                .cuda_room = warm_cuda_room,
#endif
                .wait_ns = 1000000000,
        };

        return &makers;
}
