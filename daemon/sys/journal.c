/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

#include "journal.h"

#define MESSAGE_MAX 1024U
#define PAIRS_MAX   12U

/* Each also stands in systemd/warmd.catalog; tests/daemon/sys holds the two against each other. */
static const char *const ids[_WARM_JOURNAL_N] = {
        [WARM_JOURNAL_READY] = "42998d8c0bac48c4a0f46ce7a7bd6169",
        [WARM_JOURNAL_STOPPING] = "f2199771008d4d599db798cb70903306",
        [WARM_JOURNAL_CONFIG_BAD] = "5150ac19715c44e38a51c8b8294e484f",
        [WARM_JOURNAL_MODEL_LOADED] = "6287bbcc28194753bffb57ec7ed8f5a0",
        [WARM_JOURNAL_MODEL_REFUSED] = "5a9f4c9713bd4fd8bc93fa20a17c7a2f",
        [WARM_JOURNAL_DEVICE_FALLBACK] = "7b565b20aa474fe28c04c23ac1f5035b",
        [WARM_JOURNAL_DEVICE_REFUSED] = "476030e9c2cf42918d451563799b0fd1",
        [WARM_JOURNAL_MEMORY_AWAITED] = "334b9a7bb85b440b9a918a1c928983c4",
        [WARM_JOURNAL_MEMORY_SHORT] = "88abe379d9e642869ed712905865a1ab",
        [WARM_JOURNAL_LISTEN_FAILED] = "7044e0d093aa42b9a6949ed0cf2307fe",
        [WARM_JOURNAL_CLIENT_LIMITED] = "126bb7e7bd5c46a2a0484e51e4163191",
        [WARM_JOURNAL_BACKEND_LOST] = "e6641b7bc5b64f8bba4be4f1a47a15bb",
        [WARM_JOURNAL_BACKEND_HUNG] = "c81e1866ceba4dad8316d3145d5d0218",
        [WARM_JOURNAL_WATCHDOG_WITHHELD] = "eea20826f7c44c4c8ef50451ecd863ce",
        [WARM_JOURNAL_FAILED] = "26da447c1c154ab9866b93fb5ae8a737",
};

static bool to_journal;

void warm_journal_init(void) {
        const char *stream = getenv("JOURNAL_STREAM");
        uintmax_t device, inode;
        struct stat st;

        to_journal = stream && sscanf(stream, "%" SCNuMAX ":%" SCNuMAX, &device, &inode) == 2 &&
                     fstat(STDERR_FILENO, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}

const char *warm_journal_id(enum warm_event_id id) {
        assert(id < _WARM_JOURNAL_N);
        return ids[id];
}

static struct iovec entry(char *text) {
        return (struct iovec){ .iov_base = text, .iov_len = strlen(text) };
}

void warm_journal_send(enum warm_event_id id, int priority, const char *const *fields,
                       const char *format, ...) {
        char message[MESSAGE_MAX] = "MESSAGE=", id_field[64], priority_field[16],
             pairs[PAIRS_MAX][256];
        struct iovec iov[PAIRS_MAX + 3];
        const size_t head = strlen(message);
        int n = 0;
        va_list ap;

        va_start(ap, format);
        vsnprintf(message + head, sizeof(message) - head, format, ap);
        va_end(ap);
        if (!to_journal) {
                fprintf(stderr, "warmd: %s\n", message + head);
                return;
        }
        snprintf(id_field, sizeof(id_field), "MESSAGE_ID=%s", warm_journal_id(id));
        snprintf(priority_field, sizeof(priority_field), "PRIORITY=%d", priority);
        iov[n++] = entry(message);
        iov[n++] = entry(id_field);
        iov[n++] = entry(priority_field);
        for (size_t i = 0; fields && fields[2 * i]; i++) {
                assert(i < PAIRS_MAX);
                snprintf(pairs[i], sizeof(pairs[i]), "%s=%s", fields[2 * i], fields[2 * i + 1]);
                iov[n++] = entry(pairs[i]);
        }
        if (sd_journal_sendv(iov, n) < 0)
                fprintf(stderr, "warmd: %s\n", message + head);
}
