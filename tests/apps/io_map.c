/* mmap in the ways that loaders use, and the calls that copy between descriptors. See cases.h. */
#include "cases.h"
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>

static long size_of(int fd) {
    struct stat status;
    return fstat(fd, &status) < 0 ? -1 : (long)status.st_size;
}

static void map_whole(const char *what, const char *file, int protection, int flags) {
    int fd = must_open(file, O_RDONLY);
    long size = size_of(fd);
    unsigned char *data = mmap(NULL, (size_t)size, protection, flags, fd, 0);
    close(fd);
    if (data == MAP_FAILED) { report(what, -1); return; }
    report_bytes(what, size, data);
    long tail = 0;
    for (long i = size; i % 4096; i++) tail += data[i];
    printf("bytes after the end sum to %ld\n", tail);
    if ((flags & MAP_PRIVATE) && (protection & PROT_WRITE)) {
        memset(data + 4000, 7, 900);
        report_bytes("own copy written", size, data);
    }
    report("munmap head", munmap(data, 4096));
    report_bytes("rest stays", size - 4096, data + 4096);
    report("munmap rest", munmap(data + 4096, (size_t)size - 4096));
}

static void c_private(const char *file, const char *scratch) {
    (void)scratch;
    map_whole("private, read-only", file, PROT_READ, MAP_PRIVATE);
    map_whole("private, writable", file, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    map_whole("unchanged", file, PROT_READ, MAP_PRIVATE);
}

static void c_shared(const char *file, const char *scratch) {
    (void)scratch;
    map_whole("shared, read-only", file, PROT_READ, MAP_SHARED);
    map_whole("shared, populated", file, PROT_READ, MAP_SHARED | MAP_POPULATE);
    map_whole("shared, writable", file, PROT_READ | PROT_WRITE, MAP_SHARED);
    int fd = must_open(file, O_RDONLY);
    void *data = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    report("mprotect to write", mprotect(data, 4096, PROT_READ | PROT_WRITE));
}

static void c_window(const char *file, const char *scratch) {
    (void)scratch;
    int fd = must_open(file, O_RDONLY);
    long size = size_of(fd), last = (size - 1) / 4096 * 4096;
    // A small file ends inside the window, and what lies a page behind its end is SIGBUS for everybody.
    long window = size - 3 * 4096 < 100000 ? size - 3 * 4096 : 100000;
    unsigned char *data = mmap(NULL, 100000, PROT_READ, MAP_PRIVATE, fd, 3 * 4096);
    if (window > 0)
        report_bytes("window", window, data);
    data = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, last);
    report_bytes("last page", 4096, data);
    report("unaligned offset", mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 5) == MAP_FAILED ? -1 : 0);
    report("no length", mmap(NULL, 0, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED ? -1 : 0);
    report("no descriptor", mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, -1, 0) == MAP_FAILED ? -1 : 0);
    report("no kind", mmap(NULL, 4096, PROT_READ, 0, fd, 0) == MAP_FAILED ? -1 : 0);
    unsigned char *room = mmap(NULL, 1 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    unsigned char *fixed = mmap(room + 4096, 1 << 19, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0);
    printf("fixed %d\n", fixed == room + 4096);
    report_bytes("fixed", size < 1 << 19 ? size : 1 << 19, fixed);
    report("madvise", madvise(fixed, 1 << 19, MADV_WILLNEED));
    report("mlock", mlock(fixed, 4096));
}

static void c_mapfork(const char *file, const char *scratch) {
    (void)scratch;
    int fd = must_open(file, O_RDONLY), status;
    long size = size_of(fd);
    unsigned char *data = mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (fork() == 0) { report_bytes("child", size, data); _exit(0); }
    wait(&status);
    report_bytes("parent", size, data);
    int ends[2];
    if (pipe(ends)) exit(3);
    report("the kernel reads the map", write(ends[1], data + 100, 5000));
    report_bytes("through a pipe", read(ends[0], buffer, 5000), buffer);
}

/* Sends with `step` until the end, into a file; prints the bytes that arrived. */
static void copy_with(const char *what, const char *file, const char *scratch, ssize_t (*step)(int, int)) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/copy", scratch);
    int in = must_open(file, O_RDONLY), out = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    ssize_t sent;
    long total = 0;
    while ((sent = step(in, out)) > 0) total += sent;
    if (sent < 0) report(what, sent);
    printf("%s: total %ld position %ld\n", what, total, (long)lseek(in, 0, SEEK_CUR));
    long left = lseek(out, 0, SEEK_END);
    lseek(out, 0, SEEK_SET);
    uint64_t hash = FOLD_START;
    for (ssize_t got; (got = read(out, buffer, sizeof buffer)) > 0;) hash = fold(hash, buffer, (size_t)got);
    printf("arrived %ld %016llx\n", left, (unsigned long long)hash);
    unlink(path);
}

static ssize_t step_sendfile(int in, int out) { return sendfile(out, in, NULL, 1000003); }
static ssize_t step_range(int in, int out) { return copy_file_range(in, NULL, out, NULL, 1000003, 0); }

static ssize_t step_splice(int in, int out) {
    static int ends[2] = {-1, -1};
    if (ends[0] < 0 && pipe(ends)) return -1;
    ssize_t got = splice(in, NULL, ends[1], NULL, 60000, 0);
    for (ssize_t left = got; left > 0;) {
        ssize_t moved = splice(ends[0], NULL, out, NULL, (size_t)left, 0);
        if (moved <= 0) return -1;
        left -= moved;
    }
    return got;
}

static void c_copy(const char *file, const char *scratch) {
    copy_with("sendfile", file, scratch, step_sendfile);
    copy_with("copy_file_range", file, scratch, step_range);
    copy_with("splice", file, scratch, step_splice);
}

static void c_copyat(const char *file, const char *scratch) {
    (void)scratch;
    int in = must_open(file, O_RDONLY), ends[2];
    long size = size_of(in);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends)) exit(3);
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    off_t offset = size / 3;
    report("sendfile at an offset", sendfile(ends[1], in, &offset, 5000));
    printf("offset %lld position %ld\n", (long long)offset, (long)lseek(in, 0, SEEK_CUR));
    report_bytes("arrived", read(ends[0], buffer, 5000), buffer);
    offset = size;
    report("sendfile at the end", sendfile(ends[1], in, &offset, 5000));
    offset = size - 10;
    report("sendfile across the end", sendfile(ends[1], in, &offset, 5000));
    report_bytes("arrived", read(ends[0], buffer, 5000), buffer);
    report("sendfile to nowhere", sendfile(-1, in, NULL, 10));
}

static void c_advise(const char *file, const char *scratch) {
    (void)scratch;
    int fd = must_open(file, O_RDONLY);
    report("sequential", posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL));
    report("willneed", posix_fadvise(fd, 0, 1 << 20, POSIX_FADV_WILLNEED));
    report("dontneed", posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
    report("bad", posix_fadvise(fd, 0, 0, 99));
    report("readahead", readahead(fd, 0, 1 << 20));
    report_bytes("read", read(fd, buffer, 100000), buffer);
}

static const struct case_entry table[] = {
    {"private", c_private}, {"shared", c_shared}, {"window", c_window}, {"mapfork", c_mapfork},
    {"copy", c_copy}, {"copyat", c_copyat}, {"advise", c_advise}, {NULL, NULL},
};

int main(int argc, char **argv) { return run_case(table, argc, argv); }
