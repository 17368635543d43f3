// std::ifstream and std::filesystem, the way C++ loaders read. Usage: io_stream CASE FILE SCRATCH
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <set>
#include <string>
#include <thread>
#include <vector>

static std::uint64_t fold(std::uint64_t hash, const char *data, std::size_t length) {
    for (std::size_t i = 0; i < length; i++) hash = (hash ^ static_cast<unsigned char>(data[i])) * 1099511628211ULL;
    return hash;
}

static void whole(const std::string &file) {
    std::ifstream stream(file, std::ios::binary);
    std::vector<char> block(65537);
    std::uint64_t hash = 14695981039346656037ULL, total = 0;
    while (stream.read(block.data(), static_cast<std::streamsize>(block.size())) || stream.gcount() > 0) {
        hash = fold(hash, block.data(), static_cast<std::size_t>(stream.gcount()));
        total += static_cast<std::uint64_t>(stream.gcount());
    }
    std::printf("%llu %016llx eof %d\n", (unsigned long long)total, (unsigned long long)hash, stream.eof());
}

static void seek(const std::string &file) {
    std::ifstream stream(file, std::ios::binary | std::ios::ate);
    std::cout << "size " << stream.tellg() << "\n";
    stream.seekg(-1001, std::ios::end);
    std::string tail((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
    std::printf("%zu %016llx\n", tail.size(), (unsigned long long)fold(1, tail.data(), tail.size()));
    stream.clear();
    stream.seekg(4097);
    std::cout << stream.get() << " " << stream.tellg() << " good " << stream.good() << "\n";
}

static void folder() {
    std::set<std::string> lines;
    for (const auto &entry : std::filesystem::recursive_directory_iterator("."))
        lines.insert(entry.path().string() + (entry.is_regular_file() ? " " + std::to_string(entry.file_size()) : " folder"));
    for (const auto &line : lines) std::cout << line << "\n";
}

static void copy(const std::string &file, const std::string &scratch) {
    const auto target = std::filesystem::path(scratch) / "stream-copy";
    std::filesystem::copy_file(file, target, std::filesystem::copy_options::overwrite_existing);
    whole(target.string());
    std::filesystem::remove(target);
}

// Lines of one file, words of another, through standard streams.
static void lines(const std::string &file) {
    std::ifstream stream("lines.txt");
    std::string line;
    std::uint64_t hash = 1, count = 0;
    while (std::getline(stream, line)) hash = fold(hash, line.data(), line.size()), count++;
    std::printf("%llu %016llx eof %d\n", (unsigned long long)count, (unsigned long long)hash, stream.eof());
    std::ifstream absent("nested/absent");
    std::printf("absent %d %s\n", absent.is_open(), std::strerror(errno));
    std::ofstream refused("nested");
    std::printf("folder %d %s\n", refused.is_open(), std::strerror(errno));
    if (!std::freopen(file.c_str(), "r", stdin)) std::printf("freopen %s\n", std::strerror(errno));
    std::string first;
    std::getline(std::cin, first);
    std::printf("cin %zu %016llx\n", first.size(), (unsigned long long)fold(1, first.data(), first.size()));
}

// One stream for each thread, each at its own place.
static void threads(const std::string &file) {
    const auto size = std::filesystem::file_size(file);
    std::vector<std::uint64_t> sums(6);
    std::vector<std::thread> running;
    for (std::size_t i = 0; i < sums.size(); i++)
        running.emplace_back([&, i] {
            std::ifstream stream(file, std::ios::binary);
            std::vector<char> block(size / sums.size());
            stream.seekg(static_cast<std::streamoff>(i * block.size()));
            stream.read(block.data(), static_cast<std::streamsize>(block.size()));
            sums[i] = fold(stream.gcount() == static_cast<std::streamsize>(block.size()), block.data(), block.size());
        });
    for (auto &thread : running) thread.join();
    for (const auto sum : sums) std::printf("%016llx\n", (unsigned long long)sum);
}

// filebuf with buffers of its own sizes, put back, and the C stream beside it.
static void buffers(const std::string &file) {
    for (const std::streamsize room : {0, 1, 7, 70000}) {
        std::filebuf raw;
        std::vector<char> own(static_cast<std::size_t>(room) + 1), data(100001);
        raw.pubsetbuf(room ? own.data() : nullptr, room);
        if (!raw.open(file, std::ios::in | std::ios::binary)) { std::printf("%s\n", std::strerror(errno)); return; }
        const auto end = raw.pubseekoff(0, std::ios::end);
        raw.pubseekpos(room == 1 ? 4097 : 12345);
        const auto got = room == 1 ? raw.sgetn(data.data(), 100) : raw.sgetn(data.data(), 100001);
        std::printf("%lld %lld %016llx ", (long long)end, (long long)got, (unsigned long long)fold(1, data.data(), static_cast<std::size_t>(got)));
        std::printf("%d %d %lld\n", raw.sbumpc(), raw.sungetc(), (long long)raw.pubseekoff(0, std::ios::cur));
    }
    std::FILE *stream = std::fopen(file.c_str(), "rb");
    std::vector<char> data(5000);
    std::fseek(stream, -5000, SEEK_END);
    const auto got = std::fread(data.data(), 1, data.size(), stream);
    std::printf("%zu %016llx %d\n", got, (unsigned long long)fold(1, data.data(), got), std::fgetc(stream));
    std::fclose(stream);
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    const std::string name = argv[1];
    std::cout << std::unitbuf;
    if (name == "whole") whole(argv[2]);
    else if (name == "seek") seek(argv[2]);
    else if (name == "folder") folder();
    else if (name == "copy") copy(argv[2], argv[3]);
    else if (name == "lines") lines(argv[2]);
    else if (name == "threads") threads(argv[2]);
    else if (name == "buffers") buffers(argv[2]);
    else return 2;
    return 0;
}
