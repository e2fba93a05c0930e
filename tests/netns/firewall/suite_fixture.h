// The fixture of every case of the suite: a back end in a lab, with br_netfilter on or off.
#pragma once

#include <gtest/gtest.h>

#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "tests/netns/firewall/suite_lab.h"

namespace weft::firewall::suite {

// Long enough for a loaded machine; a packet here takes microseconds, so a closed door is clear much sooner.
constexpr auto kOpenPatience = std::chrono::seconds(5);
constexpr auto kClosedPatience = std::chrono::milliseconds(150);

struct Setting {
    const Subject* subject;
    bool bridgeNetfilter;
};

inline void PrintTo(const Setting& setting, std::ostream* out) {
    *out << setting.subject->name << ", br_netfilter " << (setting.bridgeNetfilter ? "on" : "off");
}

inline std::vector<Setting> settings() {
    std::vector<Setting> all;
    for (const auto& subject : subjects()) {
        for (const bool bridgeNetfilter : {false, true}) all.push_back({&subject, bridgeNetfilter});
    }
    return all;
}

inline std::string settingName(const testing::TestParamInfo<Setting>& info) {
    return info.param.subject->name + (info.param.bridgeNetfilter ? "_BridgeNetfilter" : "");
}

// A resolver that answers, as long as it lives. In the namespace of who makes it.
class Vouching {
public:
    explicit Vouching(Firewall& firewall)
        : thread_([this, &firewall] {
              std::unique_lock lock(mutex_);
              do firewall.vouch();
              while (!ended_.wait_for(lock, kVouchHolds / 5, [this] { return over_; }));
          }) {
        firewall.vouch();
    }
    ~Vouching() {
        {
            const std::lock_guard lock(mutex_);
            over_ = true;
        }
        ended_.notify_all();
        thread_.join();
    }

private:
    std::mutex mutex_;
    std::condition_variable ended_;
    bool over_ = false;
    std::thread thread_;
};

class FirewallSuite : public testing::TestWithParam<Setting> {
protected:
    void SetUp() override {
        lock_ = "/tmp/weft-xtables-" + std::to_string(::getpid()) + ".lock";
        ::setenv("XTABLES_LOCKFILE", lock_.c_str(), 1);  // iptables-legacy obeys it as well
        lab = std::make_unique<Lab>(GetParam().bridgeNetfilter);
        firewall = GetParam().subject->make();
    }

    void TearDown() override {
        ok(firewall->clear());
        ok(firewall->clear());
        EXPECT_EQ(lab->run(Place::Host,
                           "{ iptables-legacy-save; ip6tables-legacy-save; nft list ruleset; } "
                           "2>/dev/null | grep -i weft || true"),
                  "");
        lab.reset();
        ::unlink(lock_.c_str());
    }

    static void ok(const Result<void>& result) { ASSERT_TRUE(result) << result.error().message; }

    void setNetworks(std::initializer_list<Net> nets) {
        for (const auto net : nets) ok(firewall->setNetwork(network(net)));
    }
    void setAllNetworks() { setNetworks({Net::A, Net::B, Net::I, Net::R, Net::P}); }

    void open(const char* what, const Probe& probe, std::optional<IpAddress> source = std::nullopt) {
        const auto seen = lab->exchange(probe, kOpenPatience, false);
        ASSERT_TRUE(seen) << what << " (" << probe.to.str() << "): no answer";
        if (source) {
            EXPECT_EQ(seen->str(), source->str()) << what << ": the source address";
        }
    }
    void closed(const char* what, const Probe& probe) {
        const auto seen = lab->exchange(probe, kClosedPatience, true);
        EXPECT_FALSE(seen) << what << " (" << probe.to.str() << "): got through, from " << seen->str();
    }

    static PublishedPort port(uint16_t hostPort, Place place, uint16_t containerPort, IpFamily family,
                              uint8_t protocol = kTcp, std::optional<IpAddress> hostIp = std::nullopt) {
        return {protocol, hostIp.value_or(IpAddress::any(family)), hostPort, address(place, family), containerPort};
    }
    static std::vector<PublishedPort> bothFamilies(uint16_t hostPort, Place place, uint16_t containerPort,
                                                   uint8_t protocol = kTcp) {
        return {port(hostPort, place, containerPort, IpFamily::V4, protocol),
                port(hostPort, place, containerPort, IpFamily::V6, protocol)};
    }

    std::unique_ptr<Lab> lab;
    std::unique_ptr<Firewall> firewall;

private:
    std::string lock_;
};

}  // namespace weft::firewall::suite
