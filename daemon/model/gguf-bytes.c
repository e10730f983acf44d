/* SPDX-License-Identifier: Apache-2.0 */
/* See gguf-bytes.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "gguf-bytes.h"
#include "why.h"

/* File systems that enforce owner and mode in the kernel, and that <linux/magic.h> may not know yet. */
#ifndef EROFS_SUPER_MAGIC_V1
#define EROFS_SUPER_MAGIC_V1 0xE0F5E1E2
#endif
#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif
#define ZFS_SUPER_MAGIC      0x2fc12fc1
#define BCACHEFS_SUPER_MAGIC 0xca451a4e

bool warm_bytes_may_map(const struct stat *st, long fs_type) {
        if (st->st_uid != 0 || (st->st_mode & (S_IWGRP | S_IWOTH)))
                return false;
        switch ((unsigned long) fs_type & 0xffffffffUL) {
        case EXT4_SUPER_MAGIC: /* and ext2, ext3 */
        case XFS_SUPER_MAGIC:
        case BTRFS_SUPER_MAGIC:
        case F2FS_SUPER_MAGIC:
        case TMPFS_MAGIC:
        case OVERLAYFS_SUPER_MAGIC:
        case SQUASHFS_MAGIC:
        case EROFS_SUPER_MAGIC_V1:
        case ZFS_SUPER_MAGIC:
        case BCACHEFS_SUPER_MAGIC:
                return true;
        default:
                return false;
        }
}

static int bytes_map(struct warm_bytes *b) {
        void *at = mmap(NULL, b->n, PROT_READ, MAP_PRIVATE, b->fd, 0);

        if (at == MAP_FAILED)
                return -errno;
        b->data = at;
        b->n_ready = b->n;
        b->mapped = true;
        close(b->fd);
        b->fd = -1;
        return 0;
}

/* Address range for the whole file; a page costs memory when it is read into, so a lie about the size costs none. */
static int bytes_reserve(struct warm_bytes *b) {
        void *at = mmap(NULL, b->n, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

        if (at == MAP_FAILED)
                return -errno;
        (void) posix_fadvise(b->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
        (void) madvise(at, b->n, MADV_HUGEPAGE); /* a fault for 2 MiB, not for each page */
        b->data = b->own = at;
        return 0;
}

int warm_bytes_open(const char *path, struct warm_bytes *ret_bytes, char **ret_why) {
        struct warm_bytes b = { .fd = -1 };
        struct statfs fs;
        struct stat st;
        int r;

        /* O_NONBLOCK: a FIFO or a device must not hold us up before it is refused. */
        b.fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        if (b.fd < 0) {
                r = -errno;
                return warm_why(ret_why, r, "cannot be opened: %s; check the path and its rights",
                                strerror(-r));
        }
        if (fstat(b.fd, &st) < 0 || fstatfs(b.fd, &fs) < 0) {
                r = -errno;
                warm_why(ret_why, r, "cannot be examined: %s", strerror(-r));
                goto fail;
        }
        if (!S_ISREG(st.st_mode) || st.st_size <= 0) {
                r = warm_why(ret_why, -EBADMSG, "is %s; a model is a GGUF file",
                             S_ISREG(st.st_mode) ? "empty" : "not a regular file");
                goto fail;
        }
        b.n = (uint64_t) st.st_size;
        r = warm_bytes_may_map(&st, (long) fs.f_type) ? bytes_map(&b) : bytes_reserve(&b);
        if (r < 0) {
                if (r != -ENOMEM)
                        warm_why(ret_why, r, "cannot be mapped: %s", strerror(-r));
                goto fail;
        }
        *ret_bytes = b;
        return 0;
fail:
        if (b.fd >= 0)
                close(b.fd);
        return r;
}

void warm_bytes_borrow(const void *data, uint64_t n, struct warm_bytes *ret_bytes) {
        *ret_bytes = (struct warm_bytes){ .data = data, .n = n, .n_ready = n, .fd = -1 };
}

void warm_bytes_close(struct warm_bytes *b) {
        if (b->own)
                munmap(b->own, b->n);
        else if (b->mapped)
                munmap((void *) (uintptr_t) b->data, b->n);
        if (b->fd >= 0)
                close(b->fd);
        *b = (struct warm_bytes){ .fd = -1 };
}

int warm_bytes_read(const struct warm_bytes *b, uint64_t start, uint64_t end, char **ret_why) {
        if (start < b->n_ready)
                start = b->n_ready;
        while (start < end) {
                uint64_t left = end - start;
                size_t want = left < WARM_BYTES_CHUNK ? (size_t) left : WARM_BYTES_CHUNK;
                ssize_t n = pread(b->fd, b->own + start, want, (off_t) start);
                int r;

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0) {
                        r = -errno;
                        return warm_why(ret_why, r, "cannot be read at byte %llu: %s",
                                        (unsigned long long) start, strerror(-r));
                }
                if (n == 0)
                        return warm_why(ret_why, -EBADMSG,
                                        "became shorter while it was read (%llu of %llu bytes); "
                                        "load it again when its copy is complete",
                                        (unsigned long long) start, (unsigned long long) b->n);
                start += (uint64_t) n;
        }
        return 0;
}

int warm_bytes_fill(struct warm_bytes *b, uint64_t upto, char **ret_why) {
        /* a whole chunk at a time: headers are taken a few bytes after another */
        uint64_t left = b->n - b->n_ready,
                 end = left < WARM_BYTES_CHUNK ? b->n : b->n_ready + WARM_BYTES_CHUNK;
        int r;

        if (b->n_ready >= upto)
                return 0;
        if (end < upto)
                end = upto;
        r = warm_bytes_read(b, b->n_ready, end, ret_why);
        if (r == 0)
                b->n_ready = end;
        return r;
}
