/* SPDX-License-Identifier: Apache-2.0 */
/* Commands that start from a cursor or a text: complete, explain, warm, generate, tokenize, score. */
#include <stdlib.h>
#include <string.h>

#include "warmctl.h"

static double milliseconds(const struct warm_client_value *result, const char *path) {
        return warm_client_value_double(warm_client_value_get(result, path), 0) / 1000.0;
}

static void draw_figures(const struct warm_client_value *result) {
        long long prompt = warm_client_value_int(warm_client_value_get(result, "cache.prompt"), 0);
        long long hit = warm_client_value_int(warm_client_value_get(result, "cache.hit"), 0);
        const struct warm_client_value *first = warm_client_value_get(result, "time_us.first");

        fputs("       ", stdout);
        if (warm_client_value_type(first) == WARM_CLIENT_INT && warm_client_value_int(first, 0) > 0)
                printf("first text %.1f ms, ", milliseconds(result, "time_us.first"));
        printf("whole %.1f ms; tokens: %lld from the cache, %lld computed, %zu written\n",
               milliseconds(result, "time_us.total"), hit, prompt - hit,
               warm_client_value_n(warm_client_value_get(result, "ids")));
}

/* Length of the first UTF-8 character (or byte) of a text. */
static size_t first_character(const char *text, size_t n) {
        size_t k = 1;

        while (k < n && ((unsigned char) text[k] & 0xc0) == 0x80)
                k++;
        return n ? k : 0;
}

static int complete_once(const struct warmctl *ctl, struct warm_client *c,
                         const struct warmctl_cursor *cursor,
                         struct warm_client_reply **ret_reply) {
        struct warm_client_params *p = warmctl_cursor_params(ctl, cursor);
        int r;

        if (!p)
                return WARMCTL_REFUSED;
        if (ctl->lines)
                warm_client_params_uint(p, "lines", ctl->lines);
        r = warmctl_call(c, "complete", p, ret_reply);
        warm_client_params_free(p);
        return r;
}

static int show(const struct warmctl *ctl, const struct warmctl_cursor *cursor,
                const struct warm_client_value *result) {
        size_t n = 0;
        const char *text = warm_client_value_text(warm_client_value_get(result, "text"), &n);

        if (ctl->json)
                return warmctl_print_json(result);
        if (!ctl->show) {
                warmctl_print_text(stdout, text, n);
                putchar('\n');
                return WARMCTL_OK;
        }
        printf("%s:%zu:%zu\n", cursor->path, cursor->line, cursor->column);
        warmctl_draw(ctl, cursor, text, n);
        draw_figures(result);
        return WARMCTL_OK;
}

int warmctl_complete(const struct warmctl *ctl) {
        struct warm_client_reply *reply = NULL;
        struct warmctl_cursor cursor = {};
        struct warm_client *c = NULL;
        const char *text;
        size_t n = 0;
        int r;

        r = warmctl_cursor_read(ctl->argument, &cursor);
        if (r == WARMCTL_OK && ctl->untyped)
                warmctl_cursor_cut(&cursor);
        if (r == WARMCTL_OK)
                r = warmctl_connect(ctl, &c);
        if (r == WARMCTL_OK)
                r = complete_once(ctl, c, &cursor, &reply);
        if (r == WARMCTL_OK)
                r = show(ctl, &cursor, warm_client_reply_result(reply));
        if (r == WARMCTL_OK && ctl->again) {
                text = warm_client_value_text(
                        warm_client_value_get(warm_client_reply_result(reply), "text"), &n);
                if (n == 0) {
                        text = " ";
                        n = 1;
                }
                printf("\nand after typing one more character:\n");
                if (warmctl_cursor_type(&cursor, text, first_character(text, n)) < 0)
                        r = WARMCTL_REFUSED;
                reply = warm_client_reply_free(reply);
                if (r == WARMCTL_OK)
                        r = complete_once(ctl, c, &cursor, &reply);
                if (r == WARMCTL_OK)
                        r = show(ctl, &cursor, warm_client_reply_result(reply));
        }
        warm_client_reply_free(reply);
        warm_client_free(c);
        warmctl_cursor_deinit(&cursor);
        return r;
}

