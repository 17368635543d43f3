/* Every exported name by name: both generations of stat, 64-bit and plain names, fortified variants, and
 * calls that compilers rarely emit. Nothing here changes the file: writes go to a read-only descriptor or
 * to a file of the program's own. See cases.h. */
#include "cases.h"
#include <aio.h>
#include <dirent.h>
#include <fts.h>
#include <ftw.h>
#include <glob.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

/* What programs built before glibc 2.33 import, and what _FORTIFY_SOURCE makes of the plain names. */
#define OLD(name) __asm__(".symver " #name "," #name "@GLIBC_2.2.5")
#define OLD24(name) __asm__(".symver " #name "," #name "@GLIBC_2.4")
OLD(__xstat); OLD(__lxstat); OLD(__fxstat); OLD(__xstat64); OLD(__lxstat64); OLD(__fxstat64);
OLD24(__fxstatat); OLD24(__fxstatat64);
int __xstat(int, const char *, struct stat *);
int __lxstat(int, const char *, struct stat *);
int __fxstat(int, int, struct stat *);
int __fxstatat(int, int, const char *, struct stat *, int);
int __xstat64(int, const char *, struct stat64 *);
int __lxstat64(int, const char *, struct stat64 *);
int __fxstat64(int, int, struct stat64 *);
int __fxstatat64(int, int, const char *, struct stat64 *, int);
int __open_2(const char *, int);
int __open64_2(const char *, int);
int __openat_2(int, const char *, int);
int __openat64_2(int, const char *, int);
ssize_t __read_chk(int, void *, size_t, size_t);
ssize_t __pread_chk(int, void *, size_t, off_t, size_t);
ssize_t __pread64_chk(int, void *, size_t, off64_t, size_t);
ssize_t __readlink_chk(const char *, char *, size_t, size_t);
ssize_t __readlinkat_chk(int, const char *, char *, size_t, size_t);
char *__realpath_chk(const char *, char *, size_t);
int eaccess(const char *, int);

static void show(const char *what, int result, const void *status) {
    const struct stat *seen = status;
    if (result < 0) { report(what, result); return; }
    printf("%s: size %lld type %o\n", what, (long long)seen->st_size, seen->st_mode & S_IFMT);
}

static void c_stats(const char *file, const char *scratch) {
    (void)scratch;
    struct stat one;
    struct stat64 two;
    int fd = must_open(file, O_RDONLY);
    show("__xstat", __xstat(1, file, &one), &one);
    show("__lxstat", __lxstat(1, file, &one), &one);
    show("__fxstat", __fxstat(1, fd, &one), &one);
    show("__fxstatat", __fxstatat(1, AT_FDCWD, file, &one, 0), &one);
    show("__xstat64", __xstat64(1, file, &two), &two);
    show("__lxstat64", __lxstat64(1, file, &two), &two);
    show("__fxstat64", __fxstat64(1, fd, &two), &two);
    show("__fxstatat64", __fxstatat64(1, AT_FDCWD, file, &two, 0), &two);
    show("stat", stat(file, &one), &one);
    show("lstat", lstat(file, &one), &one);
    show("fstat", fstat(fd, &one), &one);
    show("fstatat", fstatat(AT_FDCWD, file, &one, 0), &one);
    show("stat64", stat64(file, &two), &two);
    show("lstat64", lstat64(file, &two), &two);
    show("fstat64", fstat64(fd, &two), &two);
    show("fstatat64", fstatat64(fd, "", &two, AT_EMPTY_PATH), &two);
    show("absent", __xstat(1, "nested/absent", &one), &one);
    show("bad version", __xstat(99, file, &one), &one);
    show("bad address", syscall(SYS_newfstatat, AT_FDCWD, file, (void *)8, 0) < 0 ? -1 : 0, &one);
}

static void access_as(const char *what, int (*call)(const char *, int), const char *file) {
    report(what, call(file, R_OK));
    report(what, call(file, X_OK));
    report(what, call("nested/deep/absent", F_OK));
    report(what, call("nested/deep/c.bin", F_OK));
}

