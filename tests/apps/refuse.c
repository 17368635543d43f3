/* Has the kernel refuse some system calls to a program and all its children, by a seccomp filter: a file system without
 * extended attributes, an old kernel or a container's profile, as far as a program can see. Called by bars and tests.
 *
 * Usage: refuse ERRNO CALL[,CALL]... PROGRAM [ARGUMENT]...
 *   ERRNO and CALL as numbers or as one of the names below; "marks" stands for all calls that set an extended attribute,
 *   "looks" for all that read one.
 * Never installs anything that outlives the program. Ends with 126 when the filter is refused, 127 without the program. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { CALLS_MAX = 32, SETXATTRAT = 463, GETXATTRAT = 464 };

static const struct {
    const char *name;
    int number;
} calls[] = {
    {"marks", SYS_setxattr}, {"marks", SYS_fsetxattr}, {"marks", SYS_lsetxattr}, {"marks", SETXATTRAT},
    {"looks", SYS_getxattr}, {"looks", SYS_fgetxattr}, {"looks", SYS_lgetxattr}, {"looks", GETXATTRAT},
    {"pidfd_open", SYS_pidfd_open}, {"io_uring_setup", SYS_io_uring_setup}, {"memfd_create", SYS_memfd_create},
    {"mkdirat", SYS_mkdirat}, {"accept4", SYS_accept4}, {"shutdown", SYS_shutdown},
    {"unshare", SYS_unshare}, {"mount", SYS_mount}, {"setns", SYS_setns}, {"userfaultfd", SYS_userfaultfd},
    {"perf_event_open", SYS_perf_event_open}, {"bpf", SYS_bpf},
    {"openat2", SYS_openat2}, {"statx", SYS_statx}, {"fsopen", SYS_fsopen},
}, errors[] = {
    {"EOPNOTSUPP", EOPNOTSUPP}, {"EPERM", EPERM}, {"ENODATA", ENODATA}, {"ENOSYS", ENOSYS}, {"EACCES", EACCES},
    {"ENOSPC", ENOSPC}, {"EDQUOT", EDQUOT}, {"EROFS", EROFS},
};

static int add(int *numbers, int count, const char *word)
{
    int known = count;
    for (size_t n = 0; n < sizeof calls / sizeof *calls; n++)
        if (strcmp(calls[n].name, word) == 0 && count < CALLS_MAX)
            numbers[count++] = calls[n].number;
    if (count == known && count < CALLS_MAX && *word >= '0' && *word <= '9')
        numbers[count++] = atoi(word);
    return count;
}

int main(int argc, char **argv)
{
    int numbers[CALLS_MAX], count = 0, error = argc > 1 ? atoi(argv[1]) : 0;
    if (argc < 4)
        return 2;
    for (size_t n = 0; n < sizeof errors / sizeof *errors; n++)
        if (strcmp(errors[n].name, argv[1]) == 0)
            error = errors[n].number;
    for (char *word = strtok(argv[2], ","); word; word = strtok(NULL, ","))
        count = add(numbers, count, word);
    if (count == 0 || error <= 0)
        return 2;
    struct sock_filter filter[CALLS_MAX + 3];
    int at = 0;
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int n = 0; n < count; n++)
        filter[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, numbers[n], count - n, 0);
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error);
    struct sock_fprog program = {at, filter};
    /* Without privileges a filter may only be for programs that cannot gain any. */
    if (geteuid() != 0)
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
        perror("refuse");
        return 126;
    }
    execvp(argv[3], argv + 3);
    perror(argv[3]);
    return 127;
}
