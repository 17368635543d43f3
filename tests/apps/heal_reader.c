/* Reads files by one way each and says what it got: a reader for the runs in which processes are killed.
 *
 * Usage: heal_reader [-t THREADS] [-f WAY]... [-w] WAY FILE...
 *   WAY: map, hold (maps that stay until the end), window (maps of 3 MiB), read, pread (by THREADS threads), stdio
 *   -f WAY: fork a child that reads the same files that way (before anything was read)
 *   -o FD: say it to this descriptor, and first which of 0 to 2 are open: `fds COUNT`
 *   -w: stay until the end of standard input; a line on it asks for a second round
 * Output, one line per file and round, each one write:
 *   ok PID WAY ROUND FILE HASH LONGEST_CALL_MS
 *   err PID WAY ROUND FILE ERRNO_NAME LONGEST_CALL_MS
 * and once `open PID` (the first file is open and has a size) and `end PID ROUND`.
 * Ends with 0 whenever it came to its end; what was read is for the caller to judge. */
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
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { THREADS_MAX = 16, CALL_BYTES = 1 << 20, WINDOW_BYTES = 3 << 20, PIECE_BYTES = 300 << 10 };

static int threads = 4, out = 1;
static double longest_ms;

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

/* Longest call of this process so far; threads may race for it, which loses a maximum of the same call at worst. */
static void timed(double begin)
{
    double took = now_ms() - begin;
    if (took > longest_ms)
        longest_ms = took;
}

static void say(const char *line)
{
    if (write(out, line, strlen(line)) < 0)
        _exit(3);
}

/* Eight lanes of multiply and xor over 64-bit words, each step a bijection: any changed word changes the sum. */
static uint64_t hash(const unsigned char *data, size_t len)
{
    uint64_t lane[8] = {1, 2, 3, 4, 5, 6, 7, 8}, word, sum = len;
    size_t at = 0;
    for (; at + 64 <= len; at += 64)
        for (int n = 0; n < 8; n++) {
            memcpy(&word, data + at + 8 * n, 8);
            lane[n] = (lane[n] ^ word) * 0x9E3779B97F4A7C15u;
            lane[n] ^= lane[n] >> 29;
        }
    for (; at < len; at++)
        lane[0] = (lane[0] ^ data[at]) * 0x100000001B3u;
    for (int n = 0; n < 8; n++)
        sum = ((sum ^ lane[n]) * 0x9E3779B97F4A7C15u) ^ (sum >> 31);
    return sum;
}

struct job {
    int fd, index;
    unsigned char *to;
    size_t size;
    int error;
};

static void *read_stripe(void *given)
{
    struct job *job = given;
    for (size_t block = job->index; block * CALL_BYTES < job->size; block += threads) {
        size_t at = block * CALL_BYTES, end = at + CALL_BYTES < job->size ? at + CALL_BYTES : job->size;
        while (at < end) {
            double begin = now_ms();
            ssize_t got = pread(job->fd, job->to + at, end - at, at);
            timed(begin);
            if (got <= 0) {
                job->error = got < 0 ? errno : ENODATA;
                return NULL;
            }
            at += got;
        }
    }
    return NULL;
}

static int by_pread(int fd, unsigned char *to, size_t size)
{
    struct job jobs[THREADS_MAX];
    pthread_t ids[THREADS_MAX];
    int error = 0;
    for (int n = 0; n < threads; n++) {
        jobs[n] = (struct job){fd, n, to, size, 0};
        if (pthread_create(&ids[n], NULL, read_stripe, &jobs[n]) != 0)
            _exit(4);
    }
    for (int n = 0; n < threads; n++) {
        pthread_join(ids[n], NULL);
        if (jobs[n].error)
            error = jobs[n].error;
    }
    return error;
}

static int by_read(int fd, unsigned char *to, size_t size)
{
    for (size_t at = 0; at < size;) {
        double begin = now_ms();
        ssize_t got = read(fd, to + at, size - at < CALL_BYTES ? size - at : CALL_BYTES);
        timed(begin);
        if (got <= 0)
            return got < 0 ? errno : ENODATA;
        at += got;
    }
    return 0;
}

static int by_window(int fd, unsigned char *to, size_t size)
{
    for (size_t at = 0; at < size; at += WINDOW_BYTES) {
        size_t len = size - at < WINDOW_BYTES ? size - at : WINDOW_BYTES;
        double begin = now_ms();
        void *map = mmap(NULL, len, PROT_READ, MAP_PRIVATE, fd, at);
        timed(begin);
        if (map == MAP_FAILED)
            return errno;
        memcpy(to + at, map, len);
        munmap(map, len);
    }
    return 0;
}

