// LedgerFacts: what others than IPAM want to know of the ledger.
#pragma once

#include <cstddef>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "kv/types.h"

namespace weft::ipam {

struct LedgerFacts {
    std::map<kv::NodeId, size_t> joined;  // members by the order in which they joined
    std::set<kv::NodeId> strangers;       // hosts in sight whose ledger began apart from this one
    std::vector<std::string> warnings;    // for people, with what to do

    bool operator==(const LedgerFacts&) const = default;
};

}  // namespace weft::ipam
