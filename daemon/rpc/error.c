/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stddef.h>

#include "error.h"

static const struct {
        enum warm_rpc_error error;
        const char *name;
        const char *what;
} table[] = {
        { WARM_RPC_E_FRAME_LARGE, "frame-large",
          "a frame may have 4194304 bytes: send less of the document" },
        { WARM_RPC_E_FRAME_DEEP, "frame-deep", "arrays and maps may be nested 16 deep" },
        { WARM_RPC_E_FRAME_COUNT, "frame-count",
          "an array or map claims more elements than bytes can follow, or the frame has over "
          "524288" },
        { WARM_RPC_E_FRAME_RESERVED, "frame-reserved", "the byte 0xc1 is no MessagePack" },
        { WARM_RPC_E_FRAME_EXT, "frame-ext", "extension types are not used: send str or bin" },
        { WARM_RPC_E_FRAME_SHAPE, "frame-shape",
          "send [0, id, method, [map]] or [2, method, [map]] in MessagePack" },
        { WARM_RPC_E_FRAME_CUT, "frame-cut", "the stream ended inside a frame: send it whole" },
        { WARM_RPC_E_REQUEST, "bad-request",
          "the method must be text and params an array that holds one map" },
        { WARM_RPC_E_UNKNOWN_METHOD, "unknown-method", "hello lists the methods" },
        { WARM_RPC_E_UNKNOWN_KEY, "unknown-key", "leave the key out" },
        { WARM_RPC_E_DUPLICATE_KEY, "duplicate-key", "send the key once" },
        { WARM_RPC_E_TYPE, "wrong-type", "send the type that the protocol names" },
        { WARM_RPC_E_RANGE, "out-of-range", "send a value within the range" },
        { WARM_RPC_E_MISSING, "missing-key", "send the key" },
        { WARM_RPC_E_CONFLICT, "conflict", "send one of the two" },
        { WARM_RPC_E_UNKNOWN_MODEL, "unknown-model", "models lists the models" },
        { WARM_RPC_E_PROMPT_LONG, "prompt-long",
          "the tokens do not fit the model's context: send fewer" },
        { WARM_RPC_E_PROMPT_EMPTY, "prompt-empty", "there is nothing to go on from: send text" },
        { WARM_RPC_E_UNKNOWN_TOKEN, "unknown-token", "the model has no token with this id" },
        { WARM_RPC_E_NOT_PERMITTED, "not-permitted",
          "this needs root or a member of the administrators' group" },
        { WARM_RPC_E_UNKNOWN_UID, "unknown-uid",
          "connect as a user that the system knows (a passwd entry)" },
        { WARM_RPC_E_CLIENTS, "too-many-clients", "close connections that are not used" },
        { WARM_RPC_E_REQUESTS, "too-many-requests",
          "wait for replies, or cancel what is no longer wanted" },
        { WARM_RPC_E_INPUT, "too-much-input", "finish the frames that were begun" },
        { WARM_RPC_E_BUSY, "busy", "try again in a moment" },
        { WARM_RPC_E_NO_ROOM, "no-room",
          "prompt and n_max do not fit the memory for KV: send less, or raise --kv-memory" },
        { WARM_RPC_E_REPLY_LARGE, "reply-large", "the reply does not fit a frame: ask for less" },
        { WARM_RPC_E_MEMORY, "out-of-memory", "the daemon has no memory left: try again later" },
        { WARM_RPC_E_BACKEND, "backend-failed", "the device failed: the journal says more" },
        { WARM_RPC_E_SHUTDOWN, "shutting-down", "the daemon ends: connect again" },
};

static size_t find(enum warm_rpc_error e) {
        size_t i = 0;

        while (i < sizeof(table) / sizeof(table[0]) && table[i].error != e)
                i++;
        assert(i < sizeof(table) / sizeof(table[0]));
        return i;
}

const char *warm_rpc_error_name(enum warm_rpc_error e) {
        return table[find(e)].name;
}

const char *warm_rpc_error_what(enum warm_rpc_error e) {
        return table[find(e)].what;
}
