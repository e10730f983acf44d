/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The walk over a frame's heads. Source of the byte values: the MessagePack specification, "Formats".
 *
 *   00-7f  integer        80-8f  map, 0-15      90-9f  array, 0-15    a0-bf  str, 0-31 bytes
 *   c0     nil            c1     reserved       c2-c3  false, true    c4-c6  bin, 8/16/32
 *   c7-c9  ext            ca-cb  float 32/64    cc-cf  uint 8-64      d0-d3  int 8-64
 *   d4-d8  fixext         d9-db  str, 8/16/32   dc-dd  array, 16/32   de-df  map, 16/32
 *   e0-ff  negative integer
 */
#include <assert.h>

#include "frame.h"

enum head_kind { HEAD_SCALAR, HEAD_UINT, HEAD_NIL, HEAD_BYTES, HEAD_ARRAY, HEAD_MAP };

struct head {
        enum head_kind kind;
        unsigned n_bytes; /* of the head itself */
        uint64_t
                value; /* of an integer; length of a string; elements of an array; pairs of a map */
};

static uint64_t read_big_endian(const uint8_t *p, unsigned n) {
        uint64_t value = 0;

        for (unsigned i = 0; i < n; i++)
                value = value << 8 | p[i];
        return value;
}

/* The heads c0 .. df. Return: 0, WARM_FRAME_E_RESERVED, WARM_FRAME_E_EXT; extra: bytes behind the first. */
static int classify(uint8_t first, enum head_kind *ret_kind, unsigned *ret_n_extra) {
        static const struct {
                uint8_t kind, n_extra;
        } table[32] = {
                [0x00] = { HEAD_NIL, 0 },    [0x02] = { HEAD_SCALAR, 0 },
                [0x03] = { HEAD_SCALAR, 0 }, [0x04] = { HEAD_BYTES, 1 },
                [0x05] = { HEAD_BYTES, 2 },  [0x06] = { HEAD_BYTES, 4 },
                [0x0a] = { HEAD_SCALAR, 4 }, [0x0b] = { HEAD_SCALAR, 8 },
                [0x0c] = { HEAD_UINT, 1 },   [0x0d] = { HEAD_UINT, 2 },
                [0x0e] = { HEAD_UINT, 4 },   [0x0f] = { HEAD_UINT, 8 },
                [0x10] = { HEAD_UINT, 1 },   [0x11] = { HEAD_UINT, 2 },
                [0x12] = { HEAD_UINT, 4 },   [0x13] = { HEAD_UINT, 8 },
                [0x19] = { HEAD_BYTES, 1 },  [0x1a] = { HEAD_BYTES, 2 },
                [0x1b] = { HEAD_BYTES, 4 },  [0x1c] = { HEAD_ARRAY, 2 },
                [0x1d] = { HEAD_ARRAY, 4 },  [0x1e] = { HEAD_MAP, 2 },
                [0x1f] = { HEAD_MAP, 4 },
        };

        assert(first >= 0xc0 && first <= 0xdf);
        if (first == 0xc1)
                return WARM_FRAME_E_RESERVED;
        if ((first >= 0xc7 && first <= 0xc9) || (first >= 0xd4 && first <= 0xd8))
                return WARM_FRAME_E_EXT;
        *ret_kind = table[first - 0xc0].kind;
        *ret_n_extra = table[first - 0xc0].n_extra;
        return 0;
}

/* Return: 0; WARM_FRAME_E_MORE: the head is cut; WARM_FRAME_E_RESERVED; WARM_FRAME_E_EXT. */
static int read_head(const uint8_t *p, size_t n, struct head *ret_head) {
        enum head_kind kind = HEAD_SCALAR;
        unsigned n_extra = 0;
        uint64_t value;
        int r;

        if (n == 0)
                return WARM_FRAME_E_MORE;
        if (*p <= 0x7f) {
                *ret_head = (struct head){ HEAD_UINT, 1, *p };
                return 0;
        }
        if (*p <= 0x9f) {
                *ret_head = (struct head){ *p <= 0x8f ? HEAD_MAP : HEAD_ARRAY, 1, *p & 0x0f };
                return 0;
        }
        if (*p <= 0xbf) {
                *ret_head = (struct head){ HEAD_BYTES, 1, *p & 0x1f };
                return 0;
        }
        if (*p >= 0xe0) {
                *ret_head = (struct head){ HEAD_SCALAR, 1, 0 };
                return 0;
        }
        r = classify(*p, &kind, &n_extra);
        if (r != 0)
                return r;
        if (n < 1 + n_extra)
                return WARM_FRAME_E_MORE;
        value = read_big_endian(p + 1, n_extra);
        /* a signed integer below zero is no id, type or count: its value does not matter here */
        if (*p >= 0xd0 && *p <= 0xd3 && p[1] >= 0x80)
                kind = HEAD_SCALAR;
        *ret_head = (struct head){ kind, 1 + n_extra, value };
        return 0;
}

