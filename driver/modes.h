// Mode: one network mode as the front end sees it, with the optional abilities its driver has.
#pragma once

#include <string>
#include <utility>

#include "drivers/inspect.h"
#include "drivers/network_driver.h"

namespace weft::driver {

struct Mode {
    Mode(std::string driverName, NetworkDriver& implementation)
        : name(std::move(driverName)),
          driver(&implementation),
          inspectable(dynamic_cast<const Inspectable*>(&implementation)),
          reconcilable(dynamic_cast<Reconcilable*>(&implementation)) {}

    std::string name;  // "weft-bridge"
    NetworkDriver* driver;
    const Inspectable* inspectable;  // null: has not the ability
    Reconcilable* reconcilable;      // "
};

}  // namespace weft::driver
