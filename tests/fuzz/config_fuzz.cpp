// Any bytes as the configuration file: settings or a message, never a crash and never an exception.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "driver/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace weft::driver;
    static const int fd = ::memfd_create("weftd.toml", MFD_CLOEXEC);
    static const std::string path = "/proc/self/fd/" + std::to_string(fd);
    if (::ftruncate(fd, 0) != 0 || ::pwrite(fd, data, size, 0) != static_cast<ssize_t>(size)) std::abort();
    const char* argv[] = {"weftd", "--config", path.c_str()};
    const auto asked = parseCommandLine(3, argv);
    if (const auto* exit = std::get_if<Exit>(&asked); exit != nullptr && exit->text.empty()) std::abort();
    return 0;
}
