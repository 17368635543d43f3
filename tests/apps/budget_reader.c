/* Makes and reads files whose every word follows from its place, so that a reader needs no copy to compare with.
 *
 * Usage: budget_reader make BYTES SEED FILE        writes the file
 *        budget_reader WAY COUNT SEED FILE...      SEED of the first file, one more for each further file
 *   WAY: seq      read() of 1 MiB to the end of each file; COUNT is ignored
 *        random   COUNT calls of pread(), each of up to 3 MiB at a random place of a random file
 *        parallel like random, by 8 threads, COUNT calls each
 *        map      maps each file whole, checks it, unmaps it
 *        hold     maps each file, checks it, says "held" and keeps the maps until the end of standard input
 * Output: one line for each file or way: `ok WAY FILE BYTES LONGEST_CALL_MS`, or what was wrong:
 *   `err WAY FILE ERRNO_NAME LONGEST_CALL_MS` (with what the call took) or `wrong WAY FILE OFFSET`.
 * Ends with 0 when all was right, 1 when a call failed, 2 when a byte was wrong. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 1 << 20, RANDOM_MAX = 3 << 20, THREADS = 8, FILES_MAX = 64, HOLD_SECS_MAX = 300 };

static char **files;
static int file_count, descriptors[FILES_MAX], status;
static int64_t sizes[FILES_MAX];
static uint64_t first_seed;
static long calls;

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

/* The word at byte 8 * number of a file: splitmix64, which no compression and no wrong place survives. */
static uint64_t word(uint64_t seed, uint64_t number)
{
    uint64_t z = (seed << 40) + number * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static void fill(unsigned char *to, uint64_t seed, int64_t offset, int64_t len)
{
    for (int64_t at = 0; at < len;) {
        uint64_t value = word(seed, (offset + at) / 8);
        int skip = (offset + at) % 8, piece = 8 - skip < len - at ? 8 - skip : len - at;
        memcpy(to + at, (unsigned char *)&value + skip, piece);
        at += piece;
    }
}

/* Place of the first wrong byte, -1 when there is none. */
static int64_t wrong_at(const unsigned char *data, uint64_t seed, int64_t offset, int64_t len)
{
    for (int64_t at = 0; at < len;) {
        uint64_t value = word(seed, (offset + at) / 8);
        int skip = (offset + at) % 8, piece = 8 - skip < len - at ? 8 - skip : len - at;
        if (memcmp(data + at, (unsigned char *)&value + skip, piece) != 0)
            return offset + at;
        at += piece;
    }
    return -1;
}

static void say(const char *kind, const char *way, const char *file, const char *what, double ms)
{
    char line[4400];
    int len = snprintf(line, sizeof line, "%s %s %s %s %.0f\n", kind, way, file, what, ms);
    if (write(1, line, len) < 0)
        _exit(3);
    if (strcmp(kind, "wrong") == 0)
        status = 2;
    else if (strcmp(kind, "err") == 0 && status == 0)
        status = 1;
}

static void say_wrong(const char *way, int file, int64_t offset)
{
    char text[32];
    snprintf(text, sizeof text, "%ld", (long)offset);
    say("wrong", way, files[file], text, 0);
}

static void say_ok(const char *way, const char *file, int64_t bytes, double ms)
{
    char text[32];
    snprintf(text, sizeof text, "%ld", (long)bytes);
    say("ok", way, file, text, ms);
}

static void sequential(int file, unsigned char *room)
{
    double longest = 0;
    for (int64_t at = 0;;) {
        double begin = now_ms();
        ssize_t got = read(descriptors[file], room, BLOCK);
        double took = now_ms() - begin;
        longest = took > longest ? took : longest;
        if (got < 0) {
            say("err", "seq", files[file], strerrorname_np(errno), took);
            return;
        }
        if (got == 0) {
            if (at != sizes[file])
                say_wrong("seq", file, at);
            else
                say_ok("seq", files[file], at, longest);
            return;
        }
        int64_t wrong = wrong_at(room, first_seed + file, at, got);
        if (wrong >= 0) {
            say_wrong("seq", file, wrong);
            return;
        }
        at += got;
    }
}

static void *at_random(void *given)
{
    const char *way = "random";
    uint64_t number = first_seed * 1000 + (uintptr_t)given;
    unsigned char *room = malloc(RANDOM_MAX);
    double longest = 0;
    int64_t bytes = 0;
    for (long call = 0; call < calls; call++) {
        uint64_t r = word(number, call), s = word(number, call + calls), t = word(number, call + 2 * calls);
        int file = r % file_count;
        int64_t offset = s % sizes[file], len = 1 + t % RANDOM_MAX;
        len = len < sizes[file] - offset ? len : sizes[file] - offset;
        for (int64_t at = 0; at < len;) {
            double begin = now_ms();
            ssize_t got = pread(descriptors[file], room, len - at, offset + at);
            double took = now_ms() - begin;
            longest = took > longest ? took : longest;
            if (got <= 0) {
                say("err", way, files[file], got < 0 ? strerrorname_np(errno) : "EOF", took);
                return NULL;
            }
            int64_t wrong = wrong_at(room, first_seed + file, offset + at, got);
            if (wrong >= 0) {
                say_wrong(way, file, wrong);
                return NULL;
            }
            at += got;
            bytes += got;
        }
    }
    free(room);
    say_ok(way, "all", bytes, longest);
    return NULL;
}

static void in_parallel(void)
{
    pthread_t ids[THREADS];
    for (uintptr_t n = 0; n < THREADS; n++)
        if (pthread_create(&ids[n], NULL, at_random, (void *)n) != 0)
            _exit(4);
    for (int n = 0; n < THREADS; n++)
        pthread_join(ids[n], NULL);
}

static void map_whole(int file, const char *way, int keep)
{
    double begin = now_ms();
    unsigned char *map = mmap(NULL, sizes[file], PROT_READ, MAP_PRIVATE, descriptors[file], 0);
    double took = now_ms() - begin;
    if (map == MAP_FAILED) {
        say("err", way, files[file], strerrorname_np(errno), took);
        return;
    }
    int64_t wrong = wrong_at(map, first_seed + file, 0, sizes[file]);
    if (wrong >= 0)
        say_wrong(way, file, wrong);
    else
        say_ok(way, files[file], sizes[file], took);
    if (!keep)
        munmap(map, sizes[file]);
}

static int make(const char *bytes, const char *seed, const char *file)
{
    int64_t size = atoll(bytes), at = 0;
    unsigned char *room = malloc(BLOCK);
    FILE *out = fopen(file, "wb");
    while (out && at < size) {
        int64_t piece = BLOCK < size - at ? BLOCK : size - at;
        fill(room, atoll(seed), at, piece);
        if (fwrite(room, 1, piece, out) != (size_t)piece)
            return 1;
        at += piece;
    }
    return !out || fclose(out) != 0;
}

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "make") == 0)
        return make(argv[2], argv[3], argv[4]);
    if (argc < 5 || argc - 4 > FILES_MAX)
        return 64;
    const char *way = argv[1];
    calls = atol(argv[2]);
    first_seed = atoll(argv[3]);
    files = argv + 4;
    file_count = argc - 4;
    unsigned char *room = malloc(BLOCK);
    for (int n = 0; n < file_count; n++) {
        struct stat st;
        descriptors[n] = open(files[n], O_RDONLY | O_CLOEXEC);
        if (descriptors[n] < 0 || fstat(descriptors[n], &st) != 0 || st.st_size == 0) {
            say("err", way, files[n], errno ? strerrorname_np(errno) : "EMPTY", 0);
            return 1;
        }
        sizes[n] = st.st_size;
    }
    if (strcmp(way, "random") == 0)
        at_random(NULL);
    else if (strcmp(way, "parallel") == 0)
        in_parallel();
    else
        for (int n = 0; n < file_count; n++) {
            if (strcmp(way, "seq") == 0)
                sequential(n, room);
            else
                map_whole(n, way, strcmp(way, "hold") == 0);
            close(descriptors[n]);
        }
    if (strcmp(way, "hold") == 0) {
        char byte;
        alarm(HOLD_SECS_MAX);
        if (write(1, "held\n", 5) < 0 || read(0, &byte, 1) < 0)
            return 3;
    }
    return status;
}
