/* Put before the library by the control of the suites: breaks a few calls, so that a suite which
 * notices nothing is noticed. Never part of the product. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

/* Duplicates are the same number: closing one closes the other. */
int dup(int fd) { return fd; }

/* The end of a file is one byte early. */
off64_t lseek64(int fd, off64_t offset, int whence)
{
    static off64_t (*next)(int, off64_t, int);
    if (!next)
        next = (off64_t(*)(int, off64_t, int))(uintptr_t)dlsym(RTLD_NEXT, "lseek64");
    off64_t at = next(fd, offset, whence);
    return whence == SEEK_END && at > 0 ? at - 1 : at;
}

/* The first byte of a positional read is another. */
ssize_t pread64(int fd, void *buffer, size_t count, off64_t offset)
{
    static ssize_t (*next)(int, void *, size_t, off64_t);
    if (!next)
        next = (ssize_t(*)(int, void *, size_t, off64_t))(uintptr_t)dlsym(RTLD_NEXT, "pread64");
    ssize_t got = next(fd, buffer, count, offset);
    if (got > 0)
        *(char *)buffer ^= 1;
    return got;
}

/* So is that of a read of one disk sector. */
ssize_t read(int fd, void *buffer, size_t count)
{
    static ssize_t (*next)(int, void *, size_t);
    if (!next)
        next = (ssize_t(*)(int, void *, size_t))(uintptr_t)dlsym(RTLD_NEXT, "read");
    ssize_t got = next(fd, buffer, count);
    if (got == 512)
        *(char *)buffer ^= 1;
    return got;
}

/* Mappings of files are refused. */
void *mmap64(void *addr, size_t length, int prot, int flags, int fd, off64_t offset)
{
    static void *(*next)(void *, size_t, int, int, int, off64_t);
    if (!next)
        next = (void *(*)(void *, size_t, int, int, int, off64_t))(uintptr_t)dlsym(RTLD_NEXT, "mmap64");
    if (fd >= 0 && !(flags & MAP_ANONYMOUS)) {
        errno = ENODEV;
        return MAP_FAILED;
    }
    return next(addr, length, prot, flags, fd, offset);
}
