/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of `warmctl doctor` share. */
#pragma once

#include "warmctl.h"

enum verdict { GOOD, ADVICE, BAD };

struct doctor {
        const struct warmctl *ctl;
        unsigned n_bad;
        unsigned n_lines;
};

/* One finding. @param key names it in --json; each once */
void warmctl_doctor_tell(struct doctor *d, enum verdict v, const char *key, const char *format, ...)
        __attribute__((format(printf, 4, 5)));
