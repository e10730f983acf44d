/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fdpass.h"

union control {
        char bytes[CMSG_SPACE(sizeof(int) * WARM_FDPASS_MAX)];
        struct cmsghdr align;
};

static int outcome(void) {
        if (errno == EAGAIN || errno == EWOULDBLOCK)
                return WARM_FDPASS_E_AGAIN;
        if (errno == EPIPE || errno == ECONNRESET)
                return WARM_FDPASS_E_CLOSED;
        return -errno;
}

int warm_fdpass_send(int socket, const void *bytes, size_t n_bytes, const int *fds, uint32_t n_fds,
                     size_t *ret_n) {
        union control control;
        struct iovec iov = { .iov_base = (void *) bytes, .iov_len = n_bytes };
        struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
        ssize_t n;

        assert(bytes && ret_n);
        assert(fds || n_fds == 0);
        if (n_bytes == 0 || n_fds > WARM_FDPASS_MAX)
                return -EINVAL;
        if (n_fds > 0) {
                struct cmsghdr *header;

                memset(&control, 0, sizeof(control));
                message.msg_control = control.bytes;
                message.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
                header = CMSG_FIRSTHDR(&message);
                header->cmsg_level = SOL_SOCKET;
                header->cmsg_type = SCM_RIGHTS;
                header->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
                memcpy(CMSG_DATA(header), fds, sizeof(int) * n_fds);
        }
        do
                n = sendmsg(socket, &message, MSG_NOSIGNAL);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return outcome();
        *ret_n = (size_t) n;
        return 0;
}

/* Keep the fds that were asked for, close the others. Return: how many came. */
static uint32_t collect(struct msghdr *message, int *ret_fds, uint32_t n_fds_max) {
        uint32_t n = 0;

        for (struct cmsghdr *h = CMSG_FIRSTHDR(message); h; h = CMSG_NXTHDR(message, h)) {
                size_t n_here;

                if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
                        continue;
                n_here = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
                for (size_t i = 0; i < n_here; i++, n++) {
                        int fd;

                        memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof(fd));
                        if (n < n_fds_max)
                                ret_fds[n] = fd;
                        else
                                close(fd);
                }
        }
        return n;
}

int warm_fdpass_receive(int socket, void *bytes, size_t n_bytes_max, int *ret_fds,
                        uint32_t n_fds_max, size_t *ret_n_bytes, uint32_t *ret_n_fds) {
        union control control;
        struct iovec iov = { .iov_base = bytes, .iov_len = n_bytes_max };
        struct msghdr message = {
                .msg_iov = &iov,
                .msg_iovlen = 1,
                .msg_control = control.bytes,
                .msg_controllen = sizeof(control.bytes),
        };
        uint32_t n_fds;
        ssize_t n;

        assert(bytes && ret_n_bytes && ret_n_fds);
        assert(ret_fds || n_fds_max == 0);
        if (n_bytes_max == 0 || n_fds_max > WARM_FDPASS_MAX)
                return -EINVAL;
        do
                n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return outcome();
        n_fds = collect(&message, ret_fds, n_fds_max);
        if (n_fds > n_fds_max || (message.msg_flags & MSG_CTRUNC)) {
                for (uint32_t i = 0; i < n_fds && i < n_fds_max; i++)
                        close(ret_fds[i]);
                return WARM_FDPASS_E_LIMIT;
        }
        if (n == 0)
                return WARM_FDPASS_E_CLOSED;
        *ret_n_bytes = (size_t) n;
        *ret_n_fds = n_fds;
        return 0;
}
