/* SPDX-License-Identifier: Apache-2.0 */
/* Source text for tests: files of this tree, one after the other. */
#pragma once

#include <stddef.h>

/*
 * Read them whole, up to n_max bytes in all. Fails the test if one cannot be read.
 * @param names paths from the root of the tree
 * Return: malloc'd.
 */
char *corpus_read(const char *const *names, size_t n_names, size_t n_max, size_t *ret_n);
