/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Write a plan and its weights where oracle.py reads them.
 *
 * plan.json: the plan's numbers; each tensor as {type, rows, cols, at, raw, bytes}. `at` counts floats in tensors.f32,
 * which holds the tensors dequantized; `raw` counts bytes in tensors.raw, which holds them as they are. These are tools of tests: an error ends the program.
 */
#pragma once

#include <stdio.h>

#include "kernels/plan.h"

/* A new file in a folder. Return: the caller's to close. */
FILE *dump_create(const char *folder, const char *name);

void dump_put(FILE *f, const void *data, size_t bytes);

/* The files of a plan whose file is not dropped yet. */
void dump_plan(const char *folder, const struct warm_plan *p);
