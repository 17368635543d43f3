/* read, seek, stdio, descriptors, threads and processes. See cases.h. */
#include "cases.h"
#include <pthread.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

static void c_fread(const char *file, const char *scratch) {
    (void)scratch;
    FILE *stream = fopen(file, "r");
    uint64_t hash = FOLD_START;
    size_t got, total = 0;
    while ((got = fread(buffer, 1, 65521, stream)) > 0) { hash = fold(hash, buffer, got); total += got; }
    printf("total %zu hash %016llx eof %d error %d\n", total, (unsigned long long)hash, feof(stream), ferror(stream));
    report("seek end", fseek(stream, 0, SEEK_END));
    report("tell", ftell(stream));
    report("seek back", fseek(stream, -777, SEEK_END));
    report_bytes("tail", (long)fread(buffer, 1, 4096, stream), buffer);
    struct stat status;
    report("fstat of fileno", fstat(fileno(stream), &status));
    printf("size %lld regular %d\n", (long long)status.st_size, S_ISREG(status.st_mode));
    report("close", fclose(stream));
}

static void c_fgetc(const char *file, const char *scratch) {
    (void)scratch;
    FILE *stream = fopen(file, "rb");
    uint64_t hash = FOLD_START;
    for (int i = 0; i < 100000; i++) { unsigned char c = (unsigned char)fgetc(stream); hash = fold(hash, &c, 1); }
    printf("%016llx at %ld\n", (unsigned long long)hash, ftell(stream));
    rewind(stream);
    printf("%d\n", ungetc(fgetc(stream), stream));
    report_bytes("after rewind", (long)fread(buffer, 1, 10000, stream), buffer);
    fclose(stream);
}

static void c_fdopen(const char *file, const char *scratch) {
    (void)scratch;
    int fd = must_open(file, O_RDONLY);
    report("skip", lseek(fd, 12345, SEEK_SET));
    FILE *stream = fdopen(fd, "r");
    report_bytes("fdopen reads on", (long)fread(buffer, 1, 54321, stream), buffer);
    report("tell", ftell(stream));
    stream = freopen(file, "r", stream);
    report_bytes("freopen starts anew", (long)fread(buffer, 1, 1000, stream), buffer);
    fclose(stream);
    stream = fopen("no-such-file", "r");
    report("absent", stream ? 0 : -1);
}

static void c_seek(const char *file, const char *scratch) {
    (void)scratch;
    int fd = must_open(file, O_RDONLY);
    long size = lseek(fd, 0, SEEK_END);
    report("end", size);
    report("read at end", read(fd, buffer, 10));
    report("past end", lseek(fd, 1000, SEEK_END));
    report("read past end", read(fd, buffer, 10));
    report("cur", lseek(fd, 0, SEEK_CUR));
    report("negative", lseek(fd, -1, SEEK_SET));
    report("before start", lseek(fd, -size - 1, SEEK_END));
    report("still", lseek(fd, 0, SEEK_CUR));
    report("bad whence", lseek(fd, 0, 99));
    report("data", lseek(fd, 100, SEEK_DATA));
    report("hole", lseek(fd, 0, SEEK_HOLE));
    report("data at end", lseek(fd, size, SEEK_DATA));
    report("back", lseek(fd, -5000, SEEK_END));
    report_bytes("short read", read(fd, buffer, sizeof buffer), buffer);
    report("eof", read(fd, buffer, sizeof buffer));
    report("close", close(fd));
    report("closed read", read(fd, buffer, 1));
    report("closed seek", lseek(fd, 0, SEEK_SET));
}

