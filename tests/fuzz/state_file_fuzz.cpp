// Any bytes as the state file: opening them never crashes, and a file that is refused keeps every byte.
//
// Most inputs die at the checks of the header, so each is also tried as patches on a good file.
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "base/clock.h"
#include "base/database.h"
#include "ipam/database_lease_store.h"
#include "ipam/local_ipam.h"

namespace {

using namespace weft;

struct Directory {
    Directory() {
        std::string name = std::filesystem::exists("/dev/shm") ? "/dev/shm/weft-fuzz-XXXXXX" : "/tmp/weft-fuzz-XXXXXX";
        if (::mkdtemp(name.data()) == nullptr) std::abort();
        path = name;
    }
    ~Directory() { std::filesystem::remove_all(path); }
    std::filesystem::path path;
};

std::string slurp(const std::filesystem::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

void spill(const std::filesystem::path& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

const SchemaComponent* components() {
    static const SchemaComponent kComponents[] = {ipam::schemaComponent()};
    return kComponents;
}

void tryOpen(const std::filesystem::path& directory, const std::string& bytes) {
    const auto path = directory / "weft.db";
    for (const auto& entry : std::filesystem::directory_iterator(directory)) std::filesystem::remove(entry.path());
    spill(path, bytes);
    auto database = Database::open(path, std::span(components(), 1));
    if (!database) {
        if (slurp(path) != bytes) std::abort();
        return;
    }
    ipam::DatabaseLeaseStore store(**database);
    const SystemClock clock;
    auto ipam = ipam::LocalIpam::create(store, clock);
    if (!ipam) return;
    ipam::PoolRequest request;
    request.addressSpace = ipam::kLocalAddressSpace;
    if (const auto pool = (*ipam)->requestPool(request)) (void)(*ipam)->requestAddress({pool->poolId, {}, false, {}});
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static const Directory directory;
    static const std::string whole = [] {
        const auto path = directory.path / "whole.db";
        {
            auto database = Database::open(path, std::span(components(), 1)).value();
            ipam::DatabaseLeaseStore store(*database);
            const SystemClock clock;
            auto ipam = ipam::LocalIpam::create(store, clock).value();
            ipam::PoolRequest request;
            request.addressSpace = ipam::kLocalAddressSpace;
            const auto pool = ipam->requestPool(request).value();
            for (int i = 0; i < 20; ++i) (void)ipam->requestAddress({pool.poolId, {}, i == 0, {}});
        }
        return slurp(path);
    }();

    const std::string input(reinterpret_cast<const char*>(data), size);
    tryOpen(directory.path, input);
    // As patches on a good file: two bytes of place, one of length, then the bytes.
    std::string patched = whole;
    for (size_t at = 0; at + 3 < input.size();) {
        const size_t place =
            (static_cast<uint8_t>(input[at]) << 8 | static_cast<uint8_t>(input[at + 1])) % patched.size();
        const size_t length = std::min({static_cast<size_t>(static_cast<uint8_t>(input[at + 2])) + 1,
                                        input.size() - at - 3, patched.size() - place});
        patched.replace(place, length, input, at + 3, length);
        at += 3 + length;
    }
    tryOpen(directory.path, patched);
    return 0;
}
