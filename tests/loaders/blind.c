/* Control of bar `loaders 1`, preloaded before the library: statfs answers with the disk's file system, and an open with
   O_DIRECT gives the empty file that lies there, as if the library knew nothing of loaders that read past libc. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#define SEEN __attribute__((visibility("default")))

/* Past libc's syscall() too, which the library answers; -1 without an errno is enough here. */
static long kernel(long number, long a, long b, long c, long d)
{
    register long r10 __asm__("r10") = d;
    long out;
    __asm__ volatile("syscall" : "=a"(out) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return out < 0 ? -1 : out;
}

SEEN int statfs(const char *path, struct statfs *to) { return (int)kernel(SYS_statfs, (long)path, (long)to, 0, 0); }
SEEN int statfs64(const char *path, struct statfs64 *to) { return (int)kernel(SYS_statfs, (long)path, (long)to, 0, 0); }
SEEN int fstatfs(int fd, struct statfs *to) { return (int)kernel(SYS_fstatfs, fd, (long)to, 0, 0); }
SEEN int fstatfs64(int fd, struct statfs64 *to) { return (int)kernel(SYS_fstatfs, fd, (long)to, 0, 0); }

static int opened(const char *name, const char *path, int flags, int mode)
{
    int (*next)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, name);
    return flags & O_DIRECT ? (int)kernel(SYS_openat, AT_FDCWD, (long)path, flags, mode) : next(path, flags, mode);
}

SEEN int open(const char *path, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    int mode = va_arg(more, int);
    va_end(more);
    return opened("open", path, flags, mode);
}

SEEN int open64(const char *path, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    int mode = va_arg(more, int);
    va_end(more);
    return opened("open64", path, flags, mode);
}
