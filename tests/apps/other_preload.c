/* Another preloaded library, as socket wrappers and tracers are: it stands before ours, and calls libc's own read
 * through a handle of libc, or any other next function (-DNEXT). Made by tests/checks/identity_hosts.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>

static ssize_t (*real_read)(int, void *, size_t);
long other_preload_calls;

ssize_t read(int fd, void *to, size_t len)
{
    if (!real_read) {
#ifdef NEXT
        real_read = dlsym(RTLD_NEXT, "read");
#else
        real_read = dlsym(dlopen("libc.so.6", RTLD_LAZY | RTLD_LOCAL), "read");
#endif
    }
    other_preload_calls++;
    return real_read(fd, to, len);
}
