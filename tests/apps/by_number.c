/* A library that is preloaded before ours and makes its calls by syscall(), as shims of sandboxes do: our syscall() leads
 * them to our hooks, which must not come back here. Loaded by tests/e2e/test_twin_host.py. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

static int opened(int dir, const char *path, int flags, va_list more)
{
    return (int)syscall(SYS_openat, dir, path, flags, flags & (O_CREAT | O_TMPFILE) ? va_arg(more, int) : 0);
}

#define OPEN(name)                                            \
    int name(const char *path, int flags, ...)                \
    {                                                         \
        va_list more;                                         \
        va_start(more, flags);                                \
        int got = opened(AT_FDCWD, path, flags, more);        \
        va_end(more);                                         \
        return got;                                           \
    }
OPEN(open)
OPEN(open64)

int openat(int dir, const char *path, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    int got = opened(dir, path, flags, more);
    va_end(more);
    return got;
}

int statfs(const char *path, struct statfs *to) { return (int)syscall(SYS_statfs, path, to); }
int fstatfs(int fd, struct statfs *to) { return (int)syscall(SYS_fstatfs, fd, to); }
ssize_t read(int fd, void *to, size_t n) { return syscall(SYS_read, fd, to, n); }
ssize_t pread(int fd, void *to, size_t n, off_t at) { return syscall(SYS_pread64, fd, to, n, at); }
ssize_t pread64(int fd, void *to, size_t n, off64_t at) { return syscall(SYS_pread64, fd, to, n, at); }
ssize_t readv(int fd, const struct iovec *to, int n) { return syscall(SYS_readv, fd, to, n); }
ssize_t readlink(const char *path, char *to, size_t n) { return syscall(SYS_readlink, path, to, n); }
off_t lseek(int fd, off_t at, int from) { return syscall(SYS_lseek, fd, at, from); }
