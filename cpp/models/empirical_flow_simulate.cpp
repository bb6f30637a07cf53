#include "models/empirical_flow.hpp"

namespace overparam::empirical_flow {}  // namespace overparam::empirical_flow
