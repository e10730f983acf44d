/* SPDX-License-Identifier: Apache-2.0 */
/* What `warmctl doctor` says of GPUs, and what to do about each. */
#include <stdlib.h>
#include <string.h>

#include "gpu.h"

#define GIB 0x1p30

enum { NVML_NO_PERMISSION = 4, NVML_NOT_LOADED = 9, NVML_MISMATCH = 18 };

/* The driver itself. Return: whether there is more to look at. */
static bool judge_driver(struct doctor *d, const struct warmctl_gpus *s) {
        if (s->n == 0 && !s->on_bus && s->module[0] == '\0') {
                warmctl_doctor_tell(d, GOOD, "gpu",
                                    "no NVIDIA GPU: the CPU backend is the right one");
                return false;
        }
        if (s->module[0] == '\0' && s->nvml != 0) {
                warmctl_doctor_tell(
                        d, ADVICE, "driver",
                        "there is an NVIDIA GPU and its kernel module is not loaded: install "
                        "the driver (Debian: nvidia-driver), or `modprobe nvidia`");
                return false;
        }
        if (s->nvml == -1)
                warmctl_doctor_tell(
                        d, ADVICE, "driver",
                        "the kernel module %s is loaded, and its libraries are missing "
                        "(libnvidia-ml.so.1; Debian: libnvidia-ml1, libcuda1): install them",
                        s->module);
        else if (s->nvml == NVML_MISMATCH)
                warmctl_doctor_tell(
                        d, BAD, "driver",
                        "the kernel module (%s) and the driver's libraries are of different "
                        "versions, after an upgrade: restart the machine",
                        s->module);
        else if (s->nvml == NVML_NO_PERMISSION)
                warmctl_doctor_tell(
                        d, BAD, "driver",
                        "you may not open /dev/nvidiactl and /dev/nvidia0: look at their "
                        "permissions (groups video, render)");
        else if (s->nvml != 0)
                warmctl_doctor_tell(
                        d, BAD, "driver",
                        "the driver does not answer (NVML error %d): see nvidia-smi, and "
                        "`journalctl -k` for lines with NVRM or Xid",
                        s->nvml);
        else
                warmctl_doctor_tell(d, GOOD, "driver", "driver %s speaks CUDA %d.%d", s->driver,
                                    s->cuda_version / 1000, s->cuda_version % 1000 / 10);
        return s->nvml == 0;
}

/* What warmd was built with, against the driver. Return: whether they fit. */
static bool judge_runtime(struct doctor *d, const struct warmctl_gpus *s, const char *built) {
        const int major = built ? atoi(built) : 0;

        if (!built) {
                warmctl_doctor_tell(
                        d, ADVICE, "toolkit",
                        "this version was built without CUDA: install the CUDA Toolkit (11.8 to "
                        "%d; NVIDIA's, or Debian's nvidia-cuda-toolkit) and build it again",
                        s->cuda_version / 1000);
                return false;
        }
        if (major > s->cuda_version / 1000) {
                warmctl_doctor_tell(
                        d, BAD, "toolkit",
                        "built with CUDA %s, and the driver speaks %d.%d: update the driver, or "
                        "build with CUDA Toolkit %d",
                        built, s->cuda_version / 1000, s->cuda_version % 1000 / 10,
                        s->cuda_version / 1000);
                return false;
        }
        warmctl_doctor_tell(d, GOOD, "toolkit", "built with CUDA %s, which the driver speaks",
                            built);
        if (s->uvm_usable)
                return true;
        warmctl_doctor_tell(
                d, BAD, "uvm",
                s->uvm_there ? "/dev/nvidia-uvm may not be opened by you: look at its permissions"
                             : "/dev/nvidia-uvm is not there, and a service cannot make it: "
                               "`nvidia-modprobe -u -c 0`, as root, at each start");
        return false;
}

/* Return: whether nothing but memory could be in the way. */
static bool judge_mode(struct doctor *d, const struct warmctl_gpu *g, unsigned index) {
        char key[24];

        snprintf(key, sizeof(key), "mode%u", index);
        switch (g->mode) {
        case WARMCTL_MODE_PROHIBITED:
                warmctl_doctor_tell(
                        d, BAD, key,
                        "GPU %u is in compute mode prohibited: `nvidia-smi -i %s -c DEFAULT`, "
                        "as root",
                        index, g->uuid);
                return false;
        case WARMCTL_MODE_EXCLUSIVE:
        case WARMCTL_MODE_EXCLUSIVE_THREAD:
                warmctl_doctor_tell(
                        d, ADVICE, key,
                        "GPU %u is in compute mode exclusive, and %s: `nvidia-smi -i %s -c "
                        "DEFAULT`, as root, lets several programs use it",
                        index, g->n_processes > 0 ? "a process has it" : "nobody has it", g->uuid);
                return true;
        default:
                warmctl_doctor_tell(d, GOOD, key, "GPU %u lets several programs compute", index);
                return true;
        }
}

