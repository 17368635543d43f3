/* Opens with O_DIRECT, and what is done with such a descriptor: by the C library, by the kernel, by other processes.
 * See cases.h. */
#include "cases.h"
#include <libgen.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

#include "../bypass/asm.h"

int __statfs(const char *, struct statfs *);

enum { BLOCK = 1 << 16 };

static unsigned char *aligned(void) {
    void *room;
    if (posix_memalign(&room, 4096, BLOCK)) exit(3);
    return room;
}

/* The whole file, by the C library or past it. */
static void whole(const char *what, int fd, int past) {
    unsigned char *room = aligned();
    uint64_t hash = FOLD_START;
    long total = 0, got;
    for (;; total += got) {
        got = past ? raw(SYS_pread64, fd, (long)room, BLOCK, total, 0, 0) : pread(fd, room, BLOCK, total);
        if (got <= 0) break;
        hash = fold(hash, room, (size_t)got);
    }
    printf("%s: %ld %016llx, ends with %ld\n", what, total, (unsigned long long)hash, got);
    fflush(stdout);
    free(room);
}

static void facts(const char *what, int fd, const char *file) {
    char link[64], target[PATH_MAX];
    struct stat own, named;
    struct statx wide;
    report(what, fstat(fd, &own));
    if (stat(file, &named)) exit(3);
    printf("size %lld type %o links %ld same file %d blocks %d\n", (long long)own.st_size, own.st_mode & S_IFMT, (long)own.st_nlink,
           own.st_ino == named.st_ino && own.st_dev == named.st_dev, own.st_blocks == named.st_blocks);
    report("statx", statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &wide));
    printf("size %llu same file %d same time %d\n", (unsigned long long)wide.stx_size, wide.stx_ino == named.st_ino,
           wide.stx_mtime.tv_sec == named.st_mtim.tv_sec);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, target, sizeof target - 1);
    target[length < 0 ? 0 : length] = 0;
    printf("link %s\n", target);
    printf("path %s\n", realpath(link, target) ? target : strerror(errno));
    printf("flags %o\n", fcntl(fd, F_GETFL) & (O_ACCMODE | O_DIRECT | O_NONBLOCK | O_APPEND));
    printf("close on exec %d\n", fcntl(fd, F_GETFD));
}

static void c_direct(const char *file, const char *scratch) {
    (void)scratch;
    int fd = must_open(file, O_RDONLY | O_DIRECT | O_CLOEXEC);
    facts("fstat", fd, file);
    whole("pread", fd, 0);
    whole("past the C library", fd, 1);
    unsigned char *room = aligned();
    struct stat status;
    fstat(fd, &status);
    report_bytes("read", read(fd, room, 4096), room);
    report("at", lseek(fd, 0, SEEK_CUR));
    report("end", lseek(fd, 0, SEEK_END));
    report("read at the end", read(fd, room, 4096));
    report("data", lseek(fd, 4096, SEEK_DATA));
    report("hole", lseek(fd, 4096, SEEK_HOLE));
    report("no data", lseek(fd, status.st_size, SEEK_DATA));
    report("write", write(fd, room, 4096));
    report("truncate", ftruncate(fd, 0));
    report("flock", flock(fd, LOCK_SH));
    report("advice", posix_fadvise(fd, 0, 0, POSIX_FADV_WILLNEED));
    report("ahead", readahead(fd, 0, 4096));
    unsigned char *map = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, fd, 0);
    report_bytes("map", map == MAP_FAILED ? -1 : (long)status.st_size, map);
    map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED) exit(3);
    map[1] = 7;
    printf("private %d %d\n", map[0], map[1]);
    report("writable", mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED ? -1 : 0);
    report("close", close(fd));
}

