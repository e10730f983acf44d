/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sealed memfds. Whoever makes one seals it before the fd leaves the process; whoever receives one checks seals and
 * size before mapping: without F_SEAL_SHRINK a mapping can turn into SIGBUS at any read.
 *
 * Boards, which clients receive, are sealed against future writers too: an O_RDONLY fd protects nothing, it can be
 * opened again for writing through /proc. State, which goes to the service manager's fd store only, stays writable
 * for the daemon that adopts it.
 */
#pragma once

#include <stdint.h>

#include <fcntl.h>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define WARM_MEMFD_SEALS_STATE ((unsigned) (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
#define WARM_MEMFD_SEALS_BOARD (WARM_MEMFD_SEALS_STATE | (unsigned) F_SEAL_FUTURE_WRITE)

enum {
        WARM_MEMFD_E_SEALS = 1, /* not a memfd, or a seal is missing */
        WARM_MEMFD_E_SIZE,      /* another size than the layout needs */
};

/*
 * Make a memfd of `bytes` zeroes, map it shared and writable, then seal it.
 *
 * @param name shown in /proc/self/maps; carries nothing of a person's
 * @param bytes > 0
 * @param seals WARM_MEMFD_SEALS_*
 * The fd (close) and the mapping (munmap, `bytes`) are the caller's.
 * Return: 0; -EINVAL (bytes); -errno of memfd_create, ftruncate, mmap, fcntl.
 */
int warm_memfd_new(const char *name, uint64_t bytes, unsigned seals, int *ret_fd, void **ret_map);

/*
 * Whether an fd has at least these seals and exactly this size.
 * Return: 0; WARM_MEMFD_E_SEALS; WARM_MEMFD_E_SIZE; -errno of fstat.
 */
int warm_memfd_check(int fd, unsigned seals, uint64_t bytes);

/*
 * Check, then map shared. The fd stays the caller's, the mapping (munmap, `bytes`) is the caller's.
 *
 * @param prot PROT_READ, or PROT_READ | PROT_WRITE for adopted state
 * Return: as warm_memfd_check; -errno of mmap.
 */
int warm_memfd_map(int fd, unsigned seals, uint64_t bytes, int prot, void **ret_map);
