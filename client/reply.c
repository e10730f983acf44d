/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client-internal.h"

struct warm_client_reply {
        struct warm_message message; /* borrows from frame */
        char *error_name, *error_what;
        uint32_t error_code;
        uint8_t frame[];
};

int warm_client_reply_new(const void *frame, size_t n, struct warm_client_reply **ret_reply) {
        struct warm_client_reply *r = malloc(sizeof(*r) + n);
        struct warm_wire_text name, what;
        int k;

        if (!r)
                return -ENOMEM;
        memset(r, 0, sizeof(*r));
        memcpy(r->frame, frame, n);
        k = warm_message_decode(r->frame, n, &r->message);
        if (k == 0 && r->message.error) {
                k = warm_read_error(r->message.error, &r->error_code, &name, &what);
                if (k == 0) {
                        r->error_name = strndup(name.data, name.n);
                        r->error_what = strndup(what.data, what.n);
                        k = r->error_name && r->error_what ? 0 : -ENOMEM;
                }
        }
        if (k == 0 && !r->message.error && !r->message.result)
                k = -EPROTO;
        if (k != 0) {
                if (k == -ENOMEM && !r->message.error)
                        free(r); /* nothing was decoded */
                else
                        warm_client_reply_free(r);
                return k < 0 ? k : -EPROTO;
        }
        *ret_reply = r;
        return 0;
}

struct warm_client_reply *warm_client_reply_free(struct warm_client_reply *r) {
        if (!r)
                return NULL;
        warm_message_deinit(&r->message);
        free(r->error_name);
        free(r->error_what);
        free(r);
        return NULL;
}

const struct warm_client_value *warm_client_reply_result(const struct warm_client_reply *r) {
        return r->message.error ? NULL : warm_client_value_of(r->message.result);
}

bool warm_client_reply_error(const struct warm_client_reply *r, uint32_t *ret_code,
                             const char **ret_name, const char **ret_what) {
        if (!r->message.error)
                return false;
        *ret_code = r->error_code;
        *ret_name = r->error_name;
        *ret_what = r->error_what;
        return true;
}
