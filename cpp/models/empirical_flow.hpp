// Gradient flow of quadratic networks of extensive width on n ~ d^2 samples: long times in the limit
// of high dimension, and the network itself. Equations and normalisations:
// docs/papers/empirical_flow.md.
#pragma once

#include "base/types.hpp"

namespace overparam::empirical_flow {

// ---- empirical_flow_long_time.cpp ------------------------------------------------------------------

// ---- empirical_flow_simulate.cpp -------------------------------------------------------------------

}  // namespace overparam::empirical_flow
