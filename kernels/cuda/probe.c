/* SPDX-License-Identifier: Apache-2.0 */
/* What driver and NVML say of the GPUs. Neither is linked. */
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"

/* Of the driver's library: its version, and the function that finds the others (11.3 and later). */
static pthread_once_t library_once = PTHREAD_ONCE_INIT;
static CUresult (*library_version)(int *ret_version);
static CUresult (*library_find)(const char *name, void **ret_function, int version,
                                cuuint64_t flags);

static void library_open(void) {
        void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL); /* for good */
        void *function;

        if (!library)
                return;
        function = dlsym(library, "cuDriverGetVersion");
        memcpy(&library_version, &function, sizeof(function));
        function = dlsym(library, "cuGetProcAddress");
        memcpy(&library_find, &function, sizeof(function));
}

/* From the driver itself: a survey calls nothing of the runtime, and so makes no context. */
int warm_cuda_driver_function(const char *name, unsigned version, void **ret_function) {
        void *function = NULL;

        if (pthread_once(&library_once, library_open) || !library_find ||
            library_find(name, &function, (int) version, CU_GET_PROC_ADDRESS_DEFAULT) !=
                    CUDA_SUCCESS ||
            !function)
                return -ENOSYS;
        *ret_function = function;
        return 0;
}

/* What of the driver is asked here. */
struct driver {
        CUresult (*init)(unsigned flags);
        CUresult (*count)(int *ret_count);
        CUresult (*get)(CUdevice *ret_device, int index);
        CUresult (*name)(char *ret_name, int n, CUdevice device);
        CUresult (*uuid)(CUuuid *ret_uuid, CUdevice device);
        CUresult (*memory)(size_t *ret_bytes, CUdevice device);
        CUresult (*attribute)(int *ret_value, CUdevice_attribute attribute, CUdevice device);
};

static int find_driver(struct driver *d) {
        const struct {
                const char *name;
                unsigned version;
                void *slot;
        } functions[] = {
                { "cuInit", 2000, &d->init },
                { "cuDeviceGetCount", 2000, &d->count },
                { "cuDeviceGet", 2000, &d->get },
                { "cuDeviceGetName", 2000, &d->name },
                { "cuDeviceGetUuid", 11040, &d->uuid },
                { "cuDeviceTotalMem", 3020, &d->memory },
                { "cuDeviceGetAttribute", 2000, &d->attribute },
        };

        for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
                void *function;
                int r = warm_cuda_driver_function(functions[i].name, functions[i].version,
                                                  &function);

                if (r < 0)
                        return r;
                memcpy(functions[i].slot, &function, sizeof(function));
        }
        return 0;
}

/* NVML by its public interface (nvml.h, version 2 of each name), declared here so that no header of it is needed. */
struct nvml_memory {
        unsigned long long total, free, used;
};

struct nvml {
        void *library;
        int (*init)(void);
        int (*shutdown)(void);
        int (*by_uuid)(const char *uuid, void **ret_device);
        int (*memory)(void *device, struct nvml_memory *ret_memory);
        int (*processes)(void *device, unsigned *n, void *ret_infos);
};

static bool open_nvml(struct nvml *n) {
        const struct {
                const char *name;
                void *slot;
        } functions[] = {
                { "nvmlInit_v2", &n->init },
                { "nvmlShutdown", &n->shutdown },
                { "nvmlDeviceGetHandleByUUID", &n->by_uuid },
                { "nvmlDeviceGetMemoryInfo", &n->memory },
                { "nvmlDeviceGetComputeRunningProcesses", &n->processes },
        };

        n->library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
        if (!n->library)
                return false;
        for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
                void *function = dlsym(n->library, functions[i].name);

                if (!function) {
                        dlclose(n->library);
                        return false;
                }
                memcpy(functions[i].slot, &function, sizeof(function));
        }
        if (n->init() != 0) {
                dlclose(n->library);
                return false;
        }
        return true;
}

static void close_nvml(struct nvml *n) {
        n->shutdown();
        dlclose(n->library);
}