static void c_access(const char *file, const char *scratch) {
    (void)scratch;
    access_as("access", access, file);
    access_as("eaccess", eaccess, file);
    access_as("euidaccess", euidaccess, file);
    report("faccessat", faccessat(AT_FDCWD, file, R_OK, AT_EACCESS));
    report("faccessat", faccessat(AT_FDCWD, "nested/x", R_OK, 0));
}

static void first_bytes(const char *what, int fd) {
    report_bytes(what, fd < 0 ? -1 : pread(fd, buffer, 4321, 1234), buffer);
    if (fd >= 0) close(fd);
}

static void c_opens(const char *file, const char *scratch) {
    char path[PATH_MAX];
    first_bytes("open", open(file, O_RDONLY));
    first_bytes("open64", open64(file, O_RDONLY));
    first_bytes("openat", openat(AT_FDCWD, file, O_RDONLY));
    first_bytes("openat64", openat64(AT_FDCWD, file, O_RDONLY));
    first_bytes("__open_2", __open_2(file, O_RDONLY));
    first_bytes("__open64_2", __open64_2(file, O_RDONLY));
    first_bytes("__openat_2", __openat_2(AT_FDCWD, file, O_RDONLY));
    first_bytes("__openat64_2", __openat64_2(AT_FDCWD, file, O_RDONLY));
    first_bytes("lazily", open64("nested/deep/c.bin", O_RDONLY));
    first_bytes("absent", openat64(AT_FDCWD, "nested/deep/absent", O_RDONLY));
    snprintf(path, sizeof path, "%s/created", scratch);
    int fd = creat(path, 0640);
    report("creat", write(fd, "text", 4));
    close(fd);
    fd = creat64(path, 0600);
    report("creat64", lseek(fd, 0, SEEK_END));
    report("creat of a folder", creat("nested", 0600));
    report("creat64 of a folder", creat64("nested/deep", 0600));
    unlink(path);
}

static void c_reads(const char *file, const char *scratch) {
    (void)scratch;
    int fd = must_open(file, O_RDONLY);
    struct iovec vector[2] = {{buffer, 1000}, {buffer + 1000, 9000}};
    report_bytes("read", read(fd, buffer, 4000), buffer);
    report_bytes("__read_chk", __read_chk(fd, buffer, 4000, sizeof buffer), buffer);
    report_bytes("__pread_chk", __pread_chk(fd, buffer, 4000, 99999, sizeof buffer), buffer);
    report_bytes("__pread64_chk", __pread64_chk(fd, buffer, 70000, 99999, sizeof buffer), buffer);
    report_bytes("pread", pread(fd, buffer, 500, 3), buffer);
    report_bytes("pread64", pread64(fd, buffer, 500, 3), buffer);
    report_bytes("readv", readv(fd, vector, 2), buffer);
    report_bytes("preadv", preadv(fd, vector, 2, 77), buffer);
    report_bytes("preadv64", preadv64(fd, vector, 2, 78), buffer);
    report_bytes("preadv2", preadv2(fd, vector, 2, 79, 0), buffer);
    report_bytes("preadv64v2", preadv64v2(fd, vector, 2, -1, 0), buffer);
    report("lseek", lseek(fd, -10, SEEK_END));
    report("lseek64", lseek64(fd, -20, SEEK_END));
    report("readahead", readahead(fd, 0, 4096));
    report("posix_fadvise", posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM));
    report("posix_fadvise64", posix_fadvise64(fd, 0, 0, POSIX_FADV_RANDOM));
    report("bad advice", posix_fadvise64(fd, 0, 0, 77));
    report("FIONREAD", ioctl(fd, FIONREAD, buffer));
    printf("%d\n", *(int *)buffer);
    report("flags", preadv2(fd, vector, 2, 0, 0x40000000));
}

