/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sentences for refusals: what is wrong and what to do. Text from a file is shown through warm_show(), so that a
 * hostile file cannot write to anybody's terminal or journal.
 *
 * Pure functions, any thread.
 */
#pragma once

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "vocab.h"

#define WARM_SHOW_BYTES 72U

struct warm_shown {
        char text[WARM_SHOW_BYTES];
};

/* Text of a file, cut and made printable ASCII: other bytes become '?'. */
static inline struct warm_shown warm_show(struct warm_string s) {
        struct warm_shown shown = { { 0 } };
        size_t n = s.n < WARM_SHOW_BYTES - 4 ? s.n : WARM_SHOW_BYTES - 4;

        for (size_t i = 0; i < n; i++)
                shown.text[i] = s.data[i] >= 0x20 && s.data[i] < 0x7f ? s.data[i] : '?';
        if (n < s.n)
                for (size_t i = n; i < n + 3; i++)
                        shown.text[i] = '.';
        return shown;
}

/*
 * Say why and hand the error on.
 *
 * @param ret_why set to a malloc'd sentence (NULL if there was no memory for it); may be NULL
 * Return: error.
 */
__attribute__((format(printf, 3, 4))) static inline int warm_why(char **ret_why, int error,
                                                                 const char *format, ...) {
        va_list arguments;

        if (!ret_why)
                return error;
        va_start(arguments, format);
        if (vasprintf(ret_why, format, arguments) < 0)
                *ret_why = NULL;
        va_end(arguments);
        return error;
}
