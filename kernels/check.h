/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is built of what a plan can say, and whether a plan is coherent.
 * Pure function, any thread.
 */
#pragma once

#include "kernels/plan.h"

/*
 * @param ret_why on both errors a malloc'd sentence (NULL if there was no memory for it); may be NULL
 * Return: 0; -EOPNOTSUPP: the plan asks for what is not built; -EINVAL: shapes or numbers that do not fit together.
 */
int warm_plan_check(const struct warm_plan *plan, char **ret_why);
