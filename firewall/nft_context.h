// NftContext: runs nft command text through libnftables in one namespace. The only door to libnftables.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"

struct nft_ctx;

namespace weft::firewall {

class NftContext {
public:
    // Bound to the calling thread's namespace. Unsupported where the kernel has no nf_tables.
    static Result<NftContext> open();

    // Runs the commands as one transaction: all take effect or none. Returns what they printed, numbers unresolved
    // and counters left out, so that listing what was written gives the same text. NotFound when the text names a
    // table, chain, set or element that is not there. One thread at a time; contexts of several take turns.
    Result<std::string> run(const std::string& commands);

    // The listing of a table ("ip filter"), without the elements of its named sets. NotFound without that table.
    Result<std::string> list(const std::string& table);

private:
    struct Free {
        void operator()(nft_ctx* context) const;
    };
    explicit NftContext(std::unique_ptr<nft_ctx, Free> context) : context_(std::move(context)) {}

    std::unique_ptr<nft_ctx, Free> context_;
};

}  // namespace weft::firewall
