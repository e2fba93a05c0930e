#include <gmock/gmock.h>

#include <thread>

#include "namespace_fixture.h"
#include "net/monitor.h"

namespace weft::net {
namespace {

class NetNsTest : public NamespaceTest {};

TEST_F(NetNsTest, CallerStaysWhereItIs) {
    const NetNs before = must(NetNs::current());
    EXPECT_FALSE(before == ns_);
    const auto inside = must(runIn(ns_, [] { return NetNs::current(); }));
    EXPECT_TRUE(inside == ns_);
    EXPECT_TRUE(must(NetNs::current()) == before);
    const auto failed = runIn(ns_, []() -> Result<int> { return makeError(ErrorCode::Busy, "inside"); });
    EXPECT_EQ(failed.error().code, ErrorCode::Busy);
}

TEST_F(NetNsTest, InstanceTellsNamespacesApart) {
    const NetNs other = must(NetNs::create());
    EXPECT_EQ(must(ns_.instance()), must(must(ns_.duplicate()).instance()));
    EXPECT_NE(must(ns_.instance()), must(other.instance()));
    EXPECT_EQ(must(ns_.instance()).bootId, must(other.instance()).bootId);
    EXPECT_EQ(must(ns_.instance()).bootId.size(), 36U);
    EXPECT_NE(must(ns_.instance()).netnsCookie, 0U);
}

TEST_F(NetNsTest, OpenRefusesWhatIsNoNamespace) {
    const std::string path = "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(ns_.fd());
    EXPECT_TRUE(must(NetNs::open(path)) == ns_);
    EXPECT_EQ(NetNs::open("/proc/self/ns/none").error().code, ErrorCode::NotFound);
    EXPECT_EQ(NetNs::open("/proc/self/status").error().code, ErrorCode::NotFound);  // as a sandbox not yet mounted
}

TEST_F(NetNsTest, SysctlsAreThoseOfTheNamespace) {
    const std::string name = linkSysctl(IpFamily::V4, "lo", "route_localnet");
    const std::string outside = must(readSysctl(name));
    EXPECT_TRUE(must(runIn(ns_, [&] { return setSysctl(name, "1"); })));
    EXPECT_FALSE(must(runIn(ns_, [&] { return setSysctl(name, "1"); })));  // equal: not written
    EXPECT_THAT(runInside(ns_, "sysctl -n net.ipv4.conf.lo.route_localnet"), ::testing::StartsWith("1"));
    EXPECT_EQ(must(readSysctl(name)), outside);
    EXPECT_EQ(readSysctl(linkSysctl(IpFamily::V4, "absent", "forwarding")).error().code, ErrorCode::NotFound);
    const PortRange ephemeral = must(runIn(ns_, [] { return ephemeralPorts(); }));
    EXPECT_LT(ephemeral.first, ephemeral.last);
}

class MonitorTest : public NamespaceTest {
protected:
    // Waits for the event that `wanted` accepts.
    bool await(const std::function<bool(const LinkEvent&)>& wanted) {
        std::unique_lock lock(mutex_);
        return arrived_.wait_for(lock, std::chrono::seconds(5),
                                 [&] { return std::any_of(events_.begin(), events_.end(), wanted); });
    }

    std::mutex mutex_;
    std::condition_variable arrived_;
    std::vector<LinkEvent> events_;
    std::unique_ptr<LinkMonitor> monitor_ = must(LinkMonitor::start(ns_, [this](const LinkEvent& event) {
        const std::lock_guard lock(mutex_);
        events_.push_back(event);
        arrived_.notify_all();
    }));
};

TEST_F(MonitorTest, TellsOfLinksAndAddresses) {
    ip("link add br0 type bridge");
    ip("link add h0 type veth peer name c0");
    ip("link set h0 master br0");
    ip("addr add 10.0.0.1/24 dev br0");
    EXPECT_TRUE(await([](const LinkEvent& event) {
        return event.kind == LinkEvent::Kind::AddressAdded && event.prefix.str() == "10.0.0.1/24";
    }));
    ip("link set h0 nomaster");
    ip("addr del 10.0.0.1/24 dev br0");
    EXPECT_TRUE(await([](const LinkEvent& event) { return event.kind == LinkEvent::Kind::AddressRemoved; }));
    {
        // Leaving the bridge is no removal.
        const std::lock_guard lock(mutex_);
        EXPECT_FALSE(std::any_of(events_.begin(), events_.end(),
                                 [](const LinkEvent& event) { return event.kind == LinkEvent::Kind::Removed; }));
    }
    const NetNs other = must(NetNs::create());
    must(netlink_->moveTo(must(netlink_->getLink("c0")).index, other));
    EXPECT_TRUE(await(
        [](const LinkEvent& event) { return event.kind == LinkEvent::Kind::Removed && event.link.name == "c0"; }));
    ip("link del h0");
    EXPECT_TRUE(await(
        [](const LinkEvent& event) { return event.kind == LinkEvent::Kind::Removed && event.link.name == "h0"; }));
    ip("link del br0");
    monitor_.reset();
}

}  // namespace
}  // namespace weft::net
