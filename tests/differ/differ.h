/* What all operations of differ.c share: seeded choices, the trace, the open things, and hashing that
 * survives a bad page. Included once, by differ.c; calls nothing of the project. */
#ifndef DIFFER_H
#define DIFFER_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <aio.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KIB 1024L
#define MIB (1024L * KIB)
#define PAGE 4096L

/* The folder: names and sizes, from nothing to 64 MiB, around the edges that matter: pages, the limit of
 * real files (256 KiB here), parts (8 MiB). */
static const struct file { const char *name; long size; } files[] = {
    {"empty.bin", 0}, {"one.bin", 1}, {"page.bin", PAGE}, {"small.bin", 5000}, {"limit.bin", 256 * KIB},
    {"over.bin", 256 * KIB + 1}, {"a.bin", MIB}, {"b.bin", 3 * MIB + 17}, {"part.bin", 8 * MIB},
    {"sub/c.bin", 8 * MIB + 4097}, {"sub/small.json", 700}, {"sub/deep/d.bin", 300001},
    {"sub/deep/e.bin", 12 * MIB - 1}, {"big.bin", 64 * MIB},
};
#define FILES ((int)(sizeof files / sizeof *files))

/* Seeded choices: splitmix64, so that a seed gives the same sequence on every machine. */
static uint64_t state;

static uint64_t next64(void) {
    uint64_t z = (state += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}
static long below(long n) { return n <= 0 ? 0 : (long)(next64() % (uint64_t)n); }
static int one_in(long n) { return below(n) == 0; }
#define PICK(list) ((list)[below((long)(sizeof(list) / sizeof *(list)))])

/* Open things. A slot is free when fd, at or stream is -1 or NULL. */
#define FDS 12
#define MAPS 6
#define STREAMS 4
static struct { int fd, file, flags; } fds[FDS];
static struct { unsigned char *at; long len, off; int file, prot, is_shared, is_writer; } maps[MAPS];
static struct { FILE *stream; int file; } streams[STREAMS];

static char folder[PATH_MAX], scratch[PATH_MAX];
static int folder_fd;

/* The trace lies in a shared map of its file, so that it survives a crash of the program. */
static char *trace;
static size_t trace_len, trace_max;

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *format, ...) {
    va_list list;
    va_start(list, format);
    int n = vsnprintf(trace + trace_len, trace_max - trace_len, format, list);
    va_end(list);
    if (n > 0) trace_len += (size_t)n;
    if (trace_len + 65536 > trace_max) { fprintf(stderr, "the trace is full\n"); _exit(4); }
}

/* Result and errno of the last call under test. Errno is cleared before, so that a success that changes
 * it shows. */
static long call_result, noted_errno;

static long after(long result) {
    noted_errno = errno;
    return call_result = result;
}
#define CALL(expression) (errno = 0, after((long)(expression)))

static long said(const char *what, long result) {
    say(" %s=%ld", what, result);
    if (noted_errno) say("/e%ld", noted_errno);
    return result;
}
/* Runs a call and notes its result and errno. */
#define NOTE(what, expression) said(what, CALL(expression))

static uint64_t fold(uint64_t hash, const unsigned char *data, size_t length) {
    for (; length >= 8; data += 8, length -= 8) {
        uint64_t word;
        memcpy(&word, data, 8);
        hash = (hash ^ word) * 0x9fb21c651e98df25ULL;
        hash ^= hash >> 32;
    }
    for (; length; length--) hash = (hash ^ *data++) * 1099511628211ULL;
    return hash;
}
#define FOLD_START 14695981039346656037ULL

/* Hashing a map: a page that faults (past the end of the file) counts as such. */
static sigjmp_buf fault_place;
static volatile sig_atomic_t may_fault;

static void on_fault(int number) {
    if (!may_fault) { signal(number, SIG_DFL); raise(number); return; }
    siglongjmp(fault_place, number);
}

static uint64_t fold_pages(uint64_t hash, const unsigned char *at, long length, long *good) {
    volatile uint64_t sum = hash;
    volatile long done = 0;
    int number = sigsetjmp(fault_place, 1);
    if (number == 0) {
        may_fault = 1;
        while (done < length) {
            long step = PAGE - (long)((uintptr_t)(at + done) % PAGE);
            if (step > length - done) step = length - done;
            sum = fold(sum, at + done, (size_t)step);
            done += step;
        }
    } else sum = sum * 31 + (uint64_t)number;
    may_fault = 0;
    if (good) *good = done;
    return sum;
}

/* The buffer that reads go to, with a page that nobody may touch right behind it. */
#define POOL (80 * MIB)
static unsigned char *pool;
#define POOL_END (pool + POOL)
/* Nobody's, behind the pool: more than any operation asks for there. */
#define GUARD (128 * KIB)
#define SPILL 32

static unsigned char *dest(long count) {
    long room = count < 0 || count > 66 * MIB ? 66 * MIB : count;
    unsigned char *at = pool + (one_in(3) ? below(3 * PAGE) : PAGE * below(3));
    long clean = room + SPILL < 300 * KIB ? room + SPILL : 300 * KIB;
    memset(at, 0xa5, (size_t)clean);
    if (room + SPILL > clean) memset(at + room, 0xa5, SPILL);
    return at;
}

/* Notes a read: result, hash of what came, and whether the byte behind it is untouched. */
static void got(const char *what, long result, const unsigned char *at) {
    said(what, result);
    if (result > 0) {
        int spilt = 0;
        for (int i = 0; i < SPILL && at + result + i < POOL_END && result + i < 300 * KIB; i++) spilt += at[result + i] != 0xa5;
        say(" h%016llx%s", (unsigned long long)fold(FOLD_START, at, (size_t)result), spilt ? " SPILT" : "");
    }
}

