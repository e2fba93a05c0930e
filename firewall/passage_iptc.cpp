#include <chrono>

#include "firewall/iptc_lock.h"
#include "firewall/iptc_rules.h"
#include "firewall/passage.h"

namespace weft::firewall {

namespace {

constexpr auto kLockPatience = std::chrono::seconds(4);

}  // namespace

Result<std::set<std::string>> legacyEngineBridges(const std::set<std::string>& ours) {
    std::set<std::string> bridges;
    for (const auto family : {IpFamily::V4, IpFamily::V6}) {
        if (!iptc::tableExists(family, "filter")) continue;
        WEFT_ASSIGN(const auto lock, iptc::XtablesLock::take(kLockPatience));
        WEFT_ASSIGN(auto engines, iptc::engineBridges(family));
        bridges.merge(engines);
    }
    for (const auto& own : ours) bridges.erase(own);
    return bridges;
}

Result<void> reconcileLegacyPassage(const std::set<std::string>& bridges, bool dryRun,
                                    std::vector<std::string>& repairs) {
    for (const auto family : {IpFamily::V4, IpFamily::V6}) {
        if (!iptc::tableExists(family, "filter")) continue;
        WEFT_ASSIGN(const auto lock, iptc::XtablesLock::take(kLockPatience));
        WEFT_ASSIGN(auto engines, iptc::engineBridges(family));
        for (const auto& own : bridges) engines.erase(own);
        WEFT_TRY(iptc::reconcile(family, "filter", iptc::passageTable(bridges, engines), dryRun, repairs));
    }
    return {};
}

}  // namespace weft::firewall
