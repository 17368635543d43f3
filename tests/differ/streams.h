/* Operations on C streams. */

static int free_stream(void) {
    for (int i = 0; i < STREAMS; i++) if (!streams[i].stream) return i;
    int i = (int)below(STREAMS);
    fclose(streams[i].stream);
    streams[i].stream = NULL;
    return i;
}

static void say_place(FILE *stream) {
    say(" tell=%ld eof=%d err=%d", ftell(stream), feof(stream) != 0, ferror(stream) != 0);
}

static void op_fopen(void) {
    static const char *const modes[] = {"r", "rb", "re", "rm", "rc", "rbe", "q", ""};
    int slot = free_stream(), file = any_file();
    const char *path = one_in(10) ? absent_path() : any_path(file), *mode = PICK(modes);
    say_path(path);
    say(" mode=%s", mode);
    FILE *stream = (FILE *)(one_in(2) ? CALL(fopen64(path, mode)) : CALL(fopen(path, mode)));
    said("fopen", stream ? 0 : -1);
    if (!stream) return;
    streams[slot].stream = stream;
    streams[slot].file = file;
    say(" fd%d cloexec=%d", fileno(stream), fcntl(fileno(stream), F_GETFD));
    if (one_in(5)) setvbuf(stream, NULL, one_in(2) ? _IONBF : _IOFBF, (size_t)(1 + below(70000)));
}

/* A number of its own, with an offset; see differ.c for why not one that is shared. */
static void op_fdopen(void) {
    int slot = free_stream(), file = any_file(), fd = open(files[file].name, one_in(12) ? O_PATH : one_in(2) ? O_RDONLY | O_CLOEXEC : O_RDONLY);
    long where = below(files[file].size + 1);
    NOTE("seek", lseek(fd, where, SEEK_SET));
    if (one_in(9)) {
        FILE *bad = (FILE *)CALL(fdopen(one_in(2) ? 998 : fd, one_in(2) ? "x" : "q"));
        said("fdopen-bad", bad ? 0 : -1);
        close(fd);
        return;
    }
    say(" %s at=%ld", files[file].name, where);
    FILE *stream = (FILE *)CALL(fdopen(fd, "r"));
    said("fdopen", stream ? fileno(stream) : -1);
    say_place(stream);
    streams[slot].stream = stream;
    streams[slot].file = file;
}

static void op_freopen(void) {
    int slot = used_stream(), file = any_file();
    if (slot < 0) return;
    const char *path = one_in(12) ? absent_path() : any_path(file);
    say_path(path);
    FILE *stream = (FILE *)CALL(freopen(path, "r", streams[slot].stream));
    said("freopen", stream ? 0 : -1);
    streams[slot].stream = stream;
    streams[slot].file = file;
    if (stream) say(" fd%d", fileno(stream));
}

static void op_stream(void) {
    static const int whences[] = {SEEK_SET, SEEK_CUR, SEEK_END};
    int slot = used_stream();
    if (slot < 0) { op_fopen(); return; }
    FILE *stream = streams[slot].stream;
    int file = streams[slot].file;
    long count = one_in(12) ? below(2 * MIB) : one_in(3) ? below(70000) : below(300), where;
    unsigned char *at;
    char *text;
    struct stat st;
    say(" s%d:%s", slot, files[file].name);
    switch (below(12)) {
    case 0: case 1: case 2: at = dest(count); got("fread", (long)fread(at, 1, (size_t)count, stream), at); break;
    case 3: case 4:
        where = one_in(12) ? any_offset(file) : below(files[file].size + 50);
        int whence = PICK(whences);
        /* How far beyond the end an offset may lie is the file system's affair. */
        if (where > MIB * MIB) where = MIB * MIB;
        NOTE("fseek", fseeko(stream, whence == SEEK_SET ? where : where - files[file].size, whence));
        break;
    case 5:
        text = (char *)dest(count + 2);
        text = fgets(text, (int)(count < 2 ? 2 : count), stream);
        say(" fgets=%d h%016llx", text != NULL, text ? (unsigned long long)fold(FOLD_START, (unsigned char *)text, strlen(text)) : 0ULL);
        break;
    case 6: say(" getc=%d getc=%d", getc(stream), fgetc(stream)); break;
    case 7: where = getc(stream); say(" ungetc=%d", ungetc((int)where, stream)); say(" getc=%d", getc(stream)); break;
    case 8: NOTE("fstat", fstat(fileno(stream), &st)); say_stat(call_result, &st); break;
    case 9: if (one_in(2)) rewind(stream); else clearerr(stream); break;
    case 10:
        at = dest(400);
        got("pread", CALL(pread(fileno(stream), at, 400, any_offset(file))), at);
        NOTE("end", lseek(fileno(stream), 0, SEEK_CUR) >= 0);
        break;
    default:
        if (one_in(2)) {
            NOTE("fclose", fclose(stream));
            streams[slot].stream = NULL;
            return;
        }
        NOTE("fflush", fflush(stream));
        offset(fileno(stream));
    }
    say_place(stream);
}

/* A child goes on reading where the parent is. */
static void op_stream_fork(void) {
    int slot = used_stream();
    if (slot < 0) { op_fopen(); return; }
    FILE *stream = streams[slot].stream;
    unsigned char *at = dest(3000);
    fflush(stream);
    pid_t child = fork();
    if (child == 0) {
        size_t n = fread(at, 1, 3000, stream);
        /* How far the C library read ahead is its own business: back to what was consumed. */
        fflush(stream);
        shared[0] = (struct shared){(long)n, ferror(stream), (long)fold(FOLD_START, at, n), 0};
        _exit(0);
    }
    reap(child);
    say(" s%d child=%ld/%ld h%016lx", slot, shared[0].result, shared[0].errno_, (unsigned long)shared[0].hash);
    offset(fileno(stream));
}
