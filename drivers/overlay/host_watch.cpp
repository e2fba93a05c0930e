#include "drivers/overlay/host_watch.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <random>
#include <set>
#include <utility>

#include "base/log.h"

namespace weft {

namespace {

constexpr std::chrono::seconds kRetry{5};        // without a link
constexpr std::chrono::seconds kLookAround{30};  // for a link that somebody removed

}  // namespace

Result<std::unique_ptr<HostWatch>> HostWatch::start(std::shared_ptr<OverlayView> view, const kv::NodeId& self,
                                                    Hooks hooks) {
    std::random_device random;  // the kernel's
    net::EchoKey key{};
    if (const auto known = view->echo(self)) {
        key = known->key;
    } else {
        for (uint8_t& byte : key) byte = static_cast<uint8_t>(random());
    }
    UniqueFd stopped(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!stopped) return errnoError(errno, "eventfd");
    std::unique_ptr<HostWatch> watch(new HostWatch(std::move(view), std::move(hooks), key, std::move(stopped)));
    watch->number_ = uint64_t{random()} << 32 | random();
    watch->thread_ = std::thread([made = watch.get()] { made->work(); });
    return watch;
}

HostWatch::~HostWatch() {
    view_->stop();
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t size = ::write(stopped_.get(), &one, sizeof one);
    if (thread_.joinable()) thread_.join();
}

std::string HostWatch::trouble() const {
    const std::lock_guard lock(mutex_);
    return trouble_;
}

void HostWatch::work() {
    for (uint64_t seen = 0;;) {
        const auto hosts = view_->echoes();
        const auto prepared = prepare(hosts);
        {
            const std::lock_guard lock(mutex_);
            const bool isNew = !prepared && trouble_.empty();
            trouble_ = prepared ? "" : prepared.error().message;
            if (isNew) logWarn("msg=\"hosts without their weftd cannot be asked\" why={}", logValue(trouble_));
        }
        const bool someSilent =
            std::any_of(hosts.begin(), hosts.end(), [](const auto& host) { return host.second.silent; });
        if (!prepared) {
            view_->setAnswering({});
            if (!view_->awaitHosts(seen, kRetry)) return;
        } else if (someSilent) {
            ask(hosts);
            if (!view_->awaitHosts(seen, {})) return;
        } else {
            plan_.setHosts({});
            if (!view_->awaitHosts(seen, kLookAround)) return;
        }
    }
}

Result<void> HostWatch::prepare(const std::map<kv::NodeId, OverlayView::Echo>& hosts) {
    if (!link_ || !link_->isThere()) {
        link_.reset();
        peers_.clear();
        WEFT_ASSIGN(link_, hooks_.open(key_));
        hooks_.offer(key_);
    }
    std::set<IpAddress> peers;
    for (const auto& [id, host] : hosts) peers.insert(host.row.vtep);
    if (peers == peers_) return {};
    WEFT_TRY(link_->setPeers(peers));
    peers_ = std::move(peers);
    return {};
}

// A period of the plan.
void HostWatch::ask(const std::map<kv::NodeId, OverlayView::Echo>& hosts) {
    std::set<kv::NodeId> silent;
    for (const auto& [id, host] : hosts) {
        if (host.silent) silent.insert(id);
    }
    plan_.setHosts(silent);
    std::map<uint64_t, kv::NodeId> asked;
    for (const kv::NodeId& id : plan_.ask()) {
        asked.emplace(++number_, id);
        if (const auto sent = link_->ask(hosts.at(id).row.vtep, number_); !sent) logDebug("{}", sent.error().message);
    }
    view_->setAnswering(plan_.answering());
    const auto end = std::chrono::steady_clock::now() + HostPlan::kPeriod;
    for (;;) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - std::chrono::steady_clock::now()).count();
        std::array<pollfd, 2> fds{{{link_->fd(), POLLIN, 0}, {stopped_.get(), POLLIN, 0}}};
        if (left <= 0 || ::poll(fds.data(), fds.size(), static_cast<int>(left)) <= 0 || fds[1].revents != 0) return;
        if ((fds[0].revents & POLLIN) == 0) return static_cast<void>(::poll(&fds[1], 1, static_cast<int>(left)));
        while (const auto answer = link_->next()) {
            const auto question = asked.find(answer->number);
            if (question == asked.end()) continue;
            if (answer->proof != echoProof(hosts.at(question->second).row.key, answer->number)) continue;
            plan_.answered(question->second);
            asked.erase(question);
        }
        view_->setAnswering(plan_.answering());
    }
}

}  // namespace weft
