// Watch: notices when somebody else changes packet filter rules.
#pragma once

#include <functional>
#include <memory>

#include "base/result.h"

namespace weft::firewall {

// Calls back about 0.1 s after a change of nf_tables rules by another process (the kernel notifies), and within 2.1 s
// after any change of the legacy tables (they are read every 2 s, if there are any; weft's own changes count too).
// The callback runs on the watch's thread, at most once a second unless hurried; it should call Firewall::sync(), which
// finds nothing to do when the change was somebody's own business.
//
// Watches the namespace of the thread that starts it. Destruction waits for a callback under way.
class Watch {
public:
    // Errors: Unsupported without nfnetlink, Kernel.
    static Result<std::unique_ptr<Watch>> start(std::function<void()> onDamage);
    ~Watch();
    Watch(const Watch&) = delete;
    Watch& operator=(const Watch&) = delete;

    // Rules are about to change (the engine made a bridge): for two seconds legacy tables are read every 50 ms if that
    // is cheap, and callbacks may follow each other after 0.1 s. Any thread; does not block.
    void hurry();

private:
    struct Impl;
    explicit Watch(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace weft::firewall