static void judge_memory(struct doctor *d, const struct warmctl_gpu *g, unsigned index) {
        char key[24];

        snprintf(key, sizeof(key), "vram%u", index);
        warmctl_doctor_tell(
                d, g->memory_free < g->memory_total / 4 ? ADVICE : GOOD, key,
                "GPU %u has %.1f GiB of %.1f GiB free%s", index, (double) g->memory_free / GIB,
                (double) g->memory_total / GIB,
                g->memory_free < g->memory_total / 4
                        ? ": nvidia-smi names who has the rest (warmd may be among them)"
                        : "");
}

static void judge_clocks(struct doctor *d, const struct warmctl_gpu *g, unsigned index) {
        char key[24];

        snprintf(key, sizeof(key), "clocks%u", index);
        if (g->slow & WARMCTL_SLOW_BY_HEAT)
                warmctl_doctor_tell(
                        d, ADVICE, key,
                        "GPU %u is slowed down by heat (%u of %u MHz): see to its cooling", index,
                        g->sm_mhz, g->sm_mhz_max);
        else if (g->slow & (WARMCTL_SLOW_BY_POWER | WARMCTL_SLOW_BY_BOARD))
                warmctl_doctor_tell(
                        d, ADVICE, key,
                        "GPU %u is slowed down by its board or power supply (%u of %u MHz): see "
                        "`nvidia-smi -q -d PERFORMANCE`",
                        index, g->sm_mhz, g->sm_mhz_max);
        else if (g->slow & WARMCTL_SLOW_BY_SETTING)
                warmctl_doctor_tell(
                        d, ADVICE, key,
                        "GPU %u is held to set clocks (%u of %u MHz): `nvidia-smi -i %s -rac`, "
                        "as root, lets it run freely",
                        index, g->sm_mhz, g->sm_mhz_max, g->uuid);
        else if (g->sm_mhz_max == 0)
                warmctl_doctor_tell(d, GOOD, key, "GPU %u does not tell its clocks", index);
        else
                warmctl_doctor_tell(
                        d, GOOD, key,
                        "GPU %u may run at %u MHz, its memory at %u MHz (now %u and %u)", index,
                        g->sm_mhz_max, g->memory_mhz_max, g->sm_mhz, g->memory_mhz);
}

/* Return: whether it could be used, were it free. */
static bool judge_gpu(struct doctor *d, const struct warmctl_gpu *g, unsigned index) {
        char key[24];
        bool usable;

        snprintf(key, sizeof(key), "gpu%u", index);
        if (g->capability < WARMCTL_CAPABILITY_MIN) {
                warmctl_doctor_tell(
                        d, ADVICE, key,
                        "GPU %u is a %s of compute capability %d.%d, and warmd uses 8.0 and "
                        "later (RTX 30 series, A100): it will run on the CPU",
                        index, g->name, g->capability / 10, g->capability % 10);
                return false;
        }
        warmctl_doctor_tell(d, GOOD, key, "GPU %u is a %s of compute capability %d.%d", index,
                            g->name, g->capability / 10, g->capability % 10);
        usable = judge_mode(d, g, index);
        judge_memory(d, g, index);
        judge_clocks(d, g, index);
        snprintf(key, sizeof(key), "persist%u", index);
        if (g->persistence)
                warmctl_doctor_tell(d, GOOD, key, "GPU %u stays initialised (persistence mode)",
                                    index);
        else
                warmctl_doctor_tell(
                        d, ADVICE, key,
                        "GPU %u is initialised anew whenever nobody had it open, which costs a "
                        "start seconds: enable nvidia-persistenced, or `nvidia-smi -i %s -pm 1`, "
                        "as root",
                        index, g->uuid);
        return usable;
}

bool warmctl_gpus_judge(struct doctor *d, const struct warmctl_gpus *survey, const char *built) {
        bool usable = false, runs;

        if (!judge_driver(d, survey))
                return false;
        runs = judge_runtime(d, survey, built);
        if (survey->n == 0)
                warmctl_doctor_tell(d, BAD, "gpu", "the driver shows no GPU: see `nvidia-smi -L`");
        for (uint32_t i = 0; i < survey->n; i++)
                usable |= judge_gpu(d, &survey->each[i], i);
        return usable && runs;
}
