/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The wire, as a hostile client sees it: bytes into a real server over a made-up engine. Promised:
 * - the frame check says the same whether a stream comes whole or byte by byte;
 * - each request gets exactly one response, a stream that breaks one more, and nothing else does;
 * - every refusal is [code, name, what] with a name that belongs to the code; every answer is a frame;
 * - the next client is served, and nothing of this one is left.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "../daemon/rpc/harness.h"
#include "fuzz.h"

#define WALK_MAX 4096U /* bytes that are also fed one by one */

static void require(bool promise) {
        if (!promise)
                abort();
}

struct expected {
        unsigned n_responses;
        bool broken;
};

/* What a stream must bring: by the frame check, which is the server's own. */
static struct expected walk(const uint8_t *data, size_t n) {
        struct expected e = { 0 };
        struct warm_frame f = { 0 };
        size_t at = 0, n_frame = 0;
        int r = WARM_FRAME_E_MORE;

        while (at < n) {
                enum warm_frame_type type;

                r = warm_frame_check(&f, data + at, n - at, &n_frame);
                if (r != 0)
                        break;
                type = f.type;
                f = (struct warm_frame){ 0 };
                for (size_t i = 0; i < n_frame && n_frame <= WALK_MAX; i++)
                        require(warm_frame_check(&f, data + at, i, &n_frame) == WARM_FRAME_E_MORE);
                f = (struct warm_frame){ 0 };
                at += n_frame;
                e.n_responses += type == WARM_FRAME_REQUEST;
        }
        e.broken = at < n;
        if (e.broken && n - at <= WALK_MAX) {
                struct warm_frame slow = { 0 };
                int s = WARM_FRAME_E_MORE;

                for (size_t i = 0; i <= n - at && s == WARM_FRAME_E_MORE; i++)
                        s = warm_frame_check(&slow, data + at, i, &n_frame);
                require(s == r);
        }
        return e;
}

static void check_response(const struct warm_message *m) {
        struct warm_wire_text name, what;
        uint32_t code = 0;

        if (!m->error) {
                require(m->result && m->id_known);
                return;
        }
        require(!m->result && warm_read_error(m->error, &code, &name, &what) == 0);
        require(name.n == strlen(warm_rpc_error_name(code)) &&
                memcmp(name.data, warm_rpc_error_name(code), name.n) == 0 && what.n > 0);
}

__attribute__((visibility("default"))) int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        static struct harness *h;
        struct warm_server_stats stats;
        struct expected e = walk(data, n);
        unsigned n_responses = 0;
        struct peer p;

        if (!h)
                h = harness_new(NULL);
        peer_open(h, &p);
        if (peer_send(h, &p, data, n))
                shutdown(p.fd, SHUT_WR);
        while (peer_take(h, &p)) {
                if (p.m.type == WARM_FRAME_NOTIFICATION)
                        continue;
                require(p.m.type == WARM_FRAME_RESPONSE);
                check_response(&p.m);
                n_responses++;
        }
        require(n_responses == e.n_responses + e.broken);
        require(p.at_end || n == 0);
        peer_close(&p);
        pump(h);
        warm_server_stats(h->server, &stats);
        require(stats.n_clients == 0 && stats.n_requests == 0);
        require(fake_engine_n_held(h->engine) == 0);
        return 0;
}
