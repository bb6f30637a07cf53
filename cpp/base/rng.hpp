// Counter-based random numbers: Philox 4x32 with ten rounds (Salmon, Moraes, Dror, Shaw, SC 2011),
// eight counters at a time. A value is a pure function of (seed, purpose, replica, step, block), so
// results do not depend on threads, on slices, or on what else was drawn.
#pragma once

#include <cstdint>

#include "base/simd.hpp"
#include "base/types.hpp"

namespace overparam::rng {

// What a stream is for. Streams of different purposes never overlap.
enum class Purpose : std::uint32_t {
    DATA,         // inputs x of direct simulations
    FIELDS,       // Gaussian fields of the overlap chain, with its label noise
    LABEL_NOISE,  // noise on the teacher's output in direct simulations
    NORM,         // chi-square and Wishart parts of inputs outside the network's span
    STUDENT,      // weights of random starts
    TEACHER,      // random teachers
    PROBES,       // signs of random probes
    FEATURES,     // first layers that are frozen, or before a single step
};

struct Key {
    std::uint32_t k0, k1;
};

// Four 32-bit words per lane, each in the low half of a 64-bit lane; the high halves are arbitrary.
struct Block {
    Words w0, w1, w2, w3;
};

inline Block philox(Words c0, Words c1, Words c2, Words c3, Key key) {
    constexpr std::uint32_t M0 = 0xD2511F53u, M1 = 0xCD9E8D57u;
    constexpr std::uint32_t W0 = 0x9E3779B9u, W1 = 0xBB67AE85u;
    std::uint32_t k0 = key.k0, k1 = key.k1;
    for (int round = 0; round < 10; ++round) {
        const Words p0 = multiply_low(c0, M0);
        const Words p1 = multiply_low(c2, M1);
        c0 = (p1 >> 32) ^ c1 ^ words(k0);
        c1 = p1;
        c2 = (p0 >> 32) ^ c3 ^ words(k1);
        c3 = p0;
        k0 += W0;
        k1 += W1;
    }
    return {c0, c1, c2, c3};
}

// Key of the stream for `purpose` under `seed`: one application of the generator itself.
inline Key stream_key(std::uint64_t seed, Purpose purpose) {
    const Block b =
        philox(words(static_cast<std::uint64_t>(purpose)), words(0), words(0), words(0),
               {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
    return {static_cast<std::uint32_t>(b.w0[0]), static_cast<std::uint32_t>(b.w1[0])};
}

// Counters: block within the step (32 bits), step (64 bits), replica (32 bits).
inline Block draw(Key key, const Words& block, std::uint64_t step, const Words& replica) {
    return philox(block, words(step), words(step >> 32), replica, key);
}

// Two words to a double in (0, 1] with 52 random bits.
inline Lanes uniform(const Words& high, const Words& low) {
    const Words bits = ((high << 32) | (low & 0xffffffffULL)) >> 12;
    return 2.0 - as_lanes(bits | 0x3ff0000000000000ULL);
}

// Two independent standard normals per lane (Box-Muller).
inline void normals(const Block& b, Lanes& z0, Lanes& z1) {
    const Lanes radius = sqrt(-2.0 * log(uniform(b.w0, b.w1)));
    Lanes c, s;
    cos_sin_turns(uniform(b.w2, b.w3), c, s);
    z0 = radius * c;
    z1 = radius * s;
}

// Lane numbers 0..7.
inline Words lane_numbers() {
    constexpr std::uint64_t numbers[LANES] = {0, 1, 2, 3, 4, 5, 6, 7};
    Words w;
    std::memcpy(&w, numbers, sizeof w);
    return w;
}

// Fills out[0 .. 16 blocks) with normals of one replica; entry 16 b + 8 h + l is half h of the pair
// that counter first + 8 b + l gives.
inline void fill_normals(Key key, std::uint64_t step, std::uint64_t replica, Index blocks,
                         double* out, std::uint64_t first = 0) {
    const Words r = words(replica);
    for (Index b = 0; b < blocks; ++b) {
        Lanes z0, z1;
        normals(
            draw(key, lane_numbers() + (first + static_cast<std::uint64_t>(LANES * b)), step, r),
            z0, z1);
        store(out + 2 * LANES * b, z0);
        store(out + 2 * LANES * b + LANES, z1);
    }
}

// chi-square with `dof` degrees of freedom, one per lane and replica, by Marsaglia and Tsang's
// method for the gamma law (exact for every dof): a cube of a shifted normal, accepted or rejected
// by a uniform. The first attempt takes its normal x and the 24 bits of a block that the normals
// did not use; only where these do not decide are more drawn, from `key`. `slot` tells apart the
// draws of one step. A lane's value does not depend on the other lanes.
inline Lanes chi_square(Key key, double dof, std::uint32_t slot, std::uint64_t step,
                        const Words& replica, const Block& block, Lanes x) {
    if (dof <= 0.0) return lanes(0.0);
    const double shape = 0.5 * dof;
    const double boosted = shape < 1.0 ? shape + 1.0 : shape;
    const double d = boosted - 1.0 / 3.0;
    const double c = 1.0 / std::sqrt(9.0 * d);

    Lanes root = 1.0 + c * x;
    Lanes result = (2.0 * d) * (root * root * root);
    // Upper end of the interval that 24 bits leave to the uniform.
    const Words coarse = ((block.w1 & 0xfff) << 12) | (block.w3 & 0xfff);
    const Lanes upper = (as_lanes(coarse | 0x4330000000000000ULL) - (4503599627370496.0 - 1.0)) *
                        (1.0 / 16777216.0);
    const Lanes x2 = x * x;
    Mask open = ~((upper < 1.0 - 0.0331 * (x2 * x2)) & (root > lanes(0.0)));
    for (std::uint64_t attempt = 0; any(open); ++attempt) {
        const std::uint64_t first = (static_cast<std::uint64_t>(slot) << 12) + 2 * attempt;
        if (attempt > 0) {
            Lanes fresh, unused;
            normals(draw(key, words(first - 1), step, replica), fresh, unused);
            x = select(open, fresh, x);
            root = 1.0 + c * x;
            result = select(open, (2.0 * d) * (root * root * root), result);
        }
        const Block b = draw(key, words(first), step, replica);
        // The first time the coarse bits stay the leading ones of the uniform.
        const Lanes fine = uniform(b.w0, b.w1);
        const Lanes u = attempt == 0 ? upper - (1.0 - fine) * (1.0 / 16777216.0) : fine;
        const Mask positive = root > lanes(0.0);
        const Lanes v = select(positive, root * root * root, lanes(1.0));
        const Mask accept = (log(u) < 0.5 * (x * x) + d * (1.0 - v + log(v))) & positive;
        open = open & ~accept;
    }
    if (shape < 1.0) {
        const Block b =
            draw(key, words((static_cast<std::uint64_t>(slot) << 12) + 0xfff), step, replica);
        const Lanes u = uniform(b.w0, b.w1);
        for (int i = 0; i < LANES; ++i) result.set(i, result[i] * std::pow(u[i], 1.0 / shape));
    }
    return result;
}

// The same with a normal of its own.
inline Lanes chi_square(Key key, double dof, std::uint32_t slot, std::uint64_t step,
                        const Words& replica) {
    const Block block =
        draw(key, words((static_cast<std::uint64_t>(slot) << 12) + 0xffe), step, replica);
    Lanes x, unused;
    normals(block, x, unused);
    return chi_square(key, dof, slot, step, replica, block, x);
}

}  // namespace overparam::rng