/* A read-only descriptor refuses all of these, wherever it is. */
static void c_writes(const char *file, const char *scratch) {
    (void)scratch;
    int fd = must_open(file, O_RDONLY);
    struct iovec vector[1] = {{buffer, 10}};
    report("write", write(fd, buffer, 10));
    report("pwrite", pwrite(fd, buffer, 10, 0));
    report("pwrite64", pwrite64(fd, buffer, 10, 0));
    report("writev", writev(fd, vector, 1));
    report("pwritev", pwritev(fd, vector, 1, 0));
    report("pwritev64", pwritev64(fd, vector, 1, 0));
    report("pwritev2", pwritev2(fd, vector, 1, 0, 0));
    report("pwritev64v2", pwritev64v2(fd, vector, 1, 0, 0));
    report("ftruncate", ftruncate(fd, 5));
    report("ftruncate64", ftruncate64(fd, 5));
    report("fallocate", fallocate(fd, 0, 0, 10));
    report("fallocate64", fallocate64(fd, 0, 0, 10));
    printf("posix_fallocate %d %d\n", posix_fallocate(fd, 0, 10), posix_fallocate64(fd, 0, 10));
    report("truncate", truncate("nested", 5));
    report("truncate64", truncate64("nested/absent", 5));
    report("size", lseek(fd, 0, SEEK_END));
}

static void own_writes(int fd, const char *path) {
    struct iovec vector[2] = {{"abc", 3}, {"defg", 4}};
    report("write", write(fd, "0123456789", 10));
    report("pwrite", pwrite(fd, "X", 1, 3));
    report("pwrite64", pwrite64(fd, "Y", 1, 20));
    report("writev", writev(fd, vector, 2));
    report("pwritev", pwritev(fd, vector, 2, 40));
    report("pwritev64", pwritev64(fd, vector, 2, 50));
    report("pwritev2", pwritev2(fd, vector, 2, 60, 0));
    report("pwritev64v2", pwritev64v2(fd, vector, 2, -1, 0));
    report("ftruncate", ftruncate(fd, 64));
    report("ftruncate64", ftruncate64(fd, 63));
    report("fallocate", fallocate(fd, 0, 0, 100));
    report("fallocate64", fallocate64(fd, 0, 0, 101));
    printf("posix_fallocate %d %d\n", posix_fallocate(fd, 0, 110), posix_fallocate64(fd, 0, 120));
    report_bytes("content", pread(fd, buffer, 1000, 0), buffer);
    report("truncate", truncate(path, 11));
    report("truncate64", truncate64(path, 10));
    report("size", lseek(fd, 0, SEEK_END));
}

/* A file of the program's own, in MODEL_DIR itself and elsewhere. */
static void c_own(const char *file, const char *scratch) {
    char path[PATH_MAX];
    const char *places[] = {scratch, ".", "nested/deep"};
    (void)file;
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/own-%d", places[i], (int)getpid());
        int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
        own_writes(fd, path);
        close(fd);
        unlink(path);
    }
}

static void queued(const char *what, int result, struct aiocb *block) {
    if (result < 0) { report(what, result); return; }
    const struct aiocb *list[] = {block};
    while (aio_error(block) == EINPROGRESS) aio_suspend(list, 1, NULL);
    int error = aio_error(block);
    printf("%s: error %d\n", what, error);
    report_bytes(what, aio_return(block), (const void *)block->aio_buf);
}

static struct aiocb request(int fd, long offset, int operation) {
    struct aiocb block = {.aio_fildes = fd, .aio_buf = buffer, .aio_nbytes = 70000, .aio_offset = offset};
    block.aio_lio_opcode = operation;
    block.aio_sigevent.sigev_notify = SIGEV_NONE;
    return block;
}

