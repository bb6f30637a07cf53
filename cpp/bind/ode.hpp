// Names of the integrators' methods.
#pragma once

#include <string>

#include "base/errors.hpp"
#include "math/ode.hpp"

namespace overparam::bind {

inline OdeMethod ode_method(const std::string& name) {
    if (name == "auto") return OdeMethod::AUTO;
    if (name == "dop853") return OdeMethod::DOP853;
    if (name == "rkc") return OdeMethod::RKC;
    if (name == "radau") return OdeMethod::RADAU;
    throw ArgumentError("method", "one of auto, dop853, rkc, radau", name);
}

}  // namespace overparam::bind
