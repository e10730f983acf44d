/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memfd.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

static int memfd_create_quiet(const char *name) {
        /* Linux before 6.3 does not know the flag and refuses it; later ones warn if it is left out. */
        int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

        if (fd < 0 && errno == EINVAL)
                fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
        return fd < 0 ? -errno : fd;
}

int warm_memfd_new(const char *name, uint64_t bytes, unsigned seals, int *ret_fd, void **ret_map) {
        void *map = MAP_FAILED;
        int fd, r;

        assert(name);
        assert(ret_fd && ret_map);
        if (bytes == 0 || bytes > (uint64_t) INT64_MAX || bytes > SIZE_MAX)
                return -EINVAL;
        fd = memfd_create_quiet(name);
        if (fd < 0)
                return fd;
        if (ftruncate(fd, (off_t) bytes) < 0)
                goto fail;
        /* Mapped before it is sealed: F_SEAL_FUTURE_WRITE refuses later writable mappings, ours too. */
        map = mmap(NULL, (size_t) bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED)
                goto fail;
        if (fcntl(fd, F_ADD_SEALS, seals) < 0)
                goto fail;
        *ret_fd = fd;
        *ret_map = map;
        return 0;
fail:
        r = -errno;
        if (map != MAP_FAILED)
                munmap(map, (size_t) bytes);
        close(fd);
        return r;
}

int warm_memfd_check(int fd, unsigned seals, uint64_t bytes) {
        struct stat st;
        int have;

        assert(fd >= 0);
        assert(seals != 0);
        have = fcntl(fd, F_GET_SEALS);
        if (have < 0 || ((unsigned) have & seals) != seals)
                return WARM_MEMFD_E_SEALS;
        if (fstat(fd, &st) < 0)
                return -errno;
        if (st.st_size < 0 || (uint64_t) st.st_size != bytes)
                return WARM_MEMFD_E_SIZE;
        return 0;
}

int warm_memfd_map(int fd, unsigned seals, uint64_t bytes, int prot, void **ret_map) {
        void *map;
        int r = warm_memfd_check(fd, seals, bytes);

        assert(ret_map);
        if (r != 0)
                return r;
        if (bytes == 0 || bytes > SIZE_MAX)
                return WARM_MEMFD_E_SIZE;
        map = mmap(NULL, (size_t) bytes, prot, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED)
                return -errno;
        *ret_map = map;
        return 0;
}