static int by_stdio(const char *path, unsigned char *to, size_t size)
{
    double begin = now_ms();
    FILE *stream = fopen(path, "rb");
    timed(begin);
    if (!stream)
        return errno;
    size_t at = 0, got = 1;
    while (at < size && got > 0) {
        begin = now_ms();
        got = fread(to + at, 1, size - at < PIECE_BYTES ? size - at : PIECE_BYTES, stream);
        timed(begin);
        at += got;
    }
    int error = ferror(stream) ? errno : at < size ? ENODATA : 0;
    fclose(stream);
    return error;
}

static int by_map(int fd, size_t size, int keep, uint64_t *sum)
{
    double begin = now_ms();
    void *map = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    timed(begin);
    if (map == MAP_FAILED)
        return errno;
    *sum = hash(map, size);
    if (!keep)
        munmap(map, size);
    return 0;
}

/* 0 and the sum of the file's bytes, or an errno; ENODATA for a file that ends too early. */
static int sum_of(const char *way, const char *path, uint64_t *sum)
{
    static int told;
    double begin = now_ms();
    int fd = open(path, O_RDONLY | O_CLOEXEC), error;
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0)
        return errno;
    timed(begin);
    if (st.st_size == 0) {
        close(fd);
        return ENODATA;
    }
    if (!told++) {
        char line[64];
        snprintf(line, sizeof line, "open %d\n", getpid());
        say(line);
    }
    int keep = strcmp(way, "hold") == 0;
    if (keep || strcmp(way, "map") == 0) {
        error = by_map(fd, st.st_size, keep, sum);
    } else {
        unsigned char *to = malloc(st.st_size);
        if (strcmp(way, "read") == 0)
            error = by_read(fd, to, st.st_size);
        else if (strcmp(way, "pread") == 0)
            error = by_pread(fd, to, st.st_size);
        else if (strcmp(way, "window") == 0)
            error = by_window(fd, to, st.st_size);
        else
            error = by_stdio(path, to, st.st_size);
        if (!error)
            *sum = hash(to, st.st_size);
        free(to);
    }
    close(fd);
    return error;
}

static void round_of(const char *way, int number, char **files)
{
    char line[4096];
    for (; *files; files++) {
        uint64_t sum = 0;
        longest_ms = 0;
        int error = sum_of(way, *files, &sum);
        char what[32];
        if (error)
            snprintf(what, sizeof what, "%s", strerrorname_np(error));
        else
            snprintf(what, sizeof what, "%016lx", sum);
        snprintf(line, sizeof line, "%s %d %s %d %s %s %.0f\n", error ? "err" : "ok", getpid(), way, number, *files,
                 what, longest_ms);
        say(line);
    }
    snprintf(line, sizeof line, "end %d %d\n", getpid(), number);
    say(line);
}

static void read_and_stay(const char *way, int stay, char **files)
{
    char line;
    round_of(way, 1, files);
    for (int number = 2; stay && read(0, &line, 1) == 1; number++)
        round_of(way, number, files);
}

int main(int argc, char **argv)
{
    const char *children[16] = {0};
    int option, count = 0, again = 0;
    while ((option = getopt(argc, argv, "t:f:o:w")) != -1) {
        if (option == 't')
            threads = atoi(optarg) < THREADS_MAX ? atoi(optarg) : THREADS_MAX;
        else if (option == 'f' && count < 16)
            children[count++] = optarg;
        else if (option == 'o')
            out = atoi(optarg);
        else if (option == 'w')
            again = 1;
        else
            return 2;
    }
    if (argc - optind < 2)
        return 2;
    if (out != 1) {
        char line[16];
        snprintf(line, sizeof line, "fds %d\n", (fcntl(0, F_GETFD) >= 0) + (fcntl(1, F_GETFD) >= 0) + (fcntl(2, F_GETFD) >= 0));
        say(line);
    }
    for (int n = 0; n < count; n++)
        if (fork() == 0) {
            read_and_stay(children[n], again, argv + optind + 1);
            _exit(0);
        }
    read_and_stay(argv[optind], again, argv + optind + 1);
    while (wait(NULL) > 0)
        ;
    return 0;
}
