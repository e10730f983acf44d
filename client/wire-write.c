/* SPDX-License-Identifier: Apache-2.0 */
/* The writer, and the buffer that it packs into. */
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "wire.h"

#define BUFFER_SIZE_MIN  512U
#define BUFFER_SIZE_KEEP (64U << 10)

void warm_buffer_init(struct warm_buffer *b, size_t max) {
        *b = (struct warm_buffer){ .max = max };
}

void warm_buffer_deinit(struct warm_buffer *b) {
        free(b->data);
        *b = (struct warm_buffer){ .max = b->max };
}

int warm_buffer_reserve(struct warm_buffer *b, size_t n, uint8_t **ret_room) {
        size_t held = b->end - b->start, size;
        uint8_t *data;

        assert(held <= b->max);
        if (n > b->max - held)
                return WARM_WIRE_E_FULL;
        if (n <= b->size - b->end && b->data) {
                *ret_room = b->data + b->end;
                return 0;
        }
        /* Slide only what is small against the room it wins, so that each byte moves a bounded number of times. */
        if (b->data && held + n <= b->size && held <= b->start) {
                memmove(b->data, b->data + b->start, held);
                b->start = 0;
                b->end = held;
                *ret_room = b->data + b->end;
                return 0;
        }
        size = b->size < BUFFER_SIZE_MIN ? BUFFER_SIZE_MIN : b->size;
        while (size < held + n)
                size *= 2;
        if (size > b->max && held + n <= b->max)
                size = b->max > held + n ? b->max : held + n;
        data = malloc(size);
        if (!data)
                return -ENOMEM;
        if (held > 0)
                memcpy(data, b->data + b->start, held);
        free(b->data);
        *b = (struct warm_buffer){ .data = data, .end = held, .size = size, .max = b->max };
        *ret_room = b->data + b->end;
        return 0;
}

int warm_buffer_append(struct warm_buffer *b, const void *data, size_t n) {
        uint8_t *room;
        int r;

        if (n == 0)
                return 0;
        r = warm_buffer_reserve(b, n, &room);
        if (r != 0)
                return r;
        memcpy(room, data, n);
        b->end += n;
        return 0;
}

void warm_buffer_consume(struct warm_buffer *b, size_t n) {
        assert(n <= b->end - b->start);
        b->start += n;
        if (b->start < b->end)
                return;
        b->start = b->end = 0;
        if (b->size > BUFFER_SIZE_KEEP)
                warm_buffer_deinit(b);
}

static int pack_bytes(void *userdata, const char *data, size_t n) {
        struct warm_writer *w = userdata;

        if (w->error == 0)
                w->error = warm_buffer_append(w->buffer, data, n);
        return 0;
}

static void count_element(struct warm_writer *w, uint32_t n) {
        if (n > WARM_FRAME_ELEMENTS_MAX - w->n_elements) {
                if (w->error == 0)
                        w->error = WARM_WIRE_E_FULL;
                return;
        }
        w->n_elements += n;
}

static void writer_init(struct warm_writer *w, struct warm_buffer *b) {
        *w = (struct warm_writer){ .buffer = b, .n_before = warm_buffer_n(b) };
        msgpack_packer_init(&w->packer, w, pack_bytes);
}

void warm_writer_request(struct warm_writer *w, struct warm_buffer *b, uint32_t id,
                         const char *method) {
        writer_init(w, b);
        warm_write_array(w, 4);
        warm_write_uint(w, WARM_FRAME_REQUEST);
        warm_write_uint(w, id);
        warm_write_string(w, method);
        warm_write_array(w, 1);
}

void warm_writer_notification(struct warm_writer *w, struct warm_buffer *b, const char *method) {
        writer_init(w, b);
        warm_write_array(w, 3);
        warm_write_uint(w, WARM_FRAME_NOTIFICATION);
        warm_write_string(w, method);
        warm_write_array(w, 1);
}

void warm_writer_result(struct warm_writer *w, struct warm_buffer *b, uint32_t id) {
        writer_init(w, b);
        warm_write_array(w, 4);
        warm_write_uint(w, WARM_FRAME_RESPONSE);
        warm_write_uint(w, id);
        warm_write_nil(w);
}

int warm_writer_error(struct warm_writer *w, struct warm_buffer *b, const uint32_t *id,
                      unsigned code, const char *name, const char *what) {
        writer_init(w, b);
        warm_write_array(w, 4);
        warm_write_uint(w, WARM_FRAME_RESPONSE);
        if (id)
                warm_write_uint(w, *id);
        else
                warm_write_nil(w);
        warm_write_array(w, 3);
        warm_write_uint(w, code);
        warm_write_string(w, name);
        warm_write_text(w, what, strlen(what));
        warm_write_nil(w);
        return warm_writer_end(w);
}

