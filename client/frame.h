/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The frame check: is what came in one well-formed MessagePack-RPC message within our limits?
 *
 * It runs before the decoder sees a byte, because that allocates what a frame claims to hold. The check walks a
 * byte stream once: it remembers where it stopped, so a frame that comes in a byte at a time costs no more than one
 * that comes whole. It allocates nothing and reads no byte twice but those of a head that was cut.
 *
 *   request       array(4)  0, id, method, params
 *   response      array(4)  1, id, error, result
 *   notification  array(3)  2, method, params
 *
 * id is an integer of 0 .. 2^32-1, or nil in a response to a frame whose id could not be read. What method, params,
 * error and result must be is checked in wire.h, where a mistake costs one reply and not the connection.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WARM_FRAME_BYTES_MAX (4U << 20)
#define WARM_FRAME_DEPTH_MAX 16U /* arrays and maps inside each other, the outermost counted */
/* Values in a frame, keys counted: an object of msgpack-c has 24 bytes (12 MiB). */
#define WARM_FRAME_ELEMENTS_MAX (1U << 19)

enum {
        WARM_FRAME_E_MORE = 1, /* well-formed up to here; its end has not come */
        WARM_FRAME_E_LARGE, /* it is, or says that it will be, longer than WARM_FRAME_BYTES_MAX */
        WARM_FRAME_E_DEEP,  /* deeper than WARM_FRAME_DEPTH_MAX */
        WARM_FRAME_E_COUNT, /* claims more elements than bytes can follow, or than ELEMENTS_MAX */
        WARM_FRAME_E_RESERVED, /* the byte 0xc1 */
        WARM_FRAME_E_EXT,      /* an extension type */
        WARM_FRAME_E_SHAPE,    /* not one of the three messages */
        _WARM_FRAME_E_N,
};

enum warm_frame_type {
        WARM_FRAME_REQUEST = 0,
        WARM_FRAME_RESPONSE = 1,
        WARM_FRAME_NOTIFICATION = 2,
};

/* A check in progress. All zero: at the start of a frame. Owner: whoever reads the stream. */
struct warm_frame {
        size_t offset; /* bytes of the frame behind us; may be ahead of what has come */
        uint64_t
                n_pending; /* elements claimed and not yet seen, of all levels: a byte each at least */
        uint32_t n_elements; /* claimed so far */
        uint32_t depth;
        uint32_t n_left[WARM_FRAME_DEPTH_MAX]; /* elements not yet seen, of each open level */
        uint32_t n_top;                        /* 3 or 4 once known */
        enum warm_frame_type type;
        bool closed; /* every element was seen; the last one's bytes may still come */
        bool id_known;
        uint32_t id;
};

/*
 * Go on with the check.
 *
 * @param f all zero at the start of a frame; after an error it keeps what was known (id), and is of no other use
 * @param data the frame from its first byte: the same bytes as in the call before, and more; it may have moved
 * @param n_data bytes there; those behind the frame's end are not looked at
 * @param ret_n_bytes length of the frame
 * Return: 0: whole and well-formed, f is ready for the next frame after `*f = (struct warm_frame) { 0 }`;
 * WARM_FRAME_E_MORE: call again with more; another WARM_FRAME_E_*: the stream cannot be read on.
 */
int warm_frame_check(struct warm_frame *f, const void *data, size_t n_data, size_t *ret_n_bytes);
