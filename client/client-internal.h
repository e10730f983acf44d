/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of libwarm share; nothing of it is exported. */
#pragma once

#include "client.h"
#include "codec.h"

/* The parameters as a map. NULL: the empty one. An error of building them becomes the writer's. */
void warm_client_params_write(const struct warm_client_params *p, struct warm_writer *w);

/* A reply with its own copy of the frame. Return: 0; -ENOMEM; -EPROTO. */
int warm_client_reply_new(const void *frame, size_t n, struct warm_client_reply **ret_reply);

/* Values are msgpack's objects under another name, so that the public header needs no msgpack. */
static inline const struct warm_client_value *warm_client_value_of(const msgpack_object *o) {
        return (const struct warm_client_value *) o;
}
