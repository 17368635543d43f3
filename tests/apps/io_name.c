/* Names, folders and metadata: how programs find files before they read them. See cases.h. */
#include "cases.h"
#include <dirent.h>
#include <fts.h>
#include <ftw.h>
#include <glob.h>
#include <libgen.h>
#include <sys/file.h>
#include <sys/sysmacros.h>

static void show(const char *what, int result, const struct stat *status) {
    if (result < 0) { report(what, result); return; }
    printf("%s: size %lld type %o links %d\n", what, (long long)status->st_size, status->st_mode & S_IFMT, status->st_nlink > 0);
}

static void c_stat(const char *file, const char *scratch) {
    (void)scratch;
    struct stat status;
    struct statx wide;
    int fd = must_open(file, O_RDONLY);
    show("stat", stat(file, &status), &status);
    show("lstat", lstat(file, &status), &status);
    show("fstat", fstat(fd, &status), &status);
    show("fstatat", fstatat(AT_FDCWD, file, &status, 0), &status);
    show("fstatat empty", fstatat(fd, "", &status, AT_EMPTY_PATH), &status);
    report("statx", statx(AT_FDCWD, file, 0, STATX_SIZE | STATX_TYPE, &wide));
    printf("size %llu\n", (unsigned long long)wide.stx_size);
    report("statx empty", statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &wide));
    printf("size %llu same inode %d\n", (unsigned long long)wide.stx_size, wide.stx_ino == status.st_ino);
    printf("same device %d blocks hold the size %d\n", makedev(wide.stx_dev_major, wide.stx_dev_minor) == status.st_dev,
           status.st_blocks * 512LL >= status.st_size);
    show("absent", stat("absent", &status), &status);
    report("access", access(file, R_OK));
    report("access x", access(file, X_OK));
    report("flock", flock(fd, LOCK_SH));
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    report("lock", fcntl(fd, F_SETLK, &lock));
}

static void c_openat(const char *file, const char *scratch) {
    char path[PATH_MAX], link[PATH_MAX];
    char *copy = strdup(file);
    int folder = open(dirname(copy), O_RDONLY | O_DIRECTORY);
    copy = strdup(file);
    const char *name = basename(copy);
    int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW);
    report_bytes("openat", read(fd, buffer, 99999), buffer);
    struct stat status;
    show("fstatat", fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW), &status);
    report("as a folder", open(file, O_RDONLY | O_DIRECTORY));
    snprintf(path, sizeof path, "./nested/.././%s", file);
    fd = open(path, O_RDONLY);
    report_bytes("through dots", pread(fd, buffer, 5000, 5000), buffer);
    snprintf(path, sizeof path, "%s/x", file);
    report("below a file", open(path, O_RDONLY));
    report("create, exclusive", open(file, O_RDWR | O_CREAT | O_EXCL, 0600));
    snprintf(link, sizeof link, "%s/link-%d", scratch, (int)getpid());
    if (!getcwd(path, sizeof path) || symlink(path, link)) exit(3);
    snprintf(path, sizeof path, "%s/%s", link, file);
    fd = open(path, O_RDONLY);
    report_bytes("through a symlink", read(fd, buffer, 5000), buffer);
    show("stat through a symlink", stat(path, &status), &status);
    if (chdir("nested")) exit(3);
    snprintf(path, sizeof path, "../%s", file);
    fd = open(path, O_RDONLY);
    report_bytes("from a sub-folder", read(fd, buffer, 5000), buffer);
    unlink(link);
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void list(const char *path) {
    char *names[256];
    int count = 0;
    DIR *folder = opendir(path);
    if (!folder) { report(path, -1); return; }
    for (struct dirent *entry; (entry = readdir(folder)) && count < 256;) {
        char line[300];
        snprintf(line, sizeof line, "%s %d", entry->d_name, entry->d_type == DT_DIR);
        names[count++] = strdup(line);
    }
    closedir(folder);
    qsort(names, (size_t)count, sizeof *names, by_name);
    for (int i = 0; i < count; i++) printf("%s\n", names[i]);
}

static void c_list(const char *file, const char *scratch) {
    (void)scratch;
    list(".");
    list("nested/deep");
    list("absent");
    list(file);
    struct dirent **found;
    int count = scandir("nested", &found, NULL, alphasort);
    for (int i = 0; i < count; i++) printf("scandir %s\n", found[i]->d_name);
}

static void c_glob(const char *file, const char *scratch) {
    (void)file, (void)scratch;
    glob_t found;
    report("glob", glob("nested/*/*.bin", 0, NULL, &found));
    for (size_t i = 0; i < found.gl_pathc; i++) printf("%s\n", found.gl_pathv[i]);
    report("nothing", glob("nested/*.none", 0, NULL, &found));
}

static long walked_bytes, walked_files;

static int on_walk(const char *path, const struct stat *status, int kind, struct FTW *level) {
    (void)path, (void)level;
    if (kind == FTW_F) { walked_files++; walked_bytes += (long)status->st_size; }
    return 0;
}

static int fts_by_name(const FTSENT **a, const FTSENT **b) { return strcmp((*a)->fts_name, (*b)->fts_name); }

static void c_walk(const char *file, const char *scratch) {
    (void)file, (void)scratch;
    report("nftw", nftw(".", on_walk, 10, FTW_PHYS));
    printf("%ld files %ld bytes\n", walked_files, walked_bytes);
    char *roots[] = {".", NULL};
    FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, fts_by_name);
    for (FTSENT *entry; (entry = fts_read(tree));)
        if (entry->fts_info == FTS_F) printf("%s %lld\n", entry->fts_path, (long long)entry->fts_statp->st_size);
    fts_close(tree);
}

static void c_realpath(const char *file, const char *scratch) {
    (void)scratch;
    char out[PATH_MAX], path[64];
    printf("%s\n", realpath(file, out) ? out : strerror(errno));
    printf("%s\n", realpath("nested/deep/../../absent", out) ? out : strerror(errno));
    FILE *stream = fopen(file, "r");
    snprintf(path, sizeof path, "/proc/self/fd/%d", fileno(stream));
    printf("%s\n", realpath(path, out) ? out : strerror(errno));
    ssize_t length = readlink(path, out, sizeof out - 1);
    out[length > 0 ? length : 0] = 0;
    printf("%s\n", out);
}

static const struct case_entry table[] = {
    {"stat", c_stat}, {"openat", c_openat}, {"list", c_list}, {"glob", c_glob},
    {"walk", c_walk}, {"realpath", c_realpath}, {NULL, NULL},
};

int main(int argc, char **argv) { return run_case(table, argc, argv); }