static void c_edges(const char *file, const char *scratch) {
    (void)scratch;
    int fd = must_open(file, O_RDONLY);
    long size = lseek(fd, 0, SEEK_END);
    lseek(fd, 0, SEEK_SET);
    report("zero length", read(fd, buffer, 0));
    report("zero length, null", read(fd, NULL, 0));
    report_bytes("across the end", pread(fd, buffer, 4096, size - 100), buffer);
    report("at the end", pread(fd, buffer, 4096, size));
    report("far past the end", pread(fd, buffer, 4096, size + (1L << 40)));
    report("negative offset", pread(fd, buffer, 10, -1));
    report("position untouched", lseek(fd, 0, SEEK_CUR));
    report_bytes("unaligned", pread(fd, buffer + 3, 70001, 8190), buffer + 3);
    report("write", write(fd, "x", 1));
    report("pwrite", pwrite(fd, "x", 1, 0));
    report("no descriptor", pread(-1, buffer, 1, 0));
}

static void c_efault(const char *file, const char *scratch) {
    (void)scratch;
    int fd = must_open(file, O_RDONLY);
    report("small", read(fd, (void *)8, 100));
    report("large", read(fd, (void *)8, 1 << 20));
    report("position", lseek(fd, 0, SEEK_CUR));
    unsigned char *pages = mmap(NULL, 1 << 18, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(pages + (1 << 17), 1 << 17, PROT_READ);
    report("read-only memory", pread(fd, pages + (1 << 17), 1 << 17, 0));
    report_bytes("ends in read-only memory", pread(fd, pages, 1 << 18, 0), pages);
    struct iovec vector[2] = {{buffer, 100}, {(void *)8, 100}};
    report("readv", readv(fd, vector, 2));
}

static void c_vector(const char *file, const char *scratch) {
    (void)scratch;
    int fd = must_open(file, O_RDONLY);
    struct iovec vector[4] = {{buffer, 13}, {NULL, 0}, {buffer + 13, 70000}, {buffer + 70013, 1}};
    report_bytes("readv", readv(fd, vector, 4), buffer);
    report("position", lseek(fd, 0, SEEK_CUR));
    report_bytes("preadv", preadv(fd, vector, 4, 1 << 20), buffer);
    report_bytes("preadv2", preadv2(fd, vector, 4, 777, 0), buffer);
    report_bytes("preadv2 at position", preadv2(fd, vector, 4, -1, 0), buffer);
    report("position", lseek(fd, 0, SEEK_CUR));
    report("count zero", readv(fd, vector, 0));
    report("count negative", readv(fd, vector, -1));
}

static void c_dup(const char *file, const char *scratch) {
    (void)scratch;
    int fd = must_open(file, O_RDONLY | O_CLOEXEC);
    int second = dup(fd), third = fcntl(fd, F_DUPFD_CLOEXEC, 50), fourth = dup2(fd, 60), fifth = dup3(fd, 61, O_CLOEXEC);
    printf("flags %d %d %d %d %d\n", fcntl(fd, F_GETFD), fcntl(second, F_GETFD), fcntl(third, F_GETFD), fcntl(fourth, F_GETFD), fcntl(fifth, F_GETFD));
    printf("status %d\n", fcntl(fd, F_GETFL) & O_ACCMODE);
    report_bytes("one", read(fd, buffer, 1000), buffer);
    report_bytes("two", read(second, buffer, 1000), buffer);
    close(fd);
    report_bytes("three", read(third, buffer, 1000), buffer);
    report_bytes("four", read(fourth, buffer, 1000), buffer);
    report_bytes("five", read(fifth, buffer, 1000), buffer);
    report("position", lseek(second, 0, SEEK_CUR));
    int other = must_open("/dev/null", O_RDONLY);
    dup2(other, second);
    report("replaced", read(second, buffer, 10));
    report("old one goes on", read(third, buffer, 10));
}

static void c_fork(const char *file, const char *scratch) {
    (void)scratch;
    int fd = must_open(file, O_RDONLY), status;
    report_bytes("parent", read(fd, buffer, 100000), buffer);
    for (int i = 0; i < 3; i++) {
        if (fork() == 0) {
            report_bytes("child", read(fd, buffer, 100000), buffer);
            if (fork() == 0) { report_bytes("grandchild", pread(fd, buffer, 4097, 5), buffer); _exit(0); }
            wait(&status);
            _exit(WEXITSTATUS(status));
        }
        wait(&status);
        printf("status %d\n", WEXITSTATUS(status));
    }
    report("position", lseek(fd, 0, SEEK_CUR));
    report_bytes("parent", read(fd, buffer, 100000), buffer);
}

static int shared_fd;
static atomic_long shared_total, shared_sum;

static void *sequential_reader(void *unused) {
    (void)unused;
    unsigned char *block = malloc(70000);
    long got;
    while ((got = read(shared_fd, block, 70000)) > 0) {
        long sum = 0;
        for (long i = 0; i < got; i++) sum += block[i];
        shared_total += got;
        shared_sum += sum;
    }
    free(block);
    return NULL;
}

/* Threads that share a position must get each byte once. */
static void c_threads(const char *file, const char *scratch) {
    (void)scratch;
    pthread_t threads[4];
    shared_fd = must_open(file, O_RDONLY);
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, sequential_reader, NULL);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    printf("total %ld sum %ld\n", (long)shared_total, (long)shared_sum);
}

