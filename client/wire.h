/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MessagePack-RPC messages over msgpack-c: a bounded buffer, a writer that packs into it, a decoder (wire-decode.c),
 * readers that borrow from a decoded frame, and tables that say which keys a map may have.
 *
 * Only frames that warm_frame_check() has passed may be decoded. Text is `str` or `bin` on the way in, `str` where
 * it is valid UTF-8 and else `bin` on the way out; integers stay below 2^53, because many languages hold them in a
 * double; numbers may come as int or float.
 *
 * Thread: each object belongs to one thread at a time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <msgpack.h>

#include "frame.h"

#define WARM_WIRE_INT_MAX    ((1ULL << 53) - 1)
#define WARM_WIRE_IDS_MIN    128U /* more than any list of something else may have */
#define WARM_WIRE_FIELDS_MAX 64U  /* in one table: presence is one bit each */

enum {
        WARM_WIRE_E_FULL = 1,    /* the buffer's or a frame's limit */
        WARM_WIRE_E_SHAPE,       /* not a message, or params is not [map], [] or [[]] */
        WARM_WIRE_E_TYPE,        /* a value of the wrong type */
        WARM_WIRE_E_RANGE,       /* out of range */
        WARM_WIRE_E_UNKNOWN_KEY, /* a key that the table does not have */
        WARM_WIRE_E_DUPLICATE,   /* a key that comes twice */
        WARM_WIRE_E_MISSING,     /* a required key is not there */
};

/* Bytes of text: borrowed, not terminated. */
struct warm_wire_text {
        const char *data;
        size_t n;
};

bool warm_utf8_valid(const void *data, size_t n);

/* ---- A queue of bytes in one piece ---- */

struct warm_buffer {
        uint8_t *data; /* owned; NULL while nothing was put in */
        size_t start;  /* bytes start .. end - 1 are held */
        size_t end;
        size_t size;
        size_t max; /* held at most */
};

/* Takes a zeroed or deinitialised buffer; allocates nothing. */
void warm_buffer_init(struct warm_buffer *b, size_t max);
void warm_buffer_deinit(struct warm_buffer *b);

static inline size_t warm_buffer_n(const struct warm_buffer *b) {
        return b->end - b->start;
}
static inline const uint8_t *warm_buffer_data(const struct warm_buffer *b) {
        return b->data ? b->data + b->start : NULL;
}

/*
 * Make room for n more bytes in one piece behind the last; fill them, then add to b->end.
 * Return: 0 and where they go; WARM_WIRE_E_FULL: more than max would be held; -ENOMEM.
 */
int warm_buffer_reserve(struct warm_buffer *b, size_t n, uint8_t **ret_room);
int warm_buffer_append(struct warm_buffer *b, const void *data, size_t n);

/* The first n bytes were used. An empty buffer of more than 64 KiB gives its memory back. */
void warm_buffer_consume(struct warm_buffer *b, size_t n);

/* ---- Writing ---- */

/*
 * Packs one message. Errors stick: pack on, and look at what warm_writer_end() says. Nothing of a message that
 * failed stays in the buffer.
 */
struct warm_writer {
        msgpack_packer packer;
        struct warm_buffer *buffer; /* borrowed */
        size_t n_before;            /* bytes held when it began */
        uint32_t n_elements;
        int error;
};

/* Start a message: the head of its array; the caller goes on with the map, error or result. */
void warm_writer_request(struct warm_writer *w, struct warm_buffer *b, uint32_t id,
                         const char *method);
void warm_writer_notification(struct warm_writer *w, struct warm_buffer *b, const char *method);
void warm_writer_result(struct warm_writer *w, struct warm_buffer *b, uint32_t id);
/* A whole error response. @param id NULL: the request's could not be read. Return: as warm_writer_end(). */
int warm_writer_error(struct warm_writer *w, struct warm_buffer *b, const uint32_t *id,
                      unsigned code, const char *name, const char *what);

/*
 * End a message. Return: 0; -ENOMEM; WARM_WIRE_E_FULL: the buffer's limit, or the message is not a frame by
 * WARM_FRAME_BYTES_MAX or _ELEMENTS_MAX. On errors the buffer is as it was before.
 */
int warm_writer_end(struct warm_writer *w);

void warm_write_nil(struct warm_writer *w);
void warm_write_bool(struct warm_writer *w, bool value);
void warm_write_uint(struct warm_writer *w, uint64_t value); /* clamped to WARM_WIRE_INT_MAX */
void warm_write_int(struct warm_writer *w, int64_t value);   /* its size too */
void warm_write_float(struct warm_writer *w, float value);
void warm_write_double(struct warm_writer *w, double value);
void warm_write_array(struct warm_writer *w, uint32_t n);
void warm_write_map(struct warm_writer *w, uint32_t n_pairs);
void warm_write_string(struct warm_writer *w, const char *s); /* ours: valid UTF-8 */
void warm_write_text(struct warm_writer *w, const void *data, size_t n);
void warm_write_bytes(struct warm_writer *w, const void *data, size_t n); /* always bin */
/* An array of token ids in one go, for a prompt has thousands; the bytes are those of warm_write_uint() for each. */
void warm_write_ids(struct warm_writer *w, const int32_t *ids, uint32_t n);