/* The outermost array, and its first two elements, make the message. */
static int check_shape(struct warm_frame *f, const struct head *h) {
        uint32_t index;

        if (f->depth == 0) {
                if (h->kind != HEAD_ARRAY || (h->value != 3 && h->value != 4))
                        return WARM_FRAME_E_SHAPE;
                f->n_top = (uint32_t) h->value;
                return 0;
        }
        if (f->depth != 1)
                return 0;
        index = f->n_top - f->n_left[0];
        if (index == 0) {
                if (h->kind != HEAD_UINT || h->value > WARM_FRAME_NOTIFICATION)
                        return WARM_FRAME_E_SHAPE;
                f->type = (enum warm_frame_type) h->value;
                if ((f->type == WARM_FRAME_NOTIFICATION) != (f->n_top == 3))
                        return WARM_FRAME_E_SHAPE;
        } else if (index == 1 && f->type != WARM_FRAME_NOTIFICATION) {
                if (h->kind == HEAD_NIL && f->type == WARM_FRAME_RESPONSE)
                        return 0;
                if (h->kind != HEAD_UINT || h->value > UINT32_MAX)
                        return WARM_FRAME_E_SHAPE;
                f->id = (uint32_t) h->value;
                f->id_known = true;
        }
        return 0;
}

/* Take n elements into account that an array or map claims. */
static int open_level(struct warm_frame *f, uint64_t n) {
        if (f->depth == WARM_FRAME_DEPTH_MAX)
                return WARM_FRAME_E_DEEP;
        if (n > WARM_FRAME_ELEMENTS_MAX - f->n_elements)
                return WARM_FRAME_E_COUNT;
        f->n_elements += (uint32_t) n;
        f->n_pending += n;
        if (f->n_pending > WARM_FRAME_BYTES_MAX - f->offset)
                return WARM_FRAME_E_COUNT;
        f->n_left[f->depth++] = (uint32_t) n;
        return 0;
}

/* Take one element. Return: 0; WARM_FRAME_E_*, f unchanged if E_MORE. */
static int take_element(struct warm_frame *f, const uint8_t *data, size_t n_data) {
        uint64_t n_bytes;
        struct head h;
        int r;

        if (f->offset >= n_data)
                return WARM_FRAME_E_MORE;
        r = read_head(data + f->offset, n_data - f->offset, &h);
        if (r != 0)
                return r;
        r = check_shape(f, &h);
        if (r != 0)
                return r;
        n_bytes = h.n_bytes + (h.kind == HEAD_BYTES ? h.value : 0);
        if (n_bytes > WARM_FRAME_BYTES_MAX - f->offset)
                return WARM_FRAME_E_LARGE;
        f->offset += n_bytes;
        if (f->depth > 0) {
                assert(f->n_left[f->depth - 1] > 0 && f->n_pending > 0);
                f->n_left[f->depth - 1]--;
                f->n_pending--;
        }
        if (f->n_pending > WARM_FRAME_BYTES_MAX - f->offset)
                return WARM_FRAME_E_LARGE;
        if (h.kind == HEAD_ARRAY)
                return open_level(f, h.value);
        if (h.kind == HEAD_MAP)
                return open_level(f, h.value * 2);
        return 0;
}

/* Bytes of an integer by its first one; 0: it is none. */
static const uint8_t integer_bytes[256] = {
        [0x00 ... 0x7f] = 1, [0xcc] = 2, [0xcd] = 3, [0xce] = 5, [0xcf] = 9,
        [0xd0] = 2,          [0xd1] = 3, [0xd2] = 5, [0xd3] = 9, [0xe0 ... 0xff] = 1,
};

#define INTEGER_BYTES_MAX 9U

/*
 * Integers inside the parameters, one after the other: what a prompt of ids is. All but the last of their level; the
 * last bytes that have come, and what is near a limit, are left to take_element(). No branch depends on their widths,
 * which nobody can foretell.
 */
static void take_integers(struct warm_frame *f, const uint8_t *data, size_t n_data) {
        uint32_t n_left = f->n_left[f->depth - 1], n = 0;
        uint64_t end = n_data < WARM_FRAME_BYTES_MAX ? n_data : WARM_FRAME_BYTES_MAX;
        uint64_t offset = f->offset;

        /* Where what is claimed can still come if each of these is of the longest: nothing to look at but the end. */
        if (f->n_pending + (uint64_t) n_left * INTEGER_BYTES_MAX > WARM_FRAME_BYTES_MAX - offset)
                return;
        while (n + 1 < n_left && offset + INTEGER_BYTES_MAX <= end) {
                unsigned k = integer_bytes[data[offset]];

                if (k == 0)
                        break;
                offset += k;
                n++;
        }
        f->n_left[f->depth - 1] -= n;
        f->n_pending -= n;
        f->offset = offset;
}

int warm_frame_check(struct warm_frame *f, const void *data, size_t n_data, size_t *ret_n_bytes) {
        int r;

        while (!f->closed) {
                if (f->depth > 1)
                        take_integers(f, data, n_data);
                r = take_element(f, data, n_data);
                if (r != 0)
                        return r;
                while (f->depth > 0 && f->n_left[f->depth - 1] == 0)
                        f->depth--;
                f->closed = f->depth == 0;
        }
        if (f->offset > n_data)
                return WARM_FRAME_E_MORE;
        *ret_n_bytes = f->offset;
        return 0;
}
