/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the daemon tells the journal: one MESSAGE_ID an event, with fields; systemd/warmd.catalog explains each.
 *
 * Never a word of anybody's text: fields are numbers, uids, names of models and of limits, paths of configuration.
 * Under systemd entries go to the journal with their fields; at a terminal the message goes to stderr as one line.
 *
 * Thread: any.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <syslog.h>

enum warm_event_id {
        WARM_JOURNAL_READY,
        WARM_JOURNAL_STOPPING,
        WARM_JOURNAL_CONFIG_BAD,
        WARM_JOURNAL_MODEL_LOADED,
        WARM_JOURNAL_MODEL_REFUSED,
        WARM_JOURNAL_DEVICE_FALLBACK,
        WARM_JOURNAL_DEVICE_REFUSED,
        WARM_JOURNAL_MEMORY_AWAITED,
        WARM_JOURNAL_MEMORY_SHORT,
        WARM_JOURNAL_LISTEN_FAILED,
        WARM_JOURNAL_CLIENT_LIMITED,
        WARM_JOURNAL_BACKEND_LOST,
        WARM_JOURNAL_BACKEND_HUNG,
        WARM_JOURNAL_WATCHDOG_WITHHELD,
        WARM_JOURNAL_FAILED,
        _WARM_JOURNAL_N,
};

/* Choose journal or stderr: the journal if stderr is connected to it (JOURNAL_STREAM). Thread: main, once. */
void warm_journal_init(void);

/* The event's MESSAGE_ID: 32 hexadecimal digits. Static. */
const char *warm_journal_id(enum warm_event_id id);

/*
 * Tell one event.
 *
 * @param priority LOG_ERR .. LOG_DEBUG
 * @param fields "NAME=value" pairs after the message: each a name, then a value, ended by NULL; at most 12 pairs
 */
void warm_journal_send(enum warm_event_id id, int priority, const char *const *fields,
                       const char *format, ...) __attribute__((format(printf, 4, 5)));
