/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <pwd.h>
#include <stdlib.h>
#include <unistd.h>

#include "uid.h"

#define KNOWN_FOR_NS     60000000000ULL
#define NOTE_EVERY_NS    1000000000ULL
#define PASSWD_BYTES     4096U
#define PASSWD_BYTES_MAX (1U << 20)

void warm_uids_init(struct warm_uids *u) {
        TAILQ_INIT(&u->list);
        u->n = 0;
}

void warm_uids_deinit(struct warm_uids *u) {
        struct warm_uid *record;

        while ((record = TAILQ_FIRST(&u->list))) {
                assert(record->n_clients == 0);
                TAILQ_REMOVE(&u->list, record, link);
                free(record);
        }
        u->n = 0;
}

static bool is_idle(const struct warm_uid *u) {
        return u->n_clients == 0 && u->n_requests == 0;
}

static void forget_oldest(struct warm_uids *u) {
        struct warm_uid *record;

        TAILQ_FOREACH_REVERSE(record, &u->list, warm_uid_list, link) {
                if (!is_idle(record))
                        continue;
                TAILQ_REMOVE(&u->list, record, link);
                free(record);
                u->n--;
                return;
        }
}

int warm_uids_get(struct warm_uids *u, uid_t uid, struct warm_uid **ret_uid) {
        struct warm_uid *record;

        TAILQ_FOREACH(record, &u->list, link)
        if (record->uid == uid)
                break;
        if (record) {
                TAILQ_REMOVE(&u->list, record, link);
        } else {
                if (u->n >= WARM_SERVER_UIDS_REMEMBERED_MAX)
                        forget_oldest(u);
                record = calloc(1, sizeof(*record));
                if (!record)
                        return -ENOMEM;
                record->uid = uid;
                u->n++;
        }
        TAILQ_INSERT_HEAD(&u->list, record, link);
        *ret_uid = record;
        return 0;
}

/* An answer that could not be had (no memory, a directory service that fails) counts as no. */
static bool has_passwd_entry(uid_t uid) {
        struct passwd entry, *found = NULL;
        char *buffer = NULL, *larger;
        int r = ERANGE;

        for (size_t n = PASSWD_BYTES; r == ERANGE && n <= PASSWD_BYTES_MAX; n *= 4) {
                larger = realloc(buffer, n);
                if (!larger)
                        break;
                buffer = larger;
                do
                        r = getpwuid_r(uid, &entry, buffer, n, &found);
                while (r == EINTR);
        }
        free(buffer);
        return r == 0 && found;
}

bool warm_uid_is_known(struct warm_uid *u, uint64_t now_ns) {
        if (u->uid == 0 || u->uid == geteuid())
                return true;
        if (u->known_ns == 0 || now_ns - u->known_ns > KNOWN_FOR_NS) {
                u->known = has_passwd_entry(u->uid);
                u->known_ns = now_ns;
        }
        return u->known;
}

bool warm_uid_may_note(struct warm_uid *u, enum warm_server_note_kind kind, uint64_t now_ns) {
        if (u->noted_ns[kind] != 0 && now_ns - u->noted_ns[kind] < NOTE_EVERY_NS)
                return false;
        u->noted_ns[kind] = now_ns;
        return true;
}
