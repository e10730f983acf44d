/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "build-config.h"
#include "sys/journal.h"
#include "sys/options.h"
#include "sys/service.h"

int main(int argc, char **argv) {
        enum warm_options_mode mode = WARM_OPTIONS_RUN;
        int status = WARM_EXIT_OK, r;
        struct warm_config config;
        char *why = NULL;

        warm_journal_init();
        warm_config_init(&config);
        r = warm_options_parse(&config, argc, argv, &mode, &why);
        if (r < 0) {
                warm_journal_send(WARM_JOURNAL_CONFIG_BAD, LOG_ERR, NULL, "%s",
                                  why ? why : strerror(-r));
                free(why);
                status = WARM_EXIT_USAGE;
        } else if (mode == WARM_OPTIONS_HELP)
                fputs(warm_options_help(), stdout);
        else if (mode == WARM_OPTIONS_VERSION)
                puts("warmd " WARM_VERSION);
        else if (mode == WARM_OPTIONS_CHECK)
                status = warm_service_check(&config);
        else
                status = warm_service_run(&config);
        if (status == WARM_EXIT_DEVICE_LOST)
                _exit(status); /* exit handlers of the CUDA runtime would wait for the device */
        warm_config_deinit(&config);
        return status;
}
