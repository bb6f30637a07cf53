// The error function of eight arguments at once.
#pragma once

#include "base/simd.hpp"

namespace overparam {

// erf(x / sqrt 2), odd in x, with absolute error below 5e-16 for every x that is a number: 1 minus
// exp(-x^2/2) times a rational minimax approximation of the scaled complement, of error 2e-19.
inline Lanes erf_root2(const Lanes& x) {
    constexpr std::uint64_t SIGN = 0x8000000000000000ULL;
    const Words sign = as_words(x) & SIGN;
    Lanes u = as_lanes(as_words(x) ^ sign);
    u = select(u < lanes(8.6), u, lanes(8.6));

    const Lanes e = exp(-0.5 * (u * u));

    Lanes p = 2.7305047975036322085e-5 * u + 6.6224719323868865910e-4;
    p = p * u + 7.4610118216756353447e-3;
    p = p * u + 5.0445426224458024414e-2;
    p = p * u + 2.2132039266214693734e-1;
    p = p * u + 6.3527311955503501385e-1;
    p = p * u + 1.1220382079612011547;
    p = p * u + 1.0;
    Lanes q = 3.4221911899586049173e-5 * u + 8.2999827598385884894e-4;
    q = q * u + 9.3853494835758550077e-3;
    q = q * u + 6.4051757607285444098e-2;
    q = q * u + 2.8669298577142602979e-1;
    q = q * u + 8.5751365814620595165e-1;
    q = q * u + 1.6671498546857760936;
    q = q * u + 1.9199227687640664548;
    q = q * u + 1.0;
    return as_lanes(as_words(1.0 - e * (p / q)) ^ sign);
}

}  // namespace overparam
