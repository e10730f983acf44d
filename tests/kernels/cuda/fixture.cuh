/* SPDX-License-Identifier: Apache-2.0 */
/* What a test of kernels says, and its memory on the device. */
#pragma once

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include <cuda_runtime.h>

#define CHECK(x)                                                                                   \
        do {                                                                                       \
                int r_ = (int) (x);                                                                \
                if (r_) {                                                                          \
                        printf("not ok - %s: %s (line %d)\n", #x,                                  \
                               cudaGetErrorString((cudaError_t) r_), __LINE__);                    \
                        exit(1);                                                                   \
                }                                                                                  \
        } while (0)

static int n_failed;

static void report(bool ok, const char *what, ...) {
        va_list arguments;

        printf("%s - ", ok ? "ok" : "not ok");
        va_start(arguments, what);
        vprintf(what, arguments);
        va_end(arguments);
        putchar('\n');
        n_failed += !ok;
}

/* Device memory that lives as long as the object. */
template <typename T> struct memory {
        T *d = NULL;
        size_t n;

        explicit memory(size_t count) : n(count ? count : 1) {
                CHECK(cudaMalloc(&d, n * sizeof(T)));
        }
        explicit memory(const std::vector<T> &v) : memory(v.size()) { put(v); }
        memory(const memory &) = delete;
        ~memory() { cudaFree(d); }
        void put(const std::vector<T> &v) {
                CHECK(cudaMemcpy(d, v.data(), v.size() * sizeof(T), cudaMemcpyHostToDevice));
        }
        std::vector<T> get() const {
                std::vector<T> v(n);

                CHECK(cudaMemcpy(v.data(), d, n * sizeof(T), cudaMemcpyDeviceToHost));
                return v;
        }
};
