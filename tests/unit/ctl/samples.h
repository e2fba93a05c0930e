// weftd's answers, as its control API gives them.
#pragma once

namespace weft::ctl::samples {

inline constexpr const char* kStatus =
    R"({"version":"0.1.0","pid":417,"uptimeSeconds":93784,"firewall":"nft: Docker's rules are there",
    "logLevel" : "info", "node" : "one", "cluster" : "weft", "address" : "192.0.2.1:7950", "members" : 3, "membersAlive" : 2,
    "warnings" : ["two are called one"], "pluginDir" : "/run/docker/plugins", "stateDir" : "/var/lib/weft", "modes" : [
        {"driver" : "weft-bridge", "networks" : 2, "endpoints" : 3, "ports" : 1},
        {"driver" : "weft-none", "networks" : 0, "endpoints" : 0, "ports" : 0}
    ]
})";
inline constexpr const char* kNetworks =
    R"({"networks":[
        {"id":"aaaaaaaaaaaaaaaaaaaa","driver":"weft-bridge","link":"weft-aaaaaaaaaa","subnets":["10.20.0.0/24","fd00:20::/64"],
         "mtu":1450,"internal":false,"endpoints":2,"spoof":"allow"},
        {"id":"bbbbbbbbbbbbbbbbbbbb","driver":"weft-none","link":"","subnets":[],"mtu":0,"internal":true,"endpoints":0,"spoof":null}]})";
inline constexpr const char* kEndpoints =
    R"({"endpoints":[
        {"id":"eeeeeeeeeeeeeeeeeeee","network":"aaaaaaaaaaaaaaaaaaaa","driver":"weft-bridge","link":"wveeeeeeeeeeee",
         "address":"10.20.0.2/24","addressV6":null,"mac":"02:42:0a:14:00:02","sandbox":"/run/docker/netns/1",
         "ports":[{"protocol":"tcp","hostIp":"0.0.0.0","hostPort":8080,"containerIp":"10.20.0.2","containerPort":80}],
         "dropped":3,"droppedAs":"arp 3"}]})";
inline constexpr const char* kPorts =
    R"({"ports":[
        {"protocol":"tcp","hostIp":"0.0.0.0","hostPort":8080,"containerIp":"10.20.0.2","containerPort":80,
         "network":"aaaaaaaaaaaaaaaaaaaa","endpoint":"eeeeeeeeeeeeeeeeeeee","sandbox":"/run/docker/netns/1"},
        {"protocol":"udp","hostIp":"::","hostPort":53,"containerIp":"fd00:20::2","containerPort":53,
         "network":"aaaaaaaaaaaaaaaaaaaa","endpoint":"ffffffffffffffffffff","sandbox":""},
        {"protocol":"tcp","hostIp":"0.0.0.0","hostPort":0,"containerIp":"10.20.0.3","containerPort":80,
         "network":"aaaaaaaaaaaaaaaaaaaa","endpoint":"ffffffffffffffffffff","sandbox":""}]})";
inline constexpr const char* kPools =
    R"({"pools":[
        {"id":"p1","addressSpace":"local","pool":"10.20.0.0/24","subPool":null,"network":"aaaaaaaaaaaaaaaaaaaa",
         "used":3,"free":251,"endpoints":2},
        {"id":"p2","addressSpace":"local","pool":"fd00:20::/64","subPool":"fd00:20::/80","network":"",
         "used":1,"free":18446744073709551615,"endpoints":1}]})";
inline constexpr const char* kLeases =
    R"({"leases":[
        {"pool":"p1","address":"10.20.0.1","kind":"gateway","endpoint":"","ageSeconds":59},
        {"pool":"p1","address":"10.20.0.2","kind":"endpoint","endpoint":"eeeeeeeeeeeeeeeeeeee","ageSeconds":3661}]})";
inline constexpr const char* kRepairs =
    R"({"dryRun":true,"repairs":[
        {"kind":"link","object":"weft-aaaaaaaaaa","action":"set up","error":null},
        {"kind":"rule","object":"WEFT-FORWARD","action":"put back","error":"table is locked"}]})";
inline constexpr const char* kDoctor =
    R"({"checks":[
        {"name":"conntrack","health":"good","found":"12 of 262144 entries","fix":""},
        {"name":"ip_forward","health":"warning","found":"off","fix":"sysctl -w net.ipv4.ip_forward=1"}]})";

inline constexpr const char* kEngineNetworks =
    R"([{"Name":"web","Id":"aaaaaaaaaaaaaaaaaaaa","Driver":"weft-bridge"},
        {"Name":"bare","Id":"bbbbbbbbbbbbbbbbbbbb","Driver":"weft-none"},
        {"Name":"bridge","Id":"cccccccccccccccccccc","Driver":"bridge"}])";
inline constexpr const char* kEngineContainers =
    R"([{"Id":"1111111111111111","Names":["/server"],"NetworkSettings":{"Networks":{
        "web":{"NetworkID":"aaaaaaaaaaaaaaaaaaaa","EndpointID":"eeeeeeeeeeeeeeeeeeee"},
        "bridge":{"NetworkID":"cccccccccccccccccccc","EndpointID":"dddddddddddddddddddd"}}}}])";

// Containers of both hosts on two networks; a third host is dead.
inline constexpr const char* kGraph =
    R"({"cluster":"weft","hosts":[
        {"name":"one","address":"192.0.2.1","state":"alive","self":true,"sinceSeconds":90,"tunnel":"","tunnelFound":""},
        {"name":"two","address":"192.0.2.2","state":"suspect","self":false,"sinceSeconds":4,
         "tunnel":"healed","tunnelFound":"TCP passes"},
        {"name":"three","address":"192.0.2.3","state":"dead","self":false,"sinceSeconds":40,"tunnel":"","tunnelFound":""}],
    "networks":[
        {"name":"backend","vni":4711,"subnets":["10.32.0.0/16","fd32::/64"],"conflict":"","endpoints":[
            {"host":"one","name":"web","addresses":["10.32.0.5","fd32::5"]},
            {"host":"one","name":"cache","addresses":["10.32.0.6"]},
            {"host":"two","name":"db","addresses":["10.32.4.1"]}]},
        {"name":"front","vni":12,"subnets":["10.33.0.0/16"],"conflict":"host 192.0.2.2 had it before","endpoints":[
            {"host":"one","name":"web","addresses":["10.33.0.2"]}]}]})";

}  // namespace weft::ctl::samples
