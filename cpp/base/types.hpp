// Index and pointer conventions shared by the whole core.
#pragma once

#include <cstdint>

namespace overparam {

using Index = std::int64_t;

}  // namespace overparam
