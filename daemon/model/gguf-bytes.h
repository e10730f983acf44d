/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of a model file: mapped where that is safe, else read into memory of our own as they are needed.
 * Private to gguf*.c and their tests. Embedded, one owner, one thread at a time (but warm_bytes_read()).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

/* Bytes a read asks for: fits the second-level cache, so that the hash behind it finds them there (untuned guess). */
#define WARM_BYTES_CHUNK (1U << 20)

struct warm_bytes {
        const uint8_t *data; /* [n], address range; the first n_ready bytes are the file's */
        uint64_t n;
        uint64_t n_ready;
        uint8_t *own; /* anonymous memory to read into; NULL if mapped or borrowed */
        bool mapped;
        int fd; /* -1 when no reads remain */
};

/*
 * Open a regular file.
 * Return: 0; -ENOMEM; -EBADMSG: not a regular file, or empty; else what open(), fstat() or mmap() failed with.
 */
int warm_bytes_open(const char *path, struct warm_bytes *ret_bytes, char **ret_why);

/* Bytes somebody else owns. */
void warm_bytes_borrow(const void *data, uint64_t n, struct warm_bytes *ret_bytes);
void warm_bytes_close(struct warm_bytes *b);

/* Make the first `upto` bytes ready (<= n). Return: 0; -EBADMSG: the file became shorter; else what read() said. */
int warm_bytes_fill(struct warm_bytes *b, uint64_t upto, char **ret_why);

/*
 * Read bytes start to end (<= n) to their place, those that are not ready; they do not become it by that.
 * Thread: any, several at once on different bytes, while nobody fills. Return: as warm_bytes_fill().
 */
int warm_bytes_read(const struct warm_bytes *b, uint64_t start, uint64_t end, char **ret_why);

/*
 * Whether nobody but root may change the file while it is mapped: root owns it, neither group nor others may write
 * (an ACL that grants a write shows in the group bits), and the file system enforces that by itself. On network,
 * FUSE and DOS file systems owner and mode can be made up.
 */
bool warm_bytes_may_map(const struct stat *st, long fs_type);
