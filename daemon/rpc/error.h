/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The errors of the wire: `[code, "name", "what to do"]`. Codes and names are stable: a new one gets a new number.
 * docs/PROTOCOL.md lists them; a test holds the two against each other.
 */
#pragma once

enum warm_rpc_error {
        /* the stream cannot be read on: one reply, then the connection ends */
        WARM_RPC_E_FRAME_LARGE = 1,
        WARM_RPC_E_FRAME_DEEP = 2,
        WARM_RPC_E_FRAME_COUNT = 3,
        WARM_RPC_E_FRAME_RESERVED = 4,
        WARM_RPC_E_FRAME_EXT = 5,
        WARM_RPC_E_FRAME_SHAPE = 6,
        WARM_RPC_E_FRAME_CUT = 7,
        /* a client's mistake */
        WARM_RPC_E_REQUEST = 20,
        WARM_RPC_E_UNKNOWN_METHOD = 21,
        WARM_RPC_E_UNKNOWN_KEY = 22,
        WARM_RPC_E_DUPLICATE_KEY = 23,
        WARM_RPC_E_TYPE = 24,
        WARM_RPC_E_RANGE = 25,
        WARM_RPC_E_MISSING = 26,
        WARM_RPC_E_CONFLICT = 27,
        WARM_RPC_E_UNKNOWN_MODEL = 28,
        WARM_RPC_E_PROMPT_LONG = 29,
        WARM_RPC_E_PROMPT_EMPTY = 30,
        WARM_RPC_E_UNKNOWN_TOKEN = 31,
        /* not for this client, or not now */
        WARM_RPC_E_NOT_PERMITTED = 40,
        WARM_RPC_E_UNKNOWN_UID = 41,
        WARM_RPC_E_CLIENTS = 42,
        WARM_RPC_E_REQUESTS = 43,
        WARM_RPC_E_INPUT = 44,
        WARM_RPC_E_BUSY = 45,
        WARM_RPC_E_NO_ROOM = 46,
        WARM_RPC_E_REPLY_LARGE = 47,
        /* the daemon's own trouble */
        WARM_RPC_E_MEMORY = 60,
        WARM_RPC_E_BACKEND = 61,
        WARM_RPC_E_SHUTDOWN = 62,
};

/* "frame-large", ...; asserts that the code is one of the above. Static. */
const char *warm_rpc_error_name(enum warm_rpc_error e);
/* What to do, where nothing more exact is known. Static. */
const char *warm_rpc_error_what(enum warm_rpc_error e);
