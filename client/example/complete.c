/* SPDX-License-Identifier: Apache-2.0 */
/* cc complete.c $(pkg-config --cflags --libs libwarm) && ./a.out: complete one function, wait, print it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <warm/client.h>

int main(int argc, char **argv) {
        const char *prefix =
                "/* The larger of two numbers. */\nstatic int max(int a, int b) {\n        return ";
        const char *suffix = "\n}\n";
        struct warm_client *client = NULL;
        char *text = NULL;
        int r;

        r = warm_client_new(argc > 1 ? argv[1] : NULL, &client);
        if (r < 0) {
                fprintf(stderr, "no daemon: %s\n", strerror(-r));
                return 3;
        }
        r = warm_client_complete(client, prefix, strlen(prefix), suffix, strlen(suffix), &text);
        if (r == 0)
                printf("%s\033[90m%s\033[0m%s", prefix, text, suffix);
        free(text);
        warm_client_free(client);
        return r == 0 ? 0 : 1;
}
