/* SPDX-License-Identifier: Apache-2.0 */
/* Which GPU will do: a function of the survey. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "kernels/backend.h"

#define GIB 0x1p30

/* A sentence, or several. Sticky: the first failure to allocate is kept. */
struct why {
        char *text; /* owned */
        int error;
};

static void __attribute__((format(printf, 2, 3))) say(struct why *why, const char *format, ...) {
        char *more = NULL, *all = NULL;
        va_list ap;
        int n;

        va_start(ap, format);
        n = vasprintf(&more, format, ap);
        va_end(ap);
        if (n < 0) {
                why->error = -ENOMEM;
                return;
        }
        if (!why->text) {
                why->text = more;
                return;
        }
        if (asprintf(&all, "%s; %s", why->text, more) < 0)
                why->error = -ENOMEM;
        else {
                free(why->text);
                why->text = all;
        }
        free(more);
}

static int hand_over(struct why *why, int r, char **ret_why) {
        if (why->error < 0) {
                free(why->text);
                return why->error;
        }
        if (ret_why)
                *ret_why = why->text;
        else
                free(why->text);
        return r;
}

/* What keeps every GPU from being used. Return: false: nothing. */
static bool driver_is_unfit(const struct warm_cuda_survey *s, struct why *why) {
        const int built = s->runtime_version, has = s->driver_version;

        if (has == 0)
                say(why, "there is no NVIDIA driver (libcuda.so.1 is missing, or its kernel module "
                         "is not loaded): install it, or use --device cpu");
        else if (has / 1000 < built / 1000) /* within a major version older drivers do */
                say(why,
                    "the NVIDIA driver speaks CUDA %d.%d and this warmd was built with %d.%d: "
                    "update the driver, or build warmd with CUDA Toolkit %d",
                    has / 1000, has % 1000 / 10, built / 1000, built % 1000 / 10, has / 1000);
        else if (s->error != 0)
                say(why,
                    "the NVIDIA driver does not start (CUDA error %d): see whether nvidia-smi "
                    "works, whether /dev/nvidia-uvm is there (`nvidia-modprobe -u -c 0`, as root, "
                    "makes it) and whether this user may open it; after an upgrade of the driver, "
                    "restart the machine",
                    s->error);
        else if (s->n_devices == 0 && s->visible)
                say(why,
                    "the NVIDIA driver shows no GPU, and CUDA_VISIBLE_DEVICES is \"%s\": unset it",
                    s->visible);
        else if (s->n_devices == 0)
                say(why, "the NVIDIA driver shows no GPU: see what nvidia-smi says");
        else
                return false;
        return true;
}

static void say_absent(const struct warm_cuda_survey *s, int index, struct why *why) {
        char list[512] = "";
        size_t n = 0;

        for (uint32_t i = 0; i < s->n_devices && n < sizeof(list); i++) {
                int k = snprintf(list + n, sizeof(list) - n, "%scuda:%d (%s)", i ? ", " : "",
                                 s->devices[i].index, s->devices[i].name);

                n += k > 0 ? (size_t) k : 0;
        }
        say(why, "there is no cuda:%d; there %s %s", index, s->n_devices == 1 ? "is" : "are", list);
}

/* Return: 0; -ENODEV; WARM_BACKEND_E_MEMORY: both with a sentence. */
static int judge(const struct warm_cuda_device *d, uint64_t needed_bytes, struct why *why) {
        char who[128];

        snprintf(who, sizeof(who), "cuda:%d (%s)", d->index, d->name);
        if (d->capability < WARM_CUDA_CAPABILITY_MIN) {
                say(why,
                    "%s has compute capability %d.%d and %d.%d is the least that warmd can use "
                    "(RTX 30 series, A100 and later): use another GPU, or --device cpu",
                    who, d->capability / 10, d->capability % 10, WARM_CUDA_CAPABILITY_MIN / 10,
                    WARM_CUDA_CAPABILITY_MIN % 10);
                return -ENODEV;
        }
        if (d->mode == WARM_CUDA_MODE_PROHIBITED) {
                say(why,
                    "%s is in compute mode prohibited: `nvidia-smi -i %s -c DEFAULT`, as root, "
                    "lets programs use it",
                    who, d->uuid);
                return -ENODEV;
        }
        if (d->mode == WARM_CUDA_MODE_EXCLUSIVE && d->n_processes > 0) {
                say(why,
                    "%s is in compute mode exclusive and another process has it: end that one "
                    "(nvidia-smi names it), or `nvidia-smi -i %s -c DEFAULT`, as root",
                    who, d->uuid);
                return -ENODEV;
        }
        if (d->memory_free < needed_bytes) {
                say(why,
                    "%s has %.1f GiB of %.1f GiB free and %.1f GiB are needed: %.1f GiB are "
                    "missing",
                    who, (double) d->memory_free / GIB, (double) d->memory_total / GIB,
                    (double) needed_bytes / GIB, (double) (needed_bytes - d->memory_free) / GIB);
                return WARM_BACKEND_E_MEMORY;
        }
        return 0;
}

int warm_cuda_survey_pick(const struct warm_cuda_survey *survey, int index, uint64_t needed_bytes,
                          struct warm_cuda_device *ret_device, char **ret_why) {
        struct why why = {};
        int result = -ENODEV;
        bool looked = false;

        if (driver_is_unfit(survey, &why))
                return hand_over(&why, -ENODEV, ret_why);
        for (uint32_t i = 0; i < survey->n_devices; i++) {
                int r;

                if (index >= 0 && survey->devices[i].index != index)
                        continue;
                looked = true;
                r = judge(&survey->devices[i], needed_bytes, &why);
                if (r == 0) {
                        free(why.text); /* of those before it */
                        *ret_device = survey->devices[i];
                        return 0;
                }
                if (r == WARM_BACKEND_E_MEMORY)
                        result = r;
        }
        if (!looked)
                say_absent(survey, index, &why);
        return hand_over(&why, result, ret_why);
}

int warm_cuda_survey_room(const struct warm_cuda_survey *survey, int index,
                          uint64_t *ret_free_bytes, char **ret_why) {
        struct warm_cuda_device d;
        uint64_t most = 0;
        /* First whether there is one at all, and the words if not. */
        int r = warm_cuda_survey_pick(survey, index, 0, &d, ret_why);

        if (r != 0)
                return r;
        for (uint32_t i = 0; i < survey->n_devices; i++) {
                const struct warm_cuda_device *each = &survey->devices[i];

                if ((index < 0 || each->index == index) && each->memory_free > most &&
                    warm_cuda_survey_pick(survey, each->index, 0, &d, NULL) == 0)
                        most = each->memory_free;
        }
        *ret_free_bytes = most;
        return 0;
}

int warm_cuda_room(int device, uint64_t *ret_free_bytes, char **ret_why) {
        struct warm_cuda_survey *survey = malloc(sizeof(*survey));
        int r;

        if (!survey)
                return -ENOMEM;
        warm_cuda_survey_take(survey);
        r = warm_cuda_survey_room(survey, device, ret_free_bytes, ret_why);
        free(survey);
        return r;
}

int warm_cuda_device_pick(int index, uint64_t needed_bytes, struct warm_cuda_device *ret_device,
                          char **ret_why) {
        struct warm_cuda_survey *survey = malloc(sizeof(*survey));
        int r;

        if (!survey)
                return -ENOMEM;
        warm_cuda_survey_take(survey);
        r = warm_cuda_survey_pick(survey, index, needed_bytes, ret_device, ret_why);
        free(survey);
        return r;
}
