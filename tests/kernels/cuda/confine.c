/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "confine.h"

#define NOBODY 65534
#ifndef PR_SET_MDWE
#define PR_SET_MDWE              65 /* linux/prctl.h of Linux 6.3 */
#define PR_MDWE_REFUSE_EXEC_GAIN 1
#endif
#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#endif

/* Refuse what the unit refuses; each as EPERM. */
static int filter_install(void) {
        static const int denied[] = { SYS_ptrace,          SYS_mount,          SYS_keyctl,
                                      SYS_add_key,         SYS_request_key,    SYS_bpf,
                                      SYS_perf_event_open, SYS_io_uring_setup, SYS_userfaultfd };
        struct sock_filter code[64];
        uint32_t n = 0;
        struct sock_fprog program;

#define LOAD(field)                                                                                \
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t) offsetof(struct seccomp_data, field))
#define UNLESS(value, skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t) (value), 0, skip)
#define DENY                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM)
#define PUT(...)            code[n++] = (struct sock_filter) __VA_ARGS__
        PUT(LOAD(arch));
        PUT(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0));
        PUT(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
        PUT(LOAD(nr));
        for (uint32_t i = 0; i < sizeof(denied) / sizeof(*denied); i++) {
                PUT(UNLESS(denied[i], 1));
                PUT(DENY);
        }
        PUT(UNLESS(SYS_socket, 3));
        PUT(LOAD(args[0]));
        PUT(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_UNIX, 1, 0));
        PUT(DENY);
        PUT(LOAD(nr));
        PUT(UNLESS(SYS_mprotect, 3)); /* no page becomes executable */
        PUT(LOAD(args[2]));
        PUT(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 0, 1));
        PUT(DENY);
        PUT(LOAD(nr));
        PUT(UNLESS(SYS_pkey_mprotect, 3));
        PUT(LOAD(args[2]));
        PUT(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 0, 1));
        PUT(DENY);
        PUT(LOAD(nr));
        PUT(UNLESS(SYS_mmap, 4));
        PUT(LOAD(args[2]));
        PUT(BPF_STMT(BPF_ALU | BPF_AND | BPF_K, PROT_EXEC | PROT_WRITE));
        PUT(UNLESS(PROT_EXEC | PROT_WRITE, 1));
        PUT(DENY);
        PUT(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
        program = (struct sock_fprog){ (unsigned short) n, code };
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return -errno;
        return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0 ? -errno : 0;
}

static void must(bool ok, const char *what) {
        if (ok)
                return;
        printf("not ok - a process is confined: %s\n", what);
        exit(1);
}

void confine(void) {
        bool mdwe;

        if (geteuid() ==
            0) { /* root may read its own /proc whatever is asked; the daemon is not root */
                must(setgroups(0, NULL) == 0, "setgroups");
                must(setresgid(NOBODY, NOBODY, NOBODY) == 0, "setresgid");
                must(setresuid(NOBODY, NOBODY, NOBODY) == 0, "setresuid");
        }
        must(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0, "PR_SET_DUMPABLE");
        mdwe = prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) == 0;
        must(mdwe || errno == EINVAL, "PR_SET_MDWE");
        if (!mdwe)
                printf("# this kernel has no PR_SET_MDWE; the filter alone refuses\n");
        must(filter_install() == 0, "the filter");
        must(socket(AF_INET, SOCK_STREAM, 0) < 0, "no socket of the network");
        must(mmap(NULL, 4096, PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
                     MAP_FAILED,
             "no writable code");
        must(syscall(SYS_io_uring_setup, 1, NULL) < 0, "no io_uring");
        must(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0, "not dumpable");
}
