/* SPDX-License-Identifier: Apache-2.0 */
/* A libnvidia-ml.so.1 with one GPU, so that `warmctl doctor` can be looked at where there is none. */
#include <stdio.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

struct memory {
        unsigned long long total, free, used;
};

EXPORT int nvmlInit_v2(void);
EXPORT int nvmlShutdown(void);
EXPORT int nvmlSystemGetDriverVersion(char *ret_version, unsigned n);
EXPORT int nvmlSystemGetCudaDriverVersion_v2(int *ret_version);
EXPORT int nvmlDeviceGetCount_v2(unsigned *ret_n);
EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **ret_device);
EXPORT int nvmlDeviceGetName(void *device, char *ret_name, unsigned n);
EXPORT int nvmlDeviceGetUUID(void *device, char *ret_uuid, unsigned n);
EXPORT int nvmlDeviceGetCudaComputeCapability(void *device, int *ret_major, int *ret_minor);
EXPORT int nvmlDeviceGetMemoryInfo(void *device, struct memory *ret_memory);
EXPORT int nvmlDeviceGetComputeMode(void *device, int *ret_mode);
EXPORT int nvmlDeviceGetPersistenceMode(void *device, int *ret_mode);
EXPORT int nvmlDeviceGetClockInfo(void *device, int which, unsigned *ret_mhz);
EXPORT int nvmlDeviceGetMaxClockInfo(void *device, int which, unsigned *ret_mhz);
EXPORT int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *ret_reasons);
EXPORT int nvmlDeviceGetComputeRunningProcesses(void *device, unsigned *n, void *ret_infos);

static int the_gpu;

int nvmlInit_v2(void) {
        return 0;
}

int nvmlShutdown(void) {
        return 0;
}

int nvmlSystemGetDriverVersion(char *ret_version, unsigned n) {
        return snprintf(ret_version, n, "999.1") < 0;
}

int nvmlSystemGetCudaDriverVersion_v2(int *ret_version) {
        *ret_version = 99020;
        return 0;
}

int nvmlDeviceGetCount_v2(unsigned *ret_n) {
        *ret_n = 1;
        return 0;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **ret_device) {
        *ret_device = &the_gpu;
        return index != 0;
}

int nvmlDeviceGetName(void *device, char *ret_name, unsigned n) {
        return device != &the_gpu || snprintf(ret_name, n, "Made-up \"GPU\"\n") < 0;
}

int nvmlDeviceGetUUID(void *device, char *ret_uuid, unsigned n) {
        return device != &the_gpu || snprintf(ret_uuid, n, "GPU-1234") < 0;
}

int nvmlDeviceGetCudaComputeCapability(void *device, int *ret_major, int *ret_minor) {
        *ret_major = 8;
        *ret_minor = 6;
        return device != &the_gpu;
}

int nvmlDeviceGetMemoryInfo(void *device, struct memory *ret_memory) {
        *ret_memory = (struct memory){ .total = 24ULL << 30, .free = 23ULL << 30 };
        return device != &the_gpu;
}

int nvmlDeviceGetComputeMode(void *device, int *ret_mode) {
        *ret_mode = 0;
        return device != &the_gpu;
}

int nvmlDeviceGetPersistenceMode(void *device, int *ret_mode) {
        *ret_mode = 1;
        return device != &the_gpu;
}

int nvmlDeviceGetClockInfo(void *device, int which, unsigned *ret_mhz) {
        *ret_mhz = which == 1 ? 210 : 405;
        return device != &the_gpu;
}

int nvmlDeviceGetMaxClockInfo(void *device, int which, unsigned *ret_mhz) {
        *ret_mhz = which == 1 ? 1695 : 9751;
        return device != &the_gpu;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *ret_reasons) {
        *ret_reasons = 1; /* idle */
        return device != &the_gpu;
}

int nvmlDeviceGetComputeRunningProcesses(void *device, unsigned *n, void *ret_infos) {
        (void) ret_infos;
        *n = 0;
        return device != &the_gpu;
}
