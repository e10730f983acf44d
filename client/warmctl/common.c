/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "warmctl.h"

int warmctl_connect(const struct warmctl *ctl, struct warm_client **ret_client) {
        int r = warm_client_new(ctl->socket, ret_client);

        if (r == 0)
                return WARMCTL_OK;
        fprintf(stderr, "warmctl: no daemon at %s: %s\n",
                ctl->socket ? ctl->socket
                            : "$XDG_RUNTIME_DIR/warmd/warmd.sock or /run/warmd/warmd.sock",
                strerror(-r));
        fprintf(stderr, "warmctl: start one with `systemctl start warmd.socket`, or run `warmd`\n");
        return WARMCTL_NO_DAEMON;
}

int warmctl_call(struct warm_client *c, const char *method, const struct warm_client_params *p,
                 struct warm_client_reply **ret_reply) {
        struct warm_client_reply *reply = NULL;
        const char *name = NULL, *what = NULL;
        uint32_t code = 0;
        int r = warm_client_call(c, method, p, -1, &reply);

        if (r == 0) {
                *ret_reply = reply;
                return WARMCTL_OK;
        }
        if (r == WARM_CLIENT_E_REFUSED && warm_client_reply_error(reply, &code, &name, &what))
                fprintf(stderr, "warmctl: refused: %s (%s, %u)\n", what, name, code);
        else if (r == WARM_CLIENT_E_LARGE)
                fprintf(stderr, "warmctl: the text is larger than a request may be (4 MiB)\n");
        else
                fprintf(stderr, "warmctl: the connection to %s broke: %s\n", warm_client_path(c),
                        strerror(-r));
        warm_client_reply_free(reply);
        return r < 0 && r != -ENOMEM ? WARMCTL_NO_DAEMON : WARMCTL_REFUSED;
}

int warmctl_ask(const struct warmctl *ctl, const char *method, struct warm_client_params *p) {
        struct warm_client_reply *reply = NULL;
        struct warm_client *c = NULL;
        int r = warmctl_connect(ctl, &c);

        if (r == WARMCTL_OK)
                r = warmctl_call(c, method, p, &reply);
        if (r == WARMCTL_OK && ctl->json)
                r = warmctl_print_json(warm_client_reply_result(reply));
        else if (r == WARMCTL_OK)
                warmctl_print_map(warm_client_reply_result(reply), 0);
        warm_client_reply_free(reply);
        warm_client_params_free(p);
        warm_client_free(c);
        return r;
}

static struct json_object *to_json(const struct warm_client_value *v);

static struct json_object *bytes_to_json(const struct warm_client_value *v) {
        struct json_object *o =
                json_object_new_array(); /* JSON has no bytes: an array of numbers loses nothing */
        size_t n = 0;
        const char *bytes = warm_client_value_text(v, &n);

        for (size_t i = 0; o && i < n; i++)
                json_object_array_add(o, json_object_new_int((unsigned char) bytes[i]));
        return o;
}

static struct json_object *map_to_json(const struct warm_client_value *v) {
        struct json_object *o = json_object_new_object();

        for (size_t i = 0; o && i < warm_client_value_n(v); i++) {
                size_t n = 0;
                const char *text = warm_client_value_text(warm_client_value_key(v, i), &n);
                char *key = strndup(text ? text : "", n);

                if (key)
                        json_object_object_add(o, key, to_json(warm_client_value_at(v, i)));
                free(key);
        }
        return o;
}

/* NULL stands for null and for no memory: json-c prints either as null. */
static struct json_object *to_json(const struct warm_client_value *v) {
        struct json_object *o = NULL;
        const char *text;
        size_t n = 0;