static void c_procfd(const char *file, const char *scratch) {
    (void)scratch;
    char path[64], target[PATH_MAX] = {0};
    int fd = must_open(file, O_RDONLY);
    lseek(fd, 5000, SEEK_SET);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int again = must_open(path, O_RDONLY);
    report("own position", lseek(again, 0, SEEK_CUR));
    report_bytes("reopened", read(again, buffer, 60000), buffer);
    printf("readlink %d %s\n", readlink(path, target, sizeof target - 1) > 0, target);
    struct stat one, two;
    fstat(fd, &one);
    stat(path, &two);
    printf("same %d size %lld\n", one.st_ino == two.st_ino && one.st_dev == two.st_dev, (long long)two.st_size);
}

static void c_opath(const char *file, const char *scratch) {
    (void)scratch;
    int fd = must_open(file, O_PATH);
    struct stat status;
    report("read", read(fd, buffer, 10));
    report("pread", pread(fd, buffer, 10, 0));
    report("mmap", mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED ? -1 : 0);
    report("lseek", lseek(fd, 0, SEEK_END));
    report("fstat", fstat(fd, &status));
    printf("size %lld\n", (long long)status.st_size);
}

static void c_ioctl(const char *file, const char *scratch) {
    (void)scratch;
    int fd = must_open(file, O_RDONLY), waiting = 0;
    lseek(fd, 1000, SEEK_SET);
    report("FIONREAD", ioctl(fd, FIONREAD, &waiting));
    printf("waiting %d\n", waiting);
    report("TCGETS", isatty(fd) ? 0 : -1);
}

static void c_syscall(const char *file, const char *scratch) {
    (void)scratch;
    long fd = syscall(SYS_openat, AT_FDCWD, file, O_RDONLY);
    struct stat status;
    report_bytes("read", syscall(SYS_read, fd, buffer, 5000), buffer);
    report_bytes("pread64", syscall(SYS_pread64, fd, buffer, 5000, 100000), buffer);
    report("lseek", syscall(SYS_lseek, fd, 0, SEEK_END));
    report("fstat", syscall(SYS_fstat, fd, &status));
    printf("size %lld\n", (long long)status.st_size);
    report("close", syscall(SYS_close, fd));
}

static const struct case_entry table[] = {
    {"fread", c_fread}, {"fgetc", c_fgetc}, {"fdopen", c_fdopen}, {"seek", c_seek}, {"edges", c_edges},
    {"efault", c_efault}, {"vector", c_vector}, {"dup", c_dup}, {"fork", c_fork}, {"threads", c_threads},
    {"procfd", c_procfd}, {"opath", c_opath}, {"ioctl", c_ioctl}, {"syscall", c_syscall}, {NULL, NULL},
};

int main(int argc, char **argv) { return run_case(table, argc, argv); }
