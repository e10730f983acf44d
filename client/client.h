/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libwarm: talk to warmd.
 *
 * A client is one connection. It has no threads and takes no signals; use it from one thread at a time. Either call
 * and wait (warm_client_call, warm_client_complete), or start requests and let your own event loop drive them: poll
 * warm_client_fd() for warm_client_events(), then call warm_client_dispatch(), which runs the callbacks.
 *
 *      struct warm_client *c;
 *      char *text;
 *      if (warm_client_new(NULL, &c) == 0 && warm_client_complete(c, "int main(", 9, "", 0, &text) == 0)
 *              puts(text);
 *
 * Functions return 0, or -errno where the connection failed (the client is then of no more use), or a positive
 * WARM_CLIENT_E_*.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define WARM_CLIENT_PUBLIC __attribute__((visibility("default")))

enum {
        WARM_CLIENT_E_REFUSED =
                1, /* the daemon answered with an error: see warm_client_reply_error() */
        WARM_CLIENT_E_TIMEOUT, /* no answer in time; the request was cancelled */
        WARM_CLIENT_E_LARGE,   /* the message is larger than a frame may be (4 MiB) */
};

struct warm_client;
struct warm_client_params;
struct warm_client_reply;
struct warm_client_value; /* borrowed from a reply; NULL is a value too: none */

/* ---- A connection ---- */

/*
 * Connect.
 * @param path of the socket; NULL: $XDG_RUNTIME_DIR/warmd/warmd.sock if it is there, else /run/warmd/warmd.sock
 * Return: 0; -ENOENT, -ECONNREFUSED: no daemon there; -errno.
 */
WARM_CLIENT_PUBLIC int warm_client_new(const char *path, struct warm_client **ret_client);

/* Close; requests in flight end without a callback. Takes NULL, returns NULL. */
WARM_CLIENT_PUBLIC struct warm_client *warm_client_free(struct warm_client *c);

/* Where it is connected to. Borrowed. */
WARM_CLIENT_PUBLIC const char *warm_client_path(const struct warm_client *c);

/* To poll, for POLLIN and, while output waits, POLLOUT. */
WARM_CLIENT_PUBLIC int warm_client_fd(const struct warm_client *c);
WARM_CLIENT_PUBLIC short warm_client_events(const struct warm_client *c);

/* Read and write what can be without waiting, run the callbacks of what came. Return: 0; -errno. */
WARM_CLIENT_PUBLIC int warm_client_dispatch(struct warm_client *c);

/* ---- Parameters: one map, built key by key; errors stick and come out of the call ---- */

WARM_CLIENT_PUBLIC struct warm_client_params *warm_client_params_new(void); /* NULL: no memory */
WARM_CLIENT_PUBLIC struct warm_client_params *warm_client_params_free(struct warm_client_params *p);
WARM_CLIENT_PUBLIC void warm_client_params_text(struct warm_client_params *p, const char *key,
                                                const void *data, size_t n);
WARM_CLIENT_PUBLIC void warm_client_params_uint(struct warm_client_params *p, const char *key,
                                                uint64_t value);
WARM_CLIENT_PUBLIC void warm_client_params_double(struct warm_client_params *p, const char *key,
                                                  double value);
WARM_CLIENT_PUBLIC void warm_client_params_bool(struct warm_client_params *p, const char *key,
                                                bool value);
WARM_CLIENT_PUBLIC void warm_client_params_ids(struct warm_client_params *p, const char *key,
                                               const int32_t *ids, size_t n);

/* ---- Calls ---- */

/*
 * Call a method and wait.
 * @param p borrowed; NULL: no parameters
 * @param timeout_ms -1: for ever
 * @param ret_reply also after WARM_CLIENT_E_REFUSED; yours to free
 */
WARM_CLIENT_PUBLIC int warm_client_call(struct warm_client *c, const char *method,
                                        const struct warm_client_params *p, int timeout_ms,
                                        struct warm_client_reply **ret_reply);