/* Addresses of nothing, which the compiler must not see through. */
static void *volatile nothing, *volatile nowhere = (void *)8;

/* The offset by a system call of its own: the C library's `lseek` is under test. */
static void offset(int fd) { say(" @%ld", syscall(SYS_lseek, fd, 0L, SEEK_CUR)); }

static int free_fd(void) {
    for (int i = 0; i < FDS; i++) if (fds[i].fd < 0) return i;
    int i = (int)below(FDS);
    close(fds[i].fd);
    fds[i].fd = -1;
    return i;
}

/* A slot of an open descriptor, or -1 if there is none. */
static int used_fd(void) {
    int from = (int)below(FDS);
    for (int i = 0; i < FDS; i++) if (fds[(from + i) % FDS].fd >= 0) return (from + i) % FDS;
    return -1;
}

static int used_map(void) {
    int from = (int)below(MAPS);
    for (int i = 0; i < MAPS; i++) if (maps[(from + i) % MAPS].at) return (from + i) % MAPS;
    return -1;
}

static int used_stream(void) {
    int from = (int)below(STREAMS);
    for (int i = 0; i < STREAMS; i++) if (streams[(from + i) % STREAMS].stream) return (from + i) % STREAMS;
    return -1;
}

/* Large files are rarer: their bytes take the time. */
static int any_file(void) {
    int file = (int)below(FILES);
    return files[file].size > 4 * MIB && one_in(2) ? (int)below(FILES) : file;
}

/* A descriptor to work on and its file: mostly an open one, opened if there is none, rarely a bad one. */
static int target(int *file) {
    static const int bad[] = {-1, 999999, 333, AT_FDCWD};
    if (one_in(60)) { *file = 0; return PICK(bad); }
    int slot = used_fd();
    if (slot < 0 || one_in(12)) {
        slot = free_fd();
        fds[slot].file = any_file();
        fds[slot].flags = one_in(10) ? O_PATH : O_RDONLY;
        fds[slot].fd = open(files[fds[slot].file].name, fds[slot].flags);
    }
    *file = fds[slot].file;
    say(" fd%d:%s", fds[slot].fd, files[*file].name);
    return fds[slot].fd;
}

/* The descriptor, unless it may be written to: what a write to a managed file gives is defined otherwise. */
static int read_only(int fd) { return (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY ? fd : -1; }

/* Counts around the edges; whole large files rarely. */
static long any_count(void) {
    static const long edges[] = {0, 1, 2, 511, 4095, 4096, 4097, 65535, 65536, 65537, 131072, 262144};
    switch (below(40)) {
    case 0: return below(8 * MIB);
    case 1: return one_in(4) ? 0x7ffff000L : one_in(2) ? LONG_MAX : (long)UINT_MAX + 1;
    case 2: case 3: case 4: return below(400 * KIB);
    case 5: case 6: case 7: case 8: case 9: case 10: case 11: return PICK(edges);
    default: return below(6000);
    }
}

/* Offsets: anywhere, around parts and pages, at and past the end, below zero. */
static long any_offset(int file) {
    long size = files[file].size;
    switch (below(24)) {
    case 0: return -1 - below(5000);
    case 1: return size + below(10000);
    case 2: return one_in(2) ? LONG_MAX - below(3) : (1L << 40) + below(100);
    case 3: case 4: return size - below(5000) - 1 > 0 ? size - below(5000) - 1 : 0;
    case 5: return 0;
    case 6: return size;
    case 7: case 8: return size > 8 * MIB ? 8 * MIB - 3000 + below(6000) : below(size + 1);
    case 9: return PAGE * below(size / PAGE + 1);
    default: return below(size + 1);
    }
}

/* A path to a file of the folder in one of the ways that programs use. */
static const char *any_path(int file) {
    static char path[2 * PATH_MAX];
    const char *name = files[file].name;
    switch (below(8)) {
    case 0: snprintf(path, sizeof path, "%s/%s", folder, name); break;
    case 1: snprintf(path, sizeof path, "./sub/..//%s", name); break;
    case 2: snprintf(path, sizeof path, "%s/tree/%s", scratch, name); break;
    case 3: snprintf(path, sizeof path, "%s/link%d", scratch, file); break;
    default: snprintf(path, sizeof path, "%s", name);
    }
    return path;
}

static const char *absent_path(void) {
    static const char *const absent[] = {"absent.bin", "sub/absent", "sub/deep/none/x", "a.bin/x", "", "no/such/folder"};
    return PICK(absent);
}

/* Notes a path without what differs between the two folders. */
static void say_path(const char *path) {
    size_t f = strlen(folder), s = strlen(scratch);
    if (!strncmp(path, folder, f)) say(" <F>%s", path + f);
    else if (!strncmp(path, scratch, s)) say(" <S>%s", path + s);
    else say(" \"%s\"", path);
}

/* Results of children, in memory that both sides see. */
static struct shared { long result, errno_, hash, more; } *shared;
#define SHARED 16

static void reap(pid_t child) {
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
    if (status) say(" child-status=%x", status);
}

/* Reads a pipe to its end and notes what came. */
static void drain(int fd) {
    static unsigned char bytes[1 << 16];
    uint64_t hash = FOLD_START;
    long total = 0;
    for (;;) {
        /* Hashed in full blocks, so that the pipe's own chunks do not show. */
        size_t have = 0;
        ssize_t n = 1;
        while (have < sizeof bytes && (n = read(fd, bytes + have, sizeof bytes - have)) > 0) have += (size_t)n;
        hash = fold(hash, bytes, have);
        total += (long)have;
        if (n <= 0) break;
    }
    say(" piped=%ld h%016llx", total, (unsigned long long)hash);
}
#endif
