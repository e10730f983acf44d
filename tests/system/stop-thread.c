/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stop-thread PID NAME SECONDS: plant a hang. Stops the one thread of that name with ptrace and holds it; the rest of
 * the process runs on. The daemon itself needs no hook for this.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t find_thread(const char *pid, const char *name) {
        char path[300], comm[32];
        pid_t found = -1;
        struct dirent *e;
        DIR *d;

        snprintf(path, sizeof(path), "/proc/%s/task", pid);
        d = opendir(path);
        while (d && found < 0 && (e = readdir(d))) {
                FILE *f;

                snprintf(path, sizeof(path), "/proc/%s/task/%s/comm", pid, e->d_name);
                f = e->d_name[0] == '.' ? NULL : fopen(path, "r");
                if (!f)
                        continue;
                if (fgets(comm, sizeof(comm), f) && strncmp(comm, name, strlen(name)) == 0 &&
                    comm[strlen(name)] == '\n')
                        found = (pid_t) atoi(e->d_name);
                fclose(f);
        }
        if (d)
                closedir(d);
        return found;
}

int main(int argc, char **argv) {
        int status;
        pid_t tid;

        if (argc != 4)
                return 2;
        tid = find_thread(argv[1], argv[2]);
        if (tid < 0) {
                fprintf(stderr, "no thread \"%s\" in process %s\n", argv[2], argv[1]);
                return 1;
        }
        if (ptrace(PTRACE_SEIZE, tid, NULL, NULL) < 0 ||
            ptrace(PTRACE_INTERRUPT, tid, NULL, NULL) < 0) {
                perror("ptrace");
                return 1;
        }
        printf("holding thread %d\n", (int) tid);
        fflush(stdout);
        alarm((unsigned) atoi(argv[3]));
        /* A thread that was killed is gone only once its tracer has seen it. */
        while (waitpid(tid, &status, __WALL) == tid && !WIFEXITED(status) && !WIFSIGNALED(status))
                continue;
        return 0;
}