        switch (warm_client_value_type(v)) {
        case WARM_CLIENT_BOOL:
                return json_object_new_boolean(warm_client_value_bool(v, false));
        case WARM_CLIENT_INT:
                return json_object_new_int64(warm_client_value_int(v, 0));
        case WARM_CLIENT_DOUBLE:
                return json_object_new_double(warm_client_value_double(v, 0));
        case WARM_CLIENT_TEXT:
                text = warm_client_value_text(v, &n);
                return json_object_new_string_len(text, (int) n);
        case WARM_CLIENT_BYTES:
                return bytes_to_json(v);
        case WARM_CLIENT_ARRAY:
                o = json_object_new_array();
                for (size_t i = 0; o && i < warm_client_value_n(v); i++)
                        json_object_array_add(o, to_json(warm_client_value_at(v, i)));
                return o;
        case WARM_CLIENT_MAP:
                return map_to_json(v);
        default:
                return NULL;
        }
}

int warmctl_print_json(const struct warm_client_value *v) {
        struct json_object *o = to_json(v);
        const char *text = o ? json_object_to_json_string_ext(
                                       o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE)
                             : NULL;
        int r = text ? WARMCTL_OK : WARMCTL_REFUSED;

        if (text)
                puts(text);
        json_object_put(o);
        return r;
}

void warmctl_print_text(FILE *f, const char *text, size_t n) {
        for (size_t i = 0; i < n; i++) {
                unsigned char c = (unsigned char) text[i];

                fputc((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f ? '?' : c, f);
        }
}

static bool is_size(const char *key, size_t n) {
        return n > 7 && (memcmp(key + n - 6, "_bytes", 6) == 0 || memcmp(key, "memory_", 7) == 0);
}

static void print_scalar(const struct warm_client_value *v, const char *key, size_t n_key) {
        const char *text;
        size_t n = 0;

        switch (warm_client_value_type(v)) {
        case WARM_CLIENT_BOOL:
                fputs(warm_client_value_bool(v, false) ? "yes" : "no", stdout);
                break;
        case WARM_CLIENT_INT:
                printf("%lld", (long long) warm_client_value_int(v, 0));
                if (is_size(key, n_key) && warm_client_value_int(v, 0) >= 1 << 20)
                        printf(" (%.1f MiB)", (double) warm_client_value_int(v, 0) / (1 << 20));
                break;
        case WARM_CLIENT_DOUBLE:
                printf("%.6g", warm_client_value_double(v, 0));
                break;
        case WARM_CLIENT_BYTES:
                text = warm_client_value_text(v, &n);
                for (size_t i = 0; i < n; i++)
                        printf("%02x", (unsigned char) text[i]);
                break;
        case WARM_CLIENT_TEXT:
                text = warm_client_value_text(v, &n);
                warmctl_print_text(stdout, text, n);
                break;
        default:
                fputs("-", stdout);
        }
}

static bool is_container(const struct warm_client_value *v) {
        enum warm_client_type t = warm_client_value_type(v);

        return t == WARM_CLIENT_MAP || t == WARM_CLIENT_ARRAY;
}

static bool is_plain_array(const struct warm_client_value *v) {
        if (warm_client_value_type(v) != WARM_CLIENT_ARRAY)
                return false;
        for (size_t i = 0; i < warm_client_value_n(v); i++)
                if (is_container(warm_client_value_at(v, i)))
                        return false;
        return true;
}

static void print_pair(const struct warm_client_value *value, const char *key, size_t n_key,
                       unsigned indent) {
        printf("%*s%.*s", (int) indent, "", key ? (int) n_key : 1, key ? key : "-");
        if (is_plain_array(value)) {
                fputs(key ? ":" : "", stdout);
                for (size_t k = 0; k < warm_client_value_n(value); k++) {
                        putchar(' ');
                        print_scalar(warm_client_value_at(value, k), "", 0);
                }
                putchar('\n');
        } else if (is_container(value)) {
                puts(key ? ":" : "");
                warmctl_print_map(value, indent + 2);
        } else {
                fputs(key ? ": " : " ", stdout);
                print_scalar(value, key ? key : "", n_key);
                putchar('\n');
        }
}

void warmctl_print_map(const struct warm_client_value *v, unsigned indent) {
        for (size_t i = 0; i < warm_client_value_n(v); i++) {
                size_t n_key = 0;
                const char *key = warm_client_value_text(warm_client_value_key(v, i), &n_key);

                print_pair(warm_client_value_at(v, i), key, n_key, indent);
        }
}
