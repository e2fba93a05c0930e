#include "kv/member.h"

#include "kv/wire.h"

namespace weft::kv {

Bytes signedBytes(const MemberRecord& record, const std::string& cluster) {
    Writer out;
    out.text8("weft member 1");
    out.text8(cluster);
    out.bytes(record.publicKey);
    out.text8(record.signedName.empty() ? record.name : record.signedName);
    out.address(record.address);
    out.u64(record.incarnation);
    out.u8(record.left ? 1 : 0);
    return std::move(out).take();
}

std::string_view toString(MemberState state) {
    switch (state) {
        case MemberState::Alive:
            return "alive";
        case MemberState::Suspect:
            return "suspect";
        case MemberState::Dead:
            return "dead";
        case MemberState::Left:
            return "left";
    }
    return "?";
}

}  // namespace weft::kv
