/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The GPUs of this machine, and which of them will do: asked without making a context, so that looking costs neither
 * VRAM nor the power of a GPU that is awake.
 *
 * probe.c asks driver and NVML (both opened at run time) into a survey; device.c judges a survey and is a function of
 * it alone, so that tests can make up machines.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define WARM_CUDA_DEVICES_MAX    64U /* as many as the driver shows; more are not looked at */
#define WARM_CUDA_CAPABILITY_MIN 80  /* sm_80: bf16 and asynchronous copies in hardware */

enum warm_cuda_compute_mode {
        WARM_CUDA_MODE_DEFAULT,
        WARM_CUDA_MODE_PROHIBITED,
        WARM_CUDA_MODE_EXCLUSIVE, /* one process at a time */
};

struct warm_cuda_device {
        int index; /* CUDA's: after CUDA_VISIBLE_DEVICES; nvidia-smi may count otherwise */
        char name[96];
        char uuid[48];  /* "GPU-..."; "" if the driver does not say */
        int capability; /* 10 * major + minor: 90 is sm_90 */
        uint32_t n_sms;
        uint64_t memory_total;
        uint64_t memory_free; /* of all processes; memory_total where free_known is false */
        bool free_known;      /* NVML answered */
        uint32_t n_processes; /* that compute on it now; 0 too where NVML did not answer */
        enum warm_cuda_compute_mode mode;
};

struct warm_cuda_survey {
        int runtime_version; /* 1000 * major + 10 * minor: what warmd was built with */
        int driver_version;  /* the latest CUDA that the driver speaks; 0: there is no driver */
        int error;           /* of the driver when it was started (CUresult); 0: none */
        const char *visible; /* borrowed: CUDA_VISIBLE_DEVICES, or NULL */
        uint32_t n_devices;
        struct warm_cuda_device devices[WARM_CUDA_DEVICES_MAX];
};

/* Ask driver and NVML. Always answers; what is not there is told in the fields. Thread: any. */
void warm_cuda_survey_take(struct warm_cuda_survey *ret_survey);

/*
 * Choose a device of a survey.
 *
 * @param index -1: the first that will do
 * @param needed_bytes of free memory
 * @param ret_why on -ENODEV and WARM_BACKEND_E_MEMORY a malloc'd sentence that says what is in the way of each GPU
 *        that was looked at, and what to do; may be NULL
 * Return: 0; -ENODEV: none will do, whatever its memory; WARM_BACKEND_E_MEMORY: one would, if less of its memory were
 * in use; -ENOMEM.
 */
int warm_cuda_survey_pick(const struct warm_cuda_survey *survey, int index, uint64_t needed_bytes,
                          struct warm_cuda_device *ret_device, char **ret_why);

/* As warm_cuda_room(), of a survey. */
int warm_cuda_survey_room(const struct warm_cuda_survey *survey, int index,
                          uint64_t *ret_free_bytes, char **ret_why);

/* Ask and choose. Return: as warm_cuda_survey_pick(). */
int warm_cuda_device_pick(int index, uint64_t needed_bytes, struct warm_cuda_device *ret_device,
                          char **ret_why);

/*
 * A function of the driver, as of the CUDA version that its declaration in cuda.h asks for (cudaTypedefs.h:
 * PFN_cuMemCreate_v10020 is 10020). Makes no context.
 * Return: 0; -ENOSYS: the driver, or there being none, does not have it.
 */
int warm_cuda_driver_function(const char *name, unsigned version, void **ret_function);
