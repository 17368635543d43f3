// std::ifstream and std::filesystem, the way C++ loaders read. Usage: io_stream CASE FILE SCRATCH
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <set>
#include <string>
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

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    const std::string name = argv[1];
    std::cout << std::unitbuf;
    if (name == "whole") whole(argv[2]);
    else if (name == "seek") seek(argv[2]);
    else if (name == "folder") folder();
    else if (name == "copy") copy(argv[2], argv[3]);
    else return 2;
    return 0;
}
