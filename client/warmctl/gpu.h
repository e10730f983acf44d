/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this machine has of NVIDIA's: asked of /sys, /proc/driver/nvidia and NVML (libnvidia-ml.so.1, which comes with
 * the driver and is opened at run time), never of CUDA. doctor-gpu.c judges it and is a function of it alone.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "doctor.h"

#define WARMCTL_GPUS_MAX       16U
#define WARMCTL_CAPABILITY_MIN 80 /* as kernels/cuda/device.h has it */

/* nvml.h: NVML_CLOCKS_THROTTLE_REASON_*, those that somebody can do something about. */
#define WARMCTL_SLOW_BY_SETTING 0x002ULL
#define WARMCTL_SLOW_BY_HEAT    0x060ULL
#define WARMCTL_SLOW_BY_POWER   0x080ULL
#define WARMCTL_SLOW_BY_BOARD   0x008ULL

enum warmctl_mode {
        WARMCTL_MODE_DEFAULT,
        WARMCTL_MODE_EXCLUSIVE_THREAD,
        WARMCTL_MODE_PROHIBITED,
        WARMCTL_MODE_EXCLUSIVE
};

struct warmctl_gpu {
        char name[96];
        char uuid[96];
        int capability; /* 10 * major + minor */
        uint64_t memory_total, memory_free;
        enum warmctl_mode mode;
        bool persistence;
        uint32_t sm_mhz, sm_mhz_max, memory_mhz, memory_mhz_max; /* 0: not told */
        uint64_t slow;                                           /* WARMCTL_SLOW_BY_* and others */
        uint32_t n_processes;
};

struct warmctl_gpus {
        bool on_bus;                /* a display controller of NVIDIA's */
        char module[64];            /* the kernel module's version; "": it is not loaded */
        bool uvm_there, uvm_usable; /* /dev/nvidia-uvm */
        int nvml;                   /* 0; NVML's error code; -1: the library is missing */
        char driver[80];
        int cuda_version; /* the latest CUDA that the driver speaks: 1000 * major + 10 * minor */
        uint32_t n;
        struct warmctl_gpu each[WARMCTL_GPUS_MAX];
};

/* Always answers; what is not there is told in the fields. */
void warmctl_gpus_take(struct warmctl_gpus *ret_survey);

/*
 * Tell what is there and what to do.
 *
 * @param built the version of the CUDA Toolkit that warmd was built with, "13.0", or NULL
 * Return: whether a GPU could be used, were it free.
 */
bool warmctl_gpus_judge(struct doctor *d, const struct warmctl_gpus *survey, const char *built);
