/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gpu.h"

/* NVML by its public interface (nvml.h), declared here: no header of it is needed. All return 0 or an error's code. */
struct nvml_memory {
        unsigned long long total, free, used;
};

enum { NVML_CLOCK_SM = 1, NVML_CLOCK_MEMORY = 2 };

struct nvml {
        int (*init)(void);
        int (*shutdown)(void);
        int (*driver)(char *ret_version, unsigned n);
        int (*cuda)(int *ret_version);
        int (*count)(unsigned *ret_n);
        int (*get)(unsigned index, void **ret_device);
        int (*name)(void *device, char *ret_name, unsigned n);
        int (*uuid)(void *device, char *ret_uuid, unsigned n);
        int (*capability)(void *device, int *ret_major, int *ret_minor);
        int (*memory)(void *device, struct nvml_memory *ret_memory);
        int (*mode)(void *device, int *ret_mode);
        int (*persistence)(void *device, int *ret_mode);
        int (*clock)(void *device, int which, unsigned *ret_mhz);
        int (*clock_max)(void *device, int which, unsigned *ret_mhz);
        int (*slow)(void *device, unsigned long long *ret_reasons);
        int (*processes)(void *device, unsigned *n, void *ret_infos);
};

static bool find_functions(void *library, struct nvml *n) {
        const struct {
                const char *name;
                void *slot;
        } functions[] = {
                { "nvmlInit_v2", &n->init },
                { "nvmlShutdown", &n->shutdown },
                { "nvmlSystemGetDriverVersion", &n->driver },
                { "nvmlSystemGetCudaDriverVersion_v2", &n->cuda },
                { "nvmlDeviceGetCount_v2", &n->count },
                { "nvmlDeviceGetHandleByIndex_v2", &n->get },
                { "nvmlDeviceGetName", &n->name },
                { "nvmlDeviceGetUUID", &n->uuid },
                { "nvmlDeviceGetCudaComputeCapability", &n->capability },
                { "nvmlDeviceGetMemoryInfo", &n->memory },
                { "nvmlDeviceGetComputeMode", &n->mode },
                { "nvmlDeviceGetPersistenceMode", &n->persistence },
                { "nvmlDeviceGetClockInfo", &n->clock },
                { "nvmlDeviceGetMaxClockInfo", &n->clock_max },
                { "nvmlDeviceGetCurrentClocksThrottleReasons", &n->slow },
                { "nvmlDeviceGetComputeRunningProcesses", &n->processes },
        };

        for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
                void *function = dlsym(library, functions[i].name);

                if (!function)
                        return false;
                memcpy(functions[i].slot, &function, sizeof(function));
        }
        return true;
}

/* What a GPU cannot tell stays 0. */
static bool ask_gpu(const struct nvml *n, unsigned index, struct warmctl_gpu *g) {
        struct nvml_memory memory = {};
        unsigned long long slow = 0;
        int major = 0, minor = 0, mode = 0, persistence = 0;
        unsigned n_processes = 0;
        void *device = NULL;

        *g = (struct warmctl_gpu){};
        if (n->get(index, &device) != 0 || n->name(device, g->name, sizeof(g->name)) != 0)
                return false;
        (void) n->uuid(device, g->uuid, sizeof(g->uuid));
        (void) n->capability(device, &major, &minor);
        (void) n->memory(device, &memory);
        (void) n->mode(device, &mode);
        (void) n->persistence(device, &persistence);
        (void) n->clock(device, NVML_CLOCK_SM, &g->sm_mhz);
        (void) n->clock_max(device, NVML_CLOCK_SM, &g->sm_mhz_max);
        (void) n->clock(device, NVML_CLOCK_MEMORY, &g->memory_mhz);
        (void) n->clock_max(device, NVML_CLOCK_MEMORY, &g->memory_mhz_max);
        (void) n->slow(device, &slow);
        (void) n->processes(device, &n_processes, NULL); /* with no room it still counts them */
        g->capability = 10 * major + minor;
        g->memory_total = memory.total;
        g->memory_free = memory.free;
        g->mode = (enum warmctl_mode) mode;
        g->persistence = persistence != 0;
        g->slow = slow;
        g->n_processes = n_processes;
        return true;
}

static void ask_nvml(struct warmctl_gpus *s) {
        void *library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
        struct nvml n;
        unsigned count = 0;

        s->nvml = -1;
        if (!library)
                return;
        if (find_functions(library, &n))
                s->nvml = n.init();
        if (s->nvml == 0) {
                (void) n.driver(s->driver, sizeof(s->driver));
                (void) n.cuda(&s->cuda_version);
                (void) n.count(&count);
                for (unsigned i = 0; i < count && s->n < WARMCTL_GPUS_MAX; i++)
                        s->n += ask_gpu(&n, i, &s->each[s->n]);
                n.shutdown();
        }
        dlclose(library);
}

static bool read_line(const char *path, char *ret_line, size_t size) {
        FILE *f = fopen(path, "re");
        bool got = f && fgets(ret_line, (int) size, f);

        if (f)
                fclose(f);
        return got;
}

static bool is_on_bus(void) {
        DIR *dir = opendir("/sys/bus/pci/devices");
        const struct dirent *e;
        bool found = false;

        while (dir && !found && (e = readdir(dir))) {
                char path[512], vendor[32] = "", class[32] = "";

                snprintf(path, sizeof(path), "/sys/bus/pci/devices/%.255s/vendor", e->d_name);
                if (!read_line(path, vendor, sizeof(vendor)) || strtoul(vendor, NULL, 16) != 0x10de)
                        continue;
                snprintf(path, sizeof(path), "/sys/bus/pci/devices/%.255s/class", e->d_name);
                found = read_line(path, class, sizeof(class)) &&
                        strtoul(class, NULL, 16) >> 16 == 0x03;
        }
        if (dir)
                closedir(dir);
        return found;
}

/* The number in "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  ...": the first word with a digit first. */
static void read_module(char ret_version[64]) {
        char line[256], *save = NULL;

        if (!read_line("/proc/driver/nvidia/version", line, sizeof(line)))
                return;
        snprintf(ret_version, 64, "unknown");
        for (char *w = strtok_r(line, " \t\n", &save); w; w = strtok_r(NULL, " \t\n", &save))
                if (w[0] >= '0' && w[0] <= '9') {
                        snprintf(ret_version, 64, "%s", w);
                        return;
                }
}

void warmctl_gpus_take(struct warmctl_gpus *ret_survey) {
        struct warmctl_gpus *s = ret_survey;

        *s = (struct warmctl_gpus){ .on_bus = is_on_bus() };
        read_module(s->module);
        s->uvm_there = access("/dev/nvidia-uvm", F_OK) == 0;
        s->uvm_usable = access("/dev/nvidia-uvm", R_OK | W_OK) == 0;
        ask_nvml(s);
}
