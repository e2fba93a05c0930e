#include "firewall/select.h"

#include <unistd.h>

#include <array>
#include <string_view>

#include "firewall/iptc.h"
#include "firewall/iptc_lock.h"
#include "firewall/iptc_table.h"
#include "firewall/nft.h"
#include "firewall/nft_context.h"
#include "firewall/nft_rules.h"

namespace weft::firewall {

namespace {

constexpr auto kLockPatience = std::chrono::seconds(4);
constexpr std::array kFamilies = {IpFamily::V4, IpFamily::V6};

// Debian's choice of what `iptables` is; others have one only, and nf_tables these days.
bool iptablesIsLegacy() {
    std::array<char, 4096> target{};
    const auto size = ::readlink("/etc/alternatives/iptables", target.data(), target.size());
    return size > 0 && std::string_view(target.data(), static_cast<size_t>(size)).ends_with("legacy");
}

Result<bool> legacyHasEngine() {
    for (const auto family : kFamilies) {
        if (!iptc::tableExists(family, "filter")) continue;
        WEFT_ASSIGN(const auto lock, iptc::XtablesLock::take(kLockPatience));
        WEFT_ASSIGN(const bool has, iptc::hasEngineChains(family));
        if (has) return true;
    }
    return false;
}

}  // namespace

std::string_view toString(Backend backend) {
    return backend == Backend::Iptc ? "iptc" : "nft";
}

Result<Choice> chooseBackend() {
    auto context = NftContext::open();
    if (!context && context.error().code != ErrorCode::Unsupported) return context.error();
    if (!context) return Choice{Backend::Iptc, "this kernel has no nf_tables"};

    for (const char* table : {"ip filter", "ip6 filter", "ip docker-bridges", "ip6 docker-bridges"}) {
        const auto listing = context->list(table);
        if (!listing) continue;  // not there
        // The engine's own nftables back end (29) has tables of its own.
        if (std::string_view(table).ends_with("bridges") || listing->find("chain DOCKER") != std::string::npos) {
            return Choice{Backend::Nft, std::string("Docker's chains are in nf_tables (table ") + table + ")"};
        }
    }
    WEFT_ASSIGN(const bool legacy, legacyHasEngine());
    if (legacy) return Choice{Backend::Iptc, "Docker's chains are in the legacy iptables tables"};
    if (iptablesIsLegacy()) {
        return Choice{Backend::Iptc, "no chains of Docker yet, and this host's iptables command writes legacy tables"};
    }
    return Choice{Backend::Nft, "no chains of Docker yet, and nf_tables is this host's default"};
}

Result<std::unique_ptr<Firewall>> makeFirewall(Backend backend) {
    if (backend == Backend::Nft) return makeNftFirewall();
    return makeIptcFirewall();
}

Result<void> clearOther(Backend kept) {
    if (kept == Backend::Iptc) {
        auto context = NftContext::open();
        if (!context) {
            if (context.error().code == ErrorCode::Unsupported) return {};
            return context.error();
        }
        const std::string table = nft::kTable;
        auto removed = context->run("delete table " + table);
        if (!removed && removed.error().code != ErrorCode::NotFound) {
            return removed.error().within("remove the rules of the nft back end");
        }
        return {};
    }
    // Those in `filter` became the passage, or nothing, with the nft back end's sync().
    std::vector<std::string> removed;
    for (const auto family : kFamilies) {
        for (const char* table : {"mangle", "raw", "nat"}) {
            if (!iptc::tableExists(family, table)) continue;
            WEFT_ASSIGN(const auto lock, iptc::XtablesLock::take(kLockPatience));
            WEFT_TRY(
                iptc::reconcile(family, table, {}, false, removed).within("remove the rules of the iptc back end"));
        }
    }
    return {};
}

}  // namespace weft::firewall
