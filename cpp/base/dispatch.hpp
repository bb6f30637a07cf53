// Small sizes as compile-time constants, so that loops over them unroll.
#pragma once

#include <type_traits>

#include "base/types.hpp"

namespace overparam {

// Calls f with std::integral_constant<int, size> for sizes 1 to 8, and with 0 for all others.
template <class F>
void with_static_size(Index size, F f) {
    switch (size) {
        case 1:
            return f(std::integral_constant<int, 1>{});
        case 2:
            return f(std::integral_constant<int, 2>{});
        case 3:
            return f(std::integral_constant<int, 3>{});
        case 4:
            return f(std::integral_constant<int, 4>{});
        case 5:
            return f(std::integral_constant<int, 5>{});
        case 6:
            return f(std::integral_constant<int, 6>{});
        case 7:
            return f(std::integral_constant<int, 7>{});
        case 8:
            return f(std::integral_constant<int, 8>{});
        default:
            return f(std::integral_constant<int, 0>{});
    }
}

}  // namespace overparam
