// Makes one thread's fcntl calls slow: each returns so many microseconds late.
//
// Usage: slow_calls MICROSECONDS THREAD. It ends with the thread, or when it is ended; the thread goes on then. It sleeps
// itself while the thread stands still: no timer can be lost, so that what hangs is the thread's own doing.
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: slow_calls MICROSECONDS THREAD\n");
        return 2;
    }
    useconds_t delay = (useconds_t)atol(argv[1]);
    pid_t thread = (pid_t)atol(argv[2]);
    if (ptrace(PTRACE_SEIZE, thread, 0, PTRACE_O_TRACESYSGOOD) != 0 || ptrace(PTRACE_INTERRUPT, thread, 0, 0) != 0) {
        perror("slow_calls: ptrace");
        return 1;
    }
    int status, in_fcntl = 0;
    while (waitpid(thread, &status, __WALL) == thread && WIFSTOPPED(status)) {
        int signal = WSTOPSIG(status), event = status >> 16;
        if (signal == (SIGTRAP | 0x80)) {
            struct __ptrace_syscall_info info;
            signal = 0;
            if (ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof info, &info) > 0) {
                if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
                    in_fcntl = info.entry.nr == SYS_fcntl;
                } else if (info.op == PTRACE_SYSCALL_INFO_EXIT && in_fcntl) {
                    usleep(delay);
                }
            }
        } else if (event == PTRACE_EVENT_STOP && signal != SIGTRAP) {
            // The whole process was stopped: its thread stays so until it is continued.
            if (ptrace(PTRACE_LISTEN, thread, 0, 0) != 0) break;
            continue;
        } else if (event != 0) {
            signal = 0;
        }
        if (ptrace(PTRACE_SYSCALL, thread, 0, signal) != 0 && errno == ESRCH) continue;
    }
    return 0;
}