static void c_aio(const char *file, const char *scratch) {
    (void)scratch;
    int fd = must_open(file, O_RDONLY);
    struct stat status;
    fstat(fd, &status);
    struct aiocb block = request(fd, 4097, LIO_READ);
    queued("aio_read", aio_read(&block), &block);
    block = request(fd, 4098, LIO_READ);
    queued("aio_read64", aio_read64((struct aiocb64 *)&block), &block);
    block = request(fd, status.st_size - 100, LIO_READ);
    queued("aio_read across the end", aio_read(&block), &block);
    block = request(fd, status.st_size, LIO_READ);
    queued("aio_read at the end", aio_read(&block), &block);
    block = request(fd, 5, LIO_READ);
    struct aiocb *list[] = {&block};
    queued("lio_listio", lio_listio(LIO_WAIT, list, 1, NULL), &block);
    block = request(fd, 6, LIO_READ);
    queued("lio_listio64", lio_listio64(LIO_WAIT, (struct aiocb64 **)list, 1, NULL), &block);
    report("position", lseek(fd, 0, SEEK_CUR));
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/aio", scratch);
    int own = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    block = request(own, 0, LIO_WRITE);
    queued("aio_write", aio_write(&block), &block);
    block = request(own, 70000, LIO_WRITE);
    queued("aio_write64", aio_write64((struct aiocb64 *)&block), &block);
    report("own size", lseek(own, 0, SEEK_END));
    unlink(path);
}

static int pass_descriptor(int socket, int fd) {
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec vector = {"x", 1};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    return (int)sendmsg(socket, &message, 0);
}

static int take_descriptor(int socket, int many) {
    char control[CMSG_SPACE(sizeof(int))] = {0}, byte;
    struct iovec vector = {&byte, 1};
    struct mmsghdr message = {
        .msg_hdr = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control}};
    if (many ? recvmmsg(socket, &message, 1, 0, NULL) < 1 : recvmsg(socket, &message.msg_hdr, 0) < 1) return -1;
    int fd = -1;
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message.msg_hdr)), sizeof fd);
    return fd;
}

static void c_descriptors(const char *file, const char *scratch) {
    (void)scratch;
    int fd = must_open(file, O_RDONLY), ends[2];
    report("dup", dup(fd) == fd + 1 ? 0 : -1);
    report("dup2", dup2(fd, 50));
    report("dup3", dup3(fd, 51, O_CLOEXEC));
    report("F_DUPFD", fcntl(fd, F_DUPFD, 60));
    report("F_DUPFD_CLOEXEC", fcntl64(fd, F_DUPFD_CLOEXEC, 61));
    for (int i = 50; i < 62; i += i == 51 ? 9 : 1) report_bytes("shared position", read(i, buffer, 3000), buffer);
    report("writes go to the pipe that took a number over", pipe(ends));
    dup2(ends[1], 50);
    report("write", write(50, "pipe", 4));
    report_bytes("read", read(ends[0], buffer, 10), buffer);
    dup2(fd, 50);
    report("write", write(50, "file", 4));
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends)) exit(3);
    for (int many = 0; many < 2; many++) {
        report("sent", pass_descriptor(ends[0], fd));
        int got = take_descriptor(ends[1], many);
        report_bytes("received", read(got, buffer, 5000), buffer);
        close(got);
    }
    report("close_range", close_range(60, 70, 0));
    report("closed", read(60, buffer, 1));
    closefrom(50);
    report("closed", read(50, buffer, 1));
    report_bytes("still open", read(fd, buffer, 1000), buffer);
}

static void c_streams(const char *file, const char *scratch) {
    (void)scratch;
    FILE *stream = fopen64(file, "rbe");
    report_bytes("fopen64", (long)fread(buffer, 1, 10000, stream), buffer);
    stream = freopen64("nested/deep/c.bin", "r", stream);
    report_bytes("freopen64", (long)fread(buffer, 1, 20000, stream), buffer);
    stream = freopen(file, "r", stream);
    report("seek", fseeko(stream, -100, SEEK_END));
    report_bytes("freopen", (long)fread(buffer, 1, 20000, stream), buffer);
    report("fclose", fclose(stream));
    stream = fdopen(must_open(file, O_RDONLY), "r");
    report("seek", fseeko(stream, 7, SEEK_SET));
    report_bytes("fdopen", (long)fread(buffer, 1, 100, stream), buffer);
    report("fclose", fclose(stream));
    stream = fopen(file, "r");
    char *line = NULL;
    size_t room = 0;
    report("getline", getline(&line, &room, stream));
    report_bytes("rest", (long)fread(buffer, 1, 100, stream), buffer);
    fclose(stream);
    report("bad mode", fopen(file, "?") ? 0 : -1);
    report("fdopen of nothing", fdopen(999, "r") ? 0 : -1);
    report("must not exist", fopen(file, "wx") ? 0 : -1);
    report("fdopen for more than it may", fdopen(must_open(file, O_RDONLY), "w") ? 0 : -1);
}