static int ask_cursor(const struct warmctl *ctl, const char *method) {
        struct warm_client_params *p;
        struct warmctl_cursor cursor;
        int r = warmctl_cursor_read(ctl->argument, &cursor);

        if (r != WARMCTL_OK)
                return r;
        p = warmctl_cursor_params(ctl, &cursor);
        warmctl_cursor_deinit(&cursor);
        return p ? warmctl_ask(ctl, method, p) : WARMCTL_REFUSED;
}

int warmctl_explain(const struct warmctl *ctl) {
        return ask_cursor(ctl, "explain");
}

int warmctl_warm(const struct warmctl *ctl) {
        return ask_cursor(ctl, "warm");
}

/* A file's text as the parameter `key`, with the model if one was named. NULL: said already. */
static struct warm_client_params *text_params(const struct warmctl *ctl, const char *key) {
        struct warmctl_file file = {};
        struct warm_client_params *p;

        if (warmctl_read(ctl->argument, &file) != WARMCTL_OK)
                return NULL;
        p = warm_client_params_new();
        if (p) {
                warm_client_params_text(p, key, file.text, file.n);
                if (ctl->model)
                        warm_client_params_text(p, "model", ctl->model, strlen(ctl->model));
        }
        free(file.text);
        return p;
}

static void print_ids(const struct warm_client_value *ids) {
        for (size_t i = 0; i < warm_client_value_n(ids); i++)
                printf("%s%lld", i ? " " : "",
                       (long long) warm_client_value_int(warm_client_value_at(ids, i), -1));
        putchar('\n');
}

int warmctl_generate(const struct warmctl *ctl) {
        struct warm_client_params *p = text_params(ctl, "prompt");
        const struct warm_client_value *result;
        struct warm_client_reply *reply = NULL;
        struct warm_client *c = NULL;
        size_t n = 0;
        int r;

        if (!p)
                return WARMCTL_REFUSED;
        if (ctl->n_max_given)
                warm_client_params_uint(p, "n_max", ctl->n_max);
        r = warmctl_connect(ctl, &c);
        if (r == WARMCTL_OK)
                r = warmctl_call(c, "complete", p, &reply);
        if (r == WARMCTL_OK) {
                result = warm_client_reply_result(reply);
                if (ctl->json)
                        r = warmctl_print_json(result);
                else if (ctl->ids)
                        print_ids(warm_client_value_get(result, "ids"));
                else {
                        const char *text =
                                warm_client_value_text(warm_client_value_get(result, "text"), &n);

                        warmctl_print_text(stdout, text, n);
                        putchar('\n');
                }
        }
        warm_client_reply_free(reply);
        warm_client_params_free(p);
        warm_client_free(c);
        return r;
}

int warmctl_tokenize(const struct warmctl *ctl) {
        struct warm_client_params *p = text_params(ctl, "text");
        struct warm_client_reply *reply = NULL;
        struct warm_client *c = NULL;
        int r;

        if (!p)
                return WARMCTL_REFUSED;
        r = warmctl_connect(ctl, &c);
        if (r == WARMCTL_OK)
                r = warmctl_call(c, "tokenize", p, &reply);
        if (r == WARMCTL_OK && ctl->json)
                r = warmctl_print_json(warm_client_reply_result(reply));
        else if (r == WARMCTL_OK)
                print_ids(warm_client_value_get(warm_client_reply_result(reply), "ids"));
        warm_client_reply_free(reply);
        warm_client_params_free(p);
        warm_client_free(c);
        return r;
}

int warmctl_score(const struct warmctl *ctl) {
        struct warm_client_params *p = text_params(ctl, "text");

        return p ? warmctl_ask(ctl, "score", p) : WARMCTL_REFUSED;
}

int warmctl_status(const struct warmctl *ctl) {
        return warmctl_ask(ctl, "status", NULL);
}

int warmctl_models(const struct warmctl *ctl) {
        return warmctl_ask(ctl, "models", NULL);
}

int warmctl_trim(const struct warmctl *ctl) {
        return warmctl_ask(ctl, "trim", NULL);
}