/* Every way to such a descriptor. */
static void c_doors(const char *file, const char *scratch) {
    char path[PATH_MAX], link[PATH_MAX];
    int folder = open(".", O_RDONLY | O_DIRECTORY);
    int flags = O_RDONLY | O_DIRECT;
    whole("open64", open64(file, flags), 1);
    whole("openat", openat(folder, file, flags), 1);
    whole("by number", (int)syscall(SYS_open, file, flags), 1);
    whole("openat by number", (int)syscall(SYS_openat, folder, file, flags), 1);
    whole("not followed", openat64(folder, file, flags | O_NOFOLLOW), 1);
    whole("not blocking", open(file, flags | O_NONBLOCK), 1);
    whole("to be made", open(file, flags | O_CREAT, 0600), 1);
    report("to be made anew", open(file, flags | O_CREAT | O_EXCL, 0600));
    report("as a folder", open(file, flags | O_DIRECTORY));
    report("absent", open("absent", flags));
    if (!getcwd(path, sizeof path)) exit(3);
    snprintf(link, sizeof link, "%s/link", scratch);
    snprintf(path + strlen(path), sizeof path - strlen(path), "/%s", file);
    if (symlink(path, link)) exit(3);
    int fd = open(link, flags);
    whole("through a link", fd, 1);
    facts("through a link", fd, file);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    whole("again", open(path, flags), 1);
    int plain = open(file, O_RDONLY);
    snprintf(path, sizeof path, "/proc/self/fd/%d", plain);
    whole("a plain one again", open(path, flags), 1);
    int name = open(file, O_PATH | O_DIRECT);
    struct stat status;
    report("name only", fstat(name, &status));
    printf("size %lld\n", (long long)status.st_size);
    report("of a name", read(name, buffer, 4096));
    facts("not blocking", open(file, flags | O_NONBLOCK), file);
    FILE *stream = fdopen(open(file, flags), "r");
    setvbuf(stream, (char *)aligned(), _IOFBF, 4096);
    report("stream", fgetc(stream));
    fclose(stream);
}

static void pass(int socket, int fd) {
    char one = 'x', room[CMSG_SPACE(sizeof fd)];
    struct iovec iov = {&one, 1};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *header = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd)};
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    if (sendmsg(socket, &message, 0) != 1) exit(3);
}

static int take(int socket) {
    char one, room[CMSG_SPACE(sizeof(int))];
    struct iovec iov = {&one, 1};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    if (recvmsg(socket, &message, 0) != 1) exit(3);
    int fd;
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    return fd;
}

/* What others do with it: duplicates, children, other programs, the receiver of a message. */
static void c_handed(const char *file, const char *scratch) {
    (void)scratch;
    int fd = must_open(file, O_RDONLY | O_DIRECT), pair[2], status;
    whole("dup", dup(fd), 1);
    whole("dup2", dup2(fd, 77), 1);
    facts("dup2", 77, file);
    if (lseek(fd, 4096, SEEK_SET) != 4096 || socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) exit(3);
    fflush(stdout);
    if (!fork()) {
        report("shared offset", lseek(fd, 0, SEEK_CUR));
        whole("child", fd, 1);
        facts("child", fd, file);
        lseek(fd, 8192, SEEK_SET);
        whole("received", take(pair[1]), 1);
        fflush(stdout);
        _exit(0);
    }
    int other = open(file, O_RDONLY | O_DIRECT);
    pass(pair[0], other);
    close(other);
    wait(&status);
    report("shared offset", lseek(fd, 0, SEEK_CUR));
    char command[128];
    snprintf(command, sizeof command, "env -u LD_PRELOAD dd bs=65536 status=none <&%d | cksum; dd bs=65536 status=none <&%d | cksum", fd, 77);
    lseek(fd, 0, SEEK_SET);
    fflush(stdout);
    report("system", system(command));
}

/* Where the file lies, by each name of the call. */
static void c_lies(const char *file, const char *scratch) {
    (void)scratch;
    struct statfs one;
    struct statfs64 one64;
    struct statvfs two;
    struct statvfs64 two64;
    int fd = must_open(file, O_RDONLY), direct = must_open(file, O_RDONLY | O_DIRECT);
    report("statfs", statfs(file, &one));
    report("statfs64", statfs64(file, &one64));
    report("__statfs", __statfs(file, &one));
    report("statvfs", statvfs(file, &two));
    report("statvfs64", statvfs64(file, &two64));
    report("fstatfs", fstatfs(fd, &one));
    report("fstatfs64", fstatfs64(fd, &one64));
    report("fstatvfs", fstatvfs(fd, &two));
    report("fstatvfs64", fstatvfs64(direct, &two64));
    report("by number", syscall(SYS_statfs, file, &one));
    report("by number", syscall(SYS_fstatfs, direct, &one));
    printf("block %ld, room %d, unit %lu\n", (long)one.f_bsize, one.f_blocks > 0 && one.f_bfree <= one.f_blocks, two.f_frsize);
    printf("name %lu\n", two.f_namemax);
    report("absent", statfs("absent", &one));
    report("below a file", statvfs("small.bin/x", &two));
    report("no descriptor", fstatfs(-1, &one));
    report("bad room", fstatfs(fd, (struct statfs *)8));
}

static const struct case_entry table[] = {
    {"direct", c_direct}, {"doors", c_doors}, {"handed", c_handed}, {"lies", c_lies}, {0, 0},
};

int main(int argc, char **argv) { return run_case(table, argc, argv); }