static void c_copies(const char *file, const char *scratch) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/symbols-copy", scratch);
    int in = must_open(file, O_RDONLY), out = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600), ends[2];
    off_t at = 100;
    off64_t at64 = 50000;
    report("sendfile", sendfile(out, in, &at, 3000));
    report("sendfile64", sendfile64(out, in, &at64, 3000));
    report("copy_file_range", copy_file_range(in, &at64, out, NULL, 3000, 0));
    printf("%lld %lld %ld\n", (long long)at, (long long)at64, (long)lseek(in, 0, SEEK_CUR));
    if (pipe(ends)) exit(3);
    report("splice", splice(in, &at64, ends[1], NULL, 2000, 0));
    report("splice on", splice(ends[0], NULL, out, NULL, 2000, 0));
    report_bytes("arrived", pread(out, buffer, sizeof buffer, 0), buffer);
    report("copy onto itself", copy_file_range(in, NULL, in, NULL, 10, 0));
    report("into a read-only file", sendfile(in, out, NULL, 10));
    report("copy into a read-only file", copy_file_range(out, NULL, in, NULL, 10, 0));
    report("flags", copy_file_range(in, NULL, out, NULL, 10, 1));
    unlink(path);
}

static void c_maps(const char *file, const char *scratch) {
    (void)scratch;
    int fd = must_open(file, O_RDONLY);
    struct stat status;
    fstat(fd, &status);
    unsigned char *one = mmap(NULL, 8192, PROT_READ, MAP_PRIVATE, fd, 0);
    unsigned char *two = mmap64(NULL, 8192, PROT_READ, MAP_SHARED, fd, 4096);
    report_bytes("mmap", 8192, one);
    report_bytes("mmap64", 8192, two);
    one = mremap(one, 8192, 200000, MREMAP_MAYMOVE);
    report_bytes("mremap", status.st_size < 200000 ? status.st_size : 200000, one);
    report("munmap", munmap(one, 200000));
    report("munmap", munmap(two, 4096));
    report_bytes("second page", 4096, two + 4096);
    report("bad descriptor", mmap(NULL, 10, PROT_READ, MAP_PRIVATE, 999, 0) == MAP_FAILED ? -1 : 0);
    report("for writing", mmap64(NULL, 10, PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED ? -1 : 0);
}

/* The tail of the last page is zero, the page after it is SIGBUS. */
static void c_beyond(const char *file, const char *scratch) {
    (void)scratch;
    int fd = must_open(file, O_RDONLY), wait_status = 0;
    struct stat status;
    fstat(fd, &status);
    long pages = (status.st_size + 4095) / 4096 * 4096;
    for (int kind = MAP_SHARED; kind <= MAP_PRIVATE; kind++) {
        volatile unsigned char *data = mmap(NULL, (size_t)pages + 8192, PROT_READ, kind, fd, 0);
        long sum = 0;
        for (long i = status.st_size; i < pages; i++) sum += data[i];
        printf("tail %ld\n", sum);
        fflush(stdout);
        if (fork() == 0) { sum += data[pages]; _exit(sum > 0); }
        wait(&wait_status);
        printf("beyond: signal %d\n", WTERMSIG(wait_status));
    }
}

static void c_links(const char *file, const char *scratch) {
    (void)scratch;
    char path[64], out[PATH_MAX];
    FILE *stream = fopen(file, "r");
    int fd = must_open(file, O_RDONLY), numbers[2] = {fd, fileno(stream)};
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", numbers[i]);
        ssize_t got[4] = {readlink(path, out, sizeof out), readlinkat(AT_FDCWD, path, out, sizeof out),
                          __readlink_chk(path, out, 300, sizeof out),
                          __readlinkat_chk(AT_FDCWD, path, out, 300, sizeof out)};
        printf("%d %d %d %.*s\n", got[0] == got[1], got[1] == got[2], got[2] == got[3], (int)got[3], out);
        report("short", readlink(path, out, 5));
        printf("%s\n", realpath(path, out));
        printf("%s\n", __realpath_chk(path, out, sizeof out));
    }
    printf("%s\n", realpath(file, NULL));
    report("not a link", readlink(file, out, sizeof out));
}