int warm_writer_end(struct warm_writer *w) {
        if (w->error == 0 && warm_buffer_n(w->buffer) - w->n_before > WARM_FRAME_BYTES_MAX)
                w->error = WARM_WIRE_E_FULL;
        if (w->error != 0)
                w->buffer->end = w->buffer->start + w->n_before;
        return w->error;
}

void warm_write_nil(struct warm_writer *w) {
        msgpack_pack_nil(&w->packer);
}

void warm_write_bool(struct warm_writer *w, bool value) {
        if (value)
                msgpack_pack_true(&w->packer);
        else
                msgpack_pack_false(&w->packer);
}

void warm_write_uint(struct warm_writer *w, uint64_t value) {
        msgpack_pack_uint64(&w->packer, value < WARM_WIRE_INT_MAX ? value : WARM_WIRE_INT_MAX);
}

void warm_write_int(struct warm_writer *w, int64_t value) {
        int64_t max = (int64_t) WARM_WIRE_INT_MAX;

        msgpack_pack_int64(&w->packer, value > max ? max : value < -max ? -max : value);
}

void warm_write_float(struct warm_writer *w, float value) {
        msgpack_pack_float(&w->packer, value);
}

void warm_write_double(struct warm_writer *w, double value) {
        msgpack_pack_double(&w->packer, value);
}

void warm_write_array(struct warm_writer *w, uint32_t n) {
        count_element(w, n);
        msgpack_pack_array(&w->packer, n);
}

void warm_write_map(struct warm_writer *w, uint32_t n_pairs) {
        count_element(w, n_pairs > UINT32_MAX / 2 ? UINT32_MAX : n_pairs * 2);
        msgpack_pack_map(&w->packer, n_pairs);
}

void warm_write_string(struct warm_writer *w, const char *s) {
        msgpack_pack_str_with_body(&w->packer, s, strlen(s));
}

void warm_write_text(struct warm_writer *w, const void *data, size_t n) {
        if (warm_utf8_valid(data, n))
                msgpack_pack_str_with_body(&w->packer, data, n);
        else
                warm_write_bytes(w, data, n);
}

void warm_write_bytes(struct warm_writer *w, const void *data, size_t n) {
        msgpack_pack_bin_with_body(&w->packer, data, n);
}

/* The forms of an id. A table, because nobody can foretell widths, a branch on them neither. */
static const struct {
        uint64_t head;
        uint8_t shift, n_bytes;
} id_forms[] = {
        { 0, 56, 1 },
        { 0xccULL << 56, 48, 2 },
        { 0xcdULL << 56, 40, 3 },
        { 0xceULL << 56, 24, 5 },
        { 0xd2ULL << 56, 24, 5 }, /* below zero: whoever reads it refuses it */
};

static uint64_t id_form(uint64_t id) {
        return ((0x7f - id) >> 63) + ((0xff - id) >> 63) + ((0xffff - id) >> 63) +
               ((INT32_MAX - id) >> 63);
}

/* The id's bytes and what is too much behind them. Return: how many are its own. */
static uint64_t id_word(uint32_t id, uint64_t *ret_word) {
        uint64_t form = id_form(id);

        *ret_word = htobe64(id_forms[form].head | (uint64_t) id << id_forms[form].shift);
        return id_forms[form].n_bytes;
}

static uint8_t *put_ids(uint8_t *at, const uint8_t *end, const int32_t *ids, uint32_t n) {
        uint64_t word, k;
        uint32_t i = 0;

        for (; i < n && end - at >= (ptrdiff_t) sizeof(word); i++) {
                k = id_word((uint32_t) ids[i], &word);
                memcpy(at, &word, sizeof(word)); /* the next one is written over what is too much */
                at += k;
        }
        for (; i < n; i++) {
                k = id_word((uint32_t) ids[i], &word);
                memcpy(at, &word, k);
                at += k;
        }
        return at;
}

void warm_write_ids(struct warm_writer *w, const int32_t *ids, uint32_t n) {
        size_t n_bytes = n;
        uint8_t *room, *end;

        warm_write_array(w, n);
        for (uint32_t i = 0; i < n; i++) {
                uint32_t id = (uint32_t) ids[i];

                n_bytes += (id > 0x7f) + (id > 0xff) + 2U * (id > 0xffff);
        }
        if (w->error == 0 && n > 0)
                w->error = warm_buffer_reserve(w->buffer, n_bytes, &room);
        if (w->error != 0 || n == 0)
                return;
        end = put_ids(room, room + n_bytes, ids, n);
        assert(end == room + n_bytes);
        w->buffer->end += n_bytes;
}
