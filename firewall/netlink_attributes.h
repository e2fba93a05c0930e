// Walks netlink attributes, those of nf_tables messages. Private to this folder.
#pragma once

#include <linux/netlink.h>

#include <cstring>
#include <string_view>

namespace weft::firewall {

// Calls `use(type, payload)` for each attribute in `data`, which stays owned by the caller. Ends at the first that is
// cut off.
template <typename Use>
void forEachAttribute(std::string_view data, const Use& use) {
    while (data.size() >= NLA_HDRLEN) {
        nlattr attribute{};
        std::memcpy(&attribute, data.data(), sizeof attribute);
        if (attribute.nla_len < NLA_HDRLEN || attribute.nla_len > data.size()) return;
        use(attribute.nla_type & NLA_TYPE_MASK, data.substr(NLA_HDRLEN, attribute.nla_len - NLA_HDRLEN));
        const size_t whole = NLA_ALIGN(attribute.nla_len);
        if (whole >= data.size()) return;
        data.remove_prefix(whole);
    }
}

}  // namespace weft::firewall