static int is_bin(const struct dirent *entry) { return strstr(entry->d_name, ".bin") != NULL; }

static void entries(const char *what, int count, void *list) {
    struct dirent **found = *(struct dirent ***)list;
    if (count < 0) { report(what, count); return; }
    for (int i = 0; i < count; i++) printf("%s %s\n", what, found[i]->d_name);
}

static int dirent64_is_bin(const struct dirent64 *entry) { return strstr(entry->d_name, ".bin") != NULL; }

static void c_scans(const char *file, const char *scratch) {
    (void)scratch;
    struct dirent **found = NULL;
    struct dirent64 **found64 = NULL;
    entries("scandir", scandir("nested/deep", &found, is_bin, alphasort), &found);
    entries("scandir64", scandir64("nested/deep", &found64, dirent64_is_bin, alphasort64), &found64);
    entries("scandirat", scandirat(AT_FDCWD, "nested", &found, NULL, alphasort), &found);
    entries("scandirat64", scandirat64(AT_FDCWD, "nested", &found64, NULL, alphasort64), &found64);
    entries("of a file", scandir(file, &found, NULL, NULL), &found);
    DIR *folder = opendir("nested");
    int count = 0;
    while (readdir(folder)) count++;
    closedir(folder);
    folder = fdopendir(open("nested/deep", O_RDONLY | O_DIRECTORY));
    while (readdir(folder)) count++;
    closedir(folder);
    printf("entries %d\n", count);
    report("fdopendir of a file", fdopendir(must_open(file, O_RDONLY)) ? 0 : -1);
    glob_t one;
    glob64_t two;
    report("glob", glob("nested/*/*.bin", GLOB_MARK, NULL, &one));
    report("glob64", glob64("*/deep/c.*", 0, NULL, &two));
    printf("%s %s\n", one.gl_pathv[0], two.gl_pathv[0]);
}

static long files_walked, bytes_walked;

static int add(const char *path, const void *status, int kind) {
    (void)path;
    if (kind != FTW_F) return 0;
    files_walked++;
    bytes_walked += (long)((const struct stat *)status)->st_size;
    return 0;
}
static int add_ftw(const char *p, const struct stat *s, int k) { return add(p, s, k); }
static int add_ftw64(const char *p, const struct stat64 *s, int k) { return add(p, s, k); }
static int add_nftw(const char *p, const struct stat *s, int k, struct FTW *f) { (void)f; return add(p, s, k); }
static int add_nftw64(const char *p, const struct stat64 *s, int k, struct FTW *f) { (void)f; return add(p, s, k); }
static int fts_by_name(const FTSENT **a, const FTSENT **b) { return strcmp((*a)->fts_name, (*b)->fts_name); }
static int fts64_by_name(const FTSENT64 **a, const FTSENT64 **b) { return strcmp((*a)->fts_name, (*b)->fts_name); }

static void c_walks(const char *file, const char *scratch) {
    (void)file, (void)scratch;
    report("ftw", ftw(".", add_ftw, 8));
    report("ftw64", ftw64(".", add_ftw64, 8));
    report("nftw", nftw(".", add_nftw, 8, 0));
    report("nftw64", nftw64(".", add_nftw64, 8, FTW_PHYS | FTW_DEPTH));
    printf("%ld files %ld bytes\n", files_walked, bytes_walked);
    char *roots[] = {"nested", NULL};
    FTS *tree = fts_open(roots, FTS_PHYSICAL, fts_by_name);
    for (FTSENT *entry; (entry = fts_read(tree));) {
        printf("fts %s %d %lld\n", entry->fts_path, entry->fts_info, entry->fts_info == FTS_F ? (long long)entry->fts_statp->st_size : 0);
        if (entry->fts_info == FTS_D)
            for (FTSENT *child = fts_children(tree, 0); child; child = child->fts_link)
                printf("child %s %lld\n", child->fts_name, child->fts_info == FTS_F ? (long long)child->fts_statp->st_size : 0);
    }
    fts_close(tree);
    FTS64 *tree64 = fts64_open(roots, FTS_PHYSICAL, fts64_by_name);
    for (FTSENT64 *entry; (entry = fts64_read(tree64));) {
        printf("fts64 %s %d %lld\n", entry->fts_path, entry->fts_info, entry->fts_info == FTS_F ? (long long)entry->fts_statp->st_size : 0);
        if (entry->fts_info == FTS_D)
            for (FTSENT64 *child = fts64_children(tree64, 0); child; child = child->fts_link)
                printf("child %s %lld\n", child->fts_name, child->fts_info == FTS_F ? (long long)child->fts_statp->st_size : 0);
    }
    fts64_close(tree64);
}

