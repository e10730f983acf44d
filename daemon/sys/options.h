/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of warmd, over a configuration. Thread: main. */
#pragma once

#include <stdbool.h>

#include "config.h"

enum warm_options_mode {
        WARM_OPTIONS_RUN,
        WARM_OPTIONS_CHECK, /* --check: read configuration and models, say what would run, end */
        WARM_OPTIONS_HELP,
        WARM_OPTIONS_VERSION,
};

/*
 * Read configuration files and command line into config.
 *
 * @param ret_why on errors a malloc'd sentence
 * Return: 0; -EINVAL: usage; what warm_config_read_* return.
 */
int warm_options_parse(struct warm_config *config, int argc, char *const *argv,
                       enum warm_options_mode *ret_mode, char **ret_why);

/* The text of --help. Static. */
const char *warm_options_help(void);
