#include "firewall/iptc.h"
#include "firewall/nft.h"
#include "tests/netns/firewall/suite_lab.h"

namespace weft::firewall::suite {

const std::vector<Subject>& subjects() {
    static const std::vector<Subject> all = {
        {"iptc",
         makeIptcFirewall,
         "iptables-legacy-save; ip6tables-legacy-save",
         {
             {"filter flushed", "iptables-legacy -F"},
             {"nat flushed", "iptables-legacy -t nat -F"},
             {"everything flushed",
              "for i in iptables-legacy ip6tables-legacy; do for t in raw nat filter; do $i -t $t -F; $i -t $t -X; "
              "done; done"},
             {"a mapping deleted", "iptables-legacy -t nat -D WEFT-DNAT 1"},
             {"a guard deleted", "ip6tables-legacy -t raw -D WEFT-RAW 1"},
             {"a query's way deleted", "ip6tables-legacy -t nat -D WEFT-DNS 2"},
             {"its zone deleted", "iptables-legacy -t raw -F WEFT-DNS"},
             {"a jump deleted", "iptables-legacy -D FORWARD 1"},
             {"jumps reordered",
              "iptables-legacy -t nat -D PREROUTING -m comment --comment weft -j WEFT-DNS; "
              "iptables-legacy -t nat -A PREROUTING -m comment --comment weft -j WEFT-DNS"},
             {"a jump doubled", "iptables-legacy -A FORWARD -j WEFT-FORWARD"},
             {"rules reordered",
              "iptables-legacy -D WEFT-TO-br-a 1; iptables-legacy -A WEFT-TO-br-a -m conntrack --ctstate "
              "RELATED,ESTABLISHED -m comment --comment 'weft aaaa' -j ACCEPT"},
             {"a rule slipped in", "iptables-legacy -I WEFT-TO-br-a -j ACCEPT"},
             {"a rule replaced", "iptables-legacy -R WEFT-TO-br-a 1 -j DROP"},
             {"a chain left over", "iptables-legacy -t nat -N WEFT-OLD; iptables-legacy -t nat -A WEFT-OLD -j ACCEPT"},
         }},
        {"nft",
         [] { return makeNftFirewall().value(); },
         // Interval sets list their elements in an order of their own.
         "nft -t list table inet weft 2>/dev/null; nft list table inet weft 2>/dev/null | tr -d '{},' | "
         "sed 's/elements =//; s/^[[:space:]]*//; s/[[:space:]]*$//' | sort",
         {
             {"everything flushed", "nft flush ruleset"},
             {"the table deleted", "nft delete table inet weft"},
             {"a mapping deleted", "nft flush map inet weft published4"},
             {"a guard deleted", "nft flush set inet weft guarded6"},
             {"a query's way deleted", "nft flush map inet weft resolver"},
             {"a mapping bent",
              "nft \'delete element inet weft published4 { 6 . 8080 }; add element inet weft published4 { 6 . 8080 : "
              "10.1.0.3 . 80 }\'"},
             {"a chain emptied", "nft flush chain inet weft forward"},
             {"a rule slipped in", "nft insert rule inet weft from-elsewhere accept"},
             {"an element slipped in", "nft add element inet weft open4 { 10.20.0.3 . tcp . 22 }"},
             {"a chain left over", "nft add chain inet weft old"},
         }},
    };
    return all;
}

}  // namespace weft::firewall::suite