enum way { EXECV, EXECVE, EXECVP, EXECVPE, FEXECVE, SYSCALL, WAYS };

static void replace(enum way way, char **argv) {
    extern char **environ;
    if (way == EXECV) execv("/usr/bin/sha256sum", argv);
    if (way == EXECVE) execve("/usr/bin/sha256sum", argv, environ);
    if (way == EXECVP) execvp("sha256sum", argv);
    if (way == EXECVPE) execvpe("sha256sum", argv, environ);
    if (way == FEXECVE) fexecve(open("/usr/bin/sha256sum", O_RDONLY), argv, environ);
    if (way == SYSCALL) syscall(SYS_execve, "/usr/bin/sha256sum", argv, environ);
    _Exit(9);
}

/* Each way to become another program, with an open descriptor and standard input to inherit. */
static void c_execs(const char *file, const char *scratch) {
    (void)scratch;
    char path[64];
    int fd = must_open(file, O_RDONLY), status;
    snprintf(path, sizeof path, "/dev/fd/%d", fd);
    for (int way = 0; way < WAYS; way++) {
        fflush(stdout);
        if (fork() == 0) {
            lseek(fd, 5000 + way, SEEK_SET);
            dup2(fd, 0);
            replace(way, (char *[]){"sha256sum", "-", "nested/deep/c.bin", way & 1 ? path : "small.bin", NULL});
        }
        wait(&status);
        report("status", WEXITSTATUS(status));
        report("position", lseek(fd, 0, SEEK_CUR));
    }
    if (fork() == 0) { execv("absent", (char *[]){"x", NULL}); report("execv", -1); fflush(stdout); _exit(7); }
    wait(&status);
    report("status", WEXITSTATUS(status));
}

/* Standard input was a managed file from the start: what is left of it belongs to the next program. */
static void c_handover(const char *file, const char *scratch) {
    (void)file, (void)scratch;
    int status;
    setvbuf(stdin, NULL, _IONBF, 0);
    for (int way = 0; way < WAYS; way++) {
        printf("%d\n", getchar());
        fflush(stdout);
        if (fork() == 0) replace(way, (char *[]){"sha256sum", NULL});
        wait(&status);
        report("status", WEXITSTATUS(status));
        report("rewound", lseek(0, 1000 * way, SEEK_SET));
        if (fork() == 0) { printf("%d\n", getchar()); fflush(stdout); if (way & 1) _exit(5); else _Exit(6); }
        wait(&status);
        report("status", WEXITSTATUS(status));
        report("position", lseek(0, 0, SEEK_CUR));
    }
}

static const struct case_entry table[] = {
    {"stats", c_stats}, {"access", c_access}, {"opens", c_opens}, {"reads", c_reads}, {"writes", c_writes},
    {"own", c_own}, {"aio", c_aio}, {"descriptors", c_descriptors}, {"streams", c_streams}, {"copies", c_copies},
    {"maps", c_maps}, {"beyond", c_beyond}, {"links", c_links}, {"scans", c_scans}, {"walks", c_walks},
    {"execs", c_execs}, {"handover", c_handover}, {NULL, NULL},
};

int main(int argc, char **argv) { return run_case(table, argc, argv); }
