/* Counts the system calls of a program between two moments that the program marks, by ptrace: called by bar "bytes 7".
 *
 * Usage: count_calls PROGRAM [ARGUMENT]...     prints how many calls were made between two calls of getpgid(MARK)
 *        count_calls open PATH COUNT           is such a program: opens and closes PATH COUNT times between the marks
 * Follows no children. Ends with the program's status, or 125. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MARK = 0x0551c0de };

static int open_often(const char *path, long count)
{
    /* The first use attaches to the engine. */
    for (long n = -3; n < count; n++) {
        if (n == 0)
            syscall(SYS_getpgid, MARK);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            return 1;
        close(fd);
    }
    syscall(SYS_getpgid, MARK);
    return 0;
}

static int trace(pid_t child)
{
    long calls = 0, marks = 0, entering = 1;
    int status;
    waitpid(child, &status, 0);
    ptrace(PTRACE_SETOPTIONS, child, NULL, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
    for (int signal = 0;;) {
        if (ptrace(PTRACE_SYSCALL, child, NULL, signal) != 0 || waitpid(child, &status, 0) < 0)
            return 125;
        if (WIFEXITED(status) || WIFSIGNALED(status))
            break;
        signal = WSTOPSIG(status);
        if (signal != (SIGTRAP | 0x80)) {
            signal = signal == SIGTRAP ? 0 : signal;
            continue;
        }
        signal = 0;
        if (entering) {
            struct user_regs_struct regs;
            ptrace(PTRACE_GETREGS, child, NULL, &regs);
            if (regs.orig_rax == SYS_getpgid && regs.rdi == MARK)
                marks++;
            else if (marks == 1)
                calls++;
        }
        entering = !entering;
    }
    printf("%ld\n", calls);
    return marks == 2 && WIFEXITED(status) ? WEXITSTATUS(status) : 125;
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    if (argc == 4 && strcmp(argv[1], "open") == 0)
        return open_often(argv[2], atol(argv[3]));
    pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        execvp(argv[1], argv + 1);
        _exit(127);
    }
    return trace(child);
}