static inline void warm_write_key_uint(struct warm_writer *w, const char *key, uint64_t value) {
        warm_write_string(w, key);
        warm_write_uint(w, value);
}
static inline void warm_write_key_bool(struct warm_writer *w, const char *key, bool value) {
        warm_write_string(w, key);
        warm_write_bool(w, value);
}
static inline void warm_write_key_string(struct warm_writer *w, const char *key,
                                         const char *value) {
        warm_write_string(w, key);
        warm_write_string(w, value);
}
static inline void warm_write_key_text(struct warm_writer *w, const char *key, const void *data,
                                       size_t n) {
        warm_write_string(w, key);
        warm_write_text(w, data, n);
}
static inline void warm_write_key_ids(struct warm_writer *w, const char *key, const int32_t *ids,
                                      uint32_t n) {
        warm_write_string(w, key);
        warm_write_ids(w, ids, n);
}

/* ---- Reading ---- */

/* A decoded frame. Everything in it borrows from the frame's bytes and from `memory`. */
struct warm_message {
        enum warm_frame_type type;
        uint32_t id;   /* requests; responses if id_known */
        bool id_known; /* false: the response to a frame whose id could not be read */
        struct warm_wire_text method; /* requests and notifications */
        const msgpack_object *params; /* their map; NULL: the empty one */
        const msgpack_object *error;  /* responses: NULL if nil */
        const msgpack_object *result; /* responses: NULL if nil */
        msgpack_unpacked memory;
};

/*
 * Decode a frame that warm_frame_check() has passed.
 *
 * @param ret_message to be deinitialised also after WARM_WIRE_E_SHAPE: type and id are valid then
 * Return: 0; WARM_WIRE_E_SHAPE: the method is no text, or params not an array of at most one map; -ENOMEM.
 */
int warm_message_decode(const void *frame, size_t n_frame, struct warm_message *ret_message);
void warm_message_deinit(struct warm_message *m);

/*
 * The same with packed ids: an array of WARM_WIRE_IDS_MIN and more, all of them integers of 0 to 2^31-1, is not an array
 * of objects, which have 24 bytes each, but an array of int32_t. warm_read_n() and WARM_FIELD_ARRAY know it,
 * warm_read_ids() takes it, and warm_read_element() has none of it.
 */
int warm_message_decode_packed(const void *frame, size_t n_frame, struct warm_message *ret_message);

/* The objects alone, as msgpack_unpack_next() makes them. Return: 0; -ENOMEM: nothing is to be destroyed. */
int warm_wire_decode(const void *frame, size_t n_frame, bool packed,
                     msgpack_unpacked *ret_unpacked);

/* Typed values of an object. Return: 0; WARM_WIRE_E_TYPE; WARM_WIRE_E_RANGE. NULL objects are a TYPE error. */
int warm_read_bool(const msgpack_object *o, bool *ret_value);
int warm_read_uint(const msgpack_object *o, uint64_t *ret_value); /* 0 .. WARM_WIRE_INT_MAX */
int warm_read_int(const msgpack_object *o, int64_t *ret_value);
int warm_read_number(const msgpack_object *o, double *ret_value); /* finite */
int warm_read_text(const msgpack_object *o, struct warm_wire_text *ret_text);

/* The value of a key in a map, the i-th element of an array; NULL if there is none or `o` is no such thing. */
const msgpack_object *warm_read_key(const msgpack_object *o, const char *key);
const msgpack_object *warm_read_element(const msgpack_object *o, uint32_t i);
/* The ids of an array that came packed, [warm_read_n(o)], borrowed; else NULL. */
const int32_t *warm_read_ids(const msgpack_object *o);
bool warm_read_is_array(const msgpack_object *o);
/* Elements of an array, pairs of a map; 0 of all else. An empty map may come as an empty array (Lua's {}). */
uint32_t warm_read_n(const msgpack_object *o);

/* An error `[code, name, what]` of a response. Return: 0; WARM_WIRE_E_SHAPE. */
int warm_read_error(const msgpack_object *o, uint32_t *ret_code, struct warm_wire_text *ret_name,
                    struct warm_wire_text *ret_what);

/* ---- Tables of fields ---- */

enum warm_field_type {
        WARM_FIELD_BOOL,   /* bool */
        WARM_FIELD_UINT,   /* uint64_t; min, max: its value */
        WARM_FIELD_NUMBER, /* double; min, max: its value */
        WARM_FIELD_TEXT,   /* struct warm_wire_text; min, max: its bytes */
        WARM_FIELD_ARRAY,  /* const msgpack_object *; min, max: its elements */
        WARM_FIELD_ANY,    /* const msgpack_object *; the caller checks it */
};

enum {
        WARM_FIELD_REQUIRED = 1 << 0,
        WARM_FIELD_ABOVE_MIN = 1 << 1, /* NUMBER: min itself is out of range */
        WARM_FIELD_BELOW_MAX = 1 << 2, /* NUMBER: max itself is */
};

struct warm_field {
        const char *name;
        enum warm_field_type type;
        double min, max;
        size_t offset; /* of the value in the struct that is filled */
        unsigned flags;
};

/* Why a map was refused: names the field and what it may be. Holds the client's own key at most, never a value. */
struct warm_field_error {
        int error; /* WARM_WIRE_E_* */
        char what[256];
};

/*
 * Hold a map against a table and fill a struct. Fields that are not there keep what the struct had (defaults).
 *
 * @param table [n_fields], n_fields <= WARM_WIRE_FIELDS_MAX
 * @param map a map, an empty array, or NULL: empty
 * @param ret_values borrows text and arrays from the map
 * @param ret_present bit i: table[i] was there; may be NULL
 * Return: 0; WARM_WIRE_E_TYPE, _RANGE, _UNKNOWN_KEY, _DUPLICATE, _MISSING with *ret_error.
 */
int warm_fields_read(const struct warm_field *table, uint32_t n_fields, const msgpack_object *map,
                     void *ret_values, uint64_t *ret_present, struct warm_field_error *ret_error);
