#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

namespace weft::driver::testing {

// A new directory, removed with everything in it.
class TempDir {
public:
    TempDir() {
        std::string path = (std::filesystem::temp_directory_path() / "weft-XXXXXX").string();
        path_ = ::mkdtemp(path.data()) == nullptr ? "" : path;
    }
    ~TempDir() { std::filesystem::remove_all(path_); }
    TempDir(const TempDir&) = delete;
    TempDir& operator=(const TempDir&) = delete;

    [[nodiscard]] std::string file(const std::string& name) const { return path_ + "/" + name; }
    [[nodiscard]] const std::string& path() const { return path_; }

private:
    std::string path_;
};

}  // namespace weft::driver::testing