/* How full a device is: the driver would tell only inside a context. */
static void ask_nvml(const struct nvml *n, struct warm_cuda_device *d) {
        struct nvml_memory memory = {};
        unsigned n_processes = 0;
        void *device = NULL;

        if (d->uuid[0] == '\0' || n->by_uuid(d->uuid, &device) != 0)
                return;
        if (n->memory(device, &memory) == 0) {
                /* NVML's total holds what the driver keeps for itself. */
                d->memory_free = memory.free < d->memory_total ? memory.free : d->memory_total;
                d->free_known = true;
        }
        /* With no room to write to it says how many there are. */
        (void) n->processes(device, &n_processes, NULL);
        d->n_processes = n_processes;
}

static void write_uuid(const CUuuid *uuid, char ret_text[48]) {
        const unsigned char *b = (const unsigned char *) uuid->bytes;

        snprintf(ret_text, 48,
                 "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
                 b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13],
                 b[14], b[15]);
}

/* Return: whether the driver answered. */
static bool ask_driver(const struct driver *driver, int index, struct warm_cuda_device *d) {
        int major = 0, minor = 0, sms = 0, mode = 0;
        size_t bytes = 0;
        CUdevice device;
        CUuuid uuid;

        *d = (struct warm_cuda_device){ .index = index };
        if (driver->get(&device, index) != CUDA_SUCCESS ||
            driver->memory(&bytes, device) != CUDA_SUCCESS ||
            driver->attribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device) !=
                    CUDA_SUCCESS)
                return false;
        (void) driver->attribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device);
        (void) driver->attribute(&sms, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device);
        (void) driver->attribute(&mode, CU_DEVICE_ATTRIBUTE_COMPUTE_MODE, device);
        if (driver->name(d->name, sizeof(d->name), device) != CUDA_SUCCESS)
                snprintf(d->name, sizeof(d->name), "a GPU without a name");
        if (driver->uuid(&uuid, device) == CUDA_SUCCESS)
                write_uuid(&uuid, d->uuid);
        d->capability = 10 * major + minor;
        d->n_sms = (uint32_t) sms;
        d->memory_total = d->memory_free = bytes;
        d->mode = mode == CU_COMPUTEMODE_PROHIBITED ? WARM_CUDA_MODE_PROHIBITED
                  : mode == CU_COMPUTEMODE_DEFAULT  ? WARM_CUDA_MODE_DEFAULT
                                                    : WARM_CUDA_MODE_EXCLUSIVE;
        return true;
}

void warm_cuda_survey_take(struct warm_cuda_survey *ret_survey) {
        struct warm_cuda_survey *s = ret_survey;
        struct driver driver;
        struct nvml nvml;
        bool have_nvml;
        int n = 0;

        *s = (struct warm_cuda_survey){ .visible = getenv("CUDA_VISIBLE_DEVICES") };
        s->runtime_version = CUDART_VERSION;
        if (pthread_once(&library_once, library_open) || !library_version ||
            library_version(&s->driver_version) != CUDA_SUCCESS)
                s->driver_version = 0;
        if (s->driver_version == 0)
                return;
        if (find_driver(&driver) < 0) {
                s->error = CUDA_ERROR_SYSTEM_DRIVER_MISMATCH;
                return;
        }
        s->error = (int) driver.init(0);
        if (s->error == CUDA_SUCCESS)
                s->error = (int) driver.count(&n);
        if (s->error == CUDA_ERROR_NO_DEVICE)
                s->error = CUDA_SUCCESS; /* none: n_devices says so */
        if (s->error != CUDA_SUCCESS)
                return;
        have_nvml = open_nvml(&nvml);
        for (int i = 0; i < n && s->n_devices < WARM_CUDA_DEVICES_MAX; i++) {
                struct warm_cuda_device *d = &s->devices[s->n_devices];

                if (!ask_driver(&driver, i, d))
                        continue;
                if (have_nvml)
                        ask_nvml(&nvml, d);
                s->n_devices++;
        }
        if (have_nvml)
                close_nvml(&nvml);
}
