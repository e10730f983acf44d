/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fuzz target: one function, fed by libFuzzer (-Dfuzz=true, clang) or by replay.c (every build).
 * It aborts where a promise is broken; a sanitizer sees the rest.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* @param data [n], exactly n bytes of heap. Return: 0. */
__attribute__((visibility("default"))) int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