/* A notification: nothing comes back. */
WARM_CLIENT_PUBLIC int warm_client_notify(struct warm_client *c, const char *method,
                                          const struct warm_client_params *p);

/*
 * The reply to a request that was started. Runs inside warm_client_dispatch(); may start others, may neither wait
 * (warm_client_call) nor free the client. @param reply yours to free
 */
typedef void (*warm_client_reply_fn)(struct warm_client *c, uint32_t id,
                                     struct warm_client_reply *reply, void *userdata);
/* A notification from the daemon, such as `text`. params is borrowed for the call. */
typedef void (*warm_client_notification_fn)(struct warm_client *c, const char *method,
                                            const struct warm_client_value *params, void *userdata);

WARM_CLIENT_PUBLIC int warm_client_start(struct warm_client *c, const char *method,
                                         const struct warm_client_params *p,
                                         warm_client_reply_fn on_reply, void *userdata,
                                         uint32_t *ret_id);
WARM_CLIENT_PUBLIC void warm_client_on_notification(struct warm_client *c,
                                                    warm_client_notification_fn fn, void *userdata);

/* Complete between two texts and wait: the simplest use. @param ret_text malloc'd, terminated. */
WARM_CLIENT_PUBLIC int warm_client_complete(struct warm_client *c, const void *prefix,
                                            size_t n_prefix, const void *suffix, size_t n_suffix,
                                            char **ret_text);

/* ---- Replies ---- */

WARM_CLIENT_PUBLIC struct warm_client_reply *warm_client_reply_free(struct warm_client_reply *r);
/* NULL if it was refused. */
WARM_CLIENT_PUBLIC const struct warm_client_value *
warm_client_reply_result(const struct warm_client_reply *r);
/* True and what was said, if it was refused. Strings borrowed, terminated. */
WARM_CLIENT_PUBLIC bool warm_client_reply_error(const struct warm_client_reply *r,
                                                uint32_t *ret_code, const char **ret_name,
                                                const char **ret_what);

enum warm_client_type {
        WARM_CLIENT_NONE,
        WARM_CLIENT_NIL,
        WARM_CLIENT_BOOL,
        WARM_CLIENT_INT,
        WARM_CLIENT_DOUBLE,
        WARM_CLIENT_TEXT,  /* str: valid UTF-8 */
        WARM_CLIENT_BYTES, /* bin */
        WARM_CLIENT_ARRAY,
        WARM_CLIENT_MAP,
};

WARM_CLIENT_PUBLIC enum warm_client_type warm_client_value_type(const struct warm_client_value *v);
/* The value of a key; "a.b" goes down two maps. NULL: none. */
WARM_CLIENT_PUBLIC const struct warm_client_value *
warm_client_value_get(const struct warm_client_value *v, const char *path);
/* Elements of an array, pairs of a map. */
WARM_CLIENT_PUBLIC size_t warm_client_value_n(const struct warm_client_value *v);
/* The i-th element, or the i-th pair's value and *ret_key (may be NULL). */
WARM_CLIENT_PUBLIC const struct warm_client_value *
warm_client_value_at(const struct warm_client_value *v, size_t i);
WARM_CLIENT_PUBLIC const struct warm_client_value *
warm_client_value_key(const struct warm_client_value *v, size_t i);
/* What it holds; otherwise (or if it is none) `otherwise`. Numbers convert. */
WARM_CLIENT_PUBLIC bool warm_client_value_bool(const struct warm_client_value *v, bool otherwise);
WARM_CLIENT_PUBLIC int64_t warm_client_value_int(const struct warm_client_value *v,
                                                 int64_t otherwise);
WARM_CLIENT_PUBLIC double warm_client_value_double(const struct warm_client_value *v,
                                                   double otherwise);
/* Bytes of text or bytes, borrowed, not terminated; NULL and 0 of all else. */
WARM_CLIENT_PUBLIC const char *warm_client_value_text(const struct warm_client_value *v,
                                                      size_t *ret_n);

#ifdef __cplusplus
}
#endif
