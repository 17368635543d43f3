/* A library, and with -DPROGRAM a program, that is larger than what becomes a real file: the dynamic linker and the
 * kernel open it themselves. `loaded_sum` sums the bytes of a file in this library's own scope of symbols. Made by
 * tests/checks/identity_hosts.py; writes nothing. */
#include <fcntl.h>
#include <unistd.h>

__attribute__((used)) static volatile const char pad[300 << 10] = {1};

int loaded_answer(void)
{
    return 41 + pad[0];
}

/* The number of bytes that this library's own read gives, or -1. */
long loaded_sum(const char *path)
{
    static char to[65536];
    int fd = open(path, O_RDONLY);
    long sum = 0, got;
    if (fd < 0)
        return -1;
    while ((got = read(fd, to, sizeof to)) > 0)
        sum += got;
    close(fd);
    return got < 0 ? -1 : sum;
}

#ifdef PROGRAM
int main(void)
{
    return loaded_answer() != 42;
}
#endif
