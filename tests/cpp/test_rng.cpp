#include <doctest/doctest.h>

#include <cmath>
#include <initializer_list>
#include <vector>

#include "base/rng.hpp"

using namespace overparam;

namespace {

void check_block(const rng::Block& b, std::uint32_t w0, std::uint32_t w1, std::uint32_t w2,
                 std::uint32_t w3) {
    for (int l = 0; l < LANES; ++l) {
        CHECK(static_cast<std::uint32_t>(b.w0[l]) == w0);
        CHECK(static_cast<std::uint32_t>(b.w1[l]) == w1);
        CHECK(static_cast<std::uint32_t>(b.w2[l]) == w2);
        CHECK(static_cast<std::uint32_t>(b.w3[l]) == w3);
    }
}

}  // namespace

TEST_CASE("Philox 4x32-10 gives the known answers of its authors") {
    check_block(rng::philox(words(0), words(0), words(0), words(0), {0, 0}), 0x6627e8d5, 0xe169c58d,
                0xbc57ac4c, 0x9b00dbd8);
    const std::uint64_t ones = 0xffffffffULL;
    check_block(
        rng::philox(words(ones), words(ones), words(ones), words(ones), {0xffffffffu, 0xffffffffu}),
        0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd);
    check_block(rng::philox(words(0x243f6a88ULL), words(0x85a308d3ULL), words(0x13198a2eULL),
                            words(0x03707344ULL), {0xa4093822u, 0x299f31d0u}),
                0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1);
}

TEST_CASE("uniforms lie in (0, 1], ends included") {
    CHECK(rng::uniform(words(0), words(0))[0] == 1.0);
    CHECK(rng::uniform(words(0xffffffffULL), words(0xffffffffULL))[0] == std::ldexp(1.0, -52));
}

TEST_CASE("purposes, steps and replicas give different streams") {
    using rng::Purpose;
    const auto first = [](std::uint64_t seed, Purpose purpose, std::uint64_t step,
                          std::uint64_t replica) {
        std::vector<double> z(16);
        rng::fill_normals(rng::stream_key(seed, purpose), step, replica, 1, z.data());
        return z[0];
    };
    const double base = first(1, Purpose::DATA, 0, 0);
    CHECK(base == first(1, Purpose::DATA, 0, 0));
    CHECK(base != first(2, Purpose::DATA, 0, 0));
    CHECK(base != first(1, Purpose::LABEL_NOISE, 0, 0));
    CHECK(base != first(1, Purpose::NORM, 0, 0));
    CHECK(base != first(1, Purpose::DATA, 1, 0));
    CHECK(base != first(1, Purpose::DATA, 1ULL << 32, 0));
    CHECK(base != first(1, Purpose::DATA, 0, 1));
}

TEST_CASE("normals have the moments of a standard normal") {
    const int blocks = 512, steps = 200;
    std::vector<double> z(16 * blocks);
    double m1 = 0.0, m2 = 0.0, m3 = 0.0, m4 = 0.0, lag = 0.0;
    for (int s = 0; s < steps; ++s) {
        rng::fill_normals(rng::stream_key(7, rng::Purpose::DATA), s, 0, blocks, z.data());
        for (std::size_t i = 0; i < z.size(); ++i) {
            m1 += z[i];
            m2 += z[i] * z[i];
            m3 += z[i] * z[i] * z[i];
            m4 += z[i] * z[i] * z[i] * z[i];
            if (i >= 8) lag += z[i] * z[i - 8];  // the two halves of a Box-Muller pair
        }
    }
    const double n = 16.0 * blocks * steps;
    // Five standard errors each.
    CHECK(std::abs(m1 / n) < 5.0 / std::sqrt(n));
    CHECK(std::abs(m2 / n - 1.0) < 5.0 * std::sqrt(2.0 / n));
    CHECK(std::abs(m3 / n) < 5.0 * std::sqrt(15.0 / n));
    CHECK(std::abs(m4 / n - 3.0) < 5.0 * std::sqrt(96.0 / n));
    CHECK(std::abs(lag / n) < 5.0 / std::sqrt(n));
}

TEST_CASE("chi-square has the right mean and variance for small, odd and huge degrees of freedom") {
    const rng::Key key = rng::stream_key(3, rng::Purpose::NORM);
    CHECK(rng::chi_square(key, 0.0, 0, 0, rng::lane_numbers())[2] == 0.0);
    for (double dof : {1.0, 2.0, 3.0, 7.0, 1e3, 1e9}) {
        const int steps = 30000;
        double mean = 0.0, square = 0.0;
        for (int s = 0; s < steps; ++s) {
            const Lanes x = rng::chi_square(key, dof, 0, s, rng::lane_numbers());
            for (int l = 0; l < LANES; ++l) {
                const double u = (x[l] - dof) / std::sqrt(2.0 * dof);
                mean += u;
                square += u * u;
            }
        }
        const double n = LANES * static_cast<double>(steps);
        CHECK(std::abs(mean / n) < 5.0 / std::sqrt(n));
        CHECK(std::abs(square / n - 1.0) < 5.0 * std::sqrt((2.0 + 12.0 / dof) / n));
    }
}

TEST_CASE("a lane's chi-square does not depend on the other lanes") {
    const rng::Key key = rng::stream_key(3, rng::Purpose::NORM);
    for (int s = 0; s < 2000; ++s) {
        const Lanes all = rng::chi_square(key, 1.0, 5, s, rng::lane_numbers());
        const Lanes one = rng::chi_square(key, 1.0, 5, s, words(6));
        REQUIRE(all[6] == one[0]);
    }
}
